//! `tegula rm`: removes images.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use clap::Args;
use serde::Serialize;
use tegula_engine::ImageName;

const EXAMPLES: &str = "\
Examples:
  tegula rm debian-11
  tegula rm old-1 old-2 && tegula gc

Children of a removed image stay whole. Space comes back with `tegula gc`.
If one of the images does not exist, none is removed.

An image whose record cannot be read is removed too: what stands under its name is kept in quarantine/. Its blocks
go with the next `tegula gc`, so try `tegula repair` first.";

/// Remove images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// The images
    #[arg(value_name = "IMAGE", required = true, value_parser = ImageName::parse)]
    images: Vec<ImageName>,
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: Vec<RemovedImage>,
}

#[derive(Debug, Serialize)]
struct RemovedImage {
    name: String,
    /// Null if the record could not be read.
    digest: Option<String>,
    /// Where the store keeps a record that could not be read.
    set_aside: Option<String>,
}

impl Report for Removed {
    fn text(&self, _verbose: bool) -> String {
        let lines = self.removed.iter();
        lines
            .map(|image| match &image.set_aside {
                None => format!("removed {}\n", image.name),
                Some(path) => format!(
                    "removed {}; its record could not be read and is kept as {path}\n",
                    image.name
                ),
            })
            .collect()
    }
}

impl Rm {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let mut names = self.images.clone();
        names.sort();
        names.dedup();
        let session = engine.store().begin()?;
        for name in &names {
            match session.image(name) {
                Err(error) if !error.is_damage() => return Err(error.into()),
                _ => {}
            }
        }
        drop(session);
        let mut removed = Vec::new();
        for name in &names {
            let (digest, set_aside) = match engine.store().remove(name) {
                Ok(record) => (Some(record.digest.to_string()), None),
                Err(error) if error.is_damage() => {
                    (None, Some(engine.store().remove_unreadable(name)?))
                }
                Err(error) => return Err(error.into()),
            };
            removed.push(RemovedImage {
                name: name.to_string(),
                digest,
                set_aside,
            });
        }
        context.output.confirm(&Removed { removed })?;
        Ok(Outcome::Done)
    }
}

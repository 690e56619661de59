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
If one of the images does not exist, none is removed.";

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
    digest: String,
}

impl Report for Removed {
    fn text(&self, _verbose: bool) -> String {
        let lines = self.removed.iter();
        lines
            .map(|image| format!("removed {}\n", image.name))
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
        names
            .iter()
            .try_for_each(|name| session.image(name).map(drop))?;
        drop(session);
        let mut removed = Vec::new();
        for name in &names {
            let record = engine.store().remove(name)?;
            removed.push(RemovedImage {
                name: name.to_string(),
                digest: record.digest.to_string(),
            });
        }
        context.output.confirm(&Removed { removed })?;
        Ok(Outcome::Done)
    }
}

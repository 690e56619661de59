//! `tegula clone`: gives the content of an image a second name.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::record::RecordFields;
use clap::Args;
use serde::Serialize;
use tegula_engine::ImageName;

const EXAMPLES: &str = "\
Examples:
  tegula clone debian-12 web-1
  tegula clone nightly last-good --replace

The new image has the same content and digest, and costs nothing but its record. Each of the two can be
removed without harm to the other.";

/// Give the content of an image a second name
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Clone {
    /// The image
    #[arg(value_name = "IMAGE", value_parser = ImageName::parse)]
    from: ImageName,

    /// The new image's name
    #[arg(value_name = "NAME", value_parser = ImageName::parse)]
    to: ImageName,

    /// Take the place of an image of that name
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Serialize)]
struct Cloned {
    from: String,
    #[serde(flatten)]
    image: RecordFields,
}

impl Report for Cloned {
    fn text(&self, _verbose: bool) -> String {
        format!("cloned {} to {}\n", self.from, self.image.name)
    }
}

impl Clone {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let store = engine.store();
        let record = store.clone_image(&self.from, &self.to, self.replace)?;
        context.output.confirm(&Cloned {
            from: self.from.to_string(),
            image: RecordFields::from(&record),
        })?;
        Ok(Outcome::Done)
    }
}

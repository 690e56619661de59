//! `tegula rename`: gives an image another name.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use clap::Args;
use serde::Serialize;
use tegula_engine::ImageName;

const EXAMPLES: &str = "\
Examples:
  tegula rename debian-12 debian-12-old";

/// Give an image another name
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rename {
    /// The image
    #[arg(value_name = "IMAGE", value_parser = ImageName::parse)]
    from: ImageName,

    /// Its new name
    #[arg(value_name = "NAME", value_parser = ImageName::parse)]
    to: ImageName,
}

#[derive(Debug, Serialize)]
struct Renamed {
    from: String,
    to: String,
    digest: String,
}

impl Report for Renamed {
    fn text(&self, _verbose: bool) -> String {
        format!("renamed {} to {}\n", self.from, self.to)
    }
}

impl Rename {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let record = context.open()?.store().rename(&self.from, &self.to)?;
        context.output.confirm(&Renamed {
            from: self.from.to_string(),
            to: record.name.to_string(),
            digest: record.digest.to_string(),
        })?;
        Ok(Outcome::Done)
    }
}

//! `tegula flatten`: puts images on one full layer each.

use super::coalesce::FoldedImages;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use clap::Args;
use tegula_engine::ImageName;

const EXAMPLES: &str = "\
Examples:
  tegula flatten web-1
  tegula flatten golden --forget-parent

The image gets a layer of its own that maps every block, over no other. No chunk is read or written;
content, digest and name stay. Nothing is gained in safety: an image never depends on its parent. It makes
the map independent of older ones, at 32 bytes for each block with data.";

/// Put images on one full layer each
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Flatten {
    /// The images
    #[arg(value_name = "IMAGE", required = true, value_parser = ImageName::parse)]
    images: Vec<ImageName>,

    /// Also forget which image it came from, which `ls` and `show` tell
    #[arg(long)]
    forget_parent: bool,
}

impl Flatten {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let mut images = FoldedImages::new("flattened");
        for name in &self.images {
            images.push(&engine.store().flatten(name, self.forget_parent)?);
        }
        context.output.confirm(&images)?;
        Ok(Outcome::Done)
    }
}

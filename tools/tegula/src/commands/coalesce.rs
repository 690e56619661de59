//! `tegula coalesce`: puts images on one full layer each.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{ImageName, OpenImage};

const EXAMPLES: &str = "\
Examples:
  tegula coalesce web-1
  tegula coalesce nightly-1 nightly-2

No chunk is read or written; content, digest and name stay. Deep stacks of layers are coalesced without
being asked by put and gc.";

/// Put images on one full layer each
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Coalesce {
    /// The images
    #[arg(value_name = "IMAGE", required = true, value_parser = ImageName::parse)]
    images: Vec<ImageName>,
}

#[derive(Debug, Serialize)]
struct Coalesced {
    images: Vec<CoalescedImage>,
}

#[derive(Debug, Serialize)]
struct CoalescedImage {
    name: String,
    digest: String,
    layers_before: usize,
    layers: usize,
}

impl Report for Coalesced {
    fn text(&self, _verbose: bool) -> String {
        let line = |image: &CoalescedImage| {
            let before = units::count(image.layers_before as u64, "layer", "layers");
            format!("coalesced {}: {before}, now {}\n", image.name, image.layers)
        };
        self.images.iter().map(line).collect()
    }
}

impl Coalesce {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let mut images = Vec::new();
        for name in &self.images {
            let session = engine.store().begin()?;
            let layers_before = OpenImage::open(&session, name)?.stack().layers().len();
            drop(session);
            let record = engine.store().coalesce(name)?;
            images.push(CoalescedImage {
                name: name.to_string(),
                digest: record.digest.to_string(),
                layers_before,
                layers: 1,
            });
        }
        context.output.confirm(&Coalesced { images })?;
        Ok(Outcome::Done)
    }
}

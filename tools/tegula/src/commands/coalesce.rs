//! `tegula coalesce`: makes one layer out of an image's increments.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{Folded, ImageName};

const EXAMPLES: &str = "\
Examples:
  tegula coalesce web-1
  tegula coalesce nightly-1 nightly-2
  tegula coalesce nightly-30 --onto nightly-1

An image lies on layers: a full one, and over it an increment for each step since. This makes one
increment of all of them, or of those since ANCESTOR. `tegula flatten` leaves no increment at all. No
chunk is read or written; content, digest, name and parent stay. Deep stacks of layers are coalesced
without being asked by put and gc.";

/// Make one layer out of the increments of images
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Coalesce {
    /// The images
    #[arg(value_name = "IMAGE", required = true, value_parser = ImageName::parse)]
    images: Vec<ImageName>,

    /// Make one layer that lies on this image's: of the increments since it, or of whatever differs
    #[arg(long, value_name = "ANCESTOR", value_parser = ImageName::parse)]
    onto: Option<ImageName>,
}

/// Images whose layers were folded.
#[derive(Debug, Serialize)]
pub(super) struct FoldedImages {
    #[serde(skip)]
    done: &'static str,
    images: Vec<FoldedImage>,
}

#[derive(Debug, Serialize)]
struct FoldedImage {
    name: String,
    digest: String,
    layers_before: usize,
    layers: usize,
}

impl FoldedImages {
    /// Begins with none; `done` is what people are told that was done to each.
    pub(super) fn new(done: &'static str) -> Self {
        let images = Vec::new();
        Self { done, images }
    }

    pub(super) fn push(&mut self, folded: &Folded) {
        self.images.push(FoldedImage {
            name: folded.record.name.to_string(),
            digest: folded.record.digest.to_string(),
            layers_before: folded.layers_before,
            layers: folded.layers,
        });
    }
}

impl Report for FoldedImages {
    fn text(&self, _verbose: bool) -> String {
        let line = |image: &FoldedImage| {
            let before = units::count(image.layers_before as u64, "layer", "layers");
            let (done, name, now) = (self.done, &image.name, image.layers);
            format!("{done} {name}: {before}, now {now}\n")
        };
        self.images.iter().map(line).collect()
    }
}

impl Coalesce {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let mut images = FoldedImages::new("coalesced");
        for name in &self.images {
            images.push(&engine.store().coalesce(name, self.onto.as_ref())?);
        }
        context.output.confirm(&images)?;
        Ok(Outcome::Done)
    }
}

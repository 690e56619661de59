//! `tegula delta size`: tells how long a stream would be.

use super::fields::{Form, Pair, StreamFields};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::Task;

const EXAMPLES: &str = "\
Examples:
  tegula delta size debian-12 web-1
  tegula delta size debian-12 web-1 --json | jq .bytes
  tegula delta size monday tuesday --format rbd-v1

Exact to the byte: what `tegula delta create` would write. No data is read, but for chunks that would
be compressed anew, as in small deltas: how many, `recompressed` says. With --recompress=never there
are few or none.";

/// Tell how large a delta would be, to the byte
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Size {
    #[command(flatten)]
    pair: Pair,

    #[command(flatten)]
    form: Form,
}

/// How long another form would be.
#[derive(Debug, Serialize)]
struct Length {
    base: Option<String>,
    image: String,
    bytes: u64,
}

impl Report for Length {
    fn text(&self, verbose: bool) -> String {
        let base = self.base.as_deref().unwrap_or("nothing");
        let size = units::size_exact(self.bytes, verbose);
        format!("from {base} to {}: {size}\n", self.image)
    }
}

#[derive(Debug, Serialize)]
struct Sized {
    base: Option<String>,
    image: String,
    #[serde(flatten)]
    stream: StreamFields,
    recompressed: u64,
}

impl Report for Sized {
    fn text(&self, verbose: bool) -> String {
        let base = self.base.as_deref().unwrap_or("nothing");
        let lines = self.stream.lines(verbose);
        format!("from {base} to {}\n{lines}", self.image)
    }
}

impl Size {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let (base, image) = self.pair.images()?;
        let task = Task {
            progress: &|_, _| {},
            interrupted: context.interruption(),
        };
        let recompress = self.pair.recompress();
        let rbd = self.form.rbd(image)?;
        let engine = context.open()?;
        if let Some(form) = rbd {
            context.output.print(&Length {
                base: base.map(ToString::to_string),
                image: image.to_string(),
                bytes: engine.size_rbd(base, image, form)?,
            })?;
            return Ok(Outcome::Done);
        }
        let report = engine.size_delta(base, image, recompress, task)?;
        context.output.print(&Sized {
            base: base.map(ToString::to_string),
            image: image.to_string(),
            stream: StreamFields::from(&report),
            recompressed: report.recompressed,
        })?;
        Ok(Outcome::Done)
    }
}

//! `tegula delta apply`: makes the image of a stream.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::input::InterruptibleInput;
use crate::output::Report;
use crate::progress::Progress;
use crate::record::RecordFields;
use crate::table::Table;
use crate::{units, usage};
use clap::Args;
use clap::error::ErrorKind;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tegula_engine::{DeltaApplied, DeltaRequest, DeltaSource, ImageName, Task};

const EXAMPLES: &str = "\
Examples:
  tegula delta apply web-1.delta web-1
  tegula delta apply - web-1 < web-1.delta
  tegula delta apply nightly.delta nightly --replace

The store must have the image that the delta starts from, by content: its name does not matter. The
new image is there, verified and durable, once the command ends well; otherwise nothing is changed.";

/// Make an image of a delta and the image it starts from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Apply {
    /// The delta, or - for standard input
    file: PathBuf,

    /// The new image's name
    #[arg(value_parser = ImageName::parse)]
    name: ImageName,

    /// Take the place of an image of that name
    #[arg(long)]
    replace: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Applied {
    #[serde(flatten)]
    image: RecordFields,
    bytes: u64,
    records: u64,
    new_chunks: u64,
    new_bytes: u64,
    stored_new_bytes: u64,
    seconds: f64,
}

impl Applied {
    fn new(applied: &DeltaApplied, time: Duration) -> Self {
        Self {
            image: RecordFields::from(&applied.record),
            bytes: applied.bytes,
            records: applied.records,
            new_chunks: applied.new_chunks,
            new_bytes: applied.new_bytes,
            stored_new_bytes: applied.stored_new_bytes,
            seconds: time.as_secs_f64(),
        }
    }
}

impl Report for Applied {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let time = Duration::from_secs_f64(self.seconds);
        let mut table = Table::of_pairs();
        let base = self.image.parent.as_deref().unwrap_or("nothing");
        table.pair("  base", base);
        table.pair("  length", size(self.image.virtual_size));
        let rate = units::rate(self.bytes, time);
        let stream = size(self.bytes);
        table.pair(
            "  delta",
            format!("{stream} in {}, {rate}", units::seconds(time)),
        );
        table.pair(
            "  new",
            format!(
                "{}, {}, stored as {}",
                units::count(self.new_chunks, "chunk", "chunks"),
                size(self.new_bytes),
                size(self.stored_new_bytes)
            ),
        );
        if verbose {
            table.pair("  digest", &self.image.digest);
        }
        format!("made {}\n{table}", self.image.name)
    }
}

impl Apply {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let from_input = self.file == Path::new("-");
        if from_input && io::stdin().is_terminal() {
            let message = "FILE - takes the delta from standard input, which is a terminal";
            return Err(usage::error(ErrorKind::InvalidValue, message).into());
        }
        let engine = context.open()?;
        let progress = Progress::begin(context.output, "apply");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: context.interruption(),
        };
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        let mut input = InterruptibleInput::new(task.interrupted);
        let source = match from_input {
            true => DeltaSource::Stream(&mut input),
            false => DeltaSource::File(&self.file),
        };
        let request = DeltaRequest {
            source,
            name: self.name.clone(),
            replace: self.replace,
        };
        let applied = engine.apply_delta(request, task)?;
        drop(progress);
        let time = clock.elapsed().saturating_sub(start);
        context.output.confirm(&Applied::new(&applied, time))?;
        Ok(Outcome::Done)
    }
}

//! `tegula delta merge`: makes one stream of several.

use super::fields::StreamFields;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::progress::Progress;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tegula_engine::{DeltaDestination, Task, merge_deltas};

const EXAMPLES: &str = "\
Examples:
  tegula delta merge monday.delta tuesday.delta wednesday.delta -o week.delta

Each delta must start from what the one before it makes. The result does what all of them do, one after
the other; what a later one replaces is left out. No store is needed, and nothing is decompressed.";

/// Make one delta of several that follow each other
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Merge {
    /// The deltas, oldest first
    #[arg(required = true, value_name = "DELTA")]
    deltas: Vec<PathBuf>,

    /// A new file
    #[arg(short, long, value_name = "DEST")]
    output: PathBuf,

    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Merged {
    destination: String,
    #[serde(flatten)]
    stream: StreamFields,
    merged: u64,
}

impl Report for Merged {
    fn text(&self, verbose: bool) -> String {
        let lines = self.stream.lines(verbose);
        let count = units::count(self.merged, "delta", "deltas");
        let destination = units::printable(&self.destination);
        format!("made {destination} of {count}\n{lines}")
    }
}

impl Merge {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let progress = Progress::begin(context.output, "merge");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: context.interruption(),
        };
        let deltas: Vec<&Path> = self.deltas.iter().map(PathBuf::as_path).collect();
        let path = &self.output;
        let scratch = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let destination = DeltaDestination::File {
            path,
            force: self.force,
        };
        let summary = merge_deltas(&deltas, scratch, destination, task)?;
        drop(progress);
        context.output.confirm(&Merged {
            destination: path.display().to_string(),
            stream: StreamFields::from(&summary),
            merged: self.deltas.len() as u64,
        })?;
        Ok(Outcome::Done)
    }
}

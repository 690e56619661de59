//! `tegula delta show`: tells what a stream is, and whether it is whole.

use super::fields::StreamFields;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::progress::Progress;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use tegula_engine::{ExtentKind, Task, show_delta};

const EXAMPLES: &str = "\
Examples:
  tegula delta show web-1.delta
  tegula delta show web-1.delta --json | jq .extents

Reads all of FILE and checks its structure and hashes. No store is needed.";

/// Show what a delta changes, and check that it is whole
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// The delta
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    #[serde(flatten)]
    stream: StreamFields,
    extents: Vec<Change>,
}

#[derive(Debug, Serialize)]
struct Change {
    offset: u64,
    length: u64,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Report for Shown {
    fn text(&self, verbose: bool) -> String {
        let file = units::printable(&self.file);
        let lines = self.stream.lines(verbose);
        let extents = self.extents.len() as u64;
        let longest = self.extents.iter().map(|extent| extent.length).max();
        let longest = longest.map_or(String::new(), |bytes| {
            format!(", the longest {}", units::size_exact(bytes, verbose))
        });
        let extents = units::count(extents, "extent", "extents");
        format!("{file}: a whole delta\n{lines}{extents}{longest}\n")
    }
}

impl Show {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let progress = Progress::begin(context.output, "show");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: context.interruption(),
        };
        let summary = show_delta(&self.file, task)?;
        drop(progress);
        let extents = summary.extents.iter().map(|extent| Change {
            offset: extent.offset,
            length: extent.length,
            kind: match extent.kind {
                ExtentKind::Data => "data",
                ExtentKind::Zero => "zero",
            },
        });
        context.output.print(&Shown {
            file: self.file.display().to_string(),
            stream: StreamFields::from(&summary),
            extents: extents.collect(),
        })?;
        Ok(Outcome::Done)
    }
}

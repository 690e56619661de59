//! `tegula repair`: mends what can be mended.

use crate::commands::verify::{FindingFields, findings_text};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::progress::Progress;
use crate::table::Table;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tegula_engine::{ConfigSource, RepairReport, Task};

const EXAMPLES: &str = "\
Examples:
  tegula repair
  tegula repair --from /mnt/backup/images

Without --from, the index is made anew, whole chunks are saved from damaged segments, and damaged files
go to quarantine. A lost or damaged tegula.store is made again from its copy, or from what the segments
say of it. With it, chunks and layers that are lost here are taken from there. Putting an image
again heals it too. Exits with 3 if something is still wrong afterwards.";

/// Mend what can be mended
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Repair {
    /// Another store, to take good copies from
    #[arg(long, value_name = "STORE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Mended {
    healed_chunks: u64,
    salvaged_chunks: u64,
    quarantined_chunks: u64,
    quarantined_files: Vec<String>,
    restored_records: Vec<String>,
    restored_layers: Vec<String>,
    state_restored: bool,
    config_restored: Option<&'static str>,
    config_copy_restored: bool,
    index_rebuilt: bool,
    remaining: Vec<FindingFields>,
}

impl From<RepairReport> for Mended {
    fn from(report: RepairReport) -> Self {
        Self {
            healed_chunks: report.healed_chunks,
            salvaged_chunks: report.salvaged_chunks,
            quarantined_chunks: report.quarantined_chunks,
            quarantined_files: report.quarantined_files,
            restored_records: report.restored_records,
            restored_layers: report.restored_layers,
            state_restored: report.state_restored,
            config_restored: report.config_restored.map(word),
            config_copy_restored: report.config_copy_restored,
            index_rebuilt: report.index_rebuilt,
            remaining: report.remaining.iter().map(FindingFields::from).collect(),
        }
    }
}

fn word(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::Copy => "copy",
        ConfigSource::Segments => "segments",
        ConfigSource::Images => "images",
    }
}

impl Report for Mended {
    fn text(&self, _verbose: bool) -> String {
        let mut table = Table::of_pairs();
        let list = |items: &[String]| match items {
            [] => "none".to_owned(),
            items => units::printable(&items.join(", ")),
        };
        table.pair("chunks taken from the other store", self.healed_chunks);
        table.pair("chunks saved from damaged segments", self.salvaged_chunks);
        table.pair("chunks put in quarantine", self.quarantined_chunks);
        table.pair("files put in quarantine", list(&self.quarantined_files));
        table.pair("image records made again", list(&self.restored_records));
        table.pair("images on a new layer", list(&self.restored_layers));
        let anew = |anew| if anew { "made anew" } else { "kept" };
        table.pair(
            "collection state, quarantine list",
            anew(self.state_restored),
        );
        table.pair("index", anew(self.index_rebuilt));
        let config = match self.config_restored {
            None => "kept",
            Some("copy") => "made anew from its copy",
            Some("segments") => "made anew from the segments, at the usual zstd level",
            Some(_) => "made anew from the images, at the usual zstd level",
        };
        table.pair("configuration", config);
        table.pair("its copy", anew(self.config_copy_restored));
        let verdict = match self.remaining.len() as u64 {
            0 => "nothing is wrong any more".to_owned(),
            found => format!(
                "still wrong: {}",
                units::count(found, "finding", "findings")
            ),
        };
        format!("{table}{}{verdict}\n", findings_text(&self.remaining))
    }
}

impl Repair {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let (engine, opening) = context.open_to_repair()?;
        let from = self.from.as_ref().map(|path| {
            context.open_at(path).map_err(|source| Failure::OtherStore {
                path: path.clone(),
                source,
            })
        });
        let from = from.transpose()?;
        let progress = Progress::begin(context.output, "repair");
        // Every step stands by itself: a signal may end this at once, and a second repair goes on from there.
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: &AtomicBool::new(false),
        };
        let mended = Mended::from(engine.repair(from.as_ref(), task)?.after(opening));
        drop(progress);
        let outcome = match mended.remaining.is_empty() {
            true => Outcome::Done,
            false => Outcome::Damaged,
        };
        context.output.confirm(&mended)?;
        Ok(outcome)
    }
}

//! `tegula gc`: frees what no image needs.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::priority::Priority;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use tegula_engine::CollectOptions;

const EXAMPLES: &str = "\
Examples:
  tegula gc
  tegula gc --dry-run
  tegula gc --min-live 1.0 --wait 600
  tegula gc --recompress 0
  tegula gc --nice 0

Other commands may go on meanwhile, and go before it on a busy machine unless --nice says otherwise. What those that began before still look at is kept; after --wait
seconds its removal is left to the next gc.

What is moved out of segments that are rewritten is compressed better than it was, as `tegula optimize` does for all of the
store: by one thread, for no more than about --recompress seconds. The rest is moved as it stands. How much this saves is known
only afterwards: what --dry-run tells is to the byte for --recompress 0; otherwise more is
freed, as a rule.";

/// Free what no image needs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Gc {
    /// Only tell what would be freed
    #[arg(long)]
    dry_run: bool,

    /// Rewrite segments with a smaller share of needed bytes: 0 none, 1 every one with any garbage
    #[arg(long, value_name = "SHARE", default_value_t = CollectOptions::default().min_live, allow_negative_numbers = true, value_parser = share)]
    min_live: f64,

    /// How long one thread may work on compressing better what is moved: 0 moves it as it stands
    #[arg(long, value_name = "SECONDS", default_value_t = CollectOptions::default().recompress.as_secs(), allow_negative_numbers = true)]
    recompress: u64,

    /// How long to wait for commands that began before
    #[arg(long, value_name = "SECONDS", default_value_t = CollectOptions::default().patience.as_secs(), allow_negative_numbers = true)]
    wait: u64,

    #[command(flatten)]
    priority: Priority,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a share is a number from 0 to 1".to_owned())
}

#[derive(Debug, Serialize)]
struct Collected {
    dry_run: bool,
    /// In a dry run as if all were moved as it stands.
    freed_bytes: u64,
    segments_removed: u64,
    segments_rewritten: u64,
    recompressed_chunks: u64,
    layers_removed: u64,
    abandoned_removed: u64,
    pending_bytes: u64,
    #[serde(skip)]
    compresses: bool,
}

impl Report for Collected {
    fn text(&self, verbose: bool) -> String {
        let freed = units::size_exact(self.freed_bytes, verbose);
        let verb = match (self.dry_run, self.compresses && self.segments_rewritten > 0) {
            (true, true) => "would free about",
            (true, false) => "would free",
            (false, _) => "freed",
        };
        let mut text = format!(
            "{verb} {freed}: {} removed, {} rewritten, {} removed\n",
            units::count(self.segments_removed, "segment", "segments"),
            self.segments_rewritten,
            units::count(self.layers_removed, "layer", "layers"),
        );
        if self.recompressed_chunks > 0 {
            let chunks = units::count(self.recompressed_chunks, "chunk", "chunks");
            text.push_str(&format!("compressed {chunks} better\n"));
        }
        if self.abandoned_removed > 0 {
            let files = units::count(self.abandoned_removed, "file", "files");
            text.push_str(&format!("removed {files} of interrupted commands\n"));
        }
        if self.pending_bytes > 0 {
            let pending = units::size_exact(self.pending_bytes, verbose);
            text.push_str(&format!(
                "{pending} are still held by other commands; the next gc frees them\n"
            ));
        }
        text
    }
}

impl Gc {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        self.priority.give_way()?;
        let collection = context.open()?.collect(&CollectOptions {
            min_live: self.min_live,
            dry_run: self.dry_run,
            patience: Duration::from_secs(self.wait),
            recompress: Duration::from_secs(self.recompress),
        })?;
        context.output.confirm(&Collected {
            dry_run: self.dry_run,
            freed_bytes: collection.freed_bytes,
            segments_removed: collection.segments_removed,
            segments_rewritten: collection.segments_rewritten,
            recompressed_chunks: collection.recompressed_chunks,
            layers_removed: collection.layers_removed,
            abandoned_removed: collection.abandoned_removed,
            pending_bytes: collection.pending_bytes,
            compresses: self.recompress > 0,
        })?;
        Ok(Outcome::Done)
    }
}

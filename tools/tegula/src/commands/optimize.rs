//! `tegula optimize`: stores again, better compressed, what is stored already.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::priority::Priority;
use crate::progress::Progress;
use crate::units;
use clap::Args;
use serde::Serialize;
use std::num::NonZeroUsize;
use std::time::Duration;
use tegula_engine::{ImageName, OptimizeOptions, Task};

const EXAMPLES: &str = "\
Examples:
  tegula optimize
  tegula optimize --level 12
  tegula optimize nightly-1 nightly-2
  tegula optimize --dry-run
  tegula optimize --dry-run --one-in 1

Every chunk is compared with all others of up to 8 GiB, and those that resemble each other are stored as what differs;
chunks of the newest images come to stand in the order in which they are read. Other commands may go on meanwhile, and go
before it on a busy machine unless --nice says otherwise; one gc or optimize at a time. The store needs room for both the old and the new, up to 8 GiB at once. Interrupt it when you
like: no image is harmed, and the next gc takes what is left over.

--dry-run reads and compares everything, compresses one chunk in sixteen, and tells what that makes of the whole. With
--one-in 1 it compresses all of them: that takes as long as the real thing, and is exact, as long as the store has no more than
8 GiB of chunks.";

/// Store again, better compressed, what is stored already
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Optimize {
    /// Only what stands in the same segments as these images; everything if none is named
    #[arg(value_name = "IMAGE", value_parser = ImageName::parse)]
    images: Vec<ImageName>,

    /// Only tell what would be gained
    #[arg(long)]
    dry_run: bool,

    /// With --dry-run: compress one chunk in so many to know
    #[arg(long, value_name = "N", default_value = "16", requires = "dry_run")]
    one_in: NonZeroUsize,

    /// The zstd level; the store's own if that is higher
    #[arg(long, default_value_t = OptimizeOptions::default().level, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,

    /// How long to wait for commands that began before
    #[arg(long, value_name = "SECONDS", default_value_t = OptimizeOptions::default().patience.as_secs(), allow_negative_numbers = true)]
    wait: u64,

    #[command(flatten)]
    priority: Priority,
}

#[derive(Debug, Serialize)]
struct Optimized {
    dry_run: bool,
    segments_rewritten: u64,
    chunks: u64,
    compressed_chunks: u64,
    framed_chunks: u64,
    old_bytes: u64,
    new_bytes: u64,
    pending_bytes: u64,
}

impl Report for Optimized {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let (stored, became) = match self.dry_run {
            true => ("would store", "would become"),
            false => ("stored", "became"),
        };
        let mut text = format!(
            "{stored} {} again: {} in {} {became} {}, {} of the chunks on others\n",
            units::count(self.chunks, "chunk", "chunks"),
            size(self.old_bytes),
            units::count(self.segments_rewritten, "segment", "segments"),
            size(self.new_bytes),
            self.framed_chunks,
        );
        if self.compressed_chunks < self.chunks {
            let chunks = units::count(self.compressed_chunks, "chunk", "chunks");
            text.push_str(&format!(
                "this is an estimate: {chunks} were compressed to know\n"
            ));
        }
        if self.pending_bytes > 0 {
            let pending = size(self.pending_bytes);
            text.push_str(&format!(
                "{pending} are still held by other commands; the next gc frees them\n"
            ));
        }
        text
    }
}

impl Optimize {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        self.priority.give_way()?;
        let engine = context.open()?;
        let block = u64::from(engine.store().config().block_size.bytes());
        let progress = Progress::begin(context.output, "optimize");
        let task = Task {
            progress: &|done, total| {
                progress.update(done * block, total.map(|total| total * block))
            },
            interrupted: context.interruption(),
        };
        let options = OptimizeOptions {
            level: self.level,
            images: self.images.clone(),
            dry_run: self.dry_run.then_some(self.one_in),
            patience: Duration::from_secs(self.wait),
            ..OptimizeOptions::default()
        };
        let done = engine.optimize(&options, task)?;
        drop(progress);
        context.output.confirm(&Optimized {
            dry_run: self.dry_run,
            segments_rewritten: done.segments_rewritten,
            chunks: done.chunks,
            compressed_chunks: done.compressed_chunks,
            framed_chunks: done.framed_chunks,
            old_bytes: done.old_bytes,
            new_bytes: done.new_bytes,
            pending_bytes: done.pending_bytes,
        })?;
        Ok(Outcome::Done)
    }
}

//! `tegula stats`: the store in numbers.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::table::Table;
use crate::units;
use clap::Args;
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  tegula stats
  tegula stats --json | jq .dedup_ratio";

/// Show the store in numbers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Stats {}

#[derive(Debug, Serialize)]
struct Numbers {
    images: u64,
    virtual_bytes: u64,
    logical_bytes: u64,
    chunks: u64,
    chunk_bytes: u64,
    live_bytes: u64,
    stored_bytes: u64,
    metadata_bytes: u64,
    segments: u64,
    block_size: u32,
    zstd_level: i32,
    prefix_frames: bool,
    dedup_ratio: f64,
    compression_ratio: f64,
}

impl Report for Numbers {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let mut table = Table::of_pairs();
        table.pair("images", self.images);
        table.pair("  length", size(self.virtual_bytes));
        table.pair("  data", size(self.logical_bytes));
        table.pair("distinct chunks", self.chunks);
        table.pair("  uncompressed", size(self.chunk_bytes));
        table.pair("  stored", size(self.live_bytes));
        table.pair("segments", self.segments);
        table.pair("  on disk", size(self.stored_bytes));
        table.pair("metadata", size(self.metadata_bytes));
        table.pair("deduplication", units::ratio(self.dedup_ratio));
        table.pair("compression", units::ratio(self.compression_ratio));
        if verbose {
            table.pair("block size", units::size(self.block_size.into()));
            table.pair("zstd level", self.zstd_level);
            let frames = if self.prefix_frames { "yes" } else { "no" };
            table.pair("prefix frames", frames);
        }
        table.to_string()
    }
}

impl Stats {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let engine = context.open()?;
        let numbers = engine.statistics()?;
        let config = engine.store().config();
        context.output.print(&Numbers {
            images: numbers.images,
            virtual_bytes: numbers.virtual_bytes,
            logical_bytes: numbers.logical_bytes,
            chunks: numbers.chunks,
            chunk_bytes: numbers.chunk_bytes,
            live_bytes: numbers.live_bytes,
            stored_bytes: numbers.stored_bytes,
            metadata_bytes: numbers.metadata_bytes,
            segments: numbers.segments,
            block_size: config.block_size.bytes(),
            zstd_level: config.zstd_level,
            prefix_frames: config.prefix_frames,
            dedup_ratio: numbers.dedup_ratio(),
            compression_ratio: numbers.compression_ratio(),
        })?;
        Ok(Outcome::Done)
    }
}

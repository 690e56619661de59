//! `tegula init`: makes a store.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::units;
use clap::Args;
use serde::Serialize;
use tegula_engine::{BlockSize, Engine, InitOptions, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN};

const EXAMPLES: &str = "\
Examples:
  tegula --store /srv/images init
  tegula --store /srv/images init --block-size 4K --zstd-level 3";

/// Make a store in a new or empty directory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Init {
    /// The size of every block in the store: a power of two from 4K to 4M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = block_size)]
    block_size: BlockSize,

    /// How hard new chunks are compressed, -7 to 19
    #[arg(
        long,
        value_name = "LEVEL",
        default_value_t = InitOptions::default().zstd_level,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(i64::from(ZSTD_LEVEL_MIN)..=i64::from(ZSTD_LEVEL_MAX)),
    )]
    zstd_level: i32,

    /// Store every chunk by itself, never as what differs from similar ones: takes more space, and older versions of
    /// tegula can read it
    #[arg(long)]
    no_prefix_frames: bool,
}

fn block_size(text: &str) -> Result<BlockSize, String> {
    let bytes = units::parse_size(text)?;
    BlockSize::from_bytes(bytes)
        .ok_or_else(|| format!("{bytes} bytes are no power of two from 4K to 4M"))
}

#[derive(Debug, Serialize)]
struct Made {
    store: String,
    id: String,
    block_size: u32,
    zstd_level: i32,
    prefix_frames: bool,
}

impl Report for Made {
    fn text(&self, verbose: bool) -> String {
        let block_size = units::size(self.block_size.into());
        let id = match verbose {
            true => format!(", id {}", self.id),
            false => String::new(),
        };
        format!(
            "made a store in {}: blocks of {block_size}, zstd level {}{id}\n",
            units::printable(&self.store),
            self.zstd_level
        )
    }
}

impl Init {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let path = context.needed_store_path()?;
        let options = InitOptions {
            block_size: self.block_size,
            zstd_level: self.zstd_level,
            prefix_frames: !self.no_prefix_frames,
        };
        let (engine, remark) = Engine::init(path, context.backend, options)?;
        context.remark(remark);
        let config = engine.store().config();
        context.output.confirm(&Made {
            store: path.display().to_string(),
            id: config.id.to_string(),
            block_size: config.block_size.bytes(),
            zstd_level: config.zstd_level,
            prefix_frames: config.prefix_frames,
        })?;
        Ok(Outcome::Done)
    }
}

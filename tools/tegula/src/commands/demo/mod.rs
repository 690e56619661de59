//! `tegula demo`: the whole story in under a minute, with a real file system and true numbers.
//!
//! Everything happens in a temporary directory. The disks are made by e2fsprogs out of files of this machine; what the
//! table says comes from the engine's reports, and every restored disk is compared with the original byte for byte.
//!
//! The catalog server runs in this process, for this command alone: others start no thread of it and open none of its files.

mod client;
mod disks;
mod error;
mod files;
mod picture;
mod served;
mod story;
mod tools;
mod wire;

pub(crate) use error::DemoError;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use clap::Args;
use story::Story;
use tegula_engine::EngineError;

const EXAMPLES: &str = "\
Examples:
  tegula demo
  tegula demo --keep

Needs mke2fs and debugfs (Debian, Ubuntu: apt-get install e2fsprogs), no privileges, about 1.2 GiB of
room where temporary files go (TMPDIR), two ports of loopback, and less than a minute. Nothing outside
that directory is changed.";

/// See images put, got, served and pulled, in a temporary directory
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// Keep the directory, and print its path
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let tools = tools::Tools::find()?;
        let place = tempfile::Builder::new()
            .prefix("tegula-demo-")
            .disable_cleanup(self.keep)
            .tempdir()
            .map_err(DemoError::at("make a directory in", &std::env::temp_dir()))?;
        let told = Story::new(context, &tools, place.path(), self.keep).tell();
        // Not of the store that the user may have named.
        told.map_err(|failure| match failure {
            Failure::Engine(source @ EngineError::Store(_)) => Failure::OtherStore {
                path: place.path().join("store"),
                source,
            },
            other => other,
        })?;
        Ok(Outcome::Done)
    }
}

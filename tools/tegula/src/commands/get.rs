//! `tegula get`: gets an image out of the store.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::Report;
use crate::progress::Progress;
use crate::{units, usage};
use clap::Args;
use clap::error::ErrorKind;
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tegula_engine::{Destination, Engine, EngineError, GetReport, ImageName, Task};

const EXAMPLES: &str = "\
Examples:
  tegula get debian-12 disk.raw
  tegula get debian-12 /dev/vg0/web-2 --in-place
  tegula get debian-12 - | ssh host 'dd of=disk.raw conv=sparse'

A new file appears under its name when it is complete, verified and durable; holes stay holes.
With - and with --in-place, what is written before an error stays written.";

/// Get an image out of the store, verified
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Get {
    /// The image
    #[arg(value_parser = ImageName::parse)]
    image: ImageName,

    /// A new file, or - for standard output
    #[arg(value_name = "DEST")]
    destination: PathBuf,

    /// Overwrite an existing file or device where it is, only the blocks that differ
    #[arg(long)]
    in_place: bool,

    /// Replace an existing file, or overwrite a device
    #[arg(long, conflicts_with = "in_place")]
    force: bool,
}

/// What a get did.
#[derive(Debug, Serialize)]
struct Restored {
    name: String,
    destination: String,
    virtual_size: u64,
    digest: String,
    written_bytes: u64,
    zero_blocks: u64,
    seconds: f64,
}

impl Report for Restored {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let time = Duration::from_secs_f64(self.seconds);
        let mut text = format!(
            "got {} into {}: {}, {} written in {}, {}\n",
            self.name,
            units::printable(&self.destination),
            size(self.virtual_size),
            size(self.written_bytes),
            units::seconds(time),
            units::rate(self.written_bytes, time)
        );
        if verbose {
            text.push_str(&format!("  digest  {}\n", self.digest));
        }
        text
    }
}

impl Get {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        if self.destination == Path::new("-") {
            return self.get_to_output(context);
        }
        let engine = context.open()?;
        let path = &self.destination;
        let destination = match self.in_place {
            true => Destination::InPlace { path },
            false => Destination::File {
                path,
                force: self.force,
            },
        };
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        let report = self.get(&engine, context, destination, context.interruption())?;
        let time = clock.elapsed().saturating_sub(start);
        context.output.confirm(&Restored {
            name: self.image.to_string(),
            destination: path.display().to_string(),
            virtual_size: report.virtual_size,
            digest: report.digest.to_string(),
            written_bytes: report.written_bytes,
            zero_blocks: report.zero_blocks,
            seconds: time.as_secs_f64(),
        })?;
        Ok(Outcome::Done)
    }

    fn get_to_output(&self, context: &Context) -> Result<Outcome, Failure> {
        self.check_output(context)?;
        let engine = context.open()?;
        // Not through `Stdout`, which looks for line ends in everything.
        let out = io::stdout().as_fd().try_clone_to_owned();
        let mut out = File::from(out.map_err(|source| Failure::Print { source })?);
        // There is nothing to clean up, and a reader that does not read must not keep us: a signal ends us at once.
        let never = AtomicBool::new(false);
        self.get(&engine, context, Destination::Stream(&mut out), &never)?;
        Ok(Outcome::Done)
    }

    fn check_output(&self, context: &Context) -> Result<(), clap::Error> {
        let refused = |message| Err(usage::error(ErrorKind::ArgumentConflict, message));
        if self.in_place || self.force {
            return refused("--in-place and --force are for files and devices, not for DEST -");
        }
        if context.output.json {
            return refused("--json and DEST - would both print to standard output");
        }
        if io::stdout().is_terminal() {
            return refused("DEST - prints the image to standard output, which is a terminal");
        }
        Ok(())
    }

    fn get(
        &self,
        engine: &Engine,
        context: &Context,
        destination: Destination<'_>,
        interrupted: &AtomicBool,
    ) -> Result<GetReport, EngineError> {
        let progress = Progress::begin(context.output, "get");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted,
        };
        engine.get(&self.image, destination, task)
    }
}

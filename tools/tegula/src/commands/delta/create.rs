//! `tegula delta create`: writes the stream that turns one image into another.

use super::fields::{Form, Pair, StreamFields};
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
use tegula_engine::{DeltaDestination, Task};

const EXAMPLES: &str = "\
Examples:
  tegula delta create debian-12 web-1 -o web-1.delta
  tegula delta create debian-12 web-1 -o - | ssh host tegula --store /srv/there delta apply - web-1
  tegula delta create --full debian-12 -o debian-12.delta
  tegula delta create monday tuesday --format rbd-v1 -o - | rbd import-diff - pool/disk

A chunk that BASE has anywhere is named, not carried. The others go out as they are stored, but for
those stored as what differs from a chunk that neither BASE nor the delta has, and for those of small
deltas that are shorter as what differs from BASE's chunk in the same block: --recompress=always tries
this for large ones too, --recompress=never for none. The same two images in the same store give the
same bytes.";

/// Write the delta that turns one image into another
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Create {
    #[command(flatten)]
    pair: Pair,

    /// A new file, or - for standard output
    #[arg(short, long, value_name = "DEST")]
    output: PathBuf,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    form: Form,
}

/// What was written in another form.
#[derive(Debug, Serialize)]
struct Exported {
    destination: String,
    bytes: u64,
    seconds: f64,
}

impl Report for Exported {
    fn text(&self, verbose: bool) -> String {
        let destination = units::printable(&self.destination);
        let time = Duration::from_secs_f64(self.seconds);
        let size = units::size_exact(self.bytes, verbose);
        format!("made {destination}, {size} in {}\n", units::seconds(time))
    }
}

/// What was written.
#[derive(Debug, Serialize)]
struct Created {
    destination: String,
    #[serde(flatten)]
    stream: StreamFields,
    recompressed: u64,
    seconds: f64,
}

impl Report for Created {
    fn text(&self, verbose: bool) -> String {
        let destination = units::printable(&self.destination);
        let time = Duration::from_secs_f64(self.seconds);
        let lines = self.stream.lines(verbose);
        let (time, rate) = (units::seconds(time), units::rate(self.stream.bytes, time));
        format!("made {destination} in {time}, {rate}\n{lines}")
    }
}

impl Create {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let (base, image) = self.pair.images()?;
        let recompress = self.pair.recompress();
        let path = &self.output;
        let to_output = path == Path::new("-");
        if to_output {
            self.check_output(context)?;
        }
        let rbd = self.form.rbd(image)?;
        let engine = context.open()?;
        let progress = Progress::begin(context.output, "delta");
        let update = |done, total| progress.update(done, total);
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        if to_output {
            // Not through `Stdout`, which looks for line ends in everything.
            let out = io::stdout().as_fd().try_clone_to_owned();
            let mut out = File::from(out.map_err(|source| Failure::Print { source })?);
            // Nothing to clean up, and a reader that does not read must not keep us: a signal ends us at once.
            let task = Task {
                progress: &update,
                interrupted: &AtomicBool::new(false),
            };
            let out = DeltaDestination::Stream(&mut out);
            match rbd {
                Some(form) => {
                    engine.create_rbd(base, image, form, out, task)?;
                }
                None => {
                    engine.create_delta(base, image, recompress, out, task)?;
                }
            }
            return Ok(Outcome::Done);
        }
        let task = Task {
            progress: &update,
            interrupted: context.interruption(),
        };
        context.check_outside_store(path)?;
        let destination = DeltaDestination::File {
            path,
            force: self.force,
        };
        if let Some(form) = rbd {
            let bytes = engine.create_rbd(base, image, form, destination, task)?;
            drop(progress);
            context.output.confirm(&Exported {
                destination: path.display().to_string(),
                bytes,
                seconds: clock.elapsed().saturating_sub(start).as_secs_f64(),
            })?;
            return Ok(Outcome::Done);
        }
        let report = engine.create_delta(base, image, recompress, destination, task)?;
        drop(progress);
        context.output.confirm(&Created {
            destination: path.display().to_string(),
            stream: StreamFields::from(&report),
            recompressed: report.recompressed,
            seconds: clock.elapsed().saturating_sub(start).as_secs_f64(),
        })?;
        Ok(Outcome::Done)
    }

    fn check_output(&self, context: &Context) -> Result<(), clap::Error> {
        let refused = |message| Err(usage::error(ErrorKind::ArgumentConflict, message));
        if self.force {
            return refused("--force is for files, not for -o -");
        }
        if context.output.json {
            return refused("--json and -o - would both print to standard output");
        }
        if io::stdout().is_terminal() {
            return refused("-o - prints the delta to standard output, which is a terminal");
        }
        Ok(())
    }
}

//! `tegula delta apply`: makes the image of a stream.

use super::fields::Format;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::input::InterruptibleInput;
use crate::output::Report;
use crate::progress::Progress;
use crate::record::RecordFields;
use crate::table::Table;
use crate::{units, usage};
use clap::Args;
use clap::error::ErrorKind;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tegula_engine::{
    Clock, DeltaApplied, DeltaRequest, DeltaSource, ImageName, RawDeltaRequest, RbdRequest,
    RbdVersion, SystemClock, Task, apply_delta_to_disk, apply_rbd_to_disk,
};

const EXAMPLES: &str = "\
Examples:
  tegula delta apply web-1.delta web-1
  tegula delta apply - web-1 < web-1.delta
  tegula delta apply nightly.delta nightly --replace
  tegula delta apply web-1.delta --raw /dev/vg0/web-1 --journal /var/tmp/web-1.journal
  tegula delta apply web-1.delta --raw disk.raw --dry-run
  rbd export-diff --from-snap a pool/disk@b - | tegula delta apply - b --format rbd-v1 --base a

NAME: the store must have the image that the delta starts from, by content; its name there does not
matter. The new image is there, verified and durable, once the command ends well; otherwise nothing is
changed.

--raw: DISK must be the image that the delta starts from; all of it is read to make sure. Its changed
blocks are written in place. What the command was stopped at, by whatever, it goes on with when it is
run again; until then DISK is neither the one image nor the other. No store is needed. An rbd diff names
no content: one that starts from a snapshot patches a DISK only with --unverified, and what comes of it is
not verified either; run again after it was stopped, it does all of it once more.";

/// Make an image of a delta and the image it starts from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Apply {
    /// The delta, or - for standard input
    file: PathBuf,

    /// The new image's name
    #[arg(value_parser = ImageName::parse, conflicts_with = "raw")]
    name: Option<ImageName>,

    /// Take the place of an image of that name
    #[arg(long, conflicts_with = "raw")]
    replace: bool,

    /// Patch this file or device in place instead
    #[arg(long, value_name = "DISK")]
    raw: Option<PathBuf>,

    /// Where to keep what is needed to go on later [default, for a file: DISK.tegula-journal]
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,

    /// Only tell whether it can be done, and what would be
    #[arg(long)]
    dry_run: bool,

    /// With --raw: apply an rbd diff that starts from a snapshot to a DISK which nobody can check to be that
    #[arg(long, requires = "raw")]
    unverified: bool,

    /// The form of FILE
    #[arg(long, value_name = "FORM", default_value = "delta")]
    format: Format,

    /// The image that an rbd diff starts from: it names a snapshot, not content, so nobody can check
    #[arg(long, value_name = "IMAGE", value_parser = ImageName::parse)]
    base: Option<ImageName>,
}

/// What was made of an rbd diff.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(flatten)]
    image: RecordFields,
}

impl Report for Imported {
    fn text(&self, verbose: bool) -> String {
        let size = units::size_exact(self.image.virtual_size, verbose);
        format!("made {}, {size}\n", self.image.name)
    }
}

/// What became of a disk by an rbd diff.
#[derive(Debug, Serialize)]
struct Written {
    disk: String,
    written_bytes: u64,
}

impl Report for Written {
    fn text(&self, verbose: bool) -> String {
        let size = units::size_exact(self.written_bytes, verbose);
        format!("patched {}, {size} written\n", units::printable(&self.disk))
    }
}

/// What was made.
#[derive(Debug, Serialize)]
struct Applied {
    #[serde(flatten)]
    image: RecordFields,
    bytes: u64,
    records: u64,
    new_chunks: u64,
    new_bytes: u64,
    stored_new_bytes: u64,
    seconds: f64,
}

impl Applied {
    fn new(applied: &DeltaApplied, time: Duration) -> Self {
        Self {
            image: RecordFields::from(&applied.record),
            bytes: applied.bytes,
            records: applied.records,
            new_chunks: applied.new_chunks,
            new_bytes: applied.new_bytes,
            stored_new_bytes: applied.stored_new_bytes,
            seconds: time.as_secs_f64(),
        }
    }
}

impl Report for Applied {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let time = Duration::from_secs_f64(self.seconds);
        let mut table = Table::of_pairs();
        let base = self.image.parent.as_deref().unwrap_or("nothing");
        table.pair("  base", base);
        table.pair("  length", size(self.image.virtual_size));
        let rate = units::rate(self.bytes, time);
        let stream = size(self.bytes);
        table.pair(
            "  delta",
            format!("{stream} in {}, {rate}", units::seconds(time)),
        );
        table.pair(
            "  new",
            format!(
                "{}, {}, stored as {}",
                units::count(self.new_chunks, "chunk", "chunks"),
                size(self.new_bytes),
                size(self.stored_new_bytes)
            ),
        );
        if verbose {
            table.pair("  digest", &self.image.digest);
        }
        format!("made {}\n{table}", self.image.name)
    }
}

/// What became of a disk.
#[derive(Debug, Serialize)]
struct Patched {
    disk: String,
    digest: String,
    virtual_size: u64,
    dry_run: bool,
    done_before: bool,
    resumed: bool,
    written_bytes: u64,
    zeroed_bytes: u64,
    saved_bytes: u64,
    seconds: f64,
}

impl Report for Patched {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let disk = units::printable(&self.disk);
        if self.done_before {
            return format!("{disk} holds the image already\n");
        }
        let how = match (self.dry_run, self.resumed) {
            (true, _) => "would patch",
            (_, true) => "went on with and patched",
            _ => "patched",
        };
        let time = units::seconds(Duration::from_secs_f64(self.seconds));
        let mut table = Table::of_pairs();
        table.pair("  length", size(self.virtual_size));
        table.pair("  written", size(self.written_bytes));
        table.pair("  zeroed", size(self.zeroed_bytes));
        table.pair("  saved", size(self.saved_bytes));
        if verbose {
            table.pair("  digest", &self.digest);
        }
        match self.dry_run {
            true => format!("{how} {disk}\n{table}"),
            false => format!("{how} {disk} in {time}\n{table}"),
        }
    }
}

impl Apply {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let from_input = self.file == Path::new("-");
        if from_input && io::stdin().is_terminal() {
            let message = "FILE - takes the delta from standard input, which is a terminal";
            return Err(usage::error(ErrorKind::InvalidValue, message).into());
        }
        if self.raw.is_none() && (self.journal.is_some() || self.dry_run) {
            let message = "--journal and --dry-run are for --raw";
            return Err(usage::error(ErrorKind::ArgumentConflict, message).into());
        }
        let progress = Progress::begin(context.output, "apply");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: context.interruption(),
        };
        let mut input = InterruptibleInput::new(task.interrupted);
        let source = match from_input {
            true => DeltaSource::Stream(&mut input),
            false => DeltaSource::File(&self.file),
        };
        if let Some(version) = self.format.rbd() {
            return self.apply_rbd(context, version, source, task);
        }
        if self.base.is_some() {
            let message =
                "--base is for --format rbd-v1 and rbd-v2: a delta says itself what it starts from";
            return Err(usage::error(ErrorKind::ArgumentConflict, message).into());
        }
        if self.unverified {
            let message =
                "--unverified is for --format rbd-v1 and rbd-v2: a delta is always verified";
            return Err(usage::error(ErrorKind::ArgumentConflict, message).into());
        }
        match (&self.name, &self.raw) {
            (Some(name), _) => {
                let made = self.make_image(context, name, source, task)?;
                drop(progress);
                context.output.confirm(&made)?;
            }
            (None, Some(disk)) => {
                let patched = self.patch(disk, source, task)?;
                drop(progress);
                context.output.confirm(&patched)?;
            }
            (None, None) => {
                let message = "name the new image, or a disk with --raw";
                return Err(usage::error(ErrorKind::MissingRequiredArgument, message).into());
            }
        }
        Ok(Outcome::Done)
    }

    fn apply_rbd(
        &self,
        context: &Context,
        version: RbdVersion,
        source: DeltaSource<'_>,
        task: Task<'_>,
    ) -> Result<Outcome, Failure> {
        if self.journal.is_some() || self.dry_run {
            let message = "--journal and --dry-run are for deltas: an rbd diff is written anew from its beginning";
            return Err(usage::error(ErrorKind::ArgumentConflict, message).into());
        }
        match (&self.name, &self.raw) {
            (Some(name), _) => {
                let request = RbdRequest {
                    source,
                    version,
                    base: self.base.clone(),
                    name: name.clone(),
                    replace: self.replace,
                };
                let record = context.open()?.apply_rbd(request, task)?;
                let image = RecordFields::from(&record);
                context.output.confirm(&Imported { image })?;
            }
            (None, Some(disk)) => {
                if self.base.is_some() {
                    let message = "--base is an image of a store: nothing on DISK can be compared with an rbd diff's snapshot";
                    return Err(usage::error(ErrorKind::ArgumentConflict, message).into());
                }
                let written_bytes =
                    apply_rbd_to_disk(source, version, (disk, self.unverified), task)?;
                context.output.confirm(&Written {
                    disk: disk.display().to_string(),
                    written_bytes,
                })?;
            }
            (None, None) => {
                let message = "name the new image, or a disk with --raw";
                return Err(usage::error(ErrorKind::MissingRequiredArgument, message).into());
            }
        }
        Ok(Outcome::Done)
    }

    fn make_image(
        &self,
        context: &Context,
        name: &ImageName,
        source: DeltaSource<'_>,
        task: Task<'_>,
    ) -> Result<Applied, Failure> {
        let engine = context.open()?;
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        let request = DeltaRequest {
            source,
            name: name.clone(),
            replace: self.replace,
            base: tegula_engine::DeltaBase::ByDigest,
        };
        let applied = engine.apply_delta(request, task)?;
        let time = clock.elapsed().saturating_sub(start);
        Ok(Applied::new(&applied, time))
    }

    fn patch<'d>(
        &'d self,
        disk: &'d Path,
        source: DeltaSource<'d>,
        task: Task<'_>,
    ) -> Result<Patched, Failure> {
        let clock = SystemClock;
        let start = clock.elapsed();
        let request = RawDeltaRequest {
            source,
            disk,
            journal: self.journal.as_deref(),
            dry_run: self.dry_run,
        };
        let applied = apply_delta_to_disk(request, task)?;
        Ok(Patched {
            disk: disk.display().to_string(),
            digest: applied.target.digest.to_string(),
            virtual_size: applied.target.virtual_size,
            dry_run: self.dry_run,
            done_before: applied.done_before,
            resumed: applied.resumed,
            written_bytes: applied.written_bytes,
            zeroed_bytes: applied.zeroed_bytes,
            saved_bytes: applied.saved_bytes,
            seconds: clock.elapsed().saturating_sub(start).as_secs_f64(),
        })
    }
}

//! `tegula put`: puts an image into the store.

use super::changed::{ChangedOptions, HintFields};
use super::show::Costs;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::format::SourceFormat;
use crate::input::InterruptibleInput;
use crate::output::Report;
use crate::progress::Progress;
use crate::record::RecordFields;
use crate::table::Table;
use crate::{input, units, usage};
use clap::Args;
use clap::error::ErrorKind;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::{
    Engine, EngineError, ImageName, PutFile, PutFileReport, PutReport, PutRequest, Source, Task,
};

const EXAMPLES: &str = "\
Examples:
  tegula put debian-12 debian-12.raw
  tegula put web-1 /dev/vg0/web-1-snapshot --parent debian-12
  tegula put web-2 web-2.qcow2
  tegula put web-2-overlay overlay.qcow2 --parent web-2
  tegula put web-2-monday web-2.qcow2 --snapshot monday
  zstdcat backup.raw.zst | tegula put backup -
  tegula put nightly disk.raw --parent nightly --replace
  tegula put tue disk.raw --parent mon --changed changed.json
  thin_delta --snap1 1 --snap2 2 meta | tegula put tue /dev/vg/tue --parent mon \\
      --changed /dev/stdin --base-digest \"$(tegula show mon --json | jq -r .digest)\"
  tegula put tue disk.qcow2 --parent mon --changed-bitmap daily --base-digest DIGEST

A qcow2 file is read by itself: the name of its backing file is shown, never opened. What an overlay does
not hold is taken from the image given as --parent.

With --changed only what FILE says was changed is read; the rest is the parent's. FILE is a list of extents
(as `tegula diff --json` or `nbdinfo --map --json` print it), a map of an overlay (`qemu-img map
--output=json`), the XML of `thin_delta`, or the JSON of `rbd diff`. It has to name the parent by digest as
what it was made against, or --base-digest says it, and has to fit the disk. If not, or if it is broken (no
such document, a bitmap that a crash left in use or that is disabled), everything is compared, and a note
says why. The result is then the same as without --changed. What nothing here can see is a list
that fits and leaves out a change: --sample N compares N of the blocks that it has unchanged, which misses a
wrong share p of them with probability (1 - p)^N; --paranoid compares all and tells what was missed.

The image is there, durable, once the command ends well; otherwise nothing is changed.";

/// Put an image into the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Put {
    /// The new image's name
    #[arg(value_parser = ImageName::parse)]
    name: ImageName,

    /// A raw or qcow2 disk: a file or block device, or - for standard input
    source: PathBuf,

    /// The image this is a changed copy of: makes it faster, never different. Under a qcow2 overlay: the disk it lies
    /// over
    #[arg(long, value_name = "IMAGE", value_parser = ImageName::parse)]
    parent: Option<ImageName>,

    /// Take the place of an image of that name
    #[arg(long)]
    replace: bool,

    /// How SOURCE holds the disk
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: SourceFormat,

    /// Put the disk as it was at a snapshot inside a qcow2 file, named by its id or name
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<String>,

    #[command(flatten)]
    changed: ChangedOptions,
}

/// What a put did.
#[derive(Debug, Serialize)]
struct Stored {
    #[serde(flatten)]
    image: RecordFields,
    /// What it costs: for scripts only, since it looks at all images.
    #[serde(flatten)]
    costs: Option<Costs>,
    read_bytes: u64,
    new_chunks: u64,
    new_bytes: u64,
    framed_chunks: u64,
    stored_new_bytes: u64,
    reused_chunks: u64,
    recovered_chunks: u64,
    stored_again_chunks: u64,
    /// How the source held the disk.
    format: String,
    /// What became of the hint, if there was one.
    hint: Option<HintFields>,
    seconds: f64,
}

impl Stored {
    fn new(put: &PutFileReport, costs: Option<Costs>, time: Duration) -> Self {
        let report = &put.report;
        Self {
            image: RecordFields::from(&report.record),
            costs,
            read_bytes: report.read_bytes,
            new_chunks: report.new_chunks,
            new_bytes: report.new_bytes,
            framed_chunks: report.framed_chunks,
            stored_new_bytes: report.stored_new_bytes,
            reused_chunks: report.reused_chunks,
            recovered_chunks: report.recovered_chunks,
            stored_again_chunks: report.stored_again_chunks,
            format: put.format.to_string(),
            hint: report.hint.as_ref().map(HintFields::from),
            seconds: time.as_secs_f64(),
        }
    }
}

impl Report for Stored {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let time = Duration::from_secs_f64(self.seconds);
        let mut table = Table::of_pairs();
        if self.format != DiskFormat::Raw.to_string() {
            table.pair("  format", &self.format);
        }
        table.pair("  length", size(self.image.virtual_size));
        table.pair(
            "  read",
            format!(
                "{} in {}, {}",
                size(self.read_bytes),
                units::seconds(time),
                units::rate(self.read_bytes, time)
            ),
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
        table.pair(
            "  reused",
            units::count(self.reused_chunks, "chunk", "chunks"),
        );
        table.pair(
            "  zero",
            units::count(self.image.zero_blocks, "block", "blocks"),
        );
        if let Some(hint) = &self.hint {
            table.pair("  hint", hint.text(verbose));
        }
        if self.recovered_chunks > 0 {
            let recovered = units::count(self.recovered_chunks, "chunk", "chunks");
            table.pair("  kept", format!("{recovered} of an interrupted put"));
        }
        if self.stored_again_chunks > 0 {
            let again = units::count(self.stored_again_chunks, "chunk", "chunks");
            table.pair("  again", format!("{again} out of thinly used segments"));
        }
        if verbose {
            table.pair("  digest", &self.image.digest);
        }
        format!("put {}\n{table}", self.image.name)
    }
}

impl Put {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let from_input = self.source == Path::new("-");
        if from_input && io::stdin().is_terminal() {
            let message = "SOURCE - takes the image from standard input, which is a terminal";
            return Err(usage::error(ErrorKind::InvalidValue, message).into());
        }
        if from_input {
            self.check_input()?;
        }
        if from_input && input::is_nothing() {
            let message =
                "SOURCE - takes the image from standard input, which is closed or /dev/null";
            return Err(usage::error(ErrorKind::InvalidValue, message).into());
        }
        let changed = self.changed.changed();
        let engine = context.open()?;
        let progress = Progress::begin(context.output, "put");
        let task = Task {
            progress: &|done, total| progress.update(done, total),
            interrupted: context.interruption(),
        };
        let clock = &engine.store().environment().clock;
        let start = clock.elapsed();
        let put = match from_input {
            true => self.put_input(&engine, task).map(|report| PutFileReport {
                report,
                format: DiskFormat::Raw,
            }),
            false => {
                let file = PutFile {
                    name: self.name.clone(),
                    path: &self.source,
                    parent: self.parent.clone(),
                    replace: self.replace,
                    format: self.format.named(),
                    snapshot: self.snapshot.as_deref(),
                };
                match changed {
                    None => engine.put_file(file, task),
                    Some(changed) => engine.put_file_changed(file, changed, task),
                }
            }
        }?;
        drop(progress);
        let time = clock.elapsed().saturating_sub(start);
        let hint = put.report.hint.as_ref();
        if let Some(reason) = hint.and_then(|hint| hint.reason.as_ref()) {
            context.output.remark(&format!(
                "the hint of what was changed was not used: {reason}"
            ));
        }
        // The image is there whatever comes of this: somebody may have taken it away already.
        let info = context
            .output
            .json
            .then(|| engine.show(&put.report.record.name).ok());
        let costs = info.flatten().as_ref().map(Costs::from);
        context.output.confirm(&Stored::new(&put, costs, time))?;
        Ok(Outcome::Done)
    }

    /// Refuses what needs a file: the tables of a qcow2 file may stand anywhere in it.
    fn check_input(&self) -> Result<(), clap::Error> {
        let message = match (self.format, &self.snapshot) {
            (SourceFormat::Qcow2, _) => "qcow2 is read from a file, not from standard input",
            (_, Some(_)) => "--snapshot is for a qcow2 file, not for standard input",
            _ if self.changed.changed().is_some() => {
                "standard input has to be read to its end: a hint of what was changed is for a file or device"
            }
            _ => return Ok(()),
        };
        Err(usage::error(ErrorKind::ArgumentConflict, message))
    }

    fn put_input(&self, engine: &Engine, task: Task<'_>) -> Result<PutReport, EngineError> {
        let mut input = InterruptibleInput::new(task.interrupted);
        let request = PutRequest {
            name: self.name.clone(),
            source: Source::Stream(&mut input),
            parent: self.parent.clone(),
            replace: self.replace,
        };
        engine.put(request, task)
    }
}

//! `tegula get`: gets an image out of the store.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::format::TargetFormat;
use crate::output::Report;
use crate::progress::Progress;
use crate::{units, usage};
use clap::error::ErrorKind;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::disk_formats::qcow2::{BackingName, ClusterSize, Compression, Qcow2Options};
use tegula_engine::{Destination, Engine, EngineError, GetReport, ImageName, Task};

const EXAMPLES: &str = "\
Examples:
  tegula get debian-12 disk.raw
  tegula get debian-12 /dev/vg0/web-2 --in-place
  tegula get debian-12 - | ssh host 'dd of=disk.raw conv=sparse'
  tegula get web-1 web-1.qcow2 --format qcow2 --compress
  tegula get web-1 web-1.qcow2 --format qcow2 --backing debian-12 --backing-name debian-12.qcow2

A new file appears under its name when it is complete, verified and durable; holes stay holes.
With - and with --in-place, what is written before an error stays written.

A qcow2 file with --backing holds only what differs from that image. Whoever opens it needs that image's disk too,
under the name that --backing-name gives, from where the file stands.";

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

    /// How DEST is to hold the disk
    #[arg(long, value_name = "FORMAT", default_value = "raw")]
    format: TargetFormat,

    #[command(flatten)]
    qcow2: Qcow2Arguments,
}

/// What is for qcow2 alone.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of qcow2")]
struct Qcow2Arguments {
    /// Compress the clusters of the file
    #[arg(long)]
    compress: bool,

    /// How to compress them: deflate is what every QEMU reads, zstd is faster and needs QEMU 5.1
    #[arg(
        long,
        value_name = "TYPE",
        requires = "compress",
        default_value = "deflate"
    )]
    compression_type: CompressionType,

    /// The size of the file's clusters, 512 to 2M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_cluster_size)]
    cluster_size: ClusterSize,

    /// Write only what differs from this image, as an overlay over its disk
    #[arg(long, value_name = "IMAGE", value_parser = ImageName::parse)]
    backing: Option<ImageName>,

    /// The file that the overlay names as the one below it; the image's name if not given
    #[arg(long, value_name = "NAME", requires = "backing")]
    backing_name: Option<String>,

    /// The format of that file; by its name's ending if not given, qcow2 or else raw
    #[arg(long, value_name = "FORMAT", requires = "backing")]
    backing_format: Option<TargetFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionType {
    Deflate,
    Zstd,
}

fn parse_cluster_size(text: &str) -> Result<ClusterSize, String> {
    let bytes = units::parse_size(text)?;
    let refused = || format!("{text} is no power of two from 512 to 2M");
    ClusterSize::from_bytes(bytes).ok_or_else(refused)
}

impl Qcow2Arguments {
    /// Returns what was given though it is for qcow2 alone.
    fn given(&self) -> Option<&'static str> {
        if self.compress {
            return Some("--compress");
        }
        if self.backing.is_some() {
            return Some("--backing");
        }
        (self.cluster_size != ClusterSize::DEFAULT).then_some("--cluster-size")
    }

    fn options(&self) -> Qcow2Options<'_> {
        let compression = match self.compression_type {
            CompressionType::Deflate => Compression::Deflate,
            CompressionType::Zstd => Compression::Zstd,
        };
        let backing = self.backing.as_ref().map(|image| {
            let name = self.backing_name.as_deref().unwrap_or(image.as_str());
            let by_name = match name.ends_with(".qcow2") {
                true => TargetFormat::Qcow2,
                false => TargetFormat::Raw,
            };
            let format = self.backing_format.unwrap_or(by_name).into();
            BackingName { name, format }
        });
        Qcow2Options {
            cluster_size: self.cluster_size,
            compression: self.compress.then_some(compression),
            backing,
        }
    }
}

/// What a get did.
#[derive(Debug, Serialize)]
struct Restored {
    name: String,
    destination: String,
    format: String,
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
        self.check_format()?;
        if self.destination == Path::new("-") {
            return self.get_to_output(context);
        }
        let engine = context.open()?;
        let path = &self.destination;
        context.check_outside_store(path)?;
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
            format: DiskFormat::from(self.format).to_string(),
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

    /// Refuses what does not go together with the format.
    fn check_format(&self) -> Result<(), clap::Error> {
        let message = match (self.format, self.qcow2.given()) {
            (TargetFormat::Raw, Some(given)) => format!("{given} is for --format qcow2"),
            (TargetFormat::Qcow2, _) if self.in_place => {
                "--in-place is for raw disks: a qcow2 file is written anew".to_owned()
            }
            (TargetFormat::Qcow2, Some("--compress")) if self.destination == Path::new("-") => {
                "--compress needs a file: what stands first in it is known last".to_owned()
            }
            _ => return Ok(()),
        };
        Err(usage::error(ErrorKind::ArgumentConflict, &message))
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
        if self.format == TargetFormat::Raw {
            return engine.get(&self.image, destination, task);
        }
        let (options, base) = (self.qcow2.options(), self.qcow2.backing.as_ref());
        let report = engine.get_qcow2(&self.image, base, destination, &options, task)?;
        if !report.virtual_size.is_multiple_of(512) {
            let length = report.virtual_size.next_multiple_of(512);
            context.output.remark(&format!(
                "the disk in the file has {length} bytes, whole sectors; the image has {}",
                report.virtual_size
            ));
        }
        Ok(report)
    }
}

//! `tegula inspect`: shows what a disk image file is, without a store.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::format::SourceFormat;
use crate::output::Report;
use crate::table::{Align, Table};
use crate::units;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use tegula_engine::disk_formats::DiskFormat;
use tegula_engine::disk_formats::qcow2::{Bitmap, Compression, Qcow2, Snapshot};
use tegula_engine::{BlockSource, EngineError, RawDisk};

const EXAMPLES: &str = "\
Examples:
  tegula inspect disk.qcow2
  tegula inspect disk.qcow2 --json | jq -r '.qcow2.snapshots[].name'

Only the file itself is opened. That it can be read here says that its head is sound; `tegula put` looks at every cluster.";

/// Show what a disk image file is: format, length, snapshots, bitmaps
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// A file or block device
    file: PathBuf,

    /// How FILE holds the disk
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: SourceFormat,
}

#[derive(Debug, Serialize)]
struct Inspected {
    file: String,
    format: String,
    virtual_size: u64,
    file_size: u64,
    qcow2: Option<Qcow2Fields>,
}

#[derive(Debug, Serialize)]
struct Qcow2Fields {
    version: u32,
    cluster_size: u64,
    subclusters: bool,
    compression: &'static str,
    refcount_bits: u32,
    lazy_refcounts: bool,
    dirty: bool,
    backing_file: Option<String>,
    backing_format: Option<String>,
    snapshots: Vec<SnapshotFields>,
    bitmaps: Vec<BitmapFields>,
}

#[derive(Debug, Serialize)]
struct SnapshotFields {
    id: String,
    name: String,
    virtual_size: u64,
    taken_at: String,
    vm_state_size: u64,
}

#[derive(Debug, Serialize)]
struct BitmapFields {
    name: String,
    granularity: u64,
    enabled: bool,
    in_use: bool,
    /// Why it cannot be relied on, if it cannot.
    fault: Option<&'static str>,
}

impl From<&Snapshot> for SnapshotFields {
    fn from(snapshot: &Snapshot) -> Self {
        let taken = i64::try_from(snapshot.taken.as_micros()).unwrap_or(i64::MAX);
        Self {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            virtual_size: snapshot.virtual_size,
            taken_at: units::moment(taken),
            vm_state_size: snapshot.vm_state_bytes,
        }
    }
}

impl From<&Bitmap> for BitmapFields {
    fn from(bitmap: &Bitmap) -> Self {
        Self {
            name: bitmap.name.clone(),
            granularity: bitmap.granularity,
            enabled: bitmap.enabled,
            in_use: bitmap.in_use,
            fault: bitmap.fault,
        }
    }
}

impl From<&Qcow2<'_>> for Qcow2Fields {
    fn from(image: &Qcow2<'_>) -> Self {
        let backing = image.backing();
        Self {
            version: image.version(),
            cluster_size: image.cluster_bytes(),
            subclusters: image.has_subclusters(),
            compression: match image.compression() {
                Compression::Deflate => "deflate",
                Compression::Zstd => "zstd",
            },
            refcount_bits: image.refcount_bits(),
            lazy_refcounts: image.has_lazy_refcounts(),
            dirty: image.is_dirty(),
            backing_file: backing.map(|backing| backing.name.clone()),
            backing_format: backing.and_then(|backing| backing.format.clone()),
            snapshots: image.snapshots().iter().map(SnapshotFields::from).collect(),
            bitmaps: image.bitmaps().iter().map(BitmapFields::from).collect(),
        }
    }
}

impl Report for Inspected {
    fn text(&self, verbose: bool) -> String {
        let size = |bytes| units::size_exact(bytes, verbose);
        let mut table = Table::of_pairs();
        table.pair("file", units::printable(&self.file));
        let version = self
            .qcow2
            .as_ref()
            .map(|qcow2| format!(", version {}", qcow2.version));
        table.pair(
            "format",
            format!("{}{}", self.format, version.unwrap_or_default()),
        );
        table.pair("length", size(self.virtual_size));
        table.pair("file size", size(self.file_size));
        let Some(qcow2) = &self.qcow2 else {
            return table.to_string();
        };
        table.pair("clusters", size(qcow2.cluster_size));
        table.pair("subclusters", if qcow2.subclusters { "yes" } else { "no" });
        table.pair("compression", qcow2.compression);
        if verbose {
            table.pair("refcount bits", qcow2.refcount_bits);
            table.pair(
                "lazy refcounts",
                if qcow2.lazy_refcounts { "yes" } else { "no" },
            );
        }
        if qcow2.dirty {
            table.pair(
                "dirty",
                "yes: it was not closed properly, its refcounts may be wrong",
            );
        }
        if let Some(name) = &qcow2.backing_file {
            let format = qcow2.backing_format.as_deref().unwrap_or("not told");
            let shown = format!("{name:?} (format: {format})");
            table.pair("backing file", units::printable(&shown));
        }
        let mut text = table.to_string();
        qcow2.add_lists(&mut text);
        text
    }
}

impl Qcow2Fields {
    fn add_lists(&self, text: &mut String) {
        if !self.snapshots.is_empty() {
            let head = [
                ("SNAPSHOT", Align::Left),
                ("NAME", Align::Left),
                ("LENGTH", Align::Right),
                ("TAKEN", Align::Left),
            ];
            let mut table = Table::with_head(head);
            for snapshot in &self.snapshots {
                table.row([
                    one_line(&snapshot.id),
                    one_line(&snapshot.name),
                    units::size(snapshot.virtual_size),
                    snapshot.taken_at.clone(),
                ]);
            }
            text.push_str(&format!("\n{table}"));
        }
        if !self.bitmaps.is_empty() {
            let head = [
                ("BITMAP", Align::Left),
                ("GRANULARITY", Align::Right),
                ("STATE", Align::Left),
            ];
            let mut table = Table::with_head(head);
            for bitmap in &self.bitmaps {
                table.row([
                    one_line(&bitmap.name),
                    units::size(bitmap.granularity),
                    bitmap
                        .fault
                        .unwrap_or("takes note of every write")
                        .to_owned(),
                ]);
            }
            text.push_str(&format!("\n{table}"));
        }
    }
}

/// Makes a text safe for a table.
fn one_line(text: &str) -> String {
    units::printable(&text.replace('\n', "\\n"))
}

impl Inspect {
    pub(crate) fn run(&self, context: &Context) -> Result<Outcome, Failure> {
        let file = RawDisk::open(&self.file)?;
        let name = || self.file.display().to_string();
        let format = match self.format.named() {
            Some(format) => format,
            None => DiskFormat::detect(&file).map_err(|source| EngineError::ReadSource {
                name: name(),
                offset: 0,
                source,
            })?,
        };
        let image = match format {
            DiskFormat::Raw => None,
            DiskFormat::Qcow2 => Some(Qcow2::open(&file).map_err(|source| EngineError::Qcow2 {
                name: name(),
                source,
            })?),
        };
        context.output.print(&Inspected {
            file: name(),
            format: format.to_string(),
            virtual_size: image.as_ref().map_or(file.bytes(), Qcow2::virtual_size),
            file_size: file.bytes(),
            qcow2: image.as_ref().map(Qcow2Fields::from),
        })?;
        Ok(Outcome::Done)
    }
}

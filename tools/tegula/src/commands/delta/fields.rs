//! What every report on a stream shows.

use crate::table::Table;
use crate::units;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tegula_engine::{
    DeltaEnd, DeltaReport, DeltaSummary, ImageName, RbdNames, RbdVersion, Recompress,
};

/// The forms of what turns one image into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A delta of ours
    Delta,
    /// As `rbd export-diff` writes it
    RbdV1,
    /// Its second version
    RbdV2,
}

impl Format {
    /// Returns the version, if it is one of Ceph's.
    pub(super) fn rbd(self) -> Option<RbdVersion> {
        match self {
            Self::Delta => None,
            Self::RbdV1 => Some(RbdVersion::V1),
            Self::RbdV2 => Some(RbdVersion::V2),
        }
    }
}

/// The form that is written.
#[derive(Debug, Args)]
pub(super) struct Form {
    /// The form to write
    #[arg(long, value_name = "FORM", default_value = "delta")]
    format: Format,

    /// The snapshot that an rbd diff is to say it starts from [default: BASE]
    #[arg(long, value_name = "SNAP")]
    from_snap: Option<String>,

    /// The snapshot that an rbd diff is to say it makes [default: IMAGE]
    #[arg(long, value_name = "SNAP")]
    to_snap: Option<String>,
}

impl Form {
    /// Returns the version and the names for it, if it is one of Ceph's, or says what does not go together.
    pub(super) fn rbd<'a>(
        &'a self,
        image: &'a ImageName,
    ) -> Result<Option<(RbdVersion, RbdNames<'a>)>, clap::Error> {
        let named = self.from_snap.is_some() || self.to_snap.is_some();
        match self.format.rbd() {
            None if named => {
                let message = "--from-snap and --to-snap are for --format rbd-v1 and rbd-v2";
                let kind = clap::error::ErrorKind::ArgumentConflict;
                Err(crate::usage::error(kind, message))
            }
            None => Ok(None),
            Some(version) => {
                let names = RbdNames {
                    from: self.from_snap.as_deref(),
                    to: Some(self.to_snap.as_deref().unwrap_or(image.as_str())),
                };
                Ok(Some((version, names)))
            }
        }
    }
}

/// The pair of images a stream is made of.
#[derive(Debug, Args)]
pub(super) struct Pair {
    /// The image to start from, then the one to make; or, with --full, only the latter
    #[arg(value_names = ["BASE", "IMAGE"], num_args = 1..=2, required = true, value_parser = ImageName::parse)]
    images: Vec<ImageName>,

    /// Hold all of IMAGE, so that no base is needed
    #[arg(long)]
    full: bool,

    /// Whether to compress chunks as what differs from BASE's in the same block, wherever that is shorter
    #[arg(long, value_name = "WHEN", default_value = "auto", default_missing_value = "always", num_args = 0..=1, require_equals = true, conflicts_with = "full")]
    recompress: When,
}

/// When chunks are compressed anew that could go out as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// If the delta carries at most 1,024 chunks
    Auto,
    /// However many there are
    Always,
    /// Only those that the receiver could not use otherwise
    Never,
}

impl Pair {
    pub(super) fn recompress(&self) -> Recompress {
        match self.recompress {
            When::Auto => Recompress::IfSmall,
            When::Always => Recompress::SameBlock,
            When::Never => Recompress::Needed,
        }
    }

    /// Returns base and image, or says what is wrong.
    pub(super) fn images(&self) -> Result<(Option<&ImageName>, &ImageName), clap::Error> {
        use clap::error::ErrorKind;
        match (self.images.as_slice(), self.full) {
            ([base, image], false) => Ok((Some(base), image)),
            ([image], true) => Ok((None, image)),
            ([_], false) => Err(crate::usage::error(
                ErrorKind::MissingRequiredArgument,
                "name BASE and IMAGE, or use --full for a delta that needs no base",
            )),
            _ => Err(crate::usage::error(
                ErrorKind::TooManyValues,
                "with --full there is no BASE: name IMAGE alone",
            )),
        }
    }
}

/// A stream: what it turns into what, and what it holds.
#[derive(Debug, Serialize)]
pub(super) struct StreamFields {
    block_size: u32,
    base_size: Option<u64>,
    base_digest: Option<String>,
    size: u64,
    digest: String,
    data_blocks: u64,
    zero_blocks: u64,
    records: u64,
    record_bytes: u64,
    pub(super) bytes: u64,
}

impl StreamFields {
    fn new(base: Option<DeltaEnd>, target: DeltaEnd, block_size: u32) -> Self {
        Self {
            block_size,
            base_size: base.map(|base| base.virtual_size),
            base_digest: base.map(|base| base.digest.to_string()),
            size: target.virtual_size,
            digest: target.digest.to_string(),
            data_blocks: 0,
            zero_blocks: 0,
            records: 0,
            record_bytes: 0,
            bytes: 0,
        }
    }

    /// Shows it as lines of a table.
    pub(super) fn lines(&self, verbose: bool) -> Table {
        let size = |bytes| units::size_exact(bytes, verbose);
        let block_size = u64::from(self.block_size);
        let mut table = Table::of_pairs();
        table.pair("  stream", size(self.bytes));
        let carried = units::count(self.records, "chunk", "chunks");
        table.pair(
            "  carries",
            format!("{carried}, {}", size(self.record_bytes)),
        );
        let changed = |blocks: u64| {
            let count = units::count(blocks, "block", "blocks");
            format!("{count}, {}", size(blocks * block_size))
        };
        table.pair("  changes", changed(self.data_blocks));
        table.pair("  zeroes", changed(self.zero_blocks));
        let end = |bytes: u64, digest: &str| format!("{digest}, {}", size(bytes));
        let base = self.base_digest.as_deref().zip(self.base_size);
        let base = base.map_or("nothing".to_owned(), |(digest, bytes)| end(bytes, digest));
        table.pair("  from", base);
        table.pair("  to", end(self.size, &self.digest));
        table
    }
}

impl From<&DeltaReport> for StreamFields {
    fn from(report: &DeltaReport) -> Self {
        Self {
            data_blocks: report.data_blocks,
            zero_blocks: report.zero_blocks,
            records: report.records,
            record_bytes: report.record_bytes,
            bytes: report.bytes,
            ..Self::new(report.base, report.target, report.block_size.bytes())
        }
    }
}

impl From<&DeltaSummary> for StreamFields {
    fn from(summary: &DeltaSummary) -> Self {
        Self {
            data_blocks: summary.data_blocks,
            zero_blocks: summary.zero_blocks,
            records: summary.records,
            record_bytes: summary.record_bytes,
            bytes: summary.bytes,
            ..Self::new(summary.base, summary.target, summary.block_size.bytes())
        }
    }
}

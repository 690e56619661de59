//! The part of `tegula put` that is about hints of what was changed.

use crate::units;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use tegula_engine::{Changed, ChangedFrom, HintChecks, HintFormat, HintReport, ImageDigest};

/// Who says what was changed, and how far that is to be believed.
#[derive(Debug, Args)]
pub(crate) struct ChangedOptions {
    /// Read only what this file says was changed since the parent
    #[arg(long, value_name = "FILE", requires = "parent")]
    changed: Option<PathBuf>,

    /// What the file is
    #[arg(
        long,
        value_name = "FORM",
        default_value = "auto",
        requires = "changed"
    )]
    changed_format: Form,

    /// Read only what this bitmap in a qcow2 file says was changed since the parent; not with --snapshot, since a bitmap is
    /// about the disk as it is now
    #[arg(
        long,
        value_name = "BITMAP",
        requires = "parent",
        conflicts_with = "changed",
        conflicts_with = "snapshot"
    )]
    changed_bitmap: Option<String>,

    /// The digest of the image that the hint was made against, if it does not say so itself
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    base_digest: Option<ImageDigest>,

    /// Compare everything all the same, and tell how many blocks the hint missed
    #[arg(long)]
    paranoid: bool,

    /// Compare that many of the blocks that the hint has unchanged, chosen at random
    #[arg(long, value_name = "N", default_value_t = 16)]
    sample: u32,
}

/// The forms of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// By what it looks like
    Auto,
    /// A JSON list of extents
    Extents,
    /// JSON of `qemu-img map`
    QemuMap,
    /// XML of `thin_delta`
    ThinDelta,
    /// JSON of `rbd diff`
    RbdJson,
}

impl ChangedOptions {
    /// Returns what was said, if anything was.
    pub(crate) fn changed(&self) -> Option<Changed<'_>> {
        let format = match self.changed_format {
            Form::Auto => HintFormat::Auto,
            Form::Extents => HintFormat::Extents,
            Form::QemuMap => HintFormat::QemuMap,
            Form::ThinDelta => HintFormat::ThinDelta,
            Form::RbdJson => HintFormat::Rbd,
        };
        let from = match (&self.changed, &self.changed_bitmap) {
            (Some(path), _) => ChangedFrom::File { path, format },
            (None, Some(bitmap)) => ChangedFrom::Bitmap(bitmap),
            (None, None) => return None,
        };
        Some(Changed {
            from,
            base: self.base_digest,
            checks: HintChecks {
                paranoid: self.paranoid,
                sample: self.sample,
            },
        })
    }
}

fn digest(text: &str) -> Result<ImageDigest, String> {
    ImageDigest::parse(text)
        .ok_or_else(|| "a digest has 64 hexadecimal digits, as `tegula show` prints it".to_owned())
}

/// What became of a hint.
#[derive(Debug, Serialize)]
pub(crate) struct HintFields {
    used: bool,
    reason: Option<String>,
    changed_bytes: u64,
    sampled_blocks: u64,
    missed_blocks: Option<u64>,
}

impl From<&HintReport> for HintFields {
    fn from(report: &HintReport) -> Self {
        Self {
            used: report.used,
            reason: report.reason.clone(),
            changed_bytes: report.changed_bytes,
            sampled_blocks: report.sampled_blocks,
            missed_blocks: report.missed_blocks,
        }
    }
}

impl HintFields {
    /// Returns it in a line.
    pub(crate) fn text(&self, verbose: bool) -> String {
        let changed = units::size_exact(self.changed_bytes, verbose);
        let missed = |missed| units::count(missed, "changed block", "changed blocks");
        match (self.used, self.missed_blocks) {
            (true, _) => format!("used: {changed} changed"),
            (false, Some(blocks)) => {
                format!("not used: {changed} changed; missed {}", missed(blocks))
            }
            (false, None) => "not used".to_owned(),
        }
    }
}

//! The formats of disk images, as arguments name them.

use clap::ValueEnum;
use tegula_engine::disk_formats::DiskFormat;

/// How a source is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SourceFormat {
    /// By its first bytes; standard input is raw
    Auto,
    /// The disk's bytes, whatever they look like
    Raw,
    /// QEMU's qcow2, versions 2 and 3
    Qcow2,
}

impl SourceFormat {
    /// Returns the format that was named; `None` if it is to be told by the first bytes.
    pub(crate) fn named(self) -> Option<DiskFormat> {
        match self {
            Self::Auto => None,
            Self::Raw => Some(DiskFormat::Raw),
            Self::Qcow2 => Some(DiskFormat::Qcow2),
        }
    }
}

/// How a destination is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetFormat {
    /// The disk's bytes
    Raw,
    /// QEMU's qcow2, version 3
    Qcow2,
}

impl From<TargetFormat> for DiskFormat {
    fn from(format: TargetFormat) -> Self {
        match format {
            TargetFormat::Raw => Self::Raw,
            TargetFormat::Qcow2 => Self::Qcow2,
        }
    }
}

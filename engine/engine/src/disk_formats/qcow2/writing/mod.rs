//! Writing qcow2: version 3, whole disks and overlays, compressed or not.
//!
//! What is not compressed has its place before a byte of it is read ([`Layout`]): such a file can be written in any
//! order, or from its first byte to its last. What is compressed is appended ([`Appender`]).

mod appender;
mod compressing;
mod head;
mod layout;
mod map;

pub(crate) use appender::Appender;
pub(crate) use compressing::Compressing;
pub(crate) use head::Head;
pub(crate) use layout::Layout;
pub(crate) use map::NewMap;

use super::Compression;
use crate::disk_formats::DiskFormat;
use std::fmt;

/// The size of a cluster: a power of two from 512 bytes to 2 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSize {
    bits: u32,
}

impl ClusterSize {
    /// What QEMU takes if nothing is said: 64 KiB.
    pub const DEFAULT: Self = Self { bits: 16 };

    /// Returns the size of so many bytes; `None` if it cannot be.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        let bits = bytes.checked_ilog2()?;
        (bytes.is_power_of_two() && super::header::CLUSTER_BITS.contains(&bits))
            .then_some(Self { bits })
    }

    /// Returns it in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self.bits
    }

    pub(crate) const fn bits(self) -> u32 {
        self.bits
    }

    pub(crate) fn as_usize(self) -> usize {
        1 << self.bits
    }
}

impl fmt::Display for ClusterSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bits {
            0..10 => write!(f, "{} B", self.bytes()),
            10..20 => write!(f, "{} KiB", self.bytes() >> 10),
            _ => write!(f, "{} MiB", self.bytes() >> 20),
        }
    }
}

/// How a file names the disk it lies over.
#[derive(Debug, Clone, Copy)]
pub struct BackingName<'a> {
    /// The name of its file, as whoever opens the overlay is to find it.
    pub name: &'a str,
    /// Its format.
    pub format: DiskFormat,
}

/// What kind of qcow2 file to write.
#[derive(Debug, Clone, Copy)]
pub struct Qcow2Options<'a> {
    /// The size of clusters.
    pub cluster_size: ClusterSize,
    /// How to compress them, if at all.
    pub compression: Option<Compression>,
    /// What the file lies over, if it is to hold only what differs.
    pub backing: Option<BackingName<'a>>,
}

/// Why an image cannot be written as such a qcow2 file.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2WriteError {
    /// The disk is too large for clusters of this size.
    #[error(
        "with clusters of {cluster_size} a disk has at most {limit} bytes, the image has {found}"
    )]
    TooLarge {
        /// The image's length.
        found: u64,
        /// The longest there can be.
        limit: u64,
        /// The size of clusters.
        cluster_size: ClusterSize,
    },
    /// The name of the backing file has no room in the header.
    #[error(
        "the backing file's name has {found} bytes, with clusters of {cluster_size} it may have {limit}"
    )]
    BackingName {
        /// Its length.
        found: u64,
        /// The longest that there is room for, 0 if not even an empty one can be told.
        limit: u64,
        /// The size of clusters.
        cluster_size: ClusterSize,
    },
    /// It can be written to a file only: what stands first in it is known last.
    #[error("compressed qcow2 is written to a file, not in order")]
    NotInOrder,
    /// It would have to replace what is on a device or in a file, which only raw disks do.
    #[error("qcow2 is written to a new file, not over {what}")]
    NotInPlace {
        /// What stands there.
        what: &'static str,
    },
}

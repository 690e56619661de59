//! Files that hold a disk in a format of their own: which one it is, and readers and writers for each.
//!
//! A reader gets the file as a [`BlockSource`], never a path, and what the file says can never make it open another
//! one. It trusts nothing in it: every length, count and offset is checked against the file and against limits before
//! it is used, and memory does not grow with what the file claims.

pub mod qcow2;

use crate::BlockSource;
use std::fmt;
use std::io;

/// How a file holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's copy-on-write format, versions 2 and 3.
    Qcow2,
}

impl DiskFormat {
    /// Tells a file's format by its first bytes. What has no known mark is raw.
    ///
    /// # Errors
    /// Whatever reading says.
    pub fn detect(file: &dyn BlockSource) -> io::Result<Self> {
        let mut magic = [0; 4];
        if file.bytes() < magic.len() as u64 {
            return Ok(Self::Raw);
        }
        file.read_at(&mut magic, 0)?;
        Ok(match magic == qcow2::MAGIC {
            true => Self::Qcow2,
            false => Self::Raw,
        })
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

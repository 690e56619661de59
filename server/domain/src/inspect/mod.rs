//! What the bytes of an image are, told while they go by, and whether they can be kept without danger for who uses them.
//!
//! An image's owner says which format it has; tools that find another one in it, or a name of a file in it, can be made to
//! read what is not the owner's to read (CVE-2015-5163, CVE-2022-47951, CVE-2024-32498). So every image is looked at before
//! anybody can have it.
//!
//! ```text
//!  pieces of any size ──► Inspector ──► Inspection ──► judge(claim, rules) ──► Judgement, or why not
//! ```
//!
//! An [`Inspector`] keeps what headers there are: the beginning, the last bytes, and what a VHDX file says where it is. That
//! is 450 KiB at the very most, however long the image is, and how the bytes were cut into pieces makes no difference. It
//! follows no path, decompresses nothing and believes no length before it is checked.

mod bytes;
mod cdrom;
mod collect;
mod judge;
mod luks;
mod partitions;
mod qcow2;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

pub use collect::Inspector;
pub use judge::{InspectionRules, Judgement, Refusal};

use std::fmt;

/// A format that is known by its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// QEMU's enhanced disk, which nobody makes any more.
    Qed,
    /// Connectix and Microsoft Virtual PC, Azure.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VMware.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// A file system of optical discs: ISO 9660 or UDF.
    Iso,
    /// A disk with a partition table, MBR or GPT.
    Gpt,
    /// An encrypted disk.
    Luks,
}

impl Format {
    /// Its name, as the Images API has it among the disk formats where there is one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Qed => "qed",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Iso => "iso",
            Self::Gpt => "gpt",
            Self::Luks => "luks",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong with bytes that are of a format, or why they are dangerous: names the field, what it holds and what it may
/// hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Flaw(String);

impl Flaw {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// One format that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub format: Format,
    /// The length of the disk in it, in bytes, if it can be used without danger.
    pub disk: Result<u64, Flaw>,
    /// Its kind, for formats that have several: a VMDK's `createType`, a VHD's `fixed` or `dynamic`.
    pub kind: Option<String>,
}

impl Found {
    fn new(format: Format, disk: Result<u64, Flaw>) -> Self {
        Self {
            format,
            disk,
            kind: None,
        }
    }

    fn of_kind(self, kind: impl Into<String>) -> Self {
        Self {
            kind: Some(kind.into()),
            ..self
        }
    }
}

/// What an [`Inspector`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// How many bytes there were.
    pub bytes: u64,
    /// Every format that they are in, in the order of [`Format`].
    pub found: Vec<Found>,
}

/// What of the bytes was kept.
#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    /// From the first byte on.
    head: &'a [u8],
    /// Up to the last.
    tail: &'a [u8],
    /// How many there were.
    bytes: u64,
    /// What was kept of a VHDX file's metadata.
    metadata: &'a collect::Metadata,
}

impl Inspection {
    fn of(seen: &Seen<'_>) -> Self {
        let found = [
            qcow2::look(seen),
            vhd::look(seen),
            vhdx::look(seen),
            vmdk::look(seen),
            vdi::look(seen),
            cdrom::look(seen),
            partitions::look(seen),
            luks::look(seen),
        ];
        let mut found: Vec<_> = found.into_iter().flatten().collect();
        found.sort_by_key(|found| found.format);
        Self {
            bytes: seen.bytes,
            found,
        }
    }
}

#[cfg(test)]
mod tests;

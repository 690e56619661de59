//! qcow2: QEMU's copy-on-write format, versions 2 and 3, read from the file alone.
//!
//! Read are: plain, zero and compressed clusters (deflate and zstd), subclusters, internal snapshots, persistent
//! bitmaps, overlays without the disk they lie over. Refused by name is what cannot be read from this file faithfully:
//! encryption, an external data file, features that are not known, a file that is marked as corrupt or is damaged.
//! Refcounts are not read: what is in use is told by the map, and a file marked dirty only has doubtful refcounts.
//!
//! Source: QEMU's docs/interop/qcow2.rst.

mod bitmaps;
mod compressed;
mod disk;
mod error;
mod file;
mod header;
mod map;
mod numbers;
mod snapshots;
mod writing;

pub use bitmaps::Bitmap;
pub use disk::Qcow2Disk;
pub use error::Qcow2Error;
pub use header::{Backing, Compression, MAGIC};
pub use snapshots::Snapshot;
pub(crate) use writing::{Appender, Compressing, Head, Layout, NewMap};
pub use writing::{BackingName, ClusterSize, Qcow2Options, Qcow2WriteError};

use crate::{BlockSource, ChangedBlocks};
use file::File;
use header::Header;
use map::Map;

/// Sets an entry of a table that is to be written.
pub(crate) fn set_entry(table: &mut [u8], index: u64, entry: u64) {
    let index = usize::try_from(index).expect("because tables are short");
    numbers::set_u64(table, index * 8, entry);
}

/// A qcow2 file: what it says of itself, checked.
#[derive(Debug)]
pub struct Qcow2<'a> {
    file: File<'a>,
    header: Header,
    snapshots: Vec<Snapshot>,
    bitmaps: Vec<Bitmap>,
}

impl<'a> Qcow2<'a> {
    /// Reads the header and the lists of snapshots and bitmaps. No cluster is looked at, and no other file.
    ///
    /// # Errors
    /// [`Qcow2Error`] names what cannot be read or is not as it must be.
    pub fn open(source: &'a dyn BlockSource) -> Result<Self, Qcow2Error> {
        let file = File::new(source);
        let mut header = Header::read(&file)?;
        let snapshots = snapshots::read(&file, &mut header)?;
        let bitmaps = bitmaps::read(&file, &header)?;
        Ok(Self {
            file,
            header,
            snapshots,
            bitmaps,
        })
    }

    /// Returns the version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.geometry.version
    }

    /// Returns the disk's length in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.header.virtual_size
    }

    /// Returns the length of a cluster in bytes.
    pub fn cluster_bytes(&self) -> u64 {
        self.header.geometry.cluster_bytes()
    }

    /// Tells whether clusters have subclusters.
    pub fn has_subclusters(&self) -> bool {
        self.header.geometry.extended_l2
    }

    /// Returns how clusters are compressed, those that are.
    pub fn compression(&self) -> Compression {
        self.header.geometry.compression
    }

    /// Returns the width of a refcount.
    pub fn refcount_bits(&self) -> u32 {
        self.header.refcount_bits
    }

    /// Tells whether refcounts are written late.
    pub fn has_lazy_refcounts(&self) -> bool {
        self.header.lazy_refcounts
    }

    /// Tells whether it was not closed properly: only its refcounts can be wrong, which are not needed to read it.
    pub fn is_dirty(&self) -> bool {
        self.header.dirty
    }

    /// Returns the disk that this one lies over, as it is named in the file. It is never opened.
    pub fn backing(&self) -> Option<&Backing> {
        self.header.backing.as_ref()
    }

    /// Returns the snapshots, in the file's order.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Returns the bitmaps, in the file's order; none if their list is out of date.
    pub fn bitmaps(&self) -> &[Bitmap] {
        &self.bitmaps
    }

    /// Returns the disk as it is now.
    pub fn disk(&self) -> Qcow2Disk<'a> {
        let map = Map {
            geometry: self.header.geometry,
            virtual_size: self.header.virtual_size,
            l1: self.header.l1,
            metadata: self.header.metadata.clone(),
        };
        Qcow2Disk::new(self.file.source(), map, self.header.backing.clone())
    }

    /// Returns the disk as it was when a snapshot was taken; `wanted` is its id, or else its name.
    ///
    /// # Errors
    /// [`Qcow2Error::SnapshotNotFound`], [`Qcow2Error::SnapshotAmbiguous`].
    pub fn snapshot_disk(&self, wanted: &str) -> Result<Qcow2Disk<'a>, Qcow2Error> {
        let snapshot = snapshots::find(&self.snapshots, wanted)?;
        let map = Map {
            geometry: self.header.geometry,
            virtual_size: snapshot.virtual_size,
            l1: snapshot.l1,
            metadata: self.header.metadata.clone(),
        };
        Ok(Qcow2Disk::new(
            self.file.source(),
            map,
            self.header.backing.clone(),
        ))
    }

    /// Returns what a bitmap says was written to the disk since the bitmap was made or last cleared.
    ///
    /// # Errors
    /// [`Qcow2Error::BitmapNotFound`]; [`Qcow2Error::BitmapUnusable`] if it is disabled, was not saved, or has data that
    /// we do not know.
    pub fn changed_blocks(&self, bitmap: &str) -> Result<ChangedBlocks, Qcow2Error> {
        let found = self.bitmaps.iter().find(|found| found.name == bitmap);
        let found = found.ok_or_else(|| Qcow2Error::BitmapNotFound {
            wanted: bitmap.to_owned(),
        })?;
        bitmaps::changed(&self.file, &self.header, found)
    }
}

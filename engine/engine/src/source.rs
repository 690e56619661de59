//! Where the bytes of a new image come from.

use crate::EngineError;
use std::fmt;
use std::io;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use tegula_io::{RawSource, Stamp};

/// What is known of a range of a disk before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes of its own, which may be zeros.
    Data,
    /// What the parent holds at the same place; zeros past the parent's end.
    Inherited,
}

/// A range of a disk with one kind of content, in bytes. What lies between extents reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceExtent {
    /// Where it lies; never empty.
    pub range: Range<u64>,
    /// What it holds.
    pub content: Content,
}

/// A disk that can be read anywhere, by several threads at once. Parsers of disk formats implement this over bytes
/// they are given; none of them ever gets a path.
///
/// What is [`Content::Inherited`] is not read but taken over from the parent. If the put has no parent it is read. In
/// a block that is inherited in part everything is read, unless [`Self::overlay_of`] says that it cannot be.
pub trait BlockSource: fmt::Debug + Sync {
    /// Returns what to call it in messages.
    fn name(&self) -> &str;

    /// Returns the disk's length in bytes.
    fn bytes(&self) -> u64;

    /// Returns what it calls the disk it lies over, if it is the upper part of a disk: then it cannot be put without a
    /// parent, and what it inherits cannot be read from it.
    fn overlay_of(&self) -> Option<&str> {
        None
    }

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the disk ends before; whatever else reading says, which for an overlay includes that it does
    /// not hold the bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns the extent that `from` lies in, from there on, or else the next one; `None` if all the rest reads as
    /// zeros. Neighbours may hold the same kind of content.
    ///
    /// # Errors
    /// Whatever the system says.
    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>>;

    /// Makes sure that the disk is still the one that was opened: asked after the last byte was read.
    ///
    /// # Errors
    /// [`EngineError::SourceChanged`].
    fn check_unchanged(&self) -> Result<(), EngineError>;
}

/// A source as a caller has it.
pub enum Source<'a> {
    /// A disk that can be read anywhere.
    Disk(&'a dyn BlockSource),
    /// Bytes that come once, in order, until they end.
    Stream(&'a mut (dyn Read + Send)),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(disk) => f.debug_tuple("Disk").field(disk).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A regular file or block device, taken as the bytes it holds: a raw disk, or the file that holds one in a format.
#[derive(Debug)]
pub struct RawDisk {
    name: String,
    source: RawSource,
    stamp: Stamp,
}

impl RawDisk {
    /// Opens a file or device.
    ///
    /// # Errors
    /// [`EngineError::Source`] if it cannot be opened or is something else; [`EngineError::ReadSource`].
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        let source = RawSource::open(path)?;
        let stamp = source.stamp().map_err(|source| EngineError::ReadSource {
            name: name.clone(),
            offset: 0,
            source,
        })?;
        Ok(Self {
            name,
            source,
            stamp,
        })
    }
}

impl BlockSource for RawDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.source.read_at(buffer, offset)
    }

    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        let data = self.source.next_data(from)?;
        Ok(data.map(|range| SourceExtent {
            range,
            content: Content::Data,
        }))
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        match self.source.stamp() {
            Ok(stamp) if stamp == self.stamp => Ok(()),
            Ok(_) => Err(EngineError::SourceChanged {
                name: self.name.clone(),
            }),
            Err(source) => Err(EngineError::ReadSource {
                name: self.name.clone(),
                offset: 0,
                source,
            }),
        }
    }
}

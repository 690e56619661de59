//! Where the bytes of a new image come from.

use crate::EngineError;
use std::fmt;
use std::io;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use tegula_io::{RawSource, Stamp};

/// A disk that can be read anywhere, by several threads at once. Parsers of disk formats implement this over bytes
/// they are given; none of them ever gets a path.
pub trait BlockSource: fmt::Debug + Sync {
    /// Returns what to call it in messages.
    fn name(&self) -> &str;

    /// Returns the disk's length in bytes.
    fn bytes(&self) -> u64;

    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the disk ends before; whatever else reading says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns the next range at or after `from` that may hold anything but zeros; `None` if there is none.
    ///
    /// # Errors
    /// Whatever the system says.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>>;

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

/// A regular file or block device, taken as the bytes it holds.
#[derive(Debug)]
pub(crate) struct RawDisk {
    name: String,
    source: RawSource,
    stamp: Stamp,
}

impl RawDisk {
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
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

    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.source.next_data(from)
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

//! What can go wrong with images.

use crate::DeltaError;
use crate::disk_formats::qcow2::{Qcow2Error, Qcow2WriteError};
use std::io;
use std::path::PathBuf;
use tegula_format::{BlockSize, ImageDigest, ImageName};
use tegula_io::{SourceError, TargetError};
use tegula_store::StoreError;

/// An error of the engine. Each variant is a decision its caller can make.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store says no, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A delta stream is not what it should be, or does not fit.
    #[error(transparent)]
    Delta(Box<DeltaError>),
    /// The store's directory cannot be used.
    #[error("cannot open {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The source cannot be a disk.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source could not be read.
    #[error("cannot read {name} at byte {offset}")]
    ReadSource {
        /// The source.
        name: String,
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The source is not a qcow2 file that can be read faithfully.
    #[error("{name} cannot be read as qcow2")]
    Qcow2 {
        /// The source.
        name: String,
        /// Why.
        source: Qcow2Error,
    },
    /// The image cannot be written as such a qcow2 file.
    #[error(transparent)]
    Qcow2Write(#[from] Qcow2WriteError),
    /// A raw source has no snapshots.
    #[error("{name} is raw: it has no snapshot {wanted:?}")]
    NoSnapshots {
        /// The source.
        name: String,
        /// The snapshot asked for.
        wanted: String,
    },
    /// The source did not stay as it was while it was read, so what was read is no state it ever had.
    #[error("{name} was changed while it was read")]
    SourceChanged {
        /// The source.
        name: String,
    },
    /// The source is the upper part of a disk, and nothing was said about the lower one.
    #[error("{name} is an overlay over {overlay_of:?}, which holds the rest of the disk")]
    ParentNeeded {
        /// The source.
        name: String,
        /// What it calls the disk it lies over.
        overlay_of: String,
    },
    /// The file with the hint of what was changed is not there, or cannot be read.
    #[error("{name}, which is to say what was changed, cannot be read")]
    Hint {
        /// The hint.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The source has no bitmaps.
    #[error("{name} is a raw disk, which has no bitmap {wanted:?}")]
    NoBitmaps {
        /// The source.
        name: String,
        /// The bitmap asked for.
        wanted: String,
    },
    /// The image is larger than blocks of this size can map.
    #[error("{name} has {found} bytes; with blocks of {block_size} an image has at most {limit}")]
    TooLarge {
        /// The source.
        name: String,
        /// Its length.
        found: u64,
        /// The longest there can be.
        limit: u64,
        /// The store's block size.
        block_size: BlockSize,
    },
    /// The destination cannot be written to as a disk.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The destination exists, and nothing was said about replacing it.
    #[error("{} exists", path.display())]
    DestinationExists {
        /// The destination.
        path: PathBuf,
    },
    /// The destination is a block device, and nothing was said about overwriting it.
    #[error("{} is a block device", path.display())]
    DestinationIsDevice {
        /// The destination.
        path: PathBuf,
    },
    /// The destination's device is too small.
    #[error("{} has {found} bytes, the image {needed}", path.display())]
    DestinationTooSmall {
        /// The destination.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The image's.
        needed: u64,
    },
    /// The destination could not be written.
    #[error("cannot write {name}")]
    WriteTarget {
        /// The destination.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The blocks that were read do not make up the image that was asked for.
    #[error("image {:?} has digest {expected}, its blocks give {found}", name.as_str())]
    DigestMismatch {
        /// The image.
        name: ImageName,
        /// The digest in its record.
        expected: ImageDigest,
        /// The digest of its blocks.
        found: ImageDigest,
    },
    /// A range reaches past the end of the image.
    #[error("bytes {offset} to {end} are not all in an image of {size} bytes")]
    OutOfImage {
        /// Where the range begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// The image's length.
        size: u64,
    },
    /// The caller asked to stop. Nothing was published.
    #[error("interrupted")]
    Interrupted,
}

impl From<DeltaError> for EngineError {
    fn from(error: DeltaError) -> Self {
        Self::Delta(Box::new(error))
    }
}

impl EngineError {
    /// Returns why a source could not be read at a byte of its disk: for what its format says, the reason itself.
    pub(crate) fn of_source(name: &str, offset: u64, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.downcast::<Qcow2Error>() {
            Ok(source) => Self::Qcow2 { name, source },
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::SourceChanged { name }
            }
            Err(source) => Self::ReadSource {
                name,
                offset,
                source,
            },
        }
    }

    /// Tells whether the store's content is damaged, or the disk does not give it back.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Store(error) => error.is_damage(),
            error => error.is_corruption(),
        }
    }

    /// Tells whether the store's content is damaged.
    pub fn is_corruption(&self) -> bool {
        match self {
            Self::Store(error) => error.is_corruption(),
            Self::DigestMismatch { .. } => true,
            _ => false,
        }
    }
}

//! What can go wrong in a store.

use crate::ChunkDamage;
use std::io;
use tegula_format::{ChunkId, Corruption, ImageDigest, ImageName, LayerId, SegmentNumber};
use tegula_io::StorePath;

/// An error of the store. Each variant is a decision its caller can make; the fields say what, where, found, expected.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage failed. After a failed write or sync the unfinished work is abandoned, nothing finished is touched.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file of the store.
        path: StorePath,
        /// What the storage said.
        source: io::Error,
    },
    /// A file of the store is damaged. `verify` tells how far it goes, `repair` mends what can be mended.
    #[error("{path} is damaged")]
    Corrupt {
        /// The file.
        path: StorePath,
        /// What is wrong with it.
        source: Corruption,
    },
    /// A file of the store needs a newer program. Nothing is damaged.
    #[error("{path} needs a newer tegula")]
    NeedsNewerProgram {
        /// The file.
        path: StorePath,
        /// What this program does not know.
        source: Corruption,
    },
    /// A directory of the store that holds what cannot be made again is missing.
    #[error("{path}/ is missing")]
    DirectoryMissing {
        /// The directory.
        path: StorePath,
    },
    /// An image could not be made durable under its name, and neither could it be taken back. The name has what it had
    /// before or the new image, whole.
    #[error(
        "image {:?} could not be published for certain, nor taken back: it is as before or the new one",
        name.as_str()
    )]
    PublishedInDoubt {
        /// The name.
        name: ImageName,
        /// Why it was not durable.
        source: Box<StoreError>,
    },
    /// The directory is no store.
    #[error("this directory is not a tegula store: it has no tegula.store")]
    NotAStore,
    /// A store cannot be made here.
    #[error("a store cannot be made here: {found}")]
    NotEmpty {
        /// What is in the way.
        found: String,
    },
    /// There is no image of that name.
    #[error("there is no image {name:?}")]
    ImageNotFound {
        /// The name.
        name: String,
    },
    /// There is an image of that name already.
    #[error("there is an image {:?} already", name.as_str())]
    ImageExists {
        /// The name.
        name: ImageName,
    },
    /// The image was replaced, renamed or removed by somebody else meanwhile.
    #[error("image {:?} was changed by somebody else meanwhile", name.as_str())]
    ImageChanged {
        /// The name.
        name: ImageName,
    },
    /// What was to become an image is not the image it was said to be. Nothing was published.
    #[error("the blocks have digest {found}, not {expected}")]
    OtherImage {
        /// The digest it was to have.
        expected: ImageDigest,
        /// The digest of its blocks.
        found: ImageDigest,
    },
    /// A chunk that an image needs stands nowhere in the store.
    #[error("chunk {id} is in no segment")]
    ChunkMissing {
        /// The chunk.
        id: ChunkId,
    },
    /// A chunk is there, but its bytes are not what they were.
    #[error("segment {segment} at {offset:#x}: chunk {id} is damaged")]
    ChunkDamaged {
        /// The segment.
        segment: SegmentNumber,
        /// Where its record begins.
        offset: u64,
        /// The chunk that should be there.
        id: ChunkId,
        /// What is wrong with it.
        source: ChunkDamage,
    },
    /// A layer that an image needs is not there.
    #[error("layer {id} is missing")]
    LayerMissing {
        /// The layer.
        id: LayerId,
    },
    /// Someone else is doing what only one may do.
    #[error("{what} is under way in another process")]
    Busy {
        /// What they are doing.
        what: &'static str,
    },
    /// The store is full: every segment number was given out.
    #[error("the store has no segment number left")]
    OutOfSegments,
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &StorePath) -> impl FnOnce(io::Error) -> Self {
        let path = path.clone();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn corrupt(path: &StorePath) -> impl FnOnce(Corruption) -> Self {
        let path = path.clone();
        move |source| match source.needs_newer_program() {
            true => Self::NeedsNewerProgram { path, source },
            false => Self::Corrupt { path, source },
        }
    }

    /// Tells whether the store's content is damaged (as opposed to a wrong request or a failing device).
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::Corrupt { .. }
                | Self::ChunkMissing { .. }
                | Self::ChunkDamaged { .. }
                | Self::LayerMissing { .. }
                | Self::DirectoryMissing { .. }
        )
    }

    /// Tells whether what was asked for cannot be read as it stands: damaged, gone, on a bad place of the disk, or of a
    /// newer format, which damage to a version number looks like.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.is_undecodable() || self.is_bad_medium()
    }

    /// Tells the same of what could be read and makes no sense.
    pub(crate) fn is_undecodable(&self) -> bool {
        self.is_corruption() || matches!(self, Self::NeedsNewerProgram { .. })
    }

    /// Tells whether something is damaged, be it by the disk's own account: whole but of a newer format is not.
    pub fn is_damage(&self) -> bool {
        self.is_corruption() || self.is_bad_medium() || self.is_unlistable()
    }

    /// Tells whether the medium does not give a directory's entries, or what has its name is no directory. Not unreadable as
    /// one file is: what stands there is not known, so nobody goes on without it.
    pub fn is_unlistable(&self) -> bool {
        matches!(self, Self::Io { action: "list", source, .. } if tegula_io::is_bad_medium(source))
    }

    /// Tells whether the medium does not give a file's bytes back, or what has the file's name is no file. What the
    /// process lacks (descriptors, memory, permission) says nothing about the medium.
    pub(crate) fn is_bad_medium(&self) -> bool {
        let Self::Io {
            action: "open" | "read" | "map",
            source,
            ..
        } = self
        else {
            return false;
        };
        tegula_io::is_bad_medium(source)
    }

    /// Tells whether a record is at fault only in what it stands on: when that is whole again, so is the chunk.
    pub(crate) fn is_for_want_of_a_base(&self) -> bool {
        let damage = |source: &ChunkDamage| {
            matches!(source, ChunkDamage::Base { .. } | ChunkDamage::TooDeep)
        };
        matches!(self, Self::ChunkDamaged { source, .. } if damage(source))
    }

    /// Tells whether a file was simply not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

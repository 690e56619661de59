//! What can go wrong with deltas.

use std::io;
use tegula_format::{BlockSize, ChunkId, Corruption, DeltaEnd, ImageDigest};
use tegula_store::ChunkDamage;

/// An error of a delta. Each variant is a decision its caller can make.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// The stream could not be read.
    #[error("cannot read {name} at byte {offset}")]
    Read {
        /// The stream.
        name: String,
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The stream is no delta, or damaged.
    #[error("{name} at byte {offset}")]
    Damaged {
        /// The stream.
        name: String,
        /// Where the structure begins that is wrong.
        offset: u64,
        /// What is wrong with it.
        source: Corruption,
    },
    /// A chunk of the stream is not what it should be.
    #[error("{name} at byte {offset}: chunk {id} is damaged")]
    Chunk {
        /// The stream.
        name: String,
        /// Where its record begins.
        offset: u64,
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        source: ChunkDamage,
    },
    /// The stream and the store are made of blocks of different size.
    #[error("{name} has blocks of {found}, the store blocks of {expected}")]
    OtherBlockSize {
        /// The stream.
        name: String,
        /// The stream's block size.
        found: BlockSize,
        /// The store's.
        expected: BlockSize,
    },
    /// The store does not have the image that the delta starts from.
    #[error(
        "{name} starts from the image with digest {} ({} bytes), and no image here has it",
        base.digest, base.virtual_size
    )]
    BaseMissing {
        /// The stream.
        name: String,
        /// The image that it starts from.
        base: DeltaEnd,
    },
    /// The stream names a chunk that it does not carry and the base does not have.
    #[error("{name} names chunk {id}, which it does not carry and its base does not have")]
    ChunkNotCarried {
        /// The stream.
        name: String,
        /// The chunk.
        id: ChunkId,
    },
    /// The stream's blocks do not make up the image that it names.
    #[error("{name} makes an image with digest {found}, not {expected} as it says")]
    OtherTarget {
        /// The stream.
        name: String,
        /// The digest in its header.
        expected: ImageDigest,
        /// The digest of what it makes.
        found: ImageDigest,
    },
}

impl DeltaError {
    /// Tells whether the stream is not what it claims to be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Chunk { .. }
                | Self::ChunkNotCarried { .. }
                | Self::OtherTarget { .. }
        )
    }
}

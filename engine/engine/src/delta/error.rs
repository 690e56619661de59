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
    /// The stream starts from another image than it was to start from.
    #[error(
        "{name} starts from {}, and was to start from {}",
        image_of(*found), image_of(*expected)
    )]
    OtherBase {
        /// The stream.
        name: String,
        /// The digest of the image that it was to start from, if of any.
        expected: Option<ImageDigest>,
        /// The digest of the image that it starts from, if from any.
        found: Option<ImageDigest>,
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
    /// A record is not what it was when the stream was promised: it was damaged since, and what else there is of the chunk
    /// has another length.
    #[error("chunk {id} can no longer be read as it stood when its delta was promised")]
    NotAsPromised {
        /// The chunk.
        id: ChunkId,
    },
    /// The difference is no rbd diff, or one that cannot be.
    #[error("{name} at byte {offset}: {reason}")]
    Rbd {
        /// The difference.
        name: String,
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The rbd diff starts from a snapshot, and no image was named as that.
    #[error("{name} starts from the snapshot {snapshot:?}, and no image was named that holds it")]
    RbdBaseNeeded {
        /// The difference.
        name: String,
        /// The snapshot; what is not UTF-8 is replaced.
        snapshot: String,
    },
    /// The rbd diff starts from a snapshot, which nothing on a disk can be compared with.
    #[error(
        "{name} starts from the snapshot {snapshot:?} and says neither what that holds nor what comes of it: \
         nobody can check that {disk} is that"
    )]
    RbdUnverified {
        /// The difference.
        name: String,
        /// The snapshot; what is not UTF-8 is replaced.
        snapshot: String,
        /// The disk.
        disk: String,
    },
    /// The rbd diff starts from nothing, and an image was named as its base.
    #[error("{name} starts from nothing: no image can be its base")]
    RbdWithoutBase {
        /// The difference.
        name: String,
    },
    /// There is nothing to merge.
    #[error("there is no delta to merge")]
    NothingToMerge,
    /// Of two streams the second does not begin where the first ends.
    #[error(
        "{after} does not begin where {before} ends: {before} makes the image with digest {target}, {after} starts from {}",
        base.map_or("nothing".to_owned(), |base| base.to_string())
    )]
    DoesNotFollow {
        /// The stream before.
        before: String,
        /// The stream after.
        after: String,
        /// What the first makes.
        target: ImageDigest,
        /// What the second starts from.
        base: Option<ImageDigest>,
    },
    /// Too many records would build on each other.
    #[error("{name}: more than 64 chunks in a row would build on each other, from chunk {id} down")]
    BuildsTooDeep {
        /// The stream.
        name: String,
        /// The chunk.
        id: ChunkId,
    },
    /// The disk is not the image that the delta starts from.
    #[error(
        "{disk} is not the image that {name} starts from: it has digest {found}, not {expected}"
    )]
    OtherDisk {
        /// The disk.
        disk: String,
        /// The stream.
        name: String,
        /// The base's digest.
        expected: ImageDigest,
        /// The disk's.
        found: ImageDigest,
    },
    /// The disk has not the length of the image that the delta starts from.
    #[error("{disk} has {found} bytes, the image that {name} starts from has {expected}")]
    OtherLength {
        /// The disk.
        disk: String,
        /// The stream.
        name: String,
        /// The base's length.
        expected: u64,
        /// The disk's.
        found: u64,
    },
    /// The stream starts from nothing, and the disk is something.
    #[error("{name} starts from nothing and would overwrite all of {disk}")]
    StartsFromNothing {
        /// The disk.
        disk: String,
        /// The stream.
        name: String,
    },
    /// The disk was changed by somebody else while the delta was applied.
    #[error("{disk} has digest {found} after all was written, not {expected}")]
    DiskDiffers {
        /// The disk.
        disk: String,
        /// The target's digest.
        expected: ImageDigest,
        /// The disk's.
        found: ImageDigest,
    },
    /// The disk is a device, and nothing durable can be kept beside it.
    #[error("{disk} is a block device, and no place was named for its journal")]
    JournalNeeded {
        /// The disk.
        disk: String,
    },
    /// The journal could not be read or written.
    #[error("journal {path}")]
    Journal {
        /// The journal.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process is applying a delta with this journal.
    #[error("journal {path} is in use by another process")]
    JournalBusy {
        /// The journal.
        path: String,
    },
    /// The journal belongs to another delta or another disk, to which that delta was applied in part.
    #[error("journal {path} is that of another {of}")]
    JournalOfAnother {
        /// The journal.
        path: String,
        /// What is another one: the delta, or the disk.
        of: &'static str,
    },
    /// The file that is to be the journal is something else.
    #[error("{path} is no journal of ours")]
    NotAJournal {
        /// The file.
        path: String,
    },
    /// The journal is damaged.
    #[error("journal {path} is damaged")]
    JournalDamaged {
        /// The journal.
        path: String,
        /// What is wrong with it.
        source: Corruption,
    },
}

fn image_of(digest: Option<ImageDigest>) -> String {
    digest.map_or("nothing".to_owned(), |digest| {
        format!("the image with digest {digest}")
    })
}

impl DeltaError {
    /// Tells whether the stream is not what it claims to be.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Rbd { .. }
                | Self::Chunk { .. }
                | Self::ChunkNotCarried { .. }
                | Self::OtherTarget { .. }
        )
    }
}

//! The identity of an image: what its bytes are, however they are layered (SPEC 8).

use crate::{BlockSize, ChunkId, Hex};
use std::fmt;

/// Blocks whose ids are hashed together into one node of the tree's lower level.
pub const DIGEST_GROUP_BLOCKS: u64 = 1024;

const GROUP_CONTEXT: &str = "tegula 2026-11-22 image digest group v1";
const ROOT_CONTEXT: &str = "tegula 2026-11-22 image digest root v1";

/// What stands for a block that reads as zeros. No chunk has this id but by finding a preimage.
const ZERO_BLOCK: [u8; 32] = [0; 32];

/// A two-level BLAKE3 tree over an image's size, block size and the chunk id of every block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    /// Takes 32 bytes that were read for a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageDigest({self})")
    }
}

/// Computes an [`ImageDigest`] from chunk ids in block order. Runs of zero blocks cost one step a group.
#[derive(Debug)]
pub struct ImageDigester {
    root: blake3::Hasher,
    group: blake3::Hasher,
    in_group: u64,
    /// Whether every block of the current group reads as zeros; those are counted, not yet hashed.
    zeros_only: bool,
    zero_group: [u8; 32],
}

impl ImageDigester {
    /// Begins a digest.
    pub fn new(virtual_size: u64, block_size: BlockSize) -> Self {
        let mut root = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        root.update(&virtual_size.to_le_bytes());
        root.update(&block_size.bytes().to_le_bytes());
        let group = blake3::Hasher::new_derive_key(GROUP_CONTEXT);
        let mut zeros = group.clone();
        for _ in 0..DIGEST_GROUP_BLOCKS {
            zeros.update(&ZERO_BLOCK);
        }
        let zero_group = *zeros.finalize().as_bytes();
        Self {
            root,
            group,
            in_group: 0,
            zeros_only: true,
            zero_group,
        }
    }

    /// Adds the next block, which holds data.
    pub fn push_data(&mut self, id: &ChunkId) {
        self.hash_pending_zeros();
        self.group.update(id.as_bytes());
        self.count(1);
    }

    /// Adds the next `blocks` blocks, which read as zeros.
    pub fn push_zeros(&mut self, mut blocks: u64) {
        while blocks > 0 {
            let step = blocks.min(DIGEST_GROUP_BLOCKS - self.in_group);
            if !self.zeros_only {
                self.hash_zeros(step);
            }
            self.count(step);
            blocks -= step;
        }
    }

    /// Returns the digest of all blocks that were added.
    pub fn finish(mut self) -> ImageDigest {
        if self.in_group > 0 {
            self.hash_pending_zeros();
            self.close_group();
        }
        ImageDigest(*self.root.finalize().as_bytes())
    }

    fn hash_pending_zeros(&mut self) {
        if self.zeros_only {
            self.hash_zeros(self.in_group);
            self.zeros_only = false;
        }
    }

    fn hash_zeros(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.group.update(&ZERO_BLOCK);
        }
    }

    fn count(&mut self, blocks: u64) {
        self.in_group += blocks;
        if self.in_group == DIGEST_GROUP_BLOCKS {
            self.close_group();
        }
    }

    fn close_group(&mut self) {
        if self.zeros_only {
            self.root.update(&self.zero_group);
        } else {
            self.root.update(self.group.finalize().as_bytes());
            self.group.reset();
        }
        self.in_group = 0;
        self.zeros_only = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same tree, as the specification words it: every block's 32 bytes, group by group.
    fn by_the_book(virtual_size: u64, blocks: &[Option<ChunkId>]) -> ImageDigest {
        let mut root = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        root.update(&virtual_size.to_le_bytes());
        root.update(&65_536u32.to_le_bytes());
        for group in blocks.chunks(1024) {
            let ids: Vec<u8> = group
                .iter()
                .flat_map(|id| id.map_or([0; 32], |id| *id.as_bytes()))
                .collect();
            root.update(&blake3::derive_key(GROUP_CONTEXT, &ids));
        }
        ImageDigest(*root.finalize().as_bytes())
    }

    proptest! {
        #[test]
        fn zero_runs_take_a_short_cut_to_the_same_digest(runs in prop::collection::vec((any::<bool>(), 1u64..3000), 0..6)) {
            let mut digester = ImageDigester::new(77, BlockSize::DEFAULT);
            let mut blocks = Vec::new();
            for (data, length) in runs {
                if data {
                    for n in 0..length {
                        let id = ChunkId::of(&n.to_le_bytes());
                        digester.push_data(&id);
                        blocks.push(Some(id));
                    }
                } else {
                    digester.push_zeros(length);
                    blocks.extend((0..length).map(|_| None));
                }
            }
            prop_assert_eq!(digester.finish(), by_the_book(77, &blocks));
        }
    }
}

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

    /// Reads the hexadecimal form.
    pub fn parse(text: &str) -> Option<Self> {
        Hex::parse(text).map(Self)
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

/// A node of the lower level: the hash of the ids of a group of blocks.
pub type DigestGroup = [u8; 32];

/// Computes the nodes of the lower level for consecutive blocks, the first of which begins a group. Groups do not depend
/// on each other: parts of a large image may be computed at the same time.
#[derive(Debug)]
pub struct GroupDigester {
    begun: blake3::Hasher,
    /// The ids of the group so far; of one in which every block reads as zeros, none.
    ids: Vec<u8>,
    /// Blocks of the group so far.
    in_group: u64,
    zero_group: DigestGroup,
    groups: Vec<DigestGroup>,
}

impl Default for GroupDigester {
    fn default() -> Self {
        let begun = blake3::Hasher::new_derive_key(GROUP_CONTEXT);
        let mut zeros = begun.clone();
        for _ in 0..DIGEST_GROUP_BLOCKS {
            zeros.update(&ZERO_BLOCK);
        }
        let zero_group = *zeros.finalize().as_bytes();
        Self {
            begun,
            ids: Vec::with_capacity(GROUP_BYTES),
            in_group: 0,
            zero_group,
            groups: Vec::new(),
        }
    }
}

/// Bytes of the ids of a whole group.
const GROUP_BYTES: usize = 32 << 10;

impl GroupDigester {
    /// Adds the next block, which holds the chunk of this id.
    pub fn push_data(&mut self, id: &[u8; 32]) {
        self.write_pending_zeros();
        self.ids.extend_from_slice(id);
        self.count(1);
    }

    /// Adds the next `blocks` blocks, which read as zeros. Runs of them cost one step a group.
    pub fn push_zeros(&mut self, mut blocks: u64) {
        while blocks > 0 {
            let step = blocks.min(DIGEST_GROUP_BLOCKS - self.in_group);
            let before = self.in_group;
            if !self.ids.is_empty() {
                self.write_zeros_to(before + step);
            }
            self.count(step);
            blocks -= step;
        }
    }

    /// Returns the nodes of all blocks that were added. Only at the end of an image may the last group be short.
    pub fn finish(mut self) -> Vec<DigestGroup> {
        self.close_short();
        self.groups
    }

    fn write_pending_zeros(&mut self) {
        self.write_zeros_to(self.in_group);
    }

    fn write_zeros_to(&mut self, blocks: u64) {
        let bytes = usize::try_from(blocks * 32).expect("because a group is short");
        if self.ids.len() < bytes {
            self.ids.resize(bytes, 0);
        }
    }

    fn count(&mut self, blocks: u64) {
        self.in_group += blocks;
        if self.in_group == DIGEST_GROUP_BLOCKS {
            self.close();
        }
    }

    fn close_short(&mut self) {
        if self.in_group > 0 {
            self.write_pending_zeros();
            self.close();
        }
    }

    fn close(&mut self) {
        let group = match self.ids.is_empty() {
            true => self.zero_group,
            false => *self.begun.clone().update(&self.ids).finalize().as_bytes(),
        };
        self.groups.push(group);
        self.ids.clear();
        self.in_group = 0;
    }
}

/// Computes an [`ImageDigest`] from chunk ids in block order. Runs of zero blocks cost one step a group.
#[derive(Debug)]
pub struct ImageDigester {
    root: blake3::Hasher,
    groups: GroupDigester,
}

impl ImageDigester {
    /// Begins a digest.
    pub fn new(virtual_size: u64, block_size: BlockSize) -> Self {
        let mut root = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        root.update(&virtual_size.to_le_bytes());
        root.update(&block_size.bytes().to_le_bytes());
        let groups = GroupDigester::default();
        Self { root, groups }
    }

    /// Adds the next block, which holds data.
    pub fn push_data(&mut self, id: &ChunkId) {
        self.groups.push_data(id.as_bytes());
        self.take_groups();
    }

    /// Adds the next `blocks` blocks, which read as zeros.
    pub fn push_zeros(&mut self, blocks: u64) {
        self.groups.push_zeros(blocks);
        self.take_groups();
    }

    /// Adds the next blocks by the nodes that a [`GroupDigester`] has computed of them.
    ///
    /// # Panics
    /// If the blocks before do not end with a group.
    pub fn push_groups(&mut self, groups: &[DigestGroup]) {
        assert_eq!(self.groups.in_group, 0, "groups follow whole groups");
        groups.iter().for_each(|group| _ = self.root.update(group));
    }

    /// Returns the digest of all blocks that were added.
    pub fn finish(mut self) -> ImageDigest {
        self.groups.close_short();
        self.take_groups();
        ImageDigest(*self.root.finalize().as_bytes())
    }

    fn take_groups(&mut self) {
        for group in self.groups.groups.drain(..) {
            self.root.update(&group);
        }
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
            let expected = by_the_book(77, &blocks);
            prop_assert_eq!(digester.finish(), expected);
            // The same in parts that are computed apart.
            let mut digester = ImageDigester::new(77, BlockSize::DEFAULT);
            for part in blocks.chunks(2048) {
                let mut groups = GroupDigester::default();
                for block in part {
                    match block {
                        Some(id) => groups.push_data(id.as_bytes()),
                        None => groups.push_zeros(1),
                    }
                }
                digester.push_groups(&groups.finish());
            }
            prop_assert_eq!(digester.finish(), expected);
        }
    }
}

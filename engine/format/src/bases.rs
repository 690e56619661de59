//! The chunks that a frame has as its prefix (SPEC 4.2), and what a store's configuration says of its chunks.

use crate::{BlockSize, ChunkId, Corruption, Structure};

/// The most chunks a frame can have as its prefix.
pub const BASES_MAX: usize = 2;

/// How many prefix frames a reader follows from one to the next before it gives up. Writers make a single one: their
/// bases are plain. More comes about only where writers replace each other's chunks at the same time.
pub const BASE_DEPTH_MAX: u32 = 4;

/// The bytes that the first base's bytes must not begin with: zstd would take the prefix for a dictionary in its own
/// format (RFC 8878, section 5).
pub const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// Bytes of an id.
const ID_BYTES: usize = 32;

/// The chunks whose bytes, one behind the other, are the prefix of a frame: none for a plain frame, at most two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bases {
    ids: [ChunkId; BASES_MAX],
    count: u8,
}

impl Bases {
    /// No base: a chunk that stands by itself.
    pub const NONE: Self = Self {
        ids: [ChunkId::from_bytes([0; ID_BYTES]); BASES_MAX],
        count: 0,
    };

    /// Names the bases of a frame, in their order; `None` if there are more than [`BASES_MAX`].
    pub fn new(ids: &[ChunkId]) -> Option<Self> {
        let mut bases = Self::NONE;
        bases.count = u8::try_from(ids.len()).ok()?;
        bases.ids.get_mut(..ids.len())?.copy_from_slice(ids);
        Some(bases)
    }

    /// Returns the ids in the order in which their bytes make the prefix.
    pub fn ids(&self) -> &[ChunkId] {
        self.ids
            .get(..usize::from(self.count))
            .expect("because new() checked the count")
    }

    /// Returns how many there are.
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// Tells whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the ids' bytes.
    pub(crate) fn as_bytes(&self) -> impl Iterator<Item = &[u8; ID_BYTES]> {
        self.ids().iter().map(ChunkId::as_bytes)
    }

    /// Reads the ids of `count` bases of chunk `of` at the start of `bytes`.
    pub(crate) fn decode(
        what: Structure,
        of: &ChunkId,
        count: u8,
        bytes: &[u8],
    ) -> Result<Self, Corruption> {
        let mut bases = Self::NONE;
        for slot in bases.ids.iter_mut().take(usize::from(count)) {
            let at = usize::from(bases.count) * ID_BYTES;
            let id = bytes.get(at..).and_then(|rest| rest.first_chunk());
            let Some(id) = id else {
                return Err(Corruption::Truncated {
                    what,
                    need: u64::from(count) * ID_BYTES as u64,
                    have: bytes.len() as u64,
                });
            };
            *slot = ChunkId::from_bytes(*id);
            bases.count += 1;
        }
        bases.check(what, of).map(|()| bases)
    }

    /// Refuses what cannot be decoded or gains nothing: a chunk based on itself, or twice on the same.
    fn check(&self, what: Structure, of: &ChunkId) -> Result<(), Corruption> {
        let refused = |position: usize, expected| Corruption::Field {
            what,
            field: "base",
            found: position as u64,
            expected,
        };
        let ids = self.ids();
        for (position, id) in ids.iter().enumerate() {
            if id == of {
                return Err(refused(position, "another chunk than the record's own"));
            }
            if ids.iter().take(position).any(|before| before == id) {
                return Err(refused(position, "another chunk than the base before"));
            }
        }
        Ok(())
    }
}

/// What a store's configuration says of its chunks: what a decoder holds records and tables against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRules {
    /// The bytes of every chunk.
    pub block_size: BlockSize,
    /// Whether a chunk may be a frame that has others as its prefix.
    pub prefix_frames: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_two_bases_can_be_named() {
        let ids: Vec<_> = (0..3u8).map(|n| ChunkId::of(&[n])).collect();
        for count in 0..=BASES_MAX {
            let bases = Bases::new(&ids[..count]).unwrap();
            assert_eq!(bases.ids(), &ids[..count]);
        }
        assert_eq!(Bases::new(&ids), None);
    }
}

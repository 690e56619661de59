//! What a chunk resembles: a few numbers drawn from its content (SPEC 5.4).
//!
//! A number is drawn at every place where the last 64 bytes hash low, whatever their offset in the block: content that
//! stands elsewhere in another chunk, shifted by any number of bytes, draws the same numbers there. Chunks that share
//! numbers share content, nearly always. Nothing depends on it but how well frames with bases compress.

use crate::{BlockSize, ChunkId};
use std::sync::LazyLock;

/// The most features of one chunk; the lowest stand for it.
pub const FEATURES_MAX: usize = 64;

/// As a power of two, about how many places of a block are drawn from.
const PLACES_LOG2: u8 = 5;

/// One number for each value of a byte: what a rolling hash adds up.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut bytes = [0; 2048];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"tegula gear 1");
    hasher.finalize_xof().fill(&mut bytes);
    let mut gear = [0; 256];
    for (number, bytes) in gear.iter_mut().zip(bytes.as_chunks().0) {
        *number = u64::from_le_bytes(*bytes);
    }
    gear
});

/// A number drawn from a chunk's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feature(u32);

impl Feature {
    /// Takes a number read from a store for a feature.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The features of one chunk, ascending and distinct, at most [`FEATURES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sketch(Vec<Feature>);

impl Sketch {
    /// Draws the features of a whole block. About 32 whatever its size; none from a block of one byte repeated.
    pub fn of(block: &[u8], block_size: BlockSize) -> Self {
        let gear = &*GEAR;
        // The low part of all hashes from which about 2^PLACES_LOG2 places of a block are drawn.
        let below = 1u64 << (64 - u32::from(block_size.log2() - PLACES_LOG2));
        let step = |hash: u64, byte: u8| {
            let number = gear.get(usize::from(byte));
            (hash << 1).wrapping_add(*number.expect("because a byte has 256 values"))
        };
        let mut places = Vec::with_capacity(FEATURES_MAX);
        // Four quarters at once: one hash has to wait for the one before it, four do not wait for each other. Each
        // begins with the 64 bytes before it, more than which no hash remembers.
        let quarter = block.len().div_ceil(4).max(1);
        let mut lanes = [const { &[] as &[u8] }; 4];
        lanes
            .iter_mut()
            .zip(block.chunks(quarter))
            .for_each(|(lane, part)| *lane = part);
        let warm = |lane: usize| {
            let start = (lane * quarter).min(block.len());
            let before = block.get(start.saturating_sub(64)..start);
            before
                .unwrap_or_default()
                .iter()
                .fold(0, |hash, byte| step(hash, *byte))
        };
        let mut hashes = [warm(0), warm(1), warm(2), warm(3)];
        let [one, two, three, four] = lanes;
        let whole = one.iter().zip(two).zip(three).zip(four);
        for (((a, b), c), d) in whole {
            for (hash, byte) in hashes.iter_mut().zip([*a, *b, *c, *d]) {
                *hash = step(*hash, byte);
                if *hash < below {
                    places.push(Self::feature(*hash));
                }
            }
        }
        // The last quarter of a length that is no multiple of four is shorter than the others.
        for (hash, lane) in hashes.iter_mut().zip([one, two, three]) {
            for byte in lane.get(four.len()..).unwrap_or_default() {
                *hash = step(*hash, *byte);
                if *hash < below {
                    places.push(Self::feature(*hash));
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        places.truncate(FEATURES_MAX);
        Self(places)
    }

    fn feature(hash: u64) -> Feature {
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Feature(u32::try_from(spread >> 32).expect("because 32 bits are left"))
    }

    /// Returns the features, ascending.
    pub fn features(&self) -> &[Feature] {
        &self.0
    }
}

/// The first eight bytes of a chunk's id: enough to find the chunk in the index again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdPrefix(u64);

impl IdPrefix {
    /// Returns the prefix of an id.
    pub fn of(id: &ChunkId) -> Self {
        Self(id.prefix())
    }

    /// Returns the lowest id that has this prefix.
    pub fn lowest_id(self) -> ChunkId {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(self.to_bytes()) {
            *to = from;
        }
        ChunkId::from_bytes(bytes)
    }

    /// Tells whether an id begins with it.
    pub fn is_of(self, id: &ChunkId) -> bool {
        id.prefix() == self.0
    }

    /// Returns the bytes, in the id's order.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut rest = self.0;
        let mut bytes = [0; 8];
        for byte in bytes.iter_mut().rev() {
            *byte = (rest & 0xff)
                .try_into()
                .expect("because eight bits are left");
            rest >>= 8;
        }
        bytes
    }

    /// Takes eight bytes of an id.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// What the specification says, byte by byte.
    fn plainly(block: &[u8], log2: u8) -> Vec<u32> {
        let mut gear = [0; 2048];
        blake3::Hasher::new()
            .update(b"tegula gear 1")
            .finalize_xof()
            .fill(&mut gear);
        let mut hash = 0u64;
        let mut features = Vec::new();
        for byte in block {
            let number = gear[usize::from(*byte) * 8..][..8].try_into().unwrap();
            hash = hash
                .wrapping_mul(2)
                .wrapping_add(u64::from_le_bytes(number));
            if hash >> (64 - (log2 - 5)) == 0 {
                features.push((hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32);
            }
        }
        features.sort_unstable();
        features.dedup();
        features.truncate(FEATURES_MAX);
        features
    }

    #[test]
    fn four_quarters_at_once_draw_what_one_pass_draws() {
        for log2 in [12, 16, 20] {
            let size = BlockSize::from_log2(log2).unwrap();
            let block = noise(1, size.as_usize());
            let drawn: Vec<u32> = Sketch::of(&block, size).0.iter().map(|f| f.get()).collect();
            assert_eq!(drawn, plainly(&block, log2), "2^{log2}");
            assert!((8..=64).contains(&drawn.len()), "{}", drawn.len());
        }
    }

    #[test]
    fn content_draws_the_same_features_wherever_it_stands() {
        let size = BlockSize::DEFAULT;
        let content = noise(2, 60_000);
        let at = |offset: usize| {
            let mut block = noise(3, size.as_usize());
            block[offset..offset + content.len()].copy_from_slice(&content);
            Sketch::of(&block, size)
        };
        let (here, there) = (at(0), at(5_001));
        let shared = here.0.iter().filter(|feature| there.0.contains(feature));
        assert!(shared.count() * 4 > here.0.len() * 3);
        let other = Sketch::of(&noise(4, size.as_usize()), size);
        assert!(!here.0.iter().any(|feature| other.0.contains(feature)));
    }

    #[test]
    fn a_repeated_byte_fills_no_sketch() {
        for byte in [0, 1, 255] {
            let sketch = Sketch::of(&[byte; 65_536], BlockSize::DEFAULT);
            assert!(sketch.features().len() <= 2, "{byte}: {sketch:?}");
        }
    }

    #[test]
    fn an_id_prefix_sorts_as_the_ids_do_and_finds_them() {
        let id = ChunkId::of(b"tile");
        let prefix = IdPrefix::of(&id);
        assert!(prefix.is_of(&id) && prefix.lowest_id() <= id);
        assert_eq!(IdPrefix::from_bytes(prefix.to_bytes()), prefix);
        assert_eq!(prefix.to_bytes()[..], id.as_bytes()[..8]);
    }
}

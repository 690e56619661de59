//! The identity of a chunk: what its bytes are.

use std::cmp::Ordering;
use std::fmt;

/// BLAKE3-256 of a chunk's bytes, zero-padded to the block size (SPEC 2.1).
///
/// The id of all-zero bytes is never stored; a block that reads as zeros has no id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkId([u8; 32]);

impl ChunkId {
    /// Hashes a whole block.
    pub fn of(block: &[u8]) -> Self {
        Self(*blake3::hash(block).as_bytes())
    }

    /// Takes 32 bytes that were read from a store for an id.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[inline]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first eight bytes as a number that sorts as the ids do.
    ///
    /// Ids are uniform, so this is both a position estimate for interpolation search and a ready-made hash.
    #[inline]
    pub fn prefix(&self) -> u64 {
        let (head, _) = self.0.split_first_chunk::<8>().expect("32 bytes hold 8");
        // Most significant first, so that numeric order is byte order.
        head.iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Ord for ChunkId {
    /// The order of the bytes. The first eight nearly always tell.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix()
            .cmp(&other.prefix())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for ChunkId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({self})")
    }
}

/// Bytes printed as lower-case hexadecimal.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Hex<'_> {
    /// Reads exactly `N` bytes from lower-case hexadecimal, or returns `None`.
    pub fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
        if text.len() != N * 2 || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_orders_as_the_bytes_do() {
        let low = ChunkId::from_bytes([1; 32]);
        let high = ChunkId::from_bytes([2; 32]);
        assert!(low < high && low.prefix() < high.prefix());
    }

    #[test]
    fn hex_reads_back_what_it_prints_and_refuses_the_rest() {
        let id = ChunkId::of(b"tile");
        assert_eq!(Hex::parse(&id.to_string()), Some(*id.as_bytes()));
        assert_eq!(Hex::parse::<2>("00F0"), None);
        assert_eq!(Hex::parse::<2>("+0+0"), None);
        assert_eq!(Hex::parse::<2>("000"), None);
    }
}

//! Blocks: the fixed, aligned places of an image.

use crate::{Corruption, Structure};
use std::fmt;

/// The largest image, in bytes: 2^32 blocks of 4 KiB, or 2^60 bytes for larger blocks (SPEC 2.2).
pub const IMAGE_BYTES_MAX: u64 = 1 << 60;

/// The number of bytes in a block: a power of two from 4 KiB to 4 MiB (SPEC 2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockSize {
    log2: u8,
}

impl BlockSize {
    /// The smallest block, 4 KiB.
    pub const MIN: Self = Self { log2: 12 };
    /// The largest block, 4 MiB.
    pub const MAX: Self = Self { log2: 22 };
    /// 64 KiB: why is in `format-spec/decisions/0001-block-size.md`.
    pub const DEFAULT: Self = Self { log2: 16 };

    /// Returns the size of that many bytes, or `None` if it is no power of two within the limits.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        let log2 = u8::try_from(bytes.trailing_zeros()).ok()?;
        (bytes.is_power_of_two()).then(|| Self::from_log2(log2))?
    }

    /// Returns the size 2^`log2`, or `None` beyond the limits.
    pub fn from_log2(log2: u8) -> Option<Self> {
        (Self::MIN.log2..=Self::MAX.log2)
            .contains(&log2)
            .then_some(Self { log2 })
    }

    pub(crate) fn decode(log2: u8, what: Structure) -> Result<Self, Corruption> {
        Self::from_log2(log2).ok_or(Corruption::Field {
            what,
            field: "block_size_log2",
            found: u64::from(log2),
            expected: "12 to 22",
        })
    }

    /// Returns the exponent.
    pub const fn log2(self) -> u8 {
        self.log2
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u32 {
        1 << self.log2
    }

    /// Returns the size in bytes, as an index into a buffer.
    pub const fn as_usize(self) -> usize {
        1 << self.log2
    }

    /// Returns how many blocks an image of `virtual_size` bytes has; the last may be short.
    pub const fn blocks_in(self, virtual_size: u64) -> u64 {
        virtual_size.div_ceil(1 << self.log2)
    }

    /// Returns the block that holds the byte at `offset`; blocks are limited to [`Self::image_bytes_max`].
    pub fn block_at(self, offset: u64) -> BlockIndex {
        BlockIndex(
            u32::try_from(offset >> self.log2)
                .expect("offsets are checked against image_bytes_max"),
        )
    }

    /// Returns the largest image this block size can hold, in bytes.
    pub fn image_bytes_max(self) -> u64 {
        IMAGE_BYTES_MAX.min(1 << (32 + u32::from(self.log2)))
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            bytes if bytes >= 1 << 20 => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} KiB", bytes >> 10),
        }
    }
}

impl fmt::Debug for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSize({self})")
    }
}

/// A block's position in its image, counted in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(u32);

impl BlockIndex {
    /// Names the block at that position.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Returns the position.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the offset of the block's first byte.
    pub const fn byte_offset(self, size: BlockSize) -> u64 {
        (self.0 as u64) << size.log2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_are_powers_of_two_from_4_kib_to_4_mib() {
        for bytes in [
            0,
            1,
            2048,
            4095,
            65_537,
            3 << 16,
            8 << 20,
            u64::MAX,
            1 << 63,
        ] {
            assert_eq!(BlockSize::from_bytes(bytes), None, "{bytes}");
        }
        assert_eq!(BlockSize::from_bytes(4096), Some(BlockSize::MIN));
        assert_eq!(BlockSize::from_bytes(65_536), Some(BlockSize::DEFAULT));
        assert_eq!(BlockSize::from_bytes(4 << 20), Some(BlockSize::MAX));
    }

    #[test]
    fn every_block_of_the_largest_image_has_an_index() {
        for log2 in BlockSize::MIN.log2()..=BlockSize::MAX.log2() {
            let size = BlockSize::from_log2(log2).unwrap();
            assert!(size.blocks_in(size.image_bytes_max()) <= 1 << 32);
            size.block_at(size.image_bytes_max() - 1);
        }
    }
}

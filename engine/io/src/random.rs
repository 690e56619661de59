//! Randomness as a value.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where random ids come from.
pub trait Random: fmt::Debug + Send + Sync {
    /// Returns 16 random bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn id(&self) -> io::Result<[u8; 16]>;
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn id(&self) -> io::Result<[u8; 16]> {
        let mut id = [0; 16];
        let mut filled = 0;
        while let Some(rest) = id.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(id)
    }
}

/// The same ids in the same order for the same seed: for tests, which replay by it.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    drawn: AtomicU64,
}

impl SeededRandom {
    /// Begins the sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
        }
    }

    /// Returns the next 64 bits of the sequence.
    pub fn next_u64(&self) -> u64 {
        // SplitMix64: a counter through a mixing function, so that drawing needs no lock.
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut z = self
            .seed
            .wrapping_add(drawn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Random for SeededRandom {
    fn id(&self) -> io::Result<[u8; 16]> {
        let words = u128::from(self.next_u64()) << 64 | u128::from(self.next_u64());
        Ok(words.to_le_bytes())
    }
}

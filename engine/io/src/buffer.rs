//! Buffers for I/O: owned, and recycled up to a bound.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Smallest and largest buffers that are kept for reuse, as powers of two.
const KEPT_LOG2: std::ops::RangeInclusive<usize> = 12..=23;

/// Buffers kept of each size.
const KEPT_EACH: usize = 16;

/// Bytes kept in all. What is beyond goes back to the allocator.
const KEPT_BYTES_MAX: usize = 24 << 20;

static POOL: Pool = Pool {
    shelves: [const { Mutex::new(Vec::new()) }; 12],
    bytes: AtomicUsize::new(0),
};

/// Growing bytes from the pool.
///
/// An io_uring operation owns its buffer until the kernel is done with it. That the memory then goes to a pool and not
/// to the allocator is a second line of defence: a late write could scramble a buffer, never somebody's heap.
#[derive(Default, PartialEq, Eq)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Returns an empty buffer that can take at least `capacity` bytes without growing.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes = POOL.take(capacity);
        bytes.clear();
        Self(bytes)
    }

    /// Returns a buffer of `length` zero bytes.
    pub fn zeroed(length: usize) -> Self {
        let mut buffer = Self::with_capacity(length);
        buffer.0.resize(length, 0);
        buffer
    }

    /// Returns a buffer of `length` bytes that hold whatever an earlier user left: to be filled at once.
    pub fn stale(length: usize) -> Self {
        let mut bytes = POOL.take(length);
        // Only what no earlier user wrote is written here.
        bytes.resize(length, 0);
        Self(bytes)
    }

    /// Returns a buffer with these bytes.
    pub fn copied(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.0.extend_from_slice(bytes);
        buffer
    }

    /// Gives access to the bytes as a vector, to grow or cut them.
    pub fn as_vec_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.0.len())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        POOL.put_back(std::mem::take(&mut self.0));
    }
}

struct Pool {
    /// One shelf a power of two.
    shelves: [Mutex<Vec<Vec<u8>>>; 12],
    /// Bytes on all shelves together.
    bytes: AtomicUsize,
}

impl Pool {
    fn take(&self, capacity: usize) -> Vec<u8> {
        let size = capacity.max(1).next_power_of_two();
        let shelf = self.shelf(size);
        let kept =
            shelf.and_then(|shelf| shelf.lock().unwrap_or_else(PoisonError::into_inner).pop());
        if kept.is_some() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        kept.unwrap_or_else(|| Vec::with_capacity(if shelf.is_some() { size } else { capacity }))
    }

    fn put_back(&self, bytes: Vec<u8>) {
        // Only exact powers of two: a shelf promises its size.
        if let Some(shelf) = bytes
            .capacity()
            .is_power_of_two()
            .then(|| self.shelf(bytes.capacity()))
            .flatten()
        {
            let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let size = bytes.capacity();
            let room = |kept: usize| (kept + size <= KEPT_BYTES_MAX).then_some(kept + size);
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            if shelf.len() < KEPT_EACH && self.bytes.fetch_update(set, fetch, room).is_ok() {
                shelf.push(bytes);
            }
        }
    }

    fn shelf(&self, size: usize) -> Option<&Mutex<Vec<Vec<u8>>>> {
        let log2 = usize::try_from(size.trailing_zeros()).ok()?;
        KEPT_LOG2
            .contains(&log2)
            .then(|| self.shelves.get(log2 - KEPT_LOG2.start()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_reuse_is_bounded_whatever_was_in_use() {
        let pool = Pool {
            shelves: [const { Mutex::new(Vec::new()) }; 12],
            bytes: AtomicUsize::new(0),
        };
        let kept = || {
            let shelves = pool.shelves.iter().map(|shelf| shelf.lock().unwrap());
            let sums = shelves.map(|shelf| shelf.iter().map(Vec::capacity).sum::<usize>());
            sums.sum::<usize>()
        };
        for _ in 0..2 {
            let used: Vec<_> = (0..400)
                .map(|number| pool.take(4096 << (number % 12)))
                .collect();
            assert!(kept() <= KEPT_BYTES_MAX);
            used.into_iter().for_each(|bytes| pool.put_back(bytes));
            assert_eq!(kept(), pool.bytes.load(Ordering::Relaxed));
            assert!(kept() <= KEPT_BYTES_MAX, "{} bytes", kept());
            assert!(kept() > KEPT_BYTES_MAX / 2, "{} bytes", kept());
        }
    }

    #[test]
    fn a_recycled_buffer_is_empty_and_its_old_bytes_are_not_seen() {
        let mut first = Buffer::with_capacity(5000);
        first.as_vec_mut().extend_from_slice(&[7; 8192]);
        drop(first);
        assert_eq!(&*Buffer::zeroed(8192), &[0; 8192]);
        drop(Buffer::copied(&[7; 8192]));
        assert_eq!(Buffer::stale(5000).len(), 5000);
        assert_eq!(Buffer::copied(b"new").as_ref(), b"new");
    }
}

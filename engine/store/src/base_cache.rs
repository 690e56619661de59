//! Bases that were decoded not long ago. Neighbours often stand on the same chunks, and who restores an image decodes the
//! bases of a stretch before the stretch.
//!
//! Bounded, in several parts so that workers seldom wait for each other, each of which lets go of what was not asked for
//! since it came or was last passed over.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tegula_format::{BlockSize, ChunkId};
use tegula_io::Buffer;

/// Bytes that are kept, if that many are asked for.
pub const BASE_CACHE_BYTES: usize = 32 << 20;

/// Parts of the cache, by an id's first byte.
const PARTS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct BaseCache {
    parts: [Mutex<Part>; PARTS],
    /// Whether there was ever anything in it: most stores never need it.
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Part {
    chunks: HashMap<ChunkId, Kept>,
    /// All of them, in the order in which they are looked at when room is needed.
    order: VecDeque<ChunkId>,
}

#[derive(Debug)]
struct Kept {
    bytes: Arc<Buffer>,
    /// Whether it was asked for since it was last looked at.
    is_wanted: bool,
}

impl BaseCache {
    pub(crate) fn get(&self, id: &ChunkId) -> Option<Arc<Buffer>> {
        if !self.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let mut part = self.part(id).lock().unwrap_or_else(PoisonError::into_inner);
        let kept = part.chunks.get_mut(id)?;
        kept.is_wanted = true;
        Some(Arc::clone(&kept.bytes))
    }

    /// Keeps a chunk, whose bytes are verified.
    pub(crate) fn insert(&self, id: ChunkId, bytes: Arc<Buffer>, block_size: BlockSize) {
        self.is_used.store(true, Ordering::Relaxed);
        // At least one: the longest block is a part's share.
        let room = (BASE_CACHE_BYTES / PARTS / block_size.as_usize()).max(1);
        let mut part = self
            .part(&id)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        part.insert(id, bytes, room);
    }

    fn part(&self, id: &ChunkId) -> &Mutex<Part> {
        let [first, ..] = id.as_bytes();
        self.parts
            .get(usize::from(*first) % PARTS)
            .expect("because a remainder is smaller")
    }
}

impl Part {
    fn insert(&mut self, id: ChunkId, bytes: Arc<Buffer>, room: usize) {
        if self.chunks.contains_key(&id) {
            return;
        }
        while self.chunks.len() >= room {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            match self.chunks.get_mut(&oldest) {
                Some(kept) if kept.is_wanted => {
                    kept.is_wanted = false;
                    self.order.push_back(oldest);
                }
                _ => _ = self.chunks.remove(&oldest),
            }
        }
        let is_wanted = false;
        self.chunks.insert(id, Kept { bytes, is_wanted });
        self.order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> (ChunkId, Arc<Buffer>) {
        let bytes = n.to_string().into_bytes();
        (ChunkId::of(&bytes), Arc::new(Buffer::from(bytes)))
    }

    #[test]
    fn what_is_asked_for_stays_and_no_more_is_kept_than_there_is_room_for() {
        let (cache, size) = (BaseCache::default(), BlockSize::DEFAULT);
        assert_eq!(cache.get(&numbered(0).0), None);
        let often = numbered(0);
        cache.insert(often.0, Arc::clone(&often.1), size);
        let many = 10 * BASE_CACHE_BYTES / size.as_usize();
        for n in 1..many {
            let (id, bytes) = numbered(n);
            cache.insert(id, bytes, size);
            assert_eq!(cache.get(&often.0).as_ref(), Some(&often.1), "after {n}");
        }
        let kept = (0..many).filter(|n| cache.get(&numbered(*n).0).is_some());
        let kept = kept.count();
        assert!(kept * size.as_usize() <= BASE_CACHE_BYTES, "{kept}");
        assert!(kept * size.as_usize() > BASE_CACHE_BYTES / 2, "{kept}");
    }

    #[test]
    fn the_longest_blocks_are_kept_too_and_take_no_more_than_others() {
        let (cache, size) = (BaseCache::default(), BlockSize::MAX);
        for n in 0..100 {
            let (id, bytes) = numbered(n);
            cache.insert(id, Arc::clone(&bytes), size);
            assert_eq!(cache.get(&id), Some(bytes));
        }
        let kept = (0..100).filter(|n| cache.get(&numbered(*n).0).is_some());
        let kept = kept.count() * size.as_usize();
        assert!(kept <= BASE_CACHE_BYTES, "{kept} bytes");
    }
}

//! Against fragmentation: a new image does not go on reading one chunk here and one there.
//!
//! What many increments leave of each other lies thinly in many segments, and every restore of the newest image would
//! fetch it piece by piece. A put that finds segments of which its image needs only a few chunks stores those chunks
//! again, beside its own. All images then find them there (the newest place wins), and the old copies are garbage. This
//! is bounded: at most one chunk in [`AGAIN_SHARE`] of what the image reuses.

use crate::{EngineError, Task};
use std::collections::HashMap;
use tegula_format::{BlockSet, ChunkId, SegmentNumber};
use tegula_store::{Ingest, LayerStack, StoreError};

/// A segment of which an image needs fewer chunks than this is thinly used: less than half a MiB of one that is 64 MiB.
const THIN_CHUNKS: u32 = 16;

/// Of so many reused chunks one may be stored again: 2 % of the image.
const AGAIN_SHARE: usize = 50;

/// Larger images are left to compaction: what is looked up here is held to 2^20 chunks, 64 GiB of data.
const CHUNKS_MAX: usize = 1 << 20;

/// What a put takes from where it stands already: at most [`CHUNKS_MAX`] of it are kept in mind.
#[derive(Debug, Default)]
pub(crate) struct Reused {
    ids: Vec<ChunkId>,
    too_many: bool,
}

impl Reused {
    pub(crate) fn push(&mut self, id: ChunkId) {
        self.too_many |= self.ids.len() >= CHUNKS_MAX;
        if !self.too_many {
            self.ids.push(id);
        }
    }

    /// Adds the blocks that are the parent's.
    pub(crate) fn push_same(
        &mut self,
        base: &LayerStack,
        same: &BlockSet,
    ) -> Result<(), StoreError> {
        if same.len() >= CHUNKS_MAX as u64 {
            self.too_many = true;
            return Ok(());
        }
        for chunk in base.chunks() {
            let (block, id) = chunk?;
            if same.contains(block) {
                self.push(id);
            }
        }
        Ok(())
    }

    /// Stores again what stands in thinly used segments. Returns how many chunks that were.
    ///
    /// A chunk that cannot be read is left where it is: the image is no worse off than before, and whoever reads it, or
    /// verifies the store, is told.
    pub(crate) fn store_again(
        mut self,
        ingest: &Ingest<'_>,
        task: Task<'_>,
    ) -> Result<u64, EngineError> {
        if self.too_many {
            return Ok(0);
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        let index = ingest.session().index()?;
        // What this put has stored itself is not in the index yet.
        let places = || {
            let ids = self.ids.iter();
            ids.filter_map(|id| Some((*id, index.lookup(id)?.place.segment)))
        };
        let mut used: HashMap<SegmentNumber, u32> = HashMap::new();
        places().for_each(|(_, segment)| *used.entry(segment).or_default() += 1);
        used.retain(|_, chunks| *chunks < THIN_CHUNKS);
        let most = self.ids.len() / AGAIN_SHARE;
        let mut again: Vec<_> = places()
            .filter(|(_, segment)| used.contains_key(segment))
            .collect();
        // The thinnest first: those are the dearest to read.
        again.sort_by_key(|(_, segment)| (used.get(segment).copied(), *segment));
        let mut stored = 0;
        for (id, _) in again.into_iter().take(most) {
            task.check()?;
            if let Ok(block) = ingest.session().read_chunk(&id) {
                ingest.store_again(id, &block)?;
                stored += 1;
            }
        }
        Ok(stored)
    }
}

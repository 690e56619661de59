//! How scattered an image stands in the store.

use crate::EngineError;
use crate::get::{GAP_BYTES, WINDOW_BLOCKS};
use tegula_store::{LayerStack, Session};

/// An image's chunks as a restore finds them: in runs that are read without a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Runs {
    /// How often a restore has to begin to read at another place.
    pub runs: u64,
    /// Bytes of the records it reads; the chunks that frames stand on are not counted.
    pub bytes: u64,
}

impl Runs {
    /// Returns the bytes of a run on average: 0 for an image without data.
    pub fn mean_bytes(&self) -> u64 {
        self.bytes.checked_div(self.runs).unwrap_or(0)
    }

    /// Counts the runs of an image: as a restore does, the chunks of [`WINDOW_BLOCKS`] blocks are read in the order of
    /// their places, and gaps of up to [`GAP_BYTES`] are read over.
    pub(crate) fn of(session: &Session, stack: &LayerStack) -> Result<Self, EngineError> {
        let mut counted = Self::default();
        let mut chunks = stack.chunks();
        let mut end = None;
        loop {
            let mut rows = Vec::new();
            for chunk in chunks.by_ref().take(WINDOW_BLOCKS) {
                rows.push(session.locate(&chunk?.1)?);
            }
            if rows.is_empty() {
                return Ok(counted);
            }
            rows.sort_unstable_by_key(|row| row.place);
            rows.dedup_by_key(|row| row.place);
            for row in rows {
                let (segment, offset) = (row.place.segment, u64::from(row.offset));
                let goes_on = end.is_some_and(|(last, end)| {
                    last == segment && offset >= end && offset - end <= GAP_BYTES
                });
                counted.runs += u64::from(!goes_on);
                counted.bytes += row.record_bytes() as u64;
                end = Some((segment, offset + row.record_bytes() as u64));
            }
        }
    }
}

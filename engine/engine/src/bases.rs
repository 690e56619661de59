//! Reading ahead what chunks stand on: before a stretch of an image is decoded, the bases of its chunks are, from reads as
//! long as any others, and kept for the stretch.

use crate::EngineError;
use crate::get::{Read, join_reads};
use std::collections::{HashSet, VecDeque};
use tegula_format::{ChunkId, RunRow};
use tegula_store::{BASE_CACHE_BYTES, Session};

/// A step of a pipeline: bases to be kept, or the work that comes after.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Bases(Read),
    Work(T),
}

/// Hands over windows of work, those whose chunks stand on others behind windows of these.
#[derive(Debug)]
pub(crate) struct BasesFirst<'a, T> {
    session: &'a Session,
    queue: VecDeque<T>,
    /// How much at the front has had its bases read.
    ready: usize,
}

/// Returns how many bases are read ahead at most: half of those that are kept, so that none has to go before its use.
pub(crate) fn bases_ahead_max(session: &Session) -> usize {
    (BASE_CACHE_BYTES / 2 / session.block_size().as_usize()).max(1)
}

impl<'a, T> BasesFirst<'a, T> {
    pub(crate) fn new(session: &'a Session) -> Self {
        Self {
            session,
            queue: VecDeque::new(),
            ready: 0,
        }
    }

    /// Returns the next window; `None` after the last. `more` gives the windows of work, `rows_of` the places that a
    /// piece of work is read from.
    pub(crate) fn next_window(
        &mut self,
        more: impl FnOnce() -> Result<Option<Vec<T>>, EngineError>,
        rows_of: impl Fn(&T) -> Vec<RunRow>,
    ) -> Result<Option<Vec<Step<T>>>, EngineError> {
        if self.ready == 0 {
            if self.queue.is_empty() {
                let Some(window) = more()? else {
                    return Ok(None);
                };
                self.queue.extend(window);
            }
            let bases = self.plan(rows_of);
            if !bases.is_empty() {
                return Ok(Some(bases.into_iter().map(Step::Bases).collect()));
            }
        }
        let ready = std::mem::take(&mut self.ready);
        Ok(Some(self.queue.drain(..ready).map(Step::Work).collect()))
    }

    /// Takes as much from the front of the queue as can have its bases read at once, and begins to read them.
    fn plan(&mut self, rows_of: impl Fn(&T) -> Vec<RunRow>) -> Vec<Read> {
        let most = bases_ahead_max(self.session);
        let mut wanted: HashSet<ChunkId> = HashSet::new();
        for work in &self.queue {
            let rows = rows_of(work);
            let framed = rows.iter().filter(|row| row.bases > 0);
            // What cannot be looked up now is found out, or made up for, by whoever decodes.
            let bases = framed.filter_map(|row| self.session.bases_of(row).ok());
            let ids: Vec<ChunkId> = bases.flat_map(|bases| bases.ids().to_vec()).collect();
            let new = ids.into_iter().filter(|id| !wanted.contains(id));
            let new: HashSet<ChunkId> = new
                .filter(|id| self.session.kept_base(id).is_none())
                .collect();
            if self.ready > 0 && wanted.len() + new.len() > most {
                break;
            }
            wanted.extend(new);
            self.ready += 1;
        }
        let rows = wanted
            .iter()
            .filter_map(|id| self.session.locate(id).ok())
            .map(|row| (row, Vec::new()));
        let mut reads = join_reads(self.session, rows.collect());
        reads.iter_mut().for_each(|read| read.start(self.session));
        reads
    }
}

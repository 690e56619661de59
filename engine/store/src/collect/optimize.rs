//! Storing everything again, better compressed (decision 0012).
//!
//! What is written is moved as collection moves survivors: stored, made durable, read back, and only then are the old
//! segments condemned and removed. A crash at any time leaves the old segments, or the new ones, or both.

use super::again::{Again, Budget, Effort};
use super::{Plan, hides_missing, is_living, kept_copies_are_whole, mark, read_back};
use crate::segment::{SegmentSizes, SegmentTable, list_sealed, read_ingest};
use crate::{Ingest, LayerStack, LiveSet, Session, Store, StoreError, index, paths, sketches};
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;
use tegula_format::{BlockSize, ImageName, SegmentNumber};
use tegula_io::LockMode;

/// How chunks are to be stored again.
#[derive(Debug, Clone)]
pub struct OptimizeOptions {
    /// The zstd level; the store's own if that is higher.
    pub level: i32,
    /// Only the segments that these images need; all if there is none.
    pub images: Vec<ImageName>,
    /// Writes nothing, only tells what would be gained: from one chunk in so many, with 1 from all of them.
    pub dry_run: Option<NonZeroUsize>,
    /// How long to wait for older sessions to end before the old segments' removal is left to a collection.
    pub patience: Duration,
    /// Works on the calling thread alone: for tests that replay every step.
    pub inline: bool,
}

impl Default for OptimizeOptions {
    fn default() -> Self {
        Self {
            level: 7,
            images: Vec::new(),
            dry_run: None,
            patience: Duration::from_secs(30),
            inline: false,
        }
    }
}

/// What an optimization did, or in a dry run would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Optimization {
    /// Segments whose chunks were stored again.
    pub segments_rewritten: u64,
    /// Chunks that were stored again.
    pub chunks: u64,
    /// Of how many of them the records were made: of all, but in a dry run that looks only at some.
    pub compressed_chunks: u64,
    /// How many of them are frames over others now.
    pub framed_chunks: u64,
    /// Bytes of the segments that were rewritten.
    pub old_bytes: u64,
    /// Bytes of the segments that took their place.
    pub new_bytes: u64,
    /// Bytes of old segments that older sessions still hold back; the next collection frees them.
    pub pending_bytes: u64,
    /// Whether it was told to stop before it had gone through everything.
    pub stopped: bool,
}

/// The most chunks gone through at once: their sketches, and which of them share features, are held in memory. 8 GiB of
/// 64 KiB blocks, in about 80 MiB.
const BATCH_CHUNKS_MAX: u64 = 1 << 17;

/// The most bytes gone through at once, before compression: the store needs room for them.
const BATCH_BYTES_MAX: u64 = 8 << 30;

/// Returns how many chunks are gone through at once.
fn batch_chunks(block_size: BlockSize) -> u64 {
    (BATCH_BYTES_MAX / u64::from(block_size.bytes())).min(BATCH_CHUNKS_MAX)
}

/// How far the work is: chunks stored again, and chunks to go through. Asked often; the answer says whether to go on.
pub type Going<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);

impl Store {
    /// Stores again, better compressed, what images need. Others can read and write meanwhile.
    ///
    /// The store needs room for what is rewritten at once, up to 8 GiB before compression, beside what there is.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if a collection runs; otherwise as for [`Store::collect`].
    pub fn optimize(
        &self,
        options: &OptimizeOptions,
        going: Going<'_>,
    ) -> Result<Optimization, StoreError> {
        let Some(_lock) = self.try_lock(&paths::gc_lock(), LockMode::Exclusive)? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        if options.dry_run.is_some() {
            return self.go_through(options, going);
        }
        let mut removed = super::Collection::default();
        if !self.remove_condemned(options.patience, &mut removed)? {
            return Ok(Optimization {
                pending_bytes: removed.pending_bytes,
                ..Optimization::default()
            });
        }
        let done = self.go_through(options, going)?;
        let session = self.begin()?;
        index::tidy(&session, false)?;
        sketches::tidy(&session)?;
        Ok(done)
    }

    fn go_through(
        &self,
        options: &OptimizeOptions,
        going: Going<'_>,
    ) -> Result<Optimization, StoreError> {
        let mut done = Optimization::default();
        let batches = self.batches(options)?;
        let total: u64 = batches.iter().map(|batch| batch.chunks).sum();
        for batch in batches {
            let so_far = done.chunks;
            let step = |chunks: u64| going(so_far + chunks, total);
            if !self.optimize_batch(&batch.segments, options, &step, &mut done)? {
                done.stopped = true;
                break;
            }
            if done.pending_bytes > 0 {
                break;
            }
        }
        Ok(done)
    }

    /// Cuts what is to be gone through into batches of neighbouring segments.
    fn batches(&self, options: &OptimizeOptions) -> Result<Vec<Batch>, StoreError> {
        let session = self.begin()?;
        let wanted = match options.images.is_empty() {
            true => None,
            false => Some(segments_of(&session, &options.images)?),
        };
        let batch_chunks = batch_chunks(self.config().block_size);
        let mut batches: Vec<Batch> = Vec::new();
        for (number, _) in list_sealed(self.environment())? {
            if wanted
                .as_ref()
                .is_some_and(|wanted| !wanted.contains(&number))
            {
                continue;
            }
            let rows = match SegmentTable::count_rows(self.environment(), number) {
                Ok(rows) => u64::from(rows),
                Err(error) if error.is_unreadable() => continue,
                Err(error) => return Err(error),
            };
            match batches.last_mut() {
                Some(batch) if batch.chunks + rows <= batch_chunks => {
                    batch.segments.insert(number);
                    batch.chunks += rows;
                }
                _ => batches.push(Batch {
                    segments: HashSet::from([number]),
                    chunks: rows,
                }),
            }
        }
        Ok(batches)
    }

    /// Stores again what is needed of some segments, and removes these. `false` if told to stop: what was written until
    /// then is garbage.
    fn optimize_batch(
        &self,
        segments: &HashSet<SegmentNumber>,
        options: &OptimizeOptions,
        step: &(dyn Fn(u64) -> bool + Sync),
        done: &mut Optimization,
    ) -> Result<bool, StoreError> {
        let session = self.begin()?;
        // In the order in which collection looks: see there.
        let sealed = list_sealed(self.environment())?;
        let living = self.living_ingests()?;
        let marked = mark(&session)?;
        let mut plan = Plan::default();
        for (number, bytes) in sealed
            .iter()
            .filter(|(number, _)| segments.contains(number))
        {
            if session.state().condemns_segment(*number)
                || is_living(read_ingest(&session, *number), &living)?
            {
                continue;
            }
            let table = match SegmentTable::read(&session, *number) {
                Ok(table) => table,
                // It cannot be proved that nothing would be lost with it, so it stays.
                Err(error) if error.is_unreadable() => continue,
                Err(error) => return Err(error),
            };
            if !hides_missing(&table, &marked) && kept_copies_are_whole(&session, &table, &marked)?
            {
                plan.rewrite.push((table, *bytes));
            }
        }
        let effort = Effort {
            level: options.level,
            inline: options.inline,
            budget: Budget::new(&*self.environment().clock, None),
            going: step,
        };
        let Some(again) = Again::plan(&session, &sealed, &mut plan, &marked, &effort)? else {
            return Ok(false);
        };
        if plan.rewrite.is_empty() {
            return Ok(true);
        }
        let made = match options.dry_run {
            Some(one_in) => tell(&again, &effort, one_in)?,
            None => store_again(&session, (&plan, &again), &effort)?,
        };
        let Some(made) = made else {
            return Ok(false);
        };
        done.segments_rewritten += plan.rewrite.len() as u64;
        done.chunks += again.count() as u64;
        done.compressed_chunks += made.compressed_chunks;
        done.framed_chunks += made.framed_chunks;
        done.old_bytes += plan.bytes();
        done.new_bytes += made.new_bytes;
        if options.dry_run.is_none() {
            again.publish_sketches(|_| true);
            self.condemn(&plan, &marked)?;
            drop(again);
            drop(session);
            let mut removed = super::Collection::default();
            self.remove_condemned(options.patience, &mut removed)?;
            done.pending_bytes = removed.pending_bytes;
        }
        Ok(true)
    }
}

/// Stores chunks again and reads them back. `None` if told to stop.
fn store_again(
    session: &Session,
    (plan, again): (&Plan, &Again<'_>),
    effort: &Effort<'_>,
) -> Result<Option<Optimization>, StoreError> {
    let mut made = Optimization::default();
    let ingest = Ingest::begin(session)?;
    let finished = again.encode(effort, 1, |stored, _| {
        made.compressed_chunks += 1;
        made.framed_chunks += u64::from(!stored.chunk.bases.is_empty());
        ingest.store(&stored.chunk)
    })?;
    if !finished {
        return Ok(None);
    }
    ingest.seal_all()?;
    read_back(session.store(), plan, again.ids())?;
    made.new_bytes = ingest.totals().stored_bytes;
    Ok(Some(made))
}

/// Tells what storing chunks again would make of them, from one in so many. `None` if told to stop.
fn tell(
    again: &Again<'_>,
    effort: &Effort<'_>,
    one_in: NonZeroUsize,
) -> Result<Option<Optimization>, StoreError> {
    let mut made = Optimization::default();
    let mut sizes = SegmentSizes::default();
    let finished = again.encode(effort, one_in.get(), |stored, count| {
        made.compressed_chunks += 1;
        for _ in 0..count {
            made.framed_chunks += u64::from(!stored.chunk.bases.is_empty());
            sizes.append(&stored.chunk);
        }
        Ok(())
    })?;
    made.new_bytes = sizes.bytes();
    Ok(finished.then_some(made))
}

/// Segments that are gone through together.
#[derive(Debug)]
struct Batch {
    segments: HashSet<SegmentNumber>,
    chunks: u64,
}

fn segments_of(
    session: &Session,
    images: &[ImageName],
) -> Result<HashSet<SegmentNumber>, StoreError> {
    let mut segments = HashSet::new();
    for name in images {
        let stack = LayerStack::of_image(session, &session.image(name)?)?;
        segments.extend(LiveSet::of_image(session, &stack)?.segments());
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_gone_through_in_bounded_bytes() {
        for (block_size, batch) in [
            (BlockSize::MIN, 1 << 17),
            (BlockSize::DEFAULT, 1 << 17),
            (BlockSize::MAX, 1 << 11),
        ] {
            assert_eq!(batch_chunks(block_size), batch);
        }
    }
}

//! Storing again, better compressed, what is stored already (decision 0011).
//!
//! An ingest takes the bases it has seen, once, in passing. Here everything that some segments hold is at hand: each chunk's
//! features are compared with those of all others, the chunks that most others resemble become their bases, and the rest
//! is framed over these at a higher level. What is written is moved as collection moves survivors: stored, made durable,
//! read back, and only then are the old segments condemned and removed. A crash at any time leaves the old segments, or
//! the new ones, or both.

mod grouping;

use super::{Plan, hides_missing, is_living, kept_copies_are_whole, mark, read_back};
use crate::mark::Marked;
use crate::segment::{SegmentTable, list_sealed, read_ingest};
use crate::similar::Decoded;
use crate::{
    Encoded, Ingest, LayerStack, LiveSet, Session, Store, StoreError, codec, index, parallel,
    paths, prefix, sketches,
};
use grouping::{Grouping, Member};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tegula_format::{
    BlockSize, ChunkId, IdPrefix, ImageName, RunRow, SegmentNumber, Sketch, SketchRow,
};
use tegula_io::sync::{Mutex, PoisonError};
use tegula_io::{Buffer, LockMode};

/// How chunks are to be stored again.
#[derive(Debug, Clone)]
pub struct OptimizeOptions {
    /// The zstd level; the store's own if that is higher.
    pub level: i32,
    /// Only the segments that these images need; all if there is none.
    pub images: Vec<ImageName>,
    /// How long to wait for older sessions to end before the old segments' removal is left to a collection.
    pub patience: Duration,
    /// Works on the calling thread alone: for tests that replay every step.
    pub inline: bool,
}

impl OptimizeOptions {
    fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        least: usize,
        work: impl Fn(&T) -> R + Sync + Send,
    ) -> Vec<R> {
        match self.inline {
            true => items.iter().map(work).collect(),
            false => parallel::map(items, least, work),
        }
    }
}

impl Default for OptimizeOptions {
    fn default() -> Self {
        Self {
            level: 7,
            images: Vec::new(),
            patience: Duration::from_secs(30),
            inline: false,
        }
    }
}

/// What an optimization did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Optimization {
    /// Segments whose chunks were stored again.
    pub segments_rewritten: u64,
    /// Chunks that were stored again.
    pub chunks: u64,
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

/// The most chunks that are decoded, or compressed, between two looks at whether to go on.
const STEP_CHUNKS_MAX: u64 = 256;

/// The most bytes of theirs, as long as every core has one.
const STEP_BYTES_MAX: u64 = 32 << 20;

/// Returns how many chunks are gone through at once.
fn batch_chunks(block_size: BlockSize) -> u64 {
    (BATCH_BYTES_MAX / u64::from(block_size.bytes())).min(BATCH_CHUNKS_MAX)
}

/// Returns how many chunks are worked on at once.
fn step_chunks(block_size: BlockSize) -> usize {
    let chunks = (STEP_BYTES_MAX / u64::from(block_size.bytes())).min(STEP_CHUNKS_MAX);
    usize::try_from(chunks).expect("because they are few")
}

/// Of how many images, from the newest on, the chunks are put in the order in which they are read.
const IMAGES_IN_ORDER: usize = 8;

/// A frame must be shorter than a frame without bases by this fraction, or it is not worth what it costs its readers.
const ADVANTAGE: u32 = 16;

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
        let path = paths::gc_lock();
        let lock = self
            .environment()
            .storage
            .try_lock(&path, LockMode::Exclusive);
        let Some(_lock) = lock.map_err(StoreError::io("lock", &path))? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        let mut done = Optimization::default();
        let mut removed = super::Collection::default();
        if !self.remove_condemned(options.patience, &mut removed)? {
            done.pending_bytes = removed.pending_bytes;
            return Ok(done);
        }
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
        let session = self.begin()?;
        index::tidy(&session, false)?;
        sketches::tidy(&session)?;
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
            if is_living(read_ingest(&session, *number), &living)? {
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
        let Some(members) = sketch_all(&session, &mut plan, &marked, options, step)? else {
            return Ok(false);
        };
        if plan.rewrite.is_empty() {
            return Ok(true);
        }
        let order = reading_order(&session, &members)?;
        let grouping = match self.config().prefix_frames {
            true => {
                let fixed = bases_of_others(&session, &sealed, &plan, &members)?;
                Grouping::of(&members, &fixed)
            }
            false => Grouping::none(),
        };
        let ingest = Ingest::begin(&session)?;
        let level = options.level.max(self.config().zstd_level);
        let work = Work {
            session: &session,
            members: &members,
            grouping: &grouping,
            decoded: Mutex::default(),
            level,
        };
        let mut framed = 0;
        let step_chunks = step_chunks(self.config().block_size);
        for (position, ordinals) in order.chunks(step_chunks).enumerate() {
            if !step((position * step_chunks) as u64) {
                return Ok(false);
            }
            for chunk in options.map(ordinals, 1, |ordinal| work.encode(*ordinal)) {
                let chunk = chunk?;
                framed += u64::from(!chunk.bases.is_empty());
                ingest.store(&chunk)?;
            }
        }
        ingest.seal_all()?;
        let moved: Vec<ChunkId> = members.iter().map(|member| member.row.id).collect();
        read_back(self, &plan, &moved)?;
        let new_bytes = ingest.totals().stored_bytes;
        // Advice: what cannot be published now is found by features no more, and nothing else.
        if self.config().prefix_frames {
            let rows = plain_rows(&members, &grouping);
            drop(sketches::SketchRuns::default().publish(self.environment(), rows));
        }
        self.condemn(&plan, &marked)?;
        drop(ingest);
        drop(session);
        let mut removed = super::Collection::default();
        self.remove_condemned(options.patience, &mut removed)?;
        done.segments_rewritten += plan.rewrite.len() as u64;
        done.chunks += members.len() as u64;
        done.framed_chunks += framed;
        done.old_bytes += plan.bytes();
        done.new_bytes += new_bytes;
        done.pending_bytes = removed.pending_bytes;
        Ok(true)
    }
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

/// Reads every needed chunk of the segments to be rewritten and draws its features. A segment with a damaged one is left
/// out of the plan. `None` if told to stop.
fn sketch_all(
    session: &Session,
    plan: &mut Plan,
    marked: &Marked,
    options: &OptimizeOptions,
    step: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Option<Vec<Member>>, StoreError> {
    let mut members = Vec::new();
    let mut whole = Vec::new();
    for (table, bytes) in std::mem::take(&mut plan.rewrite) {
        let needed = table.run_rows();
        let needed: Vec<RunRow> = needed
            .filter(|row| marked.places.contains(row.place))
            .collect();
        let before = members.len();
        let mut damaged = false;
        for rows in needed.chunks(step_chunks(session.block_size())) {
            if !step(0) {
                return Ok(None);
            }
            for sketch in options.map(rows, 4, |row| sketch(session, row)) {
                match sketch {
                    Ok(member) => members.push(member),
                    Err(error) if error.is_unreadable() => damaged = true,
                    Err(error) => return Err(error),
                }
            }
        }
        match damaged {
            true => members.truncate(before),
            false => whole.push((table, bytes)),
        }
    }
    plan.rewrite = whole;
    Ok(Some(members))
}

fn sketch(session: &Session, row: &RunRow) -> Result<Member, StoreError> {
    let block = session.read_chunk_at(row)?;
    let sketch = Sketch::of(&block, session.block_size());
    Ok(Member { row: *row, sketch })
}

/// Returns the members in the order they are to be stored in: first what the newest image needs, as it is read; then what
/// the one before it needs besides, and so on; then the rest, as it stood.
fn reading_order(session: &Session, members: &[Member]) -> Result<Vec<usize>, StoreError> {
    let mut left: HashMap<ChunkId, usize> = members
        .iter()
        .enumerate()
        .map(|(ordinal, member)| (member.row.id, ordinal))
        .collect();
    let mut order = Vec::with_capacity(members.len());
    let mut records = session.images()?;
    records.sort_by_key(|record| std::cmp::Reverse(record.created_at_us));
    for record in records.iter().take(IMAGES_IN_ORDER) {
        for chunk in LayerStack::of_image(session, record)?.chunks() {
            order.extend(left.remove(&chunk?.1));
        }
    }
    let mut rest: Vec<usize> = left.into_values().collect();
    rest.sort_unstable();
    order.extend(rest);
    Ok(order)
}

/// Returns which members are bases of frames in segments that stay: they must go on standing by themselves.
fn bases_of_others(
    session: &Session,
    sealed: &[(SegmentNumber, u64)],
    plan: &Plan,
    members: &[Member],
) -> Result<HashSet<usize>, StoreError> {
    let rewritten: HashSet<_> = plan.segments().map(|(number, _)| number).collect();
    let ordinals: HashMap<&ChunkId, usize> = members
        .iter()
        .enumerate()
        .map(|(ordinal, member)| (&member.row.id, ordinal))
        .collect();
    let mut fixed = HashSet::new();
    for (number, _) in sealed
        .iter()
        .filter(|(number, _)| !rewritten.contains(number))
    {
        let table = match SegmentTable::read(session, *number) {
            Ok(table) => table,
            Err(error) if error.is_unreadable() || error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        for row in table.rows().iter().filter(|row| row.bases > 0) {
            let bases = table.toc.bases_of(row).iter();
            fixed.extend(bases.filter_map(|base| ordinals.get(base)));
        }
    }
    Ok(fixed)
}

/// Returns the features of what stands by itself now.
fn plain_rows(members: &[Member], grouping: &Grouping) -> Vec<SketchRow> {
    let plain = members.iter().enumerate();
    let plain = plain.filter(|(ordinal, _)| grouping.bases_of(*ordinal).is_empty());
    plain
        .flat_map(|(_, member)| {
            let chunk = IdPrefix::of(&member.row.id);
            let features = member.sketch.features().iter();
            features.map(move |feature| SketchRow {
                feature: *feature,
                chunk,
            })
        })
        .collect()
}

/// What encoding a chunk takes.
struct Work<'a> {
    session: &'a Session,
    members: &'a [Member],
    grouping: &'a Grouping,
    decoded: Mutex<Decoded>,
    level: i32,
}

impl Work<'_> {
    fn encode(&self, ordinal: usize) -> Result<Encoded, StoreError> {
        let member = self.member(ordinal);
        let id = member.row.id;
        let block = self.session.read_chunk_at(&member.row)?;
        let plain = codec::compress(id, &block, self.level);
        let bases = self.grouping.bases_of(ordinal).iter();
        let bases: Result<Vec<_>, StoreError> = bases.map(|base| self.base(*base)).collect();
        let bases = bases?;
        let bases: Vec<(ChunkId, &[u8])> =
            bases.iter().map(|(id, block)| (*id, &***block)).collect();
        let below = plain.stored_length - plain.stored_length / ADVANTAGE;
        if let Some(framed) = prefix::compress_with_bases(id, &block, &bases, self.level, below) {
            return Ok(framed);
        }
        // A higher level is not always better.
        match member.row.bases == 0 && member.row.stored_length <= plain.stored_length {
            true => self.as_it_stands(&member.row),
            false => Ok(plain),
        }
    }

    fn member(&self, ordinal: usize) -> &Member {
        self.members
            .get(ordinal)
            .expect("because ordinals count the members")
    }

    fn base(&self, ordinal: usize) -> Result<(ChunkId, Arc<Buffer>), StoreError> {
        let row = &self.member(ordinal).row;
        let prefix = IdPrefix::of(&row.id);
        let decoded = || self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = decoded().get(prefix).filter(|(id, _)| *id == row.id) {
            return Ok(found);
        }
        let block = Arc::new(self.session.read_chunk_at(row)?);
        decoded().put(prefix, row.id, &block);
        Ok((row.id, block))
    }

    /// Copies a record that was read and checked a moment ago.
    fn as_it_stands(&self, row: &RunRow) -> Result<Encoded, StoreError> {
        let path = paths::sealed_segment(row.place.segment);
        let record = self.session.read_segment(row, row.record_bytes())?.wait();
        let record = record.map_err(StoreError::io("read", &path))?;
        codec::copied(self.session, row, record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_gone_through_in_fewer_and_bounded_bytes() {
        for (block_size, batch, step) in [
            (BlockSize::MIN, 1 << 17, 256),
            (BlockSize::DEFAULT, 1 << 17, 256),
            (BlockSize::MAX, 1 << 11, 8),
        ] {
            assert_eq!(batch_chunks(block_size), batch);
            assert_eq!(step_chunks(block_size), step);
        }
    }
}

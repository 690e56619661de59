//! Storing again, better compressed, what is stored already: what resembles each other, over each other (decision 0012).
//!
//! An ingest takes the bases it has seen, once, in passing. Here everything that some segments hold is at hand: each chunk's
//! features are compared with those of all others, the chunks that most others resemble become their bases, and the rest
//! is framed over these at a higher level. Nothing is made longer than it was.
//!
//! This only makes records. Who stores them does so as collection moves survivors: stored, made durable, read back, and only
//! then are the old segments condemned and removed.

mod grouping;

use super::{Plan, survivors};
use crate::mark::Marked;
use crate::segment::SegmentTable;
use crate::similar::Decoded;
use crate::{Encoded, LayerStack, Session, StoreError, codec, parallel, prefix, sketches};
use grouping::{Grouping, Member};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tegula_format::{BlockSize, ChunkId, IdPrefix, RunRow, SegmentNumber, Sketch, SketchRow};
use tegula_io::sync::{Mutex, PoisonError};
use tegula_io::{Buffer, Clock};

/// The most chunks that are decoded, or compressed, between two looks at whether to go on.
const STEP_CHUNKS_MAX: u64 = 256;

/// The most bytes of theirs, as long as every core has one.
const STEP_BYTES_MAX: u64 = 32 << 20;

/// Returns how many chunks are worked on at once.
fn step_chunks(block_size: BlockSize) -> usize {
    let chunks = (STEP_BYTES_MAX / u64::from(block_size.bytes())).min(STEP_CHUNKS_MAX);
    usize::try_from(chunks).expect("because they are few")
}

/// Of how many images, from the newest on, the chunks are put in the order in which they are read.
const IMAGES_IN_ORDER: usize = 8;

/// A frame must be shorter than a frame without bases by this fraction, or it is not worth what it costs its readers.
const ADVANTAGE: u32 = 16;

/// How much is to be spent on compressing chunks again.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    clock: &'a dyn Clock,
    limit: Option<Duration>,
    spent_us: AtomicU64,
}

impl<'a> Budget<'a> {
    /// Limits what all threads together spend; `None` sets no limit.
    pub(super) fn new(clock: &'a dyn Clock, limit: Option<Duration>) -> Self {
        Self {
            clock,
            limit,
            spent_us: AtomicU64::new(0),
        }
    }

    pub(super) fn is_left(&self) -> bool {
        let spent = Duration::from_micros(self.spent_us.load(Ordering::Relaxed));
        self.limit.is_none_or(|limit| spent < limit)
    }

    fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = self.clock.elapsed();
        let done = work();
        let spent = self.clock.elapsed().saturating_sub(begun).as_micros();
        let spent = u64::try_from(spent).unwrap_or(u64::MAX);
        self.spent_us.fetch_add(spent, Ordering::Relaxed);
        done
    }
}

/// How chunks are compressed again.
pub(super) struct Effort<'a> {
    /// The zstd level; the store's own if that is higher.
    pub(super) level: i32,
    /// Whether the calling thread works alone.
    pub(super) inline: bool,
    /// When it is used up, the rest goes on as it stands.
    pub(super) budget: Budget<'a>,
    /// Told how many chunks are done; says whether to go on at all.
    pub(super) going: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Effort<'_> {
    fn map<T: Sync, R: Send>(
        &self,
        items: &[T],
        least: usize,
        work: impl Fn(&T) -> R + Sync + Send,
    ) -> Vec<R> {
        let work = |item: &T| self.budget.spend(|| work(item));
        match self.inline {
            true => items.iter().map(work).collect(),
            false => parallel::map(items, least, work),
        }
    }
}

/// A chunk as it is to be stored again.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) chunk: Encoded,
    /// Whether its record is another than before.
    pub(super) anew: bool,
}

/// Chunks to be stored again, and how.
pub(super) struct Again<'a> {
    session: &'a Session,
    members: Vec<Member>,
    ordinals: HashMap<ChunkId, usize>,
    order: Vec<usize>,
    grouping: Grouping,
    decoded: Mutex<Decoded>,
    level: i32,
}

impl<'a> Again<'a> {
    /// Reads every needed chunk of the segments to be rewritten and decides what each is to be framed over. A segment with a
    /// damaged one is left out of the plan. `None` if told to stop.
    ///
    /// `sealed` are all segments there are: what others there stand on goes on standing by itself.
    pub(super) fn plan(
        session: &'a Session,
        sealed: &[(SegmentNumber, u64)],
        plan: &mut Plan,
        marked: &Marked,
        effort: &Effort<'_>,
    ) -> Result<Option<Self>, StoreError> {
        let Some(members) = sketch_all(session, plan, marked, effort)? else {
            return Ok(None);
        };
        let ordinals: HashMap<_, _> = members
            .iter()
            .enumerate()
            .map(|(ordinal, member)| (member.row.id, ordinal))
            .collect();
        let order = effort.budget.spend(|| reading_order(session, &ordinals))?;
        let config = session.store().config();
        let grouping = match config.prefix_frames {
            true => {
                let others = || bases_of_others(session, sealed, plan, &ordinals);
                let fixed = effort.budget.spend(others)?;
                effort.budget.spend(|| Grouping::of(&members, &fixed))
            }
            false => Grouping::none(),
        };
        Ok(Some(Self {
            session,
            members,
            ordinals,
            order,
            grouping,
            decoded: Mutex::default(),
            level: effort.level.max(config.zstd_level),
        }))
    }

    /// Returns how many chunks they are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// Returns the chunks' ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.members.iter().map(|member| member.row.id)
    }

    /// Makes the record of one chunk in `one_in`, in the order in which they are to be stored, and hands each over with how
    /// many it stands for. `false` if told to stop.
    pub(super) fn encode(
        &self,
        effort: &Effort<'_>,
        one_in: usize,
        mut take: impl FnMut(Stored, u64) -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        let samples: Vec<&[usize]> = self.order.chunks(one_in).collect();
        let mut done = 0;
        for samples in samples.chunks(step_chunks(self.session.block_size())) {
            if !(effort.going)(done) {
                return Ok(false);
            }
            let compress = effort.budget.is_left();
            let first = |sample: &&[usize]| sample.first().copied().unwrap_or_default();
            let stored = effort.map(samples, 1, |sample| self.record(first(sample), compress));
            for (stored, sample) in stored.into_iter().zip(samples) {
                take(stored?, sample.len() as u64)?;
                done += sample.len() as u64;
            }
        }
        Ok(true)
    }

    /// Publishes the features of what stands by itself now, of those chunks that are `wanted` by where they stood. Advice:
    /// what cannot be published is found by features no more, and nothing else.
    pub(super) fn publish_sketches(&self, wanted: impl Fn(&RunRow) -> bool) {
        if self.session.store().config().prefix_frames {
            let mut runs = sketches::SketchRuns::default();
            drop(runs.publish(self.session.environment(), self.plain_rows(wanted)));
        }
    }

    fn plain_rows(&self, wanted: impl Fn(&RunRow) -> bool) -> Vec<SketchRow> {
        let plain = self.members.iter().enumerate();
        let plain = plain.filter(|(ordinal, _)| self.grouping.bases_of(*ordinal).is_empty());
        plain
            .filter(|(_, member)| wanted(&member.row))
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

    /// Returns a chunk's record: the shortest that was found, or, unless it is to be compressed, the one it has if that can
    /// stay.
    fn record(&self, ordinal: usize, compress: bool) -> Result<Stored, StoreError> {
        let row = &self.member(ordinal).row;
        let can_stay = self.can_stay(ordinal)?;
        let block = self.session.read_chunk_at(row)?;
        if can_stay && !compress {
            return self.as_it_stands(row);
        }
        let plain = codec::compress(row.id, &block, self.level);
        let bases = self.grouping.bases_of(ordinal).iter();
        let bases: Result<Vec<_>, StoreError> = bases.map(|base| self.base(*base)).collect();
        let bases = bases?;
        let bases: Vec<(ChunkId, &[u8])> =
            bases.iter().map(|(id, block)| (*id, &***block)).collect();
        let below = plain.stored_length - plain.stored_length / ADVANTAGE;
        let framed = prefix::compress_with_bases(row.id, &block, &bases, self.level, below);
        let chunk = framed.unwrap_or(plain);
        // A higher level is not always better, nor are these bases than those it had.
        match can_stay && row.stored_length <= chunk.stored_length {
            true => self.as_it_stands(row),
            false => Ok(Stored { chunk, anew: true }),
        }
    }

    /// Tells whether a chunk's record may go on as it is: a plain one always; one over others if nobody is to stand on it,
    /// and what it stands on stands by itself, there or here.
    fn can_stay(&self, ordinal: usize) -> Result<bool, StoreError> {
        let row = &self.member(ordinal).row;
        if row.bases == 0 {
            return Ok(true);
        }
        if self.grouping.is_stood_on(ordinal) {
            return Ok(false);
        }
        for base in self.session.bases_of(row)?.ids() {
            let plain = match self.ordinals.get(base) {
                Some(member) => {
                    self.grouping.bases_of(*member).is_empty()
                        && (self.member(*member).row.bases == 0
                            || self.grouping.is_stood_on(*member))
                }
                None => self.session.locate(base)?.bases == 0,
            };
            if !plain {
                return Ok(false);
            }
        }
        Ok(true)
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
    fn as_it_stands(&self, row: &RunRow) -> Result<Stored, StoreError> {
        let chunk = codec::stored(self.session, row)?;
        Ok(Stored { chunk, anew: false })
    }
}

/// Reads every needed chunk of the segments to be rewritten and draws its features.
fn sketch_all(
    session: &Session,
    plan: &mut Plan,
    marked: &Marked,
    effort: &Effort<'_>,
) -> Result<Option<Vec<Member>>, StoreError> {
    let mut members = Vec::new();
    let mut whole = Vec::new();
    for (table, bytes) in std::mem::take(&mut plan.rewrite) {
        let needed: Vec<RunRow> = survivors(&table, marked).collect();
        let before = members.len();
        let mut damaged = false;
        for rows in needed.chunks(step_chunks(session.block_size())) {
            if !(effort.going)(0) {
                return Ok(None);
            }
            for sketch in effort.map(rows, 4, |row| sketch(session, row)) {
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
fn reading_order(
    session: &Session,
    ordinals: &HashMap<ChunkId, usize>,
) -> Result<Vec<usize>, StoreError> {
    let mut left = ordinals.clone();
    let mut order = Vec::with_capacity(left.len());
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
    ordinals: &HashMap<ChunkId, usize>,
) -> Result<HashSet<usize>, StoreError> {
    let rewritten: HashSet<_> = plan.segments().map(|(number, _)| number).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_worked_on_in_bounded_bytes() {
        for (block_size, step) in [
            (BlockSize::MIN, 256),
            (BlockSize::DEFAULT, 256),
            (BlockSize::MAX, 8),
        ] {
            assert_eq!(step_chunks(block_size), step);
        }
    }
}

//! The choice of bases for new chunks while an ingest goes on.
//!
//! Which chunks are plain is decided in stream order, before anything of a window is compressed: a frame's bases are plain
//! when it is made, whoever compresses first. What was decided to be plain can be a base from then on, what was decided to
//! be a frame cannot. Everything here is advice but one thing: [`Similar::base`] hands out only bytes that were read,
//! checked and hashed, so that a frame is made on what its bases really hold.

use crate::index::Run;
use crate::open_records::OpenRecords;
use crate::sketches::{SketchRuns, Votes};
use crate::{ChunkDamage, Encoded, Ingest, Session, StoreError, decode_record};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tegula_format::{ChunkId, Feature, IdPrefix, RunRow, Sketch, SketchRow};
use tegula_io::Buffer;
use tegula_io::sync::{Mutex, PoisonError};

/// Features kept in memory before they are published as a run: 8 MiB of them, and half of it again while they are sorted.
const FEATURES_KEPT_MAX: usize = 1 << 18;

/// Bytes of decoded bases kept for the chunks that follow.
const DECODED_BYTES_MAX: usize = 32 << 20;

/// A sketch of fewer features says too little to tell that two chunks differ: such a block is tried on its parent's.
const FEATURES_FEW: usize = 6;

/// A new chunk that this ingest has claimed.
#[derive(Debug)]
pub struct NewChunk<'b> {
    /// Its id.
    pub id: ChunkId,
    /// Its bytes, a whole block.
    pub block: &'b [u8],
    /// What it resembles.
    pub sketch: &'b Sketch,
    /// What the parent has at the same block.
    pub before: Option<ChunkId>,
}

/// How a new chunk is to be stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FramePlan {
    bases: Vec<IdPrefix>,
    /// Whether the bases are no more than a guess: the shorter of frame and plain frame is then stored.
    unsure: bool,
}

/// What an ingest knows of the chunks that can be bases. Only in stores that may have prefix frames.
#[derive(Debug)]
pub(crate) struct Similar {
    choice: Mutex<Choice>,
    decoded: Mutex<Decoded>,
}

#[derive(Debug, Default)]
struct Choice {
    stored: SketchRuns,
    /// Features of this ingest's own plain chunks that no run has yet.
    own: HashMap<Feature, IdPrefix>,
    /// Plain chunks in the segment being written, which nobody can read yet.
    open: OpenRecords,
    /// Rows of plain chunks in sealed segments that no run lists yet.
    sealed: HashMap<IdPrefix, RunRow>,
    /// Runs this ingest has published.
    runs: Vec<Run>,
}

/// Where the bytes of a base are to be had.
enum Source {
    Record(ChunkId, Vec<u8>),
    Row(RunRow),
}

impl Choice {
    /// Tells whether a plain chunk is there, or will be.
    fn has(&self, session: &Session, prefix: IdPrefix) -> bool {
        self.open.get(prefix).is_some() || self.find_row(session, prefix).is_some()
    }

    fn find(&self, session: &Session, prefix: IdPrefix) -> Option<Source> {
        if let Some((id, record)) = self.open.get(prefix) {
            return Some(Source::Record(id, record.to_vec()));
        }
        self.find_row(session, prefix).map(Source::Row)
    }

    fn find_row(&self, session: &Session, prefix: IdPrefix) -> Option<RunRow> {
        let published = || {
            let rows = self
                .runs
                .iter()
                .flat_map(|run| run.sections().find_prefix(prefix));
            rows.filter(|row| row.bases == 0)
                .min_by_key(|row| row.place)
        };
        let stored = || session.index().ok()?.find_plain(prefix);
        let row = self.sealed.get(&prefix).copied();
        row.or_else(published).or_else(stored)
    }
}

impl Similar {
    pub(crate) fn new(session: &Session) -> Result<Self, StoreError> {
        let choice = Choice {
            stored: SketchRuns::open(session.environment())?,
            ..Choice::default()
        };
        Ok(Self {
            choice: Mutex::new(choice),
            decoded: Mutex::default(),
        })
    }

    fn choice(&self) -> impl std::ops::DerefMut<Target = Choice> + '_ {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides how new chunks are to be stored, in stream order.
    pub(crate) fn plan(
        &self,
        session: &Session,
        chunks: &[NewChunk<'_>],
    ) -> Result<Vec<FramePlan>, StoreError> {
        let mut guard = self.choice();
        let choice = &mut *guard;
        let mut plans = Vec::with_capacity(chunks.len());
        // Decided, and not stored yet.
        let mut plain_here = HashSet::new();
        for chunk in chunks {
            let features = chunk.sketch.features();
            let mut votes = Votes::default();
            for (position, feature) in features.iter().enumerate() {
                let own = choice.own.get(feature).copied();
                own.into_iter()
                    .chain(choice.stored.find(*feature))
                    .for_each(|found| votes.add(found, position));
            }
            let bases = votes.choose(chunk.sketch, |prefix| {
                plain_here.contains(&prefix) || choice.has(session, prefix)
            });
            let mut plan = FramePlan {
                bases,
                unsure: false,
            };
            if plan.bases.is_empty() && features.len() < FEATURES_FEW {
                let before = chunk.before.as_ref().map(IdPrefix::of);
                let usable = before.filter(|prefix| choice.has(session, *prefix));
                plan.bases.extend(usable);
                plan.unsure = true;
            }
            if plan.bases.is_empty() {
                let prefix = IdPrefix::of(&chunk.id);
                plain_here.insert(prefix);
                features
                    .iter()
                    .for_each(|feature| _ = choice.own.entry(*feature).or_insert(prefix));
            }
            plans.push(plan);
            if choice.own.len() >= FEATURES_KEPT_MAX {
                choice.publish(session)?;
            }
        }
        Ok(plans)
    }

    /// Publishes the features of this ingest's plain chunks.
    pub(crate) fn publish(&self, session: &Session) -> Result<(), StoreError> {
        self.choice().publish(session)
    }

    /// Notes a chunk that was appended to the segment being written.
    pub(crate) fn appended(&self, chunk: &Encoded) {
        if chunk.bases.is_empty() {
            self.choice().open.push(chunk.id, &chunk.record);
        }
    }

    /// Notes that the segment that was being written is sealed.
    pub(crate) fn sealed(&self, rows: &[RunRow]) {
        let mut choice = self.choice();
        choice.open.clear();
        let plain = rows.iter().filter(|row| row.bases == 0);
        choice
            .sealed
            .extend(plain.map(|row| (IdPrefix::of(&row.id), *row)));
    }

    /// Notes that these runs now list all that is sealed.
    pub(crate) fn listed(&self, runs: &[Run]) {
        let mut choice = self.choice();
        choice.sealed.clear();
        choice.runs = runs.to_vec();
    }

    /// Returns a plain chunk and its bytes, verified; `None` if it is nowhere, or not whole.
    fn base(&self, session: &Session, prefix: IdPrefix) -> Option<(ChunkId, Arc<Buffer>)> {
        let known = self
            .decoded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(prefix);
        if known.is_some() {
            return known;
        }
        let source = self.choice().find(session, prefix)?;
        let (id, block) = match source {
            Source::Record(id, record) => {
                let mut block = Buffer::stale(session.block_size().as_usize());
                let decoded: Result<(), ChunkDamage> = decode_record(&record, &id, &mut block);
                decoded.ok()?;
                (id, block)
            }
            // A base that cannot be read is done without; verification finds it.
            Source::Row(row) => (row.id, session.read_chunk_at(&row).ok()?),
        };
        let block = Arc::new(block);
        self.decoded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(prefix, id, &block);
        Some((id, block))
    }
}

impl Choice {
    fn publish(&mut self, session: &Session) -> Result<(), StoreError> {
        let rows = self
            .own
            .drain()
            .map(|(feature, chunk)| SketchRow { feature, chunk });
        let rows = rows.collect();
        self.stored.publish(session.environment(), rows)
    }
}

/// The bases decoded last, in two generations: when the young one is full it becomes the old one, and the old one goes.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    young: HashMap<IdPrefix, (ChunkId, Arc<Buffer>)>,
    old: HashMap<IdPrefix, (ChunkId, Arc<Buffer>)>,
    young_bytes: usize,
}

impl Decoded {
    pub(crate) fn get(&mut self, prefix: IdPrefix) -> Option<(ChunkId, Arc<Buffer>)> {
        if let Some(found) = self.young.get(&prefix) {
            return Some(found.clone());
        }
        let (id, block) = self.old.remove(&prefix)?;
        self.put(prefix, id, &block);
        Some((id, block))
    }

    pub(crate) fn put(&mut self, prefix: IdPrefix, id: ChunkId, block: &Arc<Buffer>) {
        if self.young_bytes + block.len() > DECODED_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += block.len();
        self.young.insert(prefix, (id, Arc::clone(block)));
    }
}

impl Ingest<'_> {
    /// Tells whether the store may have prefix frames: whether [`Self::plan_frames`] is of use.
    pub fn makes_frames(&self) -> bool {
        self.similar().is_some()
    }

    /// Decides on which chunks new ones are to be framed. To be called in stream order, with chunks that this ingest has
    /// claimed and that will all be stored, in the same order.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the ingest is then to be dropped.
    pub fn plan_frames(&self, chunks: &[NewChunk<'_>]) -> Result<Vec<FramePlan>, StoreError> {
        match self.similar() {
            Some(similar) => similar.plan(self.session(), chunks),
            None => Ok(vec![FramePlan::default(); chunks.len()]),
        }
    }

    /// Compresses a chunk as planned. Its bases may be among `window`, the chunks that were planned with it.
    pub fn compress_planned(
        &self,
        chunk: &NewChunk<'_>,
        plan: &FramePlan,
        window: &HashMap<IdPrefix, (ChunkId, &[u8])>,
    ) -> Encoded {
        let plain = || self.compress(chunk.id, chunk.block);
        let Some(similar) = self.similar().filter(|_| !plan.bases.is_empty()) else {
            return plain();
        };
        let read: Vec<_> = plan
            .bases
            .iter()
            .filter(|prefix| !window.contains_key(prefix))
            .filter_map(|prefix| similar.base(self.session(), *prefix))
            .collect();
        let bases: Vec<(ChunkId, &[u8])> = plan
            .bases
            .iter()
            .filter_map(|prefix| {
                let here = window.get(prefix).copied();
                let read = || {
                    let (id, block) = read.iter().find(|(id, _)| prefix.is_of(id))?;
                    Some((*id, &***block))
                };
                here.or_else(read)
            })
            .collect();
        let below = self.session().block_size().bytes();
        match self.compress_with_bases(chunk.id, chunk.block, &bases, below) {
            Some(framed) if plan.unsure => match plain() {
                plain if plain.stored_length <= framed.stored_length + ADVANTAGE_BYTES => plain,
                _ => framed,
            },
            Some(framed) => framed,
            None => plain(),
        }
    }
}

/// How much shorter a frame that was a guess must be than one without bases: it costs its readers more.
const ADVANTAGE_BYTES: u32 = 256;

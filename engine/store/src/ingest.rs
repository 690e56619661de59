//! Writing: new chunks into segments, then a layer, then the image record that makes it all count (SPEC 12).

use crate::index::{Run, publish_run};
use crate::layer::{IdTable, Ids, LayerIdSource, NewLayer};
use crate::segment::SegmentWriter;
use crate::similar::Similar;
use crate::standing::chooser;
use crate::{
    Encoded, Index, LayerStack, Session, StoreError, codec, files, index, paths, prefix, sketches,
};
use std::collections::HashSet;
use tegula_format::{
    BASE_DEPTH_MAX, BlockSet, ChunkId, ImageDigest, ImageName, ImageRecord, IngestId, LayerId,
    ParentReference, RunRow, SegmentNumber,
};
use tegula_io::Lock;
use tegula_io::sync::{Mutex, PoisonError, RwLock};

/// Rows of sealed segments kept in memory before they are published as a run, those of one segment more at most. With
/// the claims on their chunks, and what finds those that can be bases, that is 16 MiB; half of it again while the run
/// is made.
const UNPUBLISHED_ROWS_MAX: usize = 1 << 16;

/// One writer's work. Any number may go on at once, in any number of processes.
///
/// Dropped without [`Self::finish`] it leaves nothing that counts: its sealed segments are garbage, which collection
/// takes, or which the next attempt at the same image uses.
#[derive(Debug)]
pub struct Ingest<'a> {
    session: &'a Session,
    id: IngestId,
    /// `None` for one that only writes layers.
    index: Option<&'a Index>,
    shared: RwLock<Shared>,
    writing: Mutex<Writing>,
    similar: Option<Similar>,
    _alive: Lock,
}

/// What workers ask.
#[derive(Debug, Default)]
struct Shared {
    /// Chunks somebody has undertaken to store and that no run lists yet.
    claimed: HashSet<ChunkId>,
    /// What this ingest has published of its own.
    runs: Vec<Run>,
    /// How often it has published.
    published: u64,
}

impl Shared {
    fn lists(&self, id: &ChunkId) -> bool {
        self.runs.iter().any(|run| run.find(id).next().is_some())
    }
}

#[derive(Debug, Default)]
struct Writing {
    segment: Option<SegmentWriter>,
    /// Rows of the segment being written.
    open_rows: Vec<RunRow>,
    /// Rows of sealed segments not yet published as a run.
    rows: Vec<RunRow>,
    segments: Vec<SegmentNumber>,
    totals: IngestTotals,
}

/// What an ingest has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IngestTotals {
    /// Chunks stored.
    pub new_chunks: u64,
    /// Their bytes before compression.
    pub new_bytes: u64,
    /// Bytes of the sealed segments they went into.
    pub stored_bytes: u64,
}

/// What an image is to be.
#[derive(Debug)]
pub struct NewImage<'a> {
    /// Its name.
    pub name: ImageName,
    /// Whether it may take the place of an image of that name.
    pub replace: bool,
    /// Its length in bytes.
    pub virtual_size: u64,
    /// Where it came from.
    pub parent: Option<ParentReference>,
    /// The map its own blocks lie over.
    pub base: Option<&'a LayerStack>,
    /// The blocks that differ from the base, or, without a base, that hold data.
    pub data: BlockSet,
    /// The blocks that the base has and the image reads as zeros.
    pub zero: BlockSet,
}

impl<'a> Ingest<'a> {
    /// Begins to write.
    ///
    /// # Errors
    /// [`StoreError`] if the index cannot be read or the store not be written.
    pub fn begin(session: &'a Session) -> Result<Self, StoreError> {
        Self::begin_with(session, Some(session.index()?))
    }

    /// Begins to write layers of chunks that are all there: the index is not even opened.
    pub(crate) fn begin_without_index(session: &'a Session) -> Result<Self, StoreError> {
        Self::begin_with(session, None)
    }

    fn begin_with(session: &'a Session, index: Option<&'a Index>) -> Result<Self, StoreError> {
        let environment = session.environment();
        let locks = paths::directory(paths::LOCKS);
        let random = environment
            .random
            .id()
            .map_err(StoreError::io("name a file in", &locks))?;
        let id = IngestId::from_bytes(random);
        let alive = session.store().lock(&paths::ingest_lock(&id))?;
        let (shared, writing) = (RwLock::default(), Mutex::default());
        // Who only writes layers compresses nothing.
        let frames = session.store().config().prefix_frames && index.is_some();
        let similar = frames.then(|| Similar::new(session)).transpose()?;
        Ok(Self {
            session,
            id,
            index,
            shared,
            writing,
            similar,
            _alive: alive,
        })
    }

    /// Returns the id that stands in all it writes.
    pub(crate) fn id(&self) -> IngestId {
        self.id
    }

    pub(crate) fn similar(&self) -> Option<&Similar> {
        self.similar.as_ref()
    }

    /// Returns the session this writes in.
    pub fn session(&self) -> &'a Session {
        self.session
    }

    /// Tells whether the store has a chunk. If not, it is the caller's to store: whoever asks next is told that it is
    /// there. To be asked for a chunk that differs from its parent's at the same block, which is known without.
    pub fn has_or_claim(&self, id: &ChunkId) -> bool {
        let asked = {
            let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            if shared.claimed.contains(id) || shared.lists(id) {
                return true;
            }
            shared.published
        };
        if self.is_there(id) {
            return true;
        }
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have claimed and stored it meanwhile, and its run have been published, which ends claims.
        shared.published > asked && shared.lists(id) || !shared.claimed.insert(*id)
    }

    /// Tells whether a chunk may be counted on: the store has it, with all that it stands on, or this ingest has stored
    /// it. To be asked for what a new chunk is to stand on.
    pub fn has(&self, id: &ChunkId) -> bool {
        {
            let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
            if shared.claimed.contains(id) || shared.lists(id) {
                return true;
            }
        }
        self.is_there(id)
    }

    fn is_there(&self, id: &ChunkId) -> bool {
        let Some(index) = self.index else {
            return false;
        };
        match index.lookup(id) {
            None => false,
            Some(row) if row.bases == 0 => true,
            // What cannot be looked at is not counted on.
            Some(_) => matches!(chooser(self.session, index).choose(id), Ok(Some(_))),
        }
    }

    /// Undertakes to store a chunk again, wherever else it may stand. Tells whether this ingest has not done so before.
    pub(crate) fn claim(&self, id: &ChunkId) -> bool {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        !shared.lists(id) && shared.claimed.insert(*id)
    }

    /// Compresses a block at the store's level.
    pub fn compress(&self, id: ChunkId, block: &[u8]) -> Encoded {
        codec::compress(id, block, self.session.store().config().zstd_level)
    }

    /// Compresses a block into a frame that has one or two chunks of the store, or claimed by this ingest, as its prefix;
    /// `None` if the store has no such frames, these chunks cannot be bases, or its payload would not be shorter than
    /// `below` bytes. The chunks are to stand by themselves, not on others.
    pub fn compress_with_bases(
        &self,
        id: ChunkId,
        block: &[u8],
        bases: &[(ChunkId, &[u8])],
        below: u32,
    ) -> Option<Encoded> {
        let config = self.session.store().config();
        if !config.prefix_frames {
            return None;
        }
        prefix::compress_with_bases(id, block, bases, config.zstd_level, below)
    }

    /// Appends a claimed chunk. Chunks are to come in stream order: what lies together is read together.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the ingest is then to be dropped.
    ///
    /// # Panics
    /// If the chunk has bases and the store's configuration excludes them.
    pub fn store(&self, chunk: &Encoded) -> Result<(), StoreError> {
        let config = self.session.store().config();
        assert!(
            config.prefix_frames || chunk.bases.is_empty(),
            "a store without prefix frames is given none"
        );
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.segment.as_ref().is_some_and(SegmentWriter::is_full) {
            self.seal(&mut writing)?;
        }
        if writing.segment.is_none() {
            let floor = self.session.segment_floor()?;
            writing.segment = Some(SegmentWriter::create(self.session.store(), self.id, floor)?);
        }
        let segment = writing.segment.as_mut().expect("because it was just made");
        let row = segment.append(chunk)?;
        writing.open_rows.push(row);
        if let Some(similar) = &self.similar {
            similar.appended(chunk);
        }
        writing.totals.new_chunks += 1;
        writing.totals.new_bytes += u64::from(self.session.block_size().bytes());
        Ok(())
    }

    /// Stores a chunk that the store has already: another copy, which is found before all older ones.
    ///
    /// # Errors
    /// As for [`Self::store`].
    pub fn store_again(&self, id: ChunkId, block: &[u8]) -> Result<(), StoreError> {
        self.store(&self.compress(id, block))?;
        self.shared
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .claimed
            .insert(id);
        Ok(())
    }

    /// Returns what was written so far; complete once everything is sealed.
    pub fn totals(&self) -> IngestTotals {
        self.writing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .totals
    }

    fn seal(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let Some(segment) = writing.segment.take() else {
            return Ok(());
        };
        writing.totals.stored_bytes += segment.seal()?;
        let rows = std::mem::take(&mut writing.open_rows);
        if let Some(similar) = &self.similar {
            similar.sealed(&rows);
        }
        writing
            .segments
            .extend(rows.first().map(|row| row.place.segment));
        writing.rows.extend(rows);
        if writing.rows.len() >= UNPUBLISHED_ROWS_MAX {
            self.publish_rows(writing)?;
        }
        Ok(())
    }

    /// Publishes a run of everything sealed; its chunks need no memory of ours from then on.
    fn publish_rows(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let environment = self.session.environment();
        files::sync_directory(environment, &paths::directory(paths::SEGMENTS))?;
        let (rows, segments) = (
            std::mem::take(&mut writing.rows),
            std::mem::take(&mut writing.segments),
        );
        if rows.is_empty() {
            return Ok(());
        }
        let published: Vec<ChunkId> = rows.iter().map(|row| row.id).collect();
        let run = publish_run(environment, rows, &segments)?;
        let runs = {
            let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
            published
                .iter()
                .for_each(|id| _ = shared.claimed.remove(id));
            shared.runs.push(run);
            shared.published += 1;
            shared.runs.clone()
        };
        // Workers go on asking meanwhile: only who writes, one at a time, changes which runs there are.
        let runs = index::merge_own(environment, runs)?;
        if let Some(similar) = &self.similar {
            similar.listed(&runs);
        }
        self.shared
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .runs = runs;
        Ok(())
    }

    /// Seals what is open and makes every chunk stored so far durable and findable.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn seal_all(&self) -> Result<(), StoreError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.seal(&mut writing)?;
        self.publish_rows(&mut writing)
    }

    /// Returns an empty table for the chunk ids of a new image.
    pub fn id_table(&self) -> IdTable<'a> {
        IdTable::new(self.session.environment())
    }

    /// Publishes an image whose chunks are all stored: layer, then record. `ids` are the chunks of `image.data`, in
    /// block order. Everything is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::ImageExists`] if the name is taken; otherwise [`StoreError::Io`]. Either way nothing is changed.
    pub fn finish(
        self,
        image: NewImage<'_>,
        ids: IdTable<'_>,
    ) -> Result<(ImageRecord, IngestTotals), StoreError> {
        self.publish(image, ids.finish()?, None, &mut || Ok(()))
    }

    /// Publishes an image as [`Self::finish`] does, if it turns out to be the one expected.
    ///
    /// # Errors
    /// [`StoreError::OtherImage`] if it has another digest; nothing is published then.
    pub fn finish_as(
        self,
        expected: ImageDigest,
        image: NewImage<'_>,
        ids: Ids<'_>,
    ) -> Result<(ImageRecord, IngestTotals), StoreError> {
        self.publish(image, ids, Some(expected), &mut || Ok(()))
    }

    /// As [`Self::finish`], if `allowed`, asked under the commit lock right before the record is published, has nothing
    /// against it.
    pub(crate) fn finish_where(
        self,
        image: NewImage<'_>,
        ids: IdTable<'_>,
        allowed: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<(ImageRecord, IngestTotals), StoreError> {
        self.publish(image, ids.finish()?, None, allowed)
    }

    fn publish(
        self,
        image: NewImage<'_>,
        ids: Ids<'_>,
        expected: Option<ImageDigest>,
        allowed: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<(ImageRecord, IngestTotals), StoreError> {
        let environment = self.session.environment();
        self.seal_all()?;
        let NewImage {
            name,
            replace,
            virtual_size,
            parent,
            base,
            data,
            zero,
        } = image;
        let differs = match base {
            Some(base) => base.differs_from(&data, ids.as_slice(), &zero)?,
            None => false,
        };
        let layer = NewLayer {
            virtual_size,
            parent: base.map(LayerStack::reference),
            data,
            zero,
            ids: LayerIdSource::Table(ids),
            differs,
        };
        let layer = layer.publish(self.session, self.id)?;
        // Another writer's sealed segment that we found by its name may not be durable under it yet, nor a layer.
        files::sync_directory(environment, &paths::directory(paths::SEGMENTS))?;
        files::sync_directory(environment, &paths::directory(paths::LAYERS))?;
        let store = self.session.store();
        // The digest is that of what stands on disk now.
        let stack = LayerStack::open(self.session, &layer)?;
        let digest = stack.digest()?;
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            // Nobody knows the layer. Should it stay, collection takes it.
            let _gone = files::remove_if_present(environment, &paths::layer(&layer));
            let found = digest;
            return Err(StoreError::OtherImage { expected, found });
        }
        let record = ImageRecord {
            id: store.new_record_id()?,
            name,
            virtual_size,
            block_size: self.session.block_size(),
            digest,
            layer,
            parent,
            supersedes: None,
            data_blocks: stack.parts().data_blocks,
            created_at_us: environment.clock.now_us(),
        };
        let mut record = self.commit(record, replace, allowed)?;
        let totals = self.totals();
        // What follows only keeps later reads cheap; the image is there whatever comes of it.
        if record.layer == layer
            && let Ok(Some(shallow)) = self.keep_shallow(&record, &stack)
        {
            record = shallow;
        }
        let _tidied = index::tidy(self.session, false);
        if let Some(similar) = &self.similar {
            let _published = similar.publish(self.session);
            let _merged = sketches::tidy(self.session);
        }
        Ok((record, totals))
    }

    /// Publishes the record under the commit lock, after making sure that collection has not meanwhile condemned
    /// anything the image needs.
    fn commit(
        &self,
        mut record: ImageRecord,
        replace: bool,
        allowed: &mut dyn FnMut() -> Result<(), StoreError>,
    ) -> Result<ImageRecord, StoreError> {
        let store = self.session.store();
        let mut checked_epoch = self.session.state().epoch;
        loop {
            let lock = store.commit_lock()?;
            let epoch = store.read_gc_state()?.epoch;
            if epoch == checked_epoch {
                allowed()?;
                match replace {
                    true => store.publish_replacing(self.session, &record)?,
                    false => store.publish_new(self.session, &record)?,
                }
                return Ok(record);
            }
            drop(lock);
            checked_epoch = self.carry_over(&mut record)?;
        }
    }

    /// Stores again what the image needs and collection has condemned since this session began, and puts the image on
    /// a layer of its own if one it lies on is condemned. Returns the epoch it was checked for.
    fn carry_over(&self, record: &mut ImageRecord) -> Result<u64, StoreError> {
        let now = self.session.store().begin()?;
        let stack = LayerStack::of_image(self.session, record)?;
        let mut again = HashSet::new();
        for chunk in stack.chunks() {
            let (_, id) = chunk?;
            self.carry_over_chunk(&now, &id, &mut again, 0)?;
        }
        self.seal_all()?;
        if stack
            .layers()
            .iter()
            .any(|layer| now.state().condemns_layer(&layer.id()))
        {
            record.layer = self.write_full(&stack)?;
        }
        Ok(now.state().epoch)
    }

    /// Stores a chunk again unless it stands, with all it stands on, where it may stay; what it stands on is carried over
    /// in its place where it can be. `again` are the chunks that were stored again.
    fn carry_over_chunk(
        &self,
        now: &Session,
        id: &ChunkId,
        again: &mut HashSet<ChunkId>,
        depth: u32,
    ) -> Result<(), StoreError> {
        let now_there = chooser(now, now.index()?);
        if again.contains(id) || now_there.choose(id)?.is_some() {
            return Ok(());
        }
        let framed = now_there.places(id).into_iter().next();
        if let (Some(row), true) = (framed, depth < BASE_DEPTH_MAX) {
            let bases = now.bases_of(&row)?;
            let mut bases = bases.ids().iter();
            match bases.try_for_each(|base| self.carry_over_chunk(now, base, again, depth + 1)) {
                // It has been of no use for long: what it stands on is gone.
                Err(error) if error.is_unreadable() => {}
                carried => return carried,
            }
        }
        // Still there: this session is older than the condemnation, and nothing goes while it lasts.
        let row = self.session.index()?.lookup_even_condemned(id);
        let row = row.ok_or(StoreError::ChunkMissing { id: *id })?;
        let block = match self.session.read_chunk_at(&row) {
            Err(error) if error.is_unreadable() => self.session.read_chunk(id)?,
            block => block?,
        };
        again.insert(*id);
        self.store_again(*id, &block)
    }

    /// Puts an image on a new full layer with these blocks, whose chunks are all stored; `ids` are theirs, in order.
    ///
    /// # Errors
    /// [`StoreError::ImageChanged`] if the image is replaced or removed meanwhile; [`StoreError::Io`].
    pub(crate) fn relayer(
        &self,
        old: &ImageRecord,
        data: BlockSet,
        ids: IdTable<'_>,
    ) -> Result<ImageRecord, StoreError> {
        self.seal_all()?;
        let layer = NewLayer {
            virtual_size: old.virtual_size,
            parent: None,
            data,
            zero: BlockSet::new(),
            ids: LayerIdSource::Table(ids.finish()?),
            differs: false,
        }
        .publish(self.session, self.id)?;
        self.replace_layer(old, layer)
    }

    /// Puts an image on another layer of the same content, once nothing it needs is condemned.
    pub(crate) fn replace_layer(
        &self,
        old: &ImageRecord,
        layer: LayerId,
    ) -> Result<ImageRecord, StoreError> {
        let record = ImageRecord {
            layer,
            ..old.clone()
        };
        self.replace_record(old, record)
    }

    /// Replaces the record of an image by one of the same content, once nothing it needs is condemned.
    pub(crate) fn replace_record(
        &self,
        old: &ImageRecord,
        mut record: ImageRecord,
    ) -> Result<ImageRecord, StoreError> {
        let store = self.session.store();
        let mut checked_epoch = self.session.state().epoch;
        loop {
            let lock = store.commit_lock()?;
            if store.read_gc_state()?.epoch == checked_epoch {
                return store.replace_record(self.session, old, &record);
            }
            drop(lock);
            checked_epoch = self.carry_over(&mut record)?;
        }
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // The lock is what tells others we are alive; its file is of no use after us.
        drop(
            self.session
                .environment()
                .storage
                .remove(&paths::ingest_lock(&self.id)),
        );
    }
}

//! A session: what keeps collection from removing what somebody is looking at (SPEC 13).

use crate::base_cache::BaseCache;
use crate::segment::{SegmentFiles, read_ingest};
use crate::standing::BaseTables;
use crate::{
    CheckedRecord, ChunkDamage, Environment, Index, Layer, Store, StoreError, codec, files, paths,
};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, OnceLock, Weak};
use tegula_format::{
    BASE_DEPTH_MAX, Bases, BlockSize, ChunkId, GcState, IngestId, LayerId, QuarantineList, RunRow,
    SegmentNumber,
};
use tegula_io::sync::{self, Mutex, PoisonError};
use tegula_io::{Buffer, Lock, LockMode, Pending};

/// The files of a store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileBytes {
    /// How many segments there are, sealed or being written.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes of index, layers and image records.
    pub other_bytes: u64,
}

/// A view of the store that stays readable until it is dropped.
///
/// A session belongs to the epoch it began in and holds that epoch's lock, shared. Collection condemns things in one
/// epoch and removes them only when every session of that epoch and before has ended.
#[derive(Debug)]
pub struct Session {
    store: Store,
    state: GcState,
    quarantine: QuarantineList,
    index: OnceLock<Index>,
    /// The index made from the segments' own tables, for when the derived one is damaged.
    tables: OnceLock<Index>,
    files: SegmentFiles,
    /// The layers that somebody has open: images of one family share most of theirs.
    layers: Mutex<HashMap<LayerId, Weak<Layer>>>,
    /// What chunks stand on, by the tables that were read.
    pub(crate) bases: BaseTables,
    /// Chunks that others stand on, decoded.
    base_cache: BaseCache,
    /// The epoch's, or the one under which collection runs; none on a read-only medium that has no such lock.
    _lock: Option<Lock>,
}

impl Session {
    pub(crate) fn begin(store: &Store) -> Result<Self, StoreError> {
        let environment = store.environment();
        loop {
            let before = store.read_gc_state()?;
            let path = paths::epoch_lock(before.epoch);
            // An exclusive holder is collection at its very end: this epoch is over, look again.
            let lock = match store.try_lock(&path, LockMode::Shared) {
                // There is no such file, and none can be made: nothing can be collected here either.
                Err(StoreError::Io { source, .. })
                    if source.kind() == ErrorKind::ReadOnlyFilesystem =>
                {
                    Some(None)
                }
                lock => lock?.map(Some),
            };
            let state = store.read_gc_state()?;
            if let (Some(epoch), true) = (lock, state.epoch == before.epoch) {
                let quarantine = read_quarantine(environment)?;
                return Ok(Self::with(store, state, quarantine, epoch));
            }
            sync::yield_now();
        }
    }

    /// Begins one to verify in, even if the collection state or the quarantine list is damaged or lost: without them
    /// nothing counts as condemned or in quarantine. Returns what is damaged too.
    ///
    /// Without the state no epoch is known to belong to; instead no collection can begin until this ends.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if one is needed and under way; otherwise as for [`Store::begin`], but for that damage.
    pub(crate) fn begin_despite_damage(
        store: &Store,
    ) -> Result<(Self, Vec<StoreError>), StoreError> {
        match Self::begin(store) {
            Err(error) if error.is_damage() => {}
            begun => return Ok((begun?, Vec::new())),
        }
        let lock = match store.try_lock(&paths::gc_lock(), LockMode::Shared) {
            // As for the lock of an epoch.
            Err(StoreError::Io { source, .. })
                if source.kind() == ErrorKind::ReadOnlyFilesystem =>
            {
                None
            }
            lock => Some(lock?.ok_or(StoreError::Busy {
                what: "garbage collection or repair",
            })?),
        };
        let mut damage = Vec::new();
        let state = or_default(store.read_gc_state(), &mut damage)?;
        let quarantine = or_default(read_quarantine(store.environment()), &mut damage)?;
        Ok((Self::with(store, state, quarantine, lock), damage))
    }

    fn with(store: &Store, state: GcState, quarantine: QuarantineList, lock: Option<Lock>) -> Self {
        Self {
            store: store.clone(),
            state,
            quarantine,
            index: OnceLock::new(),
            tables: OnceLock::new(),
            files: SegmentFiles::default(),
            layers: Mutex::default(),
            bases: BaseTables::default(),
            base_cache: BaseCache::default(),
            _lock: lock,
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn environment(&self) -> &Environment {
        self.store.environment()
    }

    /// Returns the size of the store's blocks.
    pub fn block_size(&self) -> BlockSize {
        self.store.config().block_size
    }

    /// Returns the collection state this session began under.
    pub fn state(&self) -> &GcState {
        &self.state
    }

    /// Returns what the number of every new segment is to be above, besides those of the segments there are: a number
    /// that some list still names must not come to mean another segment, even if its own was lost.
    pub(crate) fn segment_floor(&self) -> Result<u32, StoreError> {
        let listed = self.index()?.segments_listed().map(SegmentNumber::get);
        let quarantined = self
            .quarantine
            .places
            .last()
            .map(|place| place.segment.get());
        let floor = listed.chain(quarantined).max().unwrap_or(0);
        Ok(floor.max(self.state.segment_floor))
    }

    /// Returns the places known to be damaged.
    pub fn quarantine(&self) -> &QuarantineList {
        &self.quarantine
    }

    /// Opens a layer, or shares it with whoever has it open in this session.
    pub(crate) fn layer(&self, id: &LayerId) -> Result<Arc<Layer>, StoreError> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layer) = layers.get(id).and_then(Weak::upgrade) {
            return Ok(layer);
        }
        let layer = Arc::new(Layer::open(self.environment(), id)?);
        if layers.len() == layers.capacity() {
            layers.retain(|_, layer| layer.strong_count() > 0);
        }
        layers.insert(*id, Arc::downgrade(&layer));
        Ok(layer)
    }

    /// Returns the index as of its first use in this session.
    ///
    /// # Errors
    /// [`StoreError`] if neither runs nor segment tables can be read.
    pub fn index(&self) -> Result<&Index, StoreError> {
        match self.index.get() {
            Some(index) => Ok(index),
            None => {
                let index = Index::load(self)?;
                Ok(self.index.get_or_init(|| index))
            }
        }
    }

    /// Returns an index made from the segments' own tables, which nothing derived can spoil.
    pub(crate) fn tables(&self) -> Result<&Index, StoreError> {
        match self.tables.get() {
            Some(index) => Ok(index),
            None => {
                let index = Index::from_tables(self)?;
                Ok(self.tables.get_or_init(|| index))
            }
        }
    }

    /// Returns an index every row of which is known to be right: the runs if all of them are whole, else one made from
    /// the segments' own tables. For deciding what may be removed, where a wrong row would cost a chunk.
    pub(crate) fn sound_index(&self) -> Result<&Index, StoreError> {
        let index = self.index()?;
        match index.runs_are_sound() {
            true => Ok(index),
            false => self.tables(),
        }
    }

    /// Finds where a chunk stands, for reading it.
    ///
    /// # Errors
    /// [`StoreError::ChunkMissing`] if it is nowhere, even by the segments' own tables.
    pub fn locate(&self, id: &ChunkId) -> Result<RunRow, StoreError> {
        // A row that no record can have comes from a damaged run: the tables were checked.
        match self.index()?.lookup(id) {
            Some(row) if row.stored_length <= self.block_size().bytes() => Ok(row),
            _ => self.locate_by_tables(id),
        }
    }

    /// Finds where a chunk stands by the segments' own tables: slower, but what it says was checked.
    ///
    /// # Errors
    /// [`StoreError::ChunkMissing`] if it is nowhere.
    pub fn locate_by_tables(&self, id: &ChunkId) -> Result<RunRow, StoreError> {
        self.tables()?
            .lookup(id)
            .ok_or(StoreError::ChunkMissing { id: *id })
    }

    /// Reads bytes of a sealed segment. Where the storage can, the read goes on behind the caller's back.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the segment cannot be opened; read errors come with the result.
    pub fn read_segment(&self, row: &RunRow, length: usize) -> Result<Pending<Buffer>, StoreError> {
        let file = self.files.open(self.environment(), row.place.segment)?;
        Ok(file.read_at(u64::from(row.offset), length))
    }

    /// Returns whose work a sealed segment is: with the segment's number this tells it from any other there ever is, even
    /// in a copy of the store that has gone its own way.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Corrupt`] if its head cannot be read.
    pub fn writer_of(&self, segment: SegmentNumber) -> Result<IngestId, StoreError> {
        read_ingest(self, segment)
    }

    /// Returns what the store's files amount to.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn file_bytes(&self) -> Result<FileBytes, StoreError> {
        let mut sums = FileBytes::default();
        for directory in [paths::SEGMENTS, paths::INDEX, paths::LAYERS, paths::IMAGES] {
            for entry in files::list(self.environment(), directory)? {
                if directory == paths::SEGMENTS {
                    sums.segments += 1;
                    sums.segment_bytes += entry.bytes;
                } else {
                    sums.other_bytes += entry.bytes;
                }
            }
        }
        Ok(sums)
    }

    /// Reads one chunk: found, read, checked, decompressed, hashed.
    ///
    /// # Errors
    /// [`StoreError::ChunkMissing`], [`StoreError::ChunkDamaged`] or [`StoreError::Io`].
    pub fn read_chunk(&self, id: &ChunkId) -> Result<Buffer, StoreError> {
        self.read_from_anywhere(id, &mut Reach::default())
    }

    /// Reads the chunk at a place.
    ///
    /// # Errors
    /// As for [`Self::read_chunk`], but for that place alone.
    pub fn read_chunk_at(&self, row: &RunRow) -> Result<Buffer, StoreError> {
        self.read_from(row, &mut Reach::default())
    }

    /// Decodes a record that was read from the place of `row` into `block`: checked, decompressed, hashed. Chunks that
    /// its frame has as its prefix are read, and named.
    ///
    /// # Errors
    /// As for [`Self::read_chunk_at`]; `block` then holds nothing to be used.
    pub fn decode_record(
        &self,
        record: &[u8],
        row: &RunRow,
        block: &mut [u8],
    ) -> Result<Bases, StoreError> {
        self.decode(record, row, block, &mut Reach::default())
    }

    /// Checks a record that was read from the place of `row` down to its checksum, without decoding it.
    pub(crate) fn check_record(&self, record: &[u8], row: &RunRow) -> Result<(), StoreError> {
        let rules = self.store.config().chunk_rules();
        CheckedRecord::check(record, &row.id, &rules)
            .map(drop)
            .map_err(|damage| codec::damaged(row, damage))
    }

    fn read_from_anywhere(&self, id: &ChunkId, reach: &mut Reach) -> Result<Buffer, StoreError> {
        let row = self.locate(id)?;
        match self.read_from(&row, reach) {
            // The row may be what is damaged: the segment's own table decides.
            Err(first) => {
                let others = self.tables()?.places(id).filter(|other| *other != row);
                let mut whole = others.filter_map(|other| self.read_from(&other, reach).ok());
                whole.next().ok_or(first)
            }
            read => read,
        }
    }

    fn read_from(&self, row: &RunRow, reach: &mut Reach) -> Result<Buffer, StoreError> {
        let path = paths::sealed_segment(row.place.segment);
        let length = tegula_format::RECORD_HEADER_BYTES + row.stored_length as usize;
        if row.stored_length > self.block_size().bytes() {
            return Err(codec::damaged(
                row,
                ChunkDamage::Length {
                    found: row.stored_length,
                },
            ));
        }
        if !reach.count() {
            return Err(codec::damaged(row, ChunkDamage::TooDeep));
        }
        let record = self.read_segment(row, length)?.wait();
        let record = match record {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(codec::damaged(row, ChunkDamage::PastEnd));
            }
            read => read.map_err(StoreError::io("read", &path))?,
        };
        let mut block = Buffer::zeroed(self.block_size().as_usize());
        self.decode(&record, row, &mut block, reach)?;
        Ok(block)
    }

    fn decode(
        &self,
        record: &[u8],
        row: &RunRow,
        block: &mut [u8],
        reach: &mut Reach,
    ) -> Result<Bases, StoreError> {
        let damaged = |damage| codec::damaged(row, damage);
        let rules = self.store.config().chunk_rules();
        let record = CheckedRecord::check(record, &row.id, &rules).map_err(damaged)?;
        self.decode_checked(&record, block, reach)
            .map_err(|error| match error {
                // The storage failed: that says nothing about the record.
                ChunkDamage::Base { source, .. } if !source.is_unreadable() => *source,
                damage => damaged(damage),
            })?;
        Ok(*record.bases())
    }

    /// Decodes a record from wherever it was read.
    pub(crate) fn decode_checked(
        &self,
        record: &CheckedRecord<'_>,
        block: &mut [u8],
        reach: &mut Reach,
    ) -> Result<(), ChunkDamage> {
        let mut bases = Vec::with_capacity(record.bases().ids().len());
        for base in record.bases().ids() {
            let read = reach.further(|reach| self.read_base(base, reach));
            let read = read.ok_or(ChunkDamage::TooDeep)?;
            bases.push(read.map_err(|error| ChunkDamage::Base {
                base: *base,
                source: Box::new(error),
            })?);
        }
        let bases: Vec<&[u8]> = bases.iter().map(|base| &***base).collect();
        record.decode(&bases, block)
    }

    fn read_base(&self, id: &ChunkId, reach: &mut Reach) -> Result<Arc<Buffer>, StoreError> {
        if let Some(kept) = self.base_cache.get(id) {
            return Ok(kept);
        }
        let block = Arc::new(self.read_from_anywhere(id, reach)?);
        self.base_cache
            .insert(*id, Arc::clone(&block), self.block_size());
        Ok(block)
    }

    /// Returns a chunk if it was read not long ago because others stand on it, and is still kept for that.
    pub fn kept_base(&self, id: &ChunkId) -> Option<Arc<Buffer>> {
        self.base_cache.get(id)
    }

    /// Keeps a chunk for those that stand on it, from a record that was read from the place of `row`.
    ///
    /// # Errors
    /// As for [`Self::read_chunk_at`]; nothing is kept then.
    pub fn keep_base(&self, record: &[u8], row: &RunRow) -> Result<(), StoreError> {
        let mut block = Buffer::stale(self.block_size().as_usize());
        self.decode_record(record, row, &mut block)?;
        self.base_cache
            .insert(row.id, Arc::new(block), self.block_size());
        Ok(())
    }
}

/// How far prefix frames are followed from chunk to chunk for the sake of one, so that no record can lead round in
/// circles, nor to thousands of others.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    depth: u32,
    records: u32,
}

/// The most records that are read as prefixes for the sake of one chunk: two levels of two bases need 6, and damaged
/// records have others tried in their place.
const BASE_RECORDS_MAX: u32 = 256;

impl Reach {
    /// Goes one level further; `None` where that is too far.
    pub(crate) fn further<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth == BASE_DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        let result = step(self);
        self.depth -= 1;
        Some(result)
    }

    /// Counts a record that is read as a prefix; `false` when there were enough.
    pub(crate) fn count(&mut self) -> bool {
        self.records += u32::from(self.depth > 0);
        self.records <= BASE_RECORDS_MAX
    }
}

/// Takes what is damaged for empty, and adds the damage.
fn or_default<T: Default>(
    read: Result<T, StoreError>,
    damage: &mut Vec<StoreError>,
) -> Result<T, StoreError> {
    match read {
        Err(error) if error.is_damage() => {
            damage.push(error);
            Ok(T::default())
        }
        read => read,
    }
}

pub(crate) fn read_quarantine(environment: &Environment) -> Result<QuarantineList, StoreError> {
    let path = paths::quarantined_places();
    match files::read_if_present(environment, &path)? {
        Some(bytes) => QuarantineList::decode(&bytes).map_err(StoreError::corrupt(&path)),
        None => Ok(QuarantineList::default()),
    }
}

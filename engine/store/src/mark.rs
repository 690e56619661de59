//! What is needed: the places of the chunks that images hold.

use crate::layer::Layer;
use crate::segment::SegmentTable;
use crate::standing::Needs;
use crate::{Index, LayerStack, Session, StoreError, parallel};
use roaring::{RoaringBitmap, RoaringTreemap};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tegula_format::{
    BlockSet, ChunkId, ImageRecord, LayerId, Place, RECORD_HEADER_BYTES, RecordId, SegmentNumber,
    TOC_ROW_BYTES, TocRow,
};

/// A set of chunk places. A segment's slots are one container of the bitmap, so sets of places are also sets of
/// segments, and accounting is set algebra.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveSet(RoaringTreemap);

impl LiveSet {
    /// Returns the places an image needs: those of its chunks, and of all that these stand on.
    ///
    /// # Errors
    /// [`StoreError::ChunkMissing`] if one of its chunks is nowhere.
    pub fn of_image(session: &Session, stack: &LayerStack) -> Result<Self, StoreError> {
        let mut needs = Needs::default();
        let mut framed = RoaringTreemap::new();
        for chunk in stack.chunks() {
            let (_, id) = chunk?;
            let row = session.locate(&id)?;
            match row.bases {
                0 => _ = needs.places.insert(row.place),
                _ => _ = framed.insert(row.place.ordinal()),
            }
        }
        needs.add_framed(session, session.index()?, &framed)?;
        if !needs.missing.is_empty() {
            // A run may be what is damaged.
            needs.missing.clear();
            needs.add_framed(session, session.tables()?, &framed)?;
        }
        match needs.missing.into_iter().min() {
            Some(id) => Err(StoreError::ChunkMissing { id }),
            None => Ok(needs.places),
        }
    }

    /// Adds a place; tells whether it is new.
    pub fn insert(&mut self, place: Place) -> bool {
        self.0.insert(place.ordinal())
    }

    /// Tells whether a place is in the set.
    pub fn contains(&self, place: Place) -> bool {
        self.0.contains(place.ordinal())
    }

    /// Returns how many places there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all places of another set.
    pub fn union_with(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Removes all places of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.0 -= &other.0;
    }

    /// Keeps only the places that are also in another set.
    pub fn intersect_with(&mut self, other: &Self) {
        self.0 &= &other.0;
    }

    /// Returns how many places of a segment there are.
    pub fn count_in(&self, segment: SegmentNumber) -> u64 {
        let first = u64::from(segment.get()) << 16;
        let before = first.checked_sub(1).map_or(0, |last| self.0.rank(last));
        self.0.rank(first | 0xffff) - before
    }

    /// Returns the segments that hold a place of the set, ascending.
    pub fn segments(&self) -> impl Iterator<Item = SegmentNumber> {
        let segments: RoaringBitmap = self
            .0
            .iter()
            .filter_map(Place::from_ordinal)
            .map(|place| place.segment.get())
            .collect();
        segments.into_iter().map(SegmentNumber::new)
    }

    /// Returns the bytes that the records of these places take in their segments.
    ///
    /// # Errors
    /// [`StoreError`] if a segment's table cannot be read.
    pub fn stored_bytes(&self, tables: &mut SegmentTables<'_>) -> Result<u64, StoreError> {
        self.sum(tables, |entry| entry.record_bytes())
    }

    /// Returns the bytes that these places take in their segments' tables of contents.
    ///
    /// # Errors
    /// [`StoreError`] if a segment's table cannot be read.
    pub fn table_bytes(&self, tables: &mut SegmentTables<'_>) -> Result<u64, StoreError> {
        self.sum(tables, |entry| entry.table_bytes())
    }

    fn sum(
        &self,
        tables: &mut SegmentTables<'_>,
        bytes: impl Fn(Entry) -> u64,
    ) -> Result<u64, StoreError> {
        let mut sum = 0;
        for place in self.0.iter().filter_map(Place::from_ordinal) {
            sum += tables.entry(place)?.map_or(0, &bytes);
        }
        Ok(sum)
    }
}

/// What accounting needs to know of a chunk in a segment: the length of its payload, and in the upper bits, which no
/// length reaches, how many bases it has.
#[derive(Debug, Clone, Copy)]
struct Entry(u32);

const LENGTH_BITS: u32 = 30;

impl Entry {
    fn of(row: &TocRow) -> Self {
        Self(row.stored_length | u32::from(row.bases) << LENGTH_BITS)
    }

    fn record_bytes(self) -> u64 {
        let stored = self.0 & ((1 << LENGTH_BITS) - 1);
        u64::from(stored) + RECORD_HEADER_BYTES as u64
    }

    fn table_bytes(self) -> u64 {
        let bases = u64::from(self.0 >> LENGTH_BITS);
        TOC_ROW_BYTES as u64 + bases * size_of::<ChunkId>() as u64
    }
}

/// The record lengths of segments, read from their tables once each: 4 bytes a chunk.
#[derive(Debug)]
pub struct SegmentTables<'a> {
    session: &'a Session,
    entries: HashMap<SegmentNumber, Vec<Entry>>,
}

impl<'a> SegmentTables<'a> {
    /// Begins with none read.
    pub fn new(session: &'a Session) -> Self {
        Self {
            session,
            entries: HashMap::new(),
        }
    }

    fn entry(&mut self, place: Place) -> Result<Option<Entry>, StoreError> {
        if !self.entries.contains_key(&place.segment) {
            let table = SegmentTable::read(self.session, place.segment)?;
            let entries = table.rows().iter().map(Entry::of).collect();
            self.entries.insert(place.segment, entries);
        }
        let entries = self.entries.get(&place.segment);
        let entry = entries.and_then(|entries| entries.get(usize::from(place.slot.get())));
        Ok(entry.copied())
    }
}

/// Chunks that are sorted and looked up together: 64 MiB of ids.
const MARK_BATCH: usize = 1 << 21;

/// Of these, those that one core looks up in one pass over the index.
const MARK_PIECE: usize = 1 << 16;

/// Everything that some image needs.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    pub(crate) places: LiveSet,
    pub(crate) layers: HashSet<LayerId>,
    pub(crate) records: HashSet<RecordId>,
    /// Chunks that are needed and stand nowhere, or nowhere with all that they stand on.
    pub(crate) missing: HashSet<ChunkId>,
}

impl Marked {
    /// Marks what these images need.
    ///
    /// A layer's table is gone through once, however many images lie on it, and only where some image sees it: what
    /// newer layers hide from everybody is garbage.
    pub(crate) fn mark(
        session: &Session,
        index: &Index,
        records: &[ImageRecord],
    ) -> Result<Self, StoreError> {
        let mut marked = Self::default();
        let mut seen: HashMap<LayerId, (Arc<Layer>, BlockSet)> = HashMap::new();
        for record in records {
            let stack = LayerStack::of_image(session, record)?;
            for (layer, visible) in stack.layers().iter().zip(stack.visible()) {
                let (_, blocks) = seen
                    .entry(layer.id())
                    .or_insert_with(|| (Arc::clone(layer), BlockSet::new()));
                blocks.union_with(visible);
            }
            marked.records.insert(record.id);
        }
        let (mut needs, mut framed) = (Needs::default(), RoaringTreemap::new());
        for (id, (layer, visible)) in seen {
            marked.layers.insert(id);
            mark_layer(index, &layer, &visible, &mut needs, &mut framed)?;
        }
        needs.add_framed(session, index, &framed)?;
        (marked.places, marked.missing) = (needs.places, needs.missing);
        Ok(marked)
    }
}

/// Marks the chunks of some of the blocks that a layer sets; the places of those that stand on others go to `framed`.
fn mark_layer(
    index: &Index,
    layer: &Layer,
    visible: &BlockSet,
    needs: &mut Needs,
    framed: &mut RoaringTreemap,
) -> Result<(), StoreError> {
    let mut set = layer.data().iter();
    let mut position = 0;
    let mut positions = visible.iter().map(|wanted| {
        while set.next().is_some_and(|block| block != wanted) {
            position += 1;
        }
        position += 1;
        position - 1
    });
    loop {
        let batch: Vec<u64> = positions.by_ref().take(MARK_BATCH).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let pieces: Vec<&[u64]> = batch.chunks(MARK_PIECE).collect();
        let pieces = parallel::map(&pieces, 1, |positions| {
            let ids = positions.iter().map(|position| layer.id_at(*position));
            ids.collect::<Result<Vec<ChunkId>, _>>()
        });
        let mut ids = Vec::with_capacity(batch.len());
        for piece in pieces {
            ids.append(&mut piece?);
        }
        // In the order of the index: a look at every chunk of a large store is then a walk and not 2^24 jumps.
        parallel::sort(&mut ids);
        let pieces: Vec<&[ChunkId]> = ids.chunks(MARK_PIECE).collect();
        let pieces = parallel::map(&pieces, 1, |ids| {
            let found = index.lookup_sorted(ids);
            let (mut framed, mut missing) = (Vec::new(), Vec::new());
            let mut places = Vec::with_capacity(ids.len());
            for (id, row) in ids.iter().zip(found) {
                match row {
                    Some(row) if row.bases > 0 => framed.push(row.place.ordinal()),
                    Some(row) => places.push(row.place.ordinal()),
                    None => missing.push(*id),
                }
            }
            (set_of(places), set_of(framed), missing)
        });
        for (places, with_bases, missing) in pieces {
            needs.places.0 |= places;
            *framed |= with_bases;
            needs.missing.extend(missing);
        }
    }
}

/// Makes a set of numbers in any order.
fn set_of(mut ordinals: Vec<u64>) -> RoaringTreemap {
    // Sorted, so that each container of the bitmap is touched once, and only at its end.
    ordinals.sort_unstable();
    ordinals.dedup();
    RoaringTreemap::from_sorted_iter(ordinals).expect("because they were just sorted")
}

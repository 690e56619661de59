//! What is needed: the places of the chunks that images hold.

use crate::layer::Layer;
use crate::segment::SegmentTable;
use crate::standing::Needs;
use crate::{Index, LayerStack, Session, StoreError, parallel};
use roaring::{RoaringBitmap, RoaringTreemap};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
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

/// Of these, those that one core reads at a time.
const MARK_PIECE: usize = 1 << 16;

/// First bytes of those that one core looks up at a time, in one pass over its part of the index.
const MARK_BYTES: usize = 16;

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
        marked.layers.extend(seen.keys());
        let (mut needs, mut framed) = (Needs::default(), RoaringTreemap::new());
        let mut pieces = seen
            .values()
            .flat_map(|(layer, blocks)| pieces(layer, blocks));
        loop {
            let batch: Vec<Piece<'_>> = batch(&mut pieces);
            if batch.is_empty() {
                break;
            }
            mark_batch(index, &batch, &mut needs, &mut framed)?;
        }
        needs.add_framed(session, index, &framed)?;
        (marked.places, marked.missing) = (needs.places, needs.missing);
        Ok(marked)
    }
}

/// Some of the chunks of a layer: at most [`MARK_PIECE`] of them.
#[derive(Debug)]
struct Piece<'a> {
    layer: &'a Layer,
    /// Where their ids stand in its table.
    positions: Vec<Range<u64>>,
    ids: usize,
}

/// Returns the chunks of some of the blocks that a layer sets.
fn pieces<'a>(layer: &'a Layer, visible: &'a BlockSet) -> impl Iterator<Item = Piece<'a>> {
    let mut positions = layer.data().positions_of(visible);
    let mut rest = 0..0;
    std::iter::from_fn(move || {
        let mut piece = Piece {
            layer,
            positions: Vec::new(),
            ids: 0,
        };
        while piece.ids < MARK_PIECE {
            if rest.is_empty() {
                match positions.next() {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            let end = rest.end.min(rest.start + (MARK_PIECE - piece.ids) as u64);
            piece.ids += usize::try_from(end - rest.start).expect("because a piece is small");
            piece.positions.push(rest.start..end);
            rest.start = end;
        }
        (piece.ids > 0).then_some(piece)
    })
}

/// Takes pieces, whatever layers they are of, until they are [`MARK_BATCH`] chunks.
fn batch<'a>(pieces: &mut impl Iterator<Item = Piece<'a>>) -> Vec<Piece<'a>> {
    let mut ids = 0;
    let mut batch = Vec::new();
    while ids < MARK_BATCH
        && let Some(piece) = pieces.next()
    {
        ids += piece.ids;
        batch.push(piece);
    }
    batch
}

/// Marks the chunks of some pieces; the places of those that stand on others go to `framed`.
fn mark_batch(
    index: &Index,
    batch: &[Piece<'_>],
    needs: &mut Needs,
    framed: &mut RoaringTreemap,
) -> Result<(), StoreError> {
    // In the order of the index: a look at every chunk of a large store is then a walk and not 2^24 jumps.
    let sorted = parallel::map(batch, 1, ByFirstByte::read);
    let sorted = sorted.into_iter().collect::<Result<Vec<_>, _>>()?;
    let first_bytes: Vec<usize> = (0..256).step_by(MARK_BYTES).collect();
    let found = parallel::map(&first_bytes, 1, |first| {
        let (mut places, mut with_bases, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for byte in *first..first + MARK_BYTES {
            let mut ids: Vec<ChunkId> = sorted
                .iter()
                .flat_map(|ids| ids.of(byte))
                .copied()
                .collect();
            ids.sort_unstable();
            for (id, row) in ids.iter().zip(index.lookup_sorted(&ids)) {
                match row {
                    Some(row) if row.bases > 0 => with_bases.push(row.place.ordinal()),
                    Some(row) => places.push(row.place.ordinal()),
                    None => missing.push(*id),
                }
            }
        }
        (set_of(places), set_of(with_bases), missing)
    });
    for (places, with_bases, missing) in found {
        needs.places.0 |= places;
        *framed |= with_bases;
        needs.missing.extend(missing);
    }
    Ok(())
}

/// Ids of a piece, those with the same first byte together: as many of each, since ids are uniform.
#[derive(Debug)]
struct ByFirstByte {
    ids: Vec<ChunkId>,
    /// Where those with each first byte end.
    ends: Vec<usize>,
}

impl ByFirstByte {
    fn read(piece: &Piece<'_>) -> Result<Self, StoreError> {
        let mut read = Vec::with_capacity(piece.ids);
        for positions in &piece.positions {
            let (ids, _) = piece.layer.ids_bytes(positions.clone())?.as_chunks::<32>();
            read.extend(ids.iter().map(|id| ChunkId::from_bytes(*id)));
        }
        let mut ends = vec![0; 256];
        for id in &read {
            *first_byte_of(&mut ends, id) += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            // For now where they begin.
            sum += std::mem::replace(end, sum);
        }
        let mut ids = read.clone();
        for id in read {
            let end = first_byte_of(&mut ends, &id);
            *ids.get_mut(*end).expect("because all were counted") = id;
            *end += 1;
        }
        Ok(Self { ids, ends })
    }

    fn of(&self, byte: usize) -> &[ChunkId] {
        let end = |byte: usize| self.ends.get(byte).copied();
        let start = byte.checked_sub(1).and_then(end).unwrap_or(0);
        let ids = self.ids.get(start..end(byte).unwrap_or(start));
        ids.expect("because all were counted")
    }
}

fn first_byte_of<'a>(counts: &'a mut [usize], id: &ChunkId) -> &'a mut usize {
    let [first, ..] = *id.as_bytes();
    counts
        .get_mut(usize::from(first))
        .expect("because there is a count for each byte")
}

/// Makes a set of numbers in any order.
fn set_of(mut ordinals: Vec<u64>) -> RoaringTreemap {
    // Sorted, so that each container of the bitmap is touched once, and only at its end.
    ordinals.sort_unstable();
    ordinals.dedup();
    RoaringTreemap::from_sorted_iter(ordinals).expect("because they were just sorted")
}

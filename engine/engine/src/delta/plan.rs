//! A stream that is thought out and not yet written: which chunks it carries, in which order, and how.

use super::carried::RECORDS_IN_A_ROW_MAX;
use super::sorted::SortedIds;
use super::walk::{Tables, tables};
use crate::{EngineError, OpenImage};
use std::collections::{HashMap, HashSet};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, DeltaEnd, DeltaParts, HashedRecords, ImageRecord,
    RECORD_HEADER_BYTES, RunRow, SegmentNumber,
};
use tegula_store::{LayerStack, SegmentTable, Session, StoreError};

/// How chunks are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompress {
    /// As they are stored; only those that are stored as what differs from a chunk that the receiver lacks are made anew.
    #[default]
    Needed,
    /// Also as what differs from the base's chunk in the same block, wherever that is shorter, if the stream carries no more
    /// than 1,024 chunks: then it costs little and gains most.
    IfSmall,
    /// The same, however many there are.
    SameBlock,
}

/// The most carried chunks that [`Recompress::IfSmall`] looks at.
const SMALL_CHUNKS_MAX: usize = 1024;

/// A stream that was thought out and not yet written.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) session: &'a Session,
    pub(super) block_size: BlockSize,
    pub(super) base: Option<DeltaEnd>,
    pub(super) target: DeltaEnd,
    pub(super) tables: Tables<'a>,
    /// Positions in the table of ids whose chunk is carried, in the order of the stream.
    pub(super) order: Vec<u32>,
    /// Those of them whose record is made anew, and taken unless the one that is stored is as short and can be taken.
    pub(super) anew: BlockSet,
    /// Those of these whose stored record the receiver could not decode.
    undecodable: BlockSet,
    /// Header and sets as bytes.
    pub(super) head: Vec<u8>,
    pub(super) hashed: HashedRecords,
    base_stack: Option<LayerStack>,
}

fn end_of(record: &ImageRecord) -> DeltaEnd {
    DeltaEnd {
        virtual_size: record.virtual_size,
        digest: record.digest,
    }
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        session: &'a Session,
        base: Option<&OpenImage<'_>>,
        image: &OpenImage<'_>,
        recompress: Recompress,
        hashed: HashedRecords,
    ) -> Result<Self, EngineError> {
        let tables = tables(session, base, image)?;
        let ids = tables.ids.as_slice();
        let sorted = SortedIds::new(ids);
        let carried = carried(base, &sorted)?;
        let (order, undecodable) = Ordering::new(session, base, &sorted, &carried)?.order()?;
        let mut anew = undecodable.clone();
        let base_stack = base.map(|base| base.stack().clone());
        let same_block = match recompress {
            Recompress::Needed => false,
            Recompress::IfSmall => order.len() <= SMALL_CHUNKS_MAX,
            Recompress::SameBlock => true,
        };
        if let Some(stack) = base_stack.as_ref().filter(|_| same_block) {
            let had = stack.data();
            for position in &order {
                if block_at(&tables.data, *position).is_some_and(|block| had.contains(block)) {
                    anew.insert(BlockIndex::new(*position));
                }
            }
        }
        let parts = DeltaParts {
            block_size: session.block_size(),
            base: base.map(|base| end_of(base.record())),
            target: end_of(image.record()),
            data: &tables.data,
            zero: &tables.zero,
            ids_hash: *blake3::hash(ids).as_bytes(),
            hashed,
        };
        let (_, head) = parts.encode();
        let (block_size, base, target) = (parts.block_size, parts.base, parts.target);
        Ok(Self {
            session,
            block_size,
            base,
            target,
            order,
            anew,
            undecodable,
            head,
            hashed,
            tables,
            base_stack,
        })
    }

    /// Returns the chunk at a position of the table.
    pub(super) fn id(&self, position: u32) -> ChunkId {
        let start = position as usize * 32;
        let id = self.tables.ids.as_slice().get(start..);
        let id = id.and_then(|rest| rest.first_chunk().copied());
        ChunkId::from_bytes(id.expect("because every position is one of the table"))
    }

    /// Tells whether the stored record of the chunk at a position could be carried.
    pub(super) fn is_decodable(&self, position: u32) -> bool {
        !self.undecodable.contains(BlockIndex::new(position))
    }

    /// Returns the chunk that the base has in the block in which this position's chunk stands first.
    pub(super) fn before(&self, position: u32) -> Result<Option<ChunkId>, StoreError> {
        match (&self.base_stack, block_at(&self.tables.data, position)) {
            (Some(stack), Some(block)) => stack.chunk(block),
            _ => Ok(None),
        }
    }

    pub(super) fn head_bytes(&self) -> u64 {
        (self.head.len() + self.tables.ids.as_slice().len()) as u64
    }

    /// Returns the bytes of the records that are taken as they are stored. Reads none of them.
    pub(super) fn stored_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for position in &self.order {
            if !self.anew.contains(BlockIndex::new(*position)) {
                let row = self.session.locate(&self.id(*position))?;
                bytes += RECORD_HEADER_BYTES as u64 + u64::from(row.stored_length);
            }
        }
        Ok(bytes)
    }
}

fn block_at(data: &BlockSet, position: u32) -> Option<BlockIndex> {
    data.nth(position)
}

/// Counts the chunks that an image has and another does not. Reads none of them.
pub(crate) fn count_beside(
    session: &Session,
    base: &OpenImage<'_>,
    image: &OpenImage<'_>,
) -> Result<u64, EngineError> {
    let tables = tables(session, Some(base), image)?;
    let sorted = SortedIds::new(tables.ids.as_slice());
    Ok(carried(Some(base), &sorted)?.len())
}

/// Returns the positions of a table at which a chunk stands for the first time that the base does not have.
fn carried(base: Option<&OpenImage<'_>>, sorted: &SortedIds<'_>) -> Result<BlockSet, StoreError> {
    let mut first: Vec<u32> = sorted.first_positions().collect();
    first.sort_unstable();
    let mut carried: BlockSet = first.into_iter().map(BlockIndex::new).collect();
    let Some(base) = base.filter(|_| !carried.is_empty()) else {
        return Ok(carried);
    };
    for chunk in base.stack().chunks() {
        let (_, id) = chunk?;
        if let Some(first) = sorted.positions(&id).first() {
            carried.remove_range(u64::from(*first)..u64::from(*first) + 1);
        }
    }
    Ok(carried)
}

/// Puts carried chunks behind those that they build on.
struct Ordering<'a> {
    sorted: &'a SortedIds<'a>,
    carried: &'a BlockSet,
    /// What those build on that are stored on others.
    bases: HashMap<u32, Vec<ChunkId>>,
    /// Those of these chunks that the base image has.
    in_base: HashSet<ChunkId>,
    order: Vec<u32>,
    placed: BlockSet,
    anew: BlockSet,
}

impl<'a> Ordering<'a> {
    fn new(
        session: &Session,
        base: Option<&OpenImage<'_>>,
        sorted: &'a SortedIds<'a>,
        carried: &'a BlockSet,
    ) -> Result<Self, StoreError> {
        let mut tables: HashMap<SegmentNumber, SegmentTable> = HashMap::new();
        let mut bases = HashMap::new();
        for position in carried.iter().map(BlockIndex::get) {
            let row = session.locate(&sorted.id(position))?;
            if row.bases > 0 {
                bases.insert(position, bases_of(session, &mut tables, &row)?);
            }
        }
        let wanted: HashSet<ChunkId> = bases.values().flatten().copied().collect();
        let mut in_base = HashSet::new();
        if let Some(base) = base.filter(|_| !wanted.is_empty()) {
            for chunk in base.stack().chunks() {
                let (_, id) = chunk?;
                if wanted.contains(&id) {
                    in_base.insert(id);
                }
            }
        }
        Ok(Self {
            sorted,
            carried,
            bases,
            in_base,
            order: Vec::new(),
            placed: BlockSet::new(),
            anew: BlockSet::new(),
        })
    }

    fn order(mut self) -> Result<(Vec<u32>, BlockSet), StoreError> {
        for position in self.carried.iter().map(BlockIndex::get) {
            self.place(position, &mut Vec::new());
        }
        Ok((self.order, self.anew))
    }

    /// Places a chunk behind what it builds on; `above` are those that are waiting for it.
    fn place(&mut self, position: u32, above: &mut Vec<u32>) {
        if self.placed.contains(BlockIndex::new(position)) {
            return;
        }
        let bases = self.bases.get(&position).cloned().unwrap_or_default();
        above.push(position);
        for base in bases {
            if self.in_base.contains(&base) {
                continue;
            }
            let carried = self.sorted.positions(&base).first().copied();
            let carried = carried.filter(|at| self.carried.contains(BlockIndex::new(*at)));
            match carried {
                // No store of ours has such rows in circles; if one has, they are not taken over.
                Some(at) if !above.contains(&at) && above.len() < RECORDS_IN_A_ROW_MAX as usize => {
                    self.place(at, above);
                }
                _ => self.anew.insert(BlockIndex::new(position)),
            }
        }
        above.pop();
        self.placed.insert(BlockIndex::new(position));
        self.order.push(position);
    }
}

/// Returns what a chunk builds on, from the table of its segment: its record is not read.
fn bases_of(
    session: &Session,
    tables: &mut HashMap<SegmentNumber, SegmentTable>,
    row: &RunRow,
) -> Result<Vec<ChunkId>, StoreError> {
    /// Tables kept at once: a few MiB each at the very most.
    const TABLES_MAX: usize = 32;
    let number = row.place.segment;
    if !tables.contains_key(&number) {
        if tables.len() == TABLES_MAX {
            tables.clear();
        }
        tables.insert(number, SegmentTable::read(session, number)?);
    }
    let table = tables.get(&number).expect("because it was just read");
    let slot = usize::from(row.place.slot.get());
    let found = table.rows().get(slot).filter(|found| found.id == row.id);
    Ok(found.map_or(Vec::new(), |found| table.toc.bases_of(found).to_vec()))
}

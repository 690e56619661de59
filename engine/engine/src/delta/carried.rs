//! What the records of a stream build on: chunks that it carries itself, and chunks that its base has.

use super::DeltaError;
use super::stream::{DeltaFile, StreamRecord};
use crate::{EngineError, Task};
use std::collections::{HashMap, HashSet};
use tegula_format::{ChunkId, Corruption, Structure};
use tegula_io::Buffer;
use tegula_store::{CheckedRecord, ChunkDamage};

/// The most records of a stream that may build on each other in a row (SPEC 15.4).
pub(super) const RECORDS_IN_A_ROW_MAX: u32 = 64;

/// Where a carried chunk stands that others build on.
#[derive(Debug, Clone, Copy)]
struct Below {
    offset: u64,
    /// How many records there are from this one down, itself included.
    depth: u32,
    plain: bool,
}

/// What a stream's records build on. Memory: 50 bytes for each chunk that others build on.
#[derive(Debug, Default)]
pub(super) struct Carried {
    below: HashMap<ChunkId, Below>,
    outside: HashSet<ChunkId>,
}

impl Carried {
    /// Looks at the heads of all records.
    ///
    /// # Errors
    /// [`DeltaError::Damaged`] if more of them build on each other than may.
    pub(super) fn of(file: &DeltaFile<'_>, task: Task<'_>) -> Result<Self, EngineError> {
        let mut bases: HashSet<ChunkId> = HashSet::new();
        file.heads(|head| {
            bases.extend(head.bases.ids());
            task.check()
        })?;
        let mut carried = Self::default();
        if bases.is_empty() {
            return Ok(carried);
        }
        file.heads(|head| {
            let mut depth = 1;
            for base in head.bases.ids() {
                match carried.below.get(base) {
                    Some(below) => depth = depth.max(below.depth + 1),
                    None => _ = carried.outside.insert(*base),
                }
            }
            if depth > RECORDS_IN_A_ROW_MAX {
                return Err(file.damaged(head.offset)(Corruption::Field {
                    what: Structure::Delta,
                    field: "records that build on each other",
                    found: u64::from(depth),
                    expected: "at most 64",
                })
                .into());
            }
            if bases.contains(&head.id) {
                let below = Below {
                    offset: head.offset,
                    depth,
                    plain: head.bases.is_empty(),
                };
                carried.below.entry(head.id).or_insert(below);
            }
            task.check()
        })?;
        Ok(carried)
    }

    /// Returns the chunks that records build on and no earlier record carries: the base must have them.
    pub(super) fn outside(&self) -> impl Iterator<Item = &ChunkId> {
        self.outside.iter()
    }

    /// Tells whether a chunk is carried, to be built on, by a record that stands by itself.
    pub(super) fn is_plain(&self, id: &ChunkId) -> bool {
        self.below.get(id).is_some_and(|below| below.plain)
    }

    /// Returns the chunk that a record holds, once it is known to be the one it names. What it builds on and the stream
    /// does not carry comes from `outside`.
    pub(super) fn decode(
        &self,
        file: &DeltaFile<'_>,
        record: &StreamRecord,
        outside: &dyn Fn(&ChunkId) -> Result<Buffer, EngineError>,
    ) -> Result<Buffer, EngineError> {
        let id = record.id();
        let damaged = |source: ChunkDamage| DeltaError::Chunk {
            name: file.name().to_owned(),
            offset: record.offset,
            id,
            source,
        };
        let checked = CheckedRecord::check(&record.bytes, &id, &file.rules()).map_err(damaged)?;
        let mut bases = Vec::with_capacity(checked.bases().ids().len());
        for base in checked.bases().ids() {
            // Only what stands before: so this ends.
            let below = self.below.get(base);
            bases.push(match below.filter(|below| below.offset < record.offset) {
                Some(below) => self.decode(file, &file.record_at(below.offset)?, outside)?,
                None => outside(base)?,
            });
        }
        let bases: Vec<&[u8]> = bases.iter().map(|base| &**base).collect();
        let mut block = Buffer::stale(file.header().block_size.as_usize());
        checked.decode(&bases, &mut block).map_err(damaged)?;
        Ok(block)
    }
}

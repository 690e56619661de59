//! Merging: several streams, each of which begins where the one before ends, as one (SPEC 15.6).
//!
//! The tables are merged by walking all of them at once, the newest winning. Of the records those are copied that hold
//! a chunk the result names, and those that these build on, as far as the streams have them. Nothing is decoded.

use super::carried::RECORDS_IN_A_ROW_MAX;
use super::create::DeltaDestination;
use super::show::scratch_error;
use super::sink::DeltaSink;
use super::sorted::SortedIds;
use super::stream::{DeltaFile, RecordHead};
use super::{DeltaError, DeltaSource, DeltaSummary};
use crate::{EngineError, Task};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use tegula_format::{
    BlockSet, ChunkId, DeltaEnd, DeltaHeader, DeltaParts, DeltaTrailer, HashedRecords,
};
use tegula_io::{Mapped, Scratch};

/// Merges streams, of which each begins with the image that the one before makes.
///
/// Memory: the bitmaps of all streams, four bytes for each block that the result sets, and about a hundred for each record
/// of all streams. `scratch` is a directory for what is too large for memory.
///
/// # Errors
/// [`EngineError::Delta`] if a stream is damaged, or does not begin where the one before it ends.
pub fn merge_deltas(
    paths: &[&Path],
    scratch: &Path,
    destination: DeltaDestination<'_>,
    task: Task<'_>,
) -> Result<DeltaSummary, EngineError> {
    let files: Result<Vec<_>, EngineError> = paths
        .iter()
        .map(|path| DeltaSource::File(path).into_file_in(scratch, task))
        .collect();
    let files = files?;
    let (Some(first), Some(last)) = (files.first(), files.last()) else {
        return Err(DeltaError::NothingToMerge.into());
    };
    files
        .iter()
        .zip(files.iter().skip(1))
        .try_for_each(|(before, after)| check_neighbours(before, after))?;
    let (base, target) = (first.header().base, last.header().target);
    let sets = Sets::of(&files);
    let ids = merged_ids(&files, &sets, scratch)?;
    let records = Records::of(&files, task)?;
    let sorted = SortedIds::new(ids.as_slice());
    let order = records.needed(&sorted, &files)?;
    let parts = DeltaParts {
        block_size: first.header().block_size,
        base,
        target,
        data: &sets.data,
        zero: &sets.zero,
        ids_hash: *blake3::hash(ids.as_slice()).as_bytes(),
        hashed: HashedRecords::Whole,
    };
    let (header, head) = parts.encode();
    let (trailer, bytes) = destination.write(|out, name| {
        let source = Copied {
            head: &head,
            ids: ids.as_slice(),
            files: &files,
            order: &order,
        };
        source.write(out, name, task)
    })?;
    Ok(summary(&header, &trailer, bytes, &sets))
}

fn summary(header: &DeltaHeader, trailer: &DeltaTrailer, bytes: u64, sets: &Sets) -> DeltaSummary {
    DeltaSummary::of_parts(header, trailer, bytes, &sets.data, &sets.zero)
}

fn check_neighbours(before: &DeltaFile<'_>, after: &DeltaFile<'_>) -> Result<(), DeltaError> {
    let (found, expected) = (after.header(), before.header());
    let follows = |base: DeltaEnd| base == expected.target;
    match found.base.is_some_and(follows) && found.block_size == expected.block_size {
        true => Ok(()),
        false => Err(DeltaError::DoesNotFollow {
            before: before.name().to_owned(),
            after: after.name().to_owned(),
            target: expected.target.digest,
            base: found.base.map(|base| base.digest),
        }),
    }
}

/// Which blocks the result sets and zeroes.
#[derive(Debug)]
struct Sets {
    data: BlockSet,
    zero: BlockSet,
    /// For each stream the blocks that the result has from it.
    visible: Vec<BlockSet>,
}

impl Sets {
    fn of(files: &[DeltaFile<'_>]) -> Self {
        let mut visible = Vec::with_capacity(files.len());
        let (mut data, mut zero, mut covered) = (BlockSet::new(), BlockSet::new(), BlockSet::new());
        let mut blocks_min = u64::MAX;
        for file in files.iter().rev() {
            // What a later, shorter image did not have does not come back when the image grows again.
            blocks_min = blocks_min.min(file.header().target_blocks());
            for (from, into) in [(file.data(), &mut data), (file.zero(), &mut zero)] {
                let mut blocks = from.clone();
                blocks.truncate(blocks_min);
                blocks.subtract(&covered);
                into.union_with(&blocks);
                if std::ptr::eq(from, file.data()) {
                    visible.push(blocks);
                }
            }
            covered.union_with(file.data());
            covered.union_with(file.zero());
        }
        visible.reverse();
        let blocks = |file: Option<&DeltaFile<'_>>, of: fn(&DeltaHeader) -> u64| {
            file.map_or(0, |file| of(file.header()))
        };
        let base_blocks = blocks(files.first(), DeltaHeader::base_blocks);
        // Cut off once, it reads as zeros ever after, unless it is set again.
        zero.insert_range(blocks_min..blocks(files.last(), DeltaHeader::target_blocks));
        zero.truncate(base_blocks);
        zero.subtract(&data);
        Self {
            data,
            zero,
            visible,
        }
    }
}

/// Takes the chunk of each block that the result sets from the stream that it has it from.
fn merged_ids(files: &[DeltaFile<'_>], sets: &Sets, scratch: &Path) -> Result<Mapped, EngineError> {
    let failed = |source| scratch_error(scratch, source);
    let mut merged = Scratch::new(scratch);
    let tables: Result<Vec<_>, _> = files.iter().map(|file| table(file, scratch)).collect();
    let tables = tables?;
    for block in sets.data.iter() {
        let sources = files.iter().zip(&sets.visible).zip(&tables);
        let mut sources = sources.filter(|((_, visible), _)| visible.contains(block));
        let ((file, _), table) = sources
            .next()
            .expect("because every block of the result comes from a stream");
        let position = file.data().rank_before(block);
        let start = usize::try_from(position * 32).expect("because the table is in memory");
        let id = table.as_slice().get(start..start + 32);
        merged
            .append(id.expect("because the set has as many blocks as the table ids"))
            .map_err(failed)?;
    }
    merged.finish().map_err(failed)
}

fn table(file: &DeltaFile<'_>, scratch: &Path) -> Result<Mapped, EngineError> {
    let failed = |source| scratch_error(scratch, source);
    let mut table = Scratch::new(scratch);
    let mut unwritten = None;
    file.ids(|piece| {
        if unwritten.is_none() {
            unwritten = table.append(piece).err();
        }
        Ok(())
    })?;
    match unwritten {
        Some(source) => Err(failed(source)),
        None => table.finish().map_err(failed),
    }
}

/// A record's place: which stream, and where in it. Places sort in the order in which the streams are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    file: usize,
    offset: u64,
}

/// Where the records of all streams stand.
#[derive(Debug)]
struct Records {
    /// The places of each chunk's records, ascending.
    places: HashMap<ChunkId, Vec<(At, RecordHead)>>,
}

/// What is to be copied, in the order of the result.
type Order = Vec<(usize, RecordHead)>;

impl Records {
    fn of(files: &[DeltaFile<'_>], task: Task<'_>) -> Result<Self, EngineError> {
        let mut places: HashMap<ChunkId, Vec<(At, RecordHead)>> = HashMap::new();
        for (file, stream) in files.iter().enumerate() {
            stream.heads(|head| {
                let offset = head.offset;
                let at = At { file, offset };
                places.entry(head.id).or_default().push((at, *head));
                task.check()
            })?;
        }
        Ok(Self { places })
    }

    /// Returns the newest record of a chunk that stands before a place.
    fn newest(&self, id: &ChunkId, before: At) -> Option<(At, RecordHead)> {
        let places = self.places.get(id)?;
        places.iter().rev().find(|(at, _)| *at < before).copied()
    }

    /// Returns the records that the result needs, each behind those that it builds on.
    fn needed(&self, ids: &SortedIds<'_>, files: &[DeltaFile<'_>]) -> Result<Order, DeltaError> {
        const END: At = At {
            file: usize::MAX,
            offset: u64::MAX,
        };
        let mut first: Vec<u32> = ids.first_positions().collect();
        first.sort_unstable();
        let mut wanted = Wanted {
            records: self,
            order: Vec::new(),
            depths: HashMap::new(),
        };
        for position in first {
            if let Some((at, head)) = self.newest(&ids.id(position), END) {
                wanted
                    .place(at, &head, 1)
                    .map_err(|()| DeltaError::BuildsTooDeep {
                        name: files.get(at.file).map_or("", DeltaFile::name).to_owned(),
                        id: head.id,
                    })?;
            }
        }
        Ok(wanted.order)
    }
}

/// The records of the result as they are found.
struct Wanted<'a> {
    records: &'a Records,
    order: Order,
    /// How many records there are from a chunk's one down. A chunk is carried once, by whichever record came first.
    depths: HashMap<ChunkId, u32>,
}

impl Wanted<'_> {
    /// Places a record behind what it builds on; returns how many there are from it down. Each one down stands before
    /// the one above it, so this ends.
    fn place(&mut self, at: At, head: &RecordHead, level: u32) -> Result<u32, ()> {
        if let Some(depth) = self.depths.get(&head.id) {
            return Ok(*depth);
        }
        if level > RECORDS_IN_A_ROW_MAX {
            return Err(());
        }
        let mut depth = 1;
        for base in head.bases.ids() {
            // What no stream carries before this record, the base of the first stream has.
            if let Some((at, head)) = self.records.newest(base, at) {
                depth = depth.max(self.place(at, &head, level + 1)? + 1);
            }
        }
        if depth > RECORDS_IN_A_ROW_MAX {
            return Err(());
        }
        self.depths.insert(head.id, depth);
        self.order.push((at.file, *head));
        Ok(depth)
    }
}

/// The result, as it is put together.
struct Copied<'a> {
    head: &'a [u8],
    ids: &'a [u8],
    files: &'a [DeltaFile<'a>],
    order: &'a Order,
}

impl Copied<'_> {
    fn write(
        &self,
        out: &mut (dyn Write + Send),
        name: &str,
        task: Task<'_>,
    ) -> Result<(DeltaTrailer, u64), EngineError> {
        let total = self.order.iter().map(|(_, head)| head.record_bytes).sum();
        let mut sink = DeltaSink::new(out, name);
        let mut done = 0;
        sink.part(self.head)?;
        for piece in self.ids.chunks(1 << 20) {
            sink.part(piece)?;
        }
        for (file, head) in self.order {
            task.check()?;
            let file = self
                .files
                .get(*file)
                .expect("because every record is a file's");
            let record = file.record_at(head.offset)?;
            sink.record(&record.bytes)?;
            done += head.record_bytes;
            (task.progress)(done, Some(total));
        }
        sink.finish()
    }
}

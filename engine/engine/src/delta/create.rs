//! Making a stream: which blocks differ, which of their chunks the base does not have, and those chunks' records.

use super::DeltaError;
use super::plan::{Plan, Recompress};
use super::sink::{DeltaSink, NewFile, stream_bytes};
use crate::get::plan_reads;
use crate::workers::Waits;
use crate::{EngineError, OpenImage, Task, Workers};
use std::fmt;
use std::io::Write;
use std::path::Path;
use tegula_format::{Bases, BlockIndex, BlockSize, DeltaEnd, HashedRecords, RECORD_HEADER_BYTES};
use tegula_io::Buffer;
use tegula_store::{Session, compress, compress_with_bases};

/// Records that are looked up and read together.
const PIECE_RECORDS: usize = 64;

/// How records are read: how much memory they may take, and which thread hands them over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Bytes of chunks in a piece: what one core works on.
    piece_bytes: usize,
    /// Pieces in a window: what all cores work on.
    window_pieces: usize,
    /// Whether whoever takes the records may be waited for.
    waits: Waits,
}

impl Pace {
    /// As fast as can be, to somewhere that takes it as fast.
    pub(super) const FAST: Self = Self {
        piece_bytes: 2 << 20,
        window_pieces: 8,
        waits: Waits::Nowhere,
    };

    /// For one of many who may be slow: a few MiB at a time.
    pub(super) const PATIENT: Self = Self {
        piece_bytes: 512 << 10,
        window_pieces: 4,
        waits: Waits::Taking,
    };

    /// Returns how many records are read together: fewer of large blocks.
    fn piece_records(self, block_size: BlockSize) -> usize {
        (self.piece_bytes / block_size.as_usize()).clamp(1, PIECE_RECORDS)
    }
}

/// Where a stream goes.
pub enum DeltaDestination<'a> {
    /// A new file, which appears under its name when it is complete and durable.
    File {
        /// Its path.
        path: &'a Path,
        /// Whether it may take the place of a file.
        force: bool,
    },
    /// Bytes in order.
    Stream(&'a mut (dyn Write + Send)),
}

impl fmt::Debug for DeltaDestination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, force } => f
                .debug_struct("File")
                .field("path", path)
                .field("force", force)
                .finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What a stream holds, or would hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaReport {
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The image it starts from.
    pub base: Option<DeltaEnd>,
    /// The image it makes.
    pub target: DeltaEnd,
    /// Blocks that hold another chunk than in the base.
    pub data_blocks: u64,
    /// Blocks that are zeroed.
    pub zero_blocks: u64,
    /// Chunks that it carries; the others the base has elsewhere.
    pub records: u64,
    /// Bytes of their records.
    pub record_bytes: u64,
    /// Those of them that are not carried as they are stored.
    pub recompressed: u64,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

impl DeltaReport {
    pub(super) fn of(plan: &Plan<'_>, record_bytes: u64) -> Self {
        Self {
            block_size: plan.block_size,
            base: plan.base,
            target: plan.target,
            data_blocks: plan.tables.data.len(),
            zero_blocks: plan.tables.zero.len(),
            records: plan.order.len() as u64,
            record_bytes,
            recompressed: plan.anew.len(),
            bytes: stream_bytes(plan.head_bytes(), record_bytes),
        }
    }
}

/// Tells how long a stream would be, to the byte. Reads no chunk but those that would be compressed anew.
pub(crate) fn size(
    workers: Workers,
    session: &Session,
    (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
    recompress: Recompress,
    task: Task<'_>,
) -> Result<DeltaReport, EngineError> {
    let plan = Plan::new(session, base, image, recompress, HashedRecords::Whole)?;
    let mut record_bytes = plan.stored_bytes()?;
    let order = plan.order.iter().copied();
    let anew = order.filter(|position| plan.anew.contains(BlockIndex::new(*position)));
    let wanted = (anew, plan.anew.len());
    for_each_record(&plan, workers, Pace::FAST, wanted, task, |record| {
        record_bytes += record.len() as u64;
        Ok(())
    })?;
    Ok(DeltaReport::of(&plan, record_bytes))
}

/// Writes the stream that turns the base into the image, or one that holds all of the image.
pub(crate) fn create(
    workers: Workers,
    session: &Session,
    (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
    recompress: Recompress,
    destination: DeltaDestination<'_>,
    task: Task<'_>,
) -> Result<DeltaReport, EngineError> {
    let plan = Plan::new(session, base, image, recompress, HashedRecords::Whole)?;
    destination.write(|out, name| write(&plan, workers, out, name, task))
}

impl DeltaDestination<'_> {
    /// Writes to the destination; a file gets its name when all is well and durable.
    pub(super) fn write<T>(
        self,
        write: impl FnOnce(&mut (dyn Write + Send), &str) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match self {
            Self::Stream(out) => write(out, "the output"),
            Self::File { path, force } => {
                let mut file = NewFile::create(path, force)?;
                let written = write(&mut file, &path.display().to_string())?;
                file.publish(path, force)?;
                Ok(written)
            }
        }
    }
}

fn write(
    plan: &Plan<'_>,
    workers: Workers,
    out: &mut (dyn Write + Send),
    name: &str,
    task: Task<'_>,
) -> Result<DeltaReport, EngineError> {
    let mut sink = DeltaSink::new(out, name);
    sink.part(&plan.head)?;
    for piece in plan.tables.ids.as_slice().chunks(1 << 20) {
        sink.part(piece)?;
    }
    let (order, count) = (plan.order.iter().copied(), plan.order.len() as u64);
    for_each_record(plan, workers, Pace::FAST, (order, count), task, |record| {
        sink.record(record)
    })?;
    let (trailer, _) = sink.finish()?;
    Ok(DeltaReport::of(plan, trailer.record_bytes))
}

/// Reads chunks of the plan, verifies them, and hands over their records, as they are stored or made anew, in the order
/// of `positions`, of which there are `count`.
pub(super) fn for_each_record(
    plan: &Plan<'_>,
    workers: Workers,
    pace: Pace,
    (positions, count): (impl Iterator<Item = u32> + Send, u64),
    task: Task<'_>,
    mut each: impl FnMut(&[u8]) -> Result<(), EngineError> + Send,
) -> Result<(), EngineError> {
    let session = plan.session;
    let mut numbered = (0_u32..).zip(positions);
    let mut done = 0;
    let block_bytes = u64::from(plan.block_size.bytes());
    let piece_records = pace.piece_records(plan.block_size);
    workers.pipeline_with(
        pace.waits,
        || {
            task.check()?;
            let mut window = Vec::with_capacity(pace.window_pieces);
            while window.len() < pace.window_pieces {
                let piece: Vec<_> = numbered.by_ref().take(piece_records).collect();
                if piece.is_empty() {
                    break;
                }
                done += piece.len() as u64;
                let chunks: Vec<_> = piece
                    .iter()
                    .map(|(number, position)| (BlockIndex::new(*number), plan.id(*position)))
                    .collect();
                let mut reads = plan_reads(session, &chunks)?;
                reads.iter_mut().for_each(|read| read.start(session));
                window.push((piece, reads));
            }
            (task.progress)(done * block_bytes, Some(count * block_bytes));
            Ok((!window.is_empty()).then_some(window))
        },
        |(piece, reads)| {
            let first = piece.first().map_or(0, |(number, _)| *number);
            let mut records = Vec::with_capacity(piece.len());
            for read in reads {
                read.finish_records(session, |numbers, block, stored| {
                    for number in numbers {
                        let at = (number.get() - first) as usize;
                        let (_, position) = piece.get(at).expect("because it was planned from it");
                        let record = record_of(plan, *position, block, stored)?;
                        records.push((*number, record));
                    }
                    Ok(())
                })?;
            }
            records.sort_unstable_by_key(|(number, _)| *number);
            Ok::<_, EngineError>(records)
        },
        |results| {
            for records in results {
                for (_, record) in records? {
                    each(&record)?;
                }
            }
            Ok::<_, EngineError>(())
        },
    )
}

/// Returns a chunk's record as the stream is to have it. `stored` is the one in the store, unless that was damaged.
fn record_of(
    plan: &Plan<'_>,
    position: u32,
    block: &[u8],
    stored: Option<(&[u8], &Bases)>,
) -> Result<Buffer, EngineError> {
    let anew = plan.anew.contains(BlockIndex::new(position));
    if let (false, Some((record, _))) = (anew, stored) {
        return Ok(Buffer::copied(record));
    }
    let (id, level) = (plan.id(position), plan.session.store().config().zstd_level);
    if !anew && plan.hashed == HashedRecords::ByName {
        // Another record of the chunk would do as well, but this one was promised.
        return Err(DeltaError::NotAsPromised { id }.into());
    }
    let plain = match stored.filter(|(_, bases)| bases.is_empty()) {
        Some((record, _)) => Buffer::copied(record),
        None => compress(id, block, level).record,
    };
    let Some(before) = plan.before(position)?.filter(|before| *before != id) else {
        return Ok(plain);
    };
    let base = plan.session.read_chunk(&before)?;
    // It may stand on chunks that resemble it more, and that the receiver has or is given.
    let as_stored = stored.filter(|(record, _)| record.len() <= plain.len());
    let shortest = match as_stored.filter(|_| plan.is_decodable(position)) {
        Some((record, _)) => Buffer::copied(record),
        None => plain,
    };
    let below = u32::try_from(shortest.len() - RECORD_HEADER_BYTES).unwrap_or(u32::MAX);
    let shorter = compress_with_bases(id, block, &[(before, &base)], level, below);
    Ok(shorter.map_or(shortest, |shorter| shorter.record))
}

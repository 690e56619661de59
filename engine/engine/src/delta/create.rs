//! Making a stream: which blocks differ, which of their chunks the base does not have, and those chunks' records.

use super::sink::{DeltaSink, NewFile, stream_bytes};
use super::sorted::SortedIds;
use super::walk::{Tables, tables};
use crate::get::plan_reads;
use crate::{EngineError, OpenImage, Task, Workers};
use std::fmt;
use std::io::Write;
use std::path::Path;
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, DeltaEnd, DeltaParts, ImageRecord,
    RECORD_HEADER_BYTES,
};
use tegula_io::Buffer;
use tegula_store::{Session, StoreError};

/// Records that are looked up and read together.
const PIECE_RECORDS: usize = 64;

/// Pieces in a window of the pipeline.
const WINDOW_PIECES: usize = 8;

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
    /// Bytes of the whole stream.
    pub bytes: u64,
}

/// A stream that was thought out and not yet written.
#[derive(Debug)]
struct Plan<'a> {
    session: &'a Session,
    block_size: BlockSize,
    base: Option<DeltaEnd>,
    target: DeltaEnd,
    tables: Tables<'a>,
    /// Positions in the table of ids whose chunk is carried: where each such chunk stands first.
    carried: BlockSet,
    /// Header and sets as bytes.
    head: Vec<u8>,
}

fn end_of(record: &ImageRecord) -> DeltaEnd {
    DeltaEnd {
        virtual_size: record.virtual_size,
        digest: record.digest,
    }
}

impl<'a> Plan<'a> {
    fn new(
        session: &'a Session,
        base: Option<&OpenImage<'_>>,
        image: &OpenImage<'_>,
    ) -> Result<Self, EngineError> {
        let tables = tables(session, base, image)?;
        let carried = carried(base, tables.ids.as_slice())?;
        let parts = DeltaParts {
            block_size: session.block_size(),
            base: base.map(|base| end_of(base.record())),
            target: end_of(image.record()),
            data: &tables.data,
            zero: &tables.zero,
            ids_hash: *blake3::hash(tables.ids.as_slice()).as_bytes(),
        };
        let (_, head) = parts.encode();
        Ok(Self {
            session,
            block_size: parts.block_size,
            base: parts.base,
            target: parts.target,
            carried,
            head,
            tables,
        })
    }

    /// Returns the carried chunks in the order of the stream.
    fn carried_ids(&self) -> impl Iterator<Item = (BlockIndex, ChunkId)> + '_ {
        self.carried.iter().map(|position| {
            let start = position.get() as usize * 32;
            let id = self.tables.ids.as_slice().get(start..);
            let id = id.and_then(|rest| rest.first_chunk().copied());
            let id = id.expect("because every position is one of the table");
            (position, ChunkId::from_bytes(id))
        })
    }

    fn report(&self, record_bytes: u64, bytes: u64) -> DeltaReport {
        DeltaReport {
            block_size: self.block_size,
            base: self.base,
            target: self.target,
            data_blocks: self.tables.data.len(),
            zero_blocks: self.tables.zero.len(),
            records: self.carried.len(),
            record_bytes,
            bytes,
        }
    }

    fn head_bytes(&self) -> u64 {
        (self.head.len() + self.tables.ids.as_slice().len()) as u64
    }
}

/// Returns the positions of a table at which a chunk stands for the first time that the base does not have.
fn carried(base: Option<&OpenImage<'_>>, ids: &[u8]) -> Result<BlockSet, StoreError> {
    let sorted = SortedIds::new(ids);
    let mut first: Vec<u32> = sorted.first_positions().collect();
    first.sort_unstable();
    let mut carried: BlockSet = first.into_iter().map(BlockIndex::new).collect();
    let Some(base) = base.filter(|_| !ids.is_empty()) else {
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

/// Tells how long a stream would be, to the byte. Reads no chunk.
pub(crate) fn size(
    session: &Session,
    base: Option<&OpenImage<'_>>,
    image: &OpenImage<'_>,
) -> Result<DeltaReport, EngineError> {
    let plan = Plan::new(session, base, image)?;
    let mut record_bytes = 0;
    for (_, id) in plan.carried_ids() {
        let row = session.locate(&id)?;
        record_bytes += RECORD_HEADER_BYTES as u64 + u64::from(row.stored_length);
    }
    Ok(plan.report(record_bytes, stream_bytes(plan.head_bytes(), record_bytes)))
}

/// Writes the stream that turns the base into the image, or one that holds all of the image.
pub(crate) fn create(
    workers: Workers,
    session: &Session,
    (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
    destination: DeltaDestination<'_>,
    task: Task<'_>,
) -> Result<DeltaReport, EngineError> {
    let plan = Plan::new(session, base, image)?;
    match destination {
        DeltaDestination::Stream(out) => write(&plan, workers, out, "the output", task),
        DeltaDestination::File { path, force } => {
            let mut file = NewFile::create(path, force)?;
            let report = write(&plan, workers, &mut file, &path.display().to_string(), task)?;
            file.publish(path, force)?;
            Ok(report)
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
    let session = plan.session;
    let mut sink = DeltaSink::new(out, name);
    sink.part(&plan.head)?;
    for piece in plan.tables.ids.as_slice().chunks(1 << 20) {
        sink.part(piece)?;
    }
    let mut carried = plan.carried_ids();
    let mut done = 0;
    let block_bytes = u64::from(plan.block_size.bytes());
    workers.pipeline(
        || {
            task.check()?;
            let mut window = Vec::with_capacity(WINDOW_PIECES);
            while window.len() < WINDOW_PIECES {
                let piece: Vec<_> = carried.by_ref().take(piece_records(plan)).collect();
                if piece.is_empty() {
                    break;
                }
                done += piece.len() as u64;
                let mut reads = plan_reads(session, &piece)?;
                reads.iter_mut().for_each(|read| read.start(session));
                window.push(reads);
            }
            (task.progress)(done * block_bytes, Some(plan.carried.len() * block_bytes));
            Ok((!window.is_empty()).then_some(window))
        },
        |reads| {
            let mut records = Vec::new();
            for read in reads {
                read.finish_records(session, |positions, record| {
                    let position = positions.first().copied();
                    records.extend(position.map(|position| (position, Buffer::copied(record))));
                    Ok(())
                })?;
            }
            records.sort_unstable_by_key(|(position, _)| *position);
            Ok::<_, EngineError>(records)
        },
        |results| {
            for records in results {
                for (_, record) in records? {
                    sink.record(&record)?;
                }
            }
            Ok::<_, EngineError>(())
        },
    )?;
    let (trailer, bytes) = sink.finish()?;
    Ok(plan.report(trailer.record_bytes, bytes))
}

/// Returns how many records are read together: fewer of large blocks.
fn piece_records(plan: &Plan<'_>) -> usize {
    const PIECE_BYTES: usize = 2 << 20;
    (PIECE_BYTES / plan.block_size.as_usize()).clamp(1, PIECE_RECORDS)
}

//! Getting an image out: resolve, sort by place, read ahead in long reads, verify on all cores, write (design 4.4).

use crate::bases::{BasesFirst, Step, bases_ahead_max};
use crate::stream::{Pace, StreamPiece, stream};
use crate::workers::Waits;
use crate::{EngineError, OpenImage, Task, Workers};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::iter::Peekable;
use std::path::Path;
use tegula_format::{
    Bases, BlockIndex, BlockSet, BlockSize, Blocks, ChunkId, ImageDigest, ImageDigester, RunRow,
};
use tegula_io::{Buffer, Existing, FileKind, Pending, TargetError, TargetFile};
use tegula_store::{Session, StoreError};

/// Blocks that are resolved and sorted together; bounds the memory of a get whatever the image's length.
pub(crate) const WINDOW_BLOCKS: usize = 8192;

/// Longest read of a segment.
const READ_BYTES: usize = 1 << 20;

/// Unneeded bytes between two records that are read along rather than skipped.
pub(crate) const GAP_BYTES: u64 = 64 << 10;

/// Bytes in a window of the pipeline: what is read ahead while another window is decoded.
pub(crate) const WINDOW_BYTES: usize = 16 << 20;

/// Bytes that are decoded in one step when they are written in order.
const PIECE_BYTES: usize = 2 << 20;

/// Where an image goes.
pub enum Destination<'a> {
    /// A new file, which appears under its name when it is complete and durable.
    File {
        /// Its path.
        path: &'a Path,
        /// Whether it may take the place of a file, or overwrite a block device.
        force: bool,
    },
    /// An existing file or block device, of which only the blocks that differ are written.
    InPlace {
        /// Its path.
        path: &'a Path,
    },
    /// Bytes in order.
    Stream(&'a mut (dyn Write + Send)),
}

impl fmt::Debug for Destination<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, force } => f
                .debug_struct("File")
                .field("path", path)
                .field("force", force)
                .finish(),
            Self::InPlace { path } => f.debug_struct("InPlace").field("path", path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What a get did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GetReport {
    /// The image's length in bytes.
    pub virtual_size: u64,
    /// Its digest, of the blocks that were read and verified.
    pub digest: ImageDigest,
    /// Bytes of data written; in place, those that differed.
    pub written_bytes: u64,
    /// Blocks that read as zeros.
    pub zero_blocks: u64,
}

pub(crate) fn get(
    image: &OpenImage<'_>,
    workers: Workers,
    destination: Destination<'_>,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    match destination {
        Destination::Stream(out) => get_stream(image, workers, out, task),
        Destination::InPlace { path } => get_in_place(image, workers, path, task),
        Destination::File { path, force } => get_file(image, workers, path, force, task),
    }
}

fn get_file(
    image: &OpenImage<'_>,
    workers: Workers,
    path: &Path,
    force: bool,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let device = std::fs::metadata(path).is_ok_and(|metadata| is_block_device(&metadata));
    if device {
        return match force {
            true => get_in_place(image, workers, path, task),
            false => Err(EngineError::DestinationIsDevice {
                path: path.to_owned(),
            }),
        };
    }
    check_destination(path, force)?;
    let failed = |source| write_error(path)(source);
    let target = TargetFile::create_beside(path)?;
    target
        .set_len(image.record().virtual_size)
        .map_err(failed)?;
    let data = image.stack().data();
    let write = |block, bytes: &[u8]| write_clipped(image, (&target, path), block, bytes);
    let report = write_blocks(image, workers, &data, write, task)?;
    publish(target, path, force, task)?;
    Ok(report)
}

/// Gives a finished file its name.
pub(crate) fn publish(
    target: TargetFile,
    path: &Path,
    force: bool,
    task: Task<'_>,
) -> Result<(), EngineError> {
    // Whoever asked to stop while the last window was written is heard before the file gets its name.
    task.check()?;
    let existing = if force {
        Existing::Replace
    } else {
        Existing::Refuse
    };
    target
        .publish(existing)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => EngineError::DestinationExists {
                path: path.to_owned(),
            },
            _ => write_error(path)(source),
        })
}

/// Refuses what stands at a destination and cannot go: a file if nothing was said about replacing it, anything that is
/// no file in any case.
pub(crate) fn check_destination(path: &Path, force: bool) -> Result<(), EngineError> {
    if let Ok(kind) = std::fs::metadata(path).map(|metadata| FileKind::of(&metadata))
        && !kind.can_be_a_disk()
    {
        let path = path.to_owned();
        return Err(TargetError::NotADisk { path, kind }.into());
    }
    match !force && path.symlink_metadata().is_ok() {
        true => Err(EngineError::DestinationExists {
            path: path.to_owned(),
        }),
        false => Ok(()),
    }
}

pub(crate) fn is_block_device(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_block_device(&metadata.file_type())
}

pub(crate) fn write_error(path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::WriteTarget {
        name: path.display().to_string(),
        source,
    }
}

/// Makes an existing file or device hold the image: what holds the right bytes already is left alone.
fn get_in_place(
    image: &OpenImage<'_>,
    workers: Workers,
    path: &Path,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let target = TargetFile::open_in_place(path)?;
    let virtual_size = image.record().virtual_size;
    let found = target.bytes().map_err(write_error(path))?;
    if target.is_block_device() {
        if found < virtual_size {
            let (path, needed) = (path.to_owned(), virtual_size);
            return Err(EngineError::DestinationTooSmall {
                path,
                found,
                needed,
            });
        }
    } else {
        target.set_len(virtual_size).map_err(write_error(path))?;
    }
    let zeroed = zero_what_is_not(image, &target).map_err(write_error(path))?;
    let differing = differing_blocks(image, workers, &target, found, task)?;
    let write = |block, bytes: &[u8]| write_clipped(image, (&target, path), block, bytes);
    let mut report = write_blocks(image, workers, &differing, write, task)?;
    report.written_bytes += zeroed;
    target.sync().map_err(write_error(path))?;
    Ok(report)
}

/// Zeroes every block of the target that the image reads as zeros and that is not zero. Returns the bytes zeroed.
fn zero_what_is_not(image: &OpenImage<'_>, target: &TargetFile) -> io::Result<u64> {
    let (block_size, virtual_size) = (image.record().block_size, image.record().virtual_size);
    let data = image.stack().data();
    let mut buffer = Buffer::zeroed(block_size.as_usize());
    let (mut zeroed, mut next) = (0, 0);
    while let Some(range) = target
        .next_data(next)?
        .filter(|range| range.start < virtual_size)
    {
        let end = range.end.min(virtual_size);
        let first = block_size.block_at(range.start).get();
        let last = block_size.block_at(end.max(range.start + 1) - 1).get();
        for block in (first..=last)
            .map(BlockIndex::new)
            .filter(|block| !data.contains(*block))
        {
            let offset = block.byte_offset(block_size);
            let length = (virtual_size - offset).min(u64::from(block_size.bytes()));
            let bytes =
                buffer.get_mut(..usize::try_from(length).expect("because blocks are short"));
            let bytes = bytes.expect("because it is no longer than a block");
            target.read_at(bytes, offset)?;
            if bytes.iter().any(|byte| *byte != 0) {
                target.zero_range(offset, length)?;
                zeroed += length;
            }
        }
        next = (u64::from(last) + 1) << block_size.log2();
    }
    Ok(zeroed)
}

/// Returns the data blocks of the image that the target does not hold, by hashing what it holds: the store is not read.
fn differing_blocks(
    image: &OpenImage<'_>,
    workers: Workers,
    target: &TargetFile,
    target_bytes: u64,
    task: Task<'_>,
) -> Result<BlockSet, EngineError> {
    let (block_size, virtual_size) = (image.record().block_size, image.record().virtual_size);
    let mut differing = BlockSet::new();
    let mut chunks = image.stack().chunks();
    workers.pipeline(
        || {
            task.check()?;
            let window: Result<Vec<_>, _> = chunks.by_ref().take(1024).collect();
            let window = window?;
            Ok::<_, EngineError>((!window.is_empty()).then_some(window))
        },
        |(block, id)| {
            let offset = block.byte_offset(block_size);
            let length =
                usize::try_from((virtual_size - offset).min(u64::from(block_size.bytes())));
            let mut bytes = Buffer::zeroed(block_size.as_usize());
            let wanted = bytes.get_mut(..length.expect("because blocks are short"));
            let same = offset < target_bytes
                && target
                    .read_at(
                        wanted.expect("because it is no longer than a block"),
                        offset,
                    )
                    .is_ok()
                && ChunkId::of(&bytes) == id;
            (block, same)
        },
        |results| {
            results
                .into_iter()
                .filter(|(_, same)| !same)
                .for_each(|(block, _)| differing.push(block));
            Ok(())
        },
    )?;
    Ok(differing)
}

/// A read of a segment and the blocks that its records fill.
#[derive(Debug)]
pub(crate) struct Read {
    /// The records, ascending and close together.
    rows: Vec<(RunRow, Vec<BlockIndex>)>,
    bytes: Option<Pending<Buffer>>,
}

impl Read {
    fn first(&self) -> &RunRow {
        &self
            .rows
            .first()
            .expect("because a read has at least one record")
            .0
    }

    /// Returns where its records stand.
    pub(crate) fn places(&self) -> Vec<RunRow> {
        self.rows.iter().map(|(row, _)| *row).collect()
    }

    fn length(&self) -> usize {
        let last = &self
            .rows
            .last()
            .expect("because a read has at least one record")
            .0;
        (last.offset - self.first().offset) as usize + last.record_bytes()
    }

    /// Begins the read; where the storage can, it goes on behind the caller's back.
    pub(crate) fn start(&mut self, session: &Session) {
        // If the segment cannot be opened, each of its chunks is tried by itself, which gives the error or heals it.
        self.bytes = session.read_segment(self.first(), self.length()).ok();
    }

    /// Waits for the bytes, and returns each record's verified block. What is not as the index says is read again by
    /// the segments' own tables before it is given up.
    fn finish(
        mut self,
        session: &Session,
        mut each: impl FnMut(&[BlockIndex], &[u8]) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let start = self.first().offset;
        let mut failed = Ok(());
        self.rows
            .retain(|(row, blocks)| match session.kept_base(&row.id) {
                // Decoded and verified already, for the sake of what stands on it.
                Some(block) => {
                    if failed.is_ok() {
                        failed = each(blocks, &block);
                    }
                    false
                }
                None => true,
            });
        failed?;
        self.finish_from(session, start, |blocks, block, _| each(blocks, block))
    }

    /// Waits for the bytes, and has each chunk kept for those that stand on it. What is not good is left to whoever needs
    /// it.
    pub(crate) fn keep_bases(mut self, session: &Session) {
        let bytes = self.bytes.take().and_then(|pending| pending.wait().ok());
        let bytes = bytes.unwrap_or_default();
        let start = self.first().offset;
        for (row, _) in &self.rows {
            let from = (row.offset - start) as usize;
            if let Some(record) = bytes.get(from..from + row.record_bytes()) {
                drop(session.keep_base(record, row));
            }
        }
    }

    /// As [`Self::finish`], but hands over the verified block together with the record that it was stored as and what that
    /// builds on; without, if the block had to be read elsewhere.
    pub(crate) fn finish_records(
        self,
        session: &Session,
        each: impl FnMut(&[BlockIndex], &[u8], Option<(&[u8], &Bases)>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let start = self.first().offset;
        self.finish_from(session, start, each)
    }

    /// As [`Self::finish_records`]; `start` is where the bytes that were read begin.
    fn finish_from(
        mut self,
        session: &Session,
        start: u32,
        mut each: impl FnMut(&[BlockIndex], &[u8], Option<(&[u8], &Bases)>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let bytes = self
            .bytes
            .take()
            .and_then(|pending| pending.wait().ok())
            .unwrap_or_default();
        let mut block = Buffer::stale(session.block_size().as_usize());
        for (row, blocks) in &self.rows {
            let from = (row.offset - start) as usize;
            let record = bytes.get(from..from + row.record_bytes());
            let decoded = record.and_then(|record| {
                let bases = session.decode_record(record, row, &mut block).ok()?;
                Some((record, bases))
            });
            match &decoded {
                Some((record, bases)) => each(blocks, &block, Some((record, bases)))?,
                None => each(blocks, &session.read_chunk(&row.id)?, None)?,
            }
        }
        Ok(())
    }
}

/// Finds the records of many blocks and puts them into long reads, each chunk once.
pub(crate) fn plan_reads(
    session: &Session,
    blocks: &[(BlockIndex, ChunkId)],
) -> Result<Vec<Read>, StoreError> {
    let mut wanted: HashMap<ChunkId, Vec<BlockIndex>> = HashMap::with_capacity(blocks.len());
    for (block, id) in blocks {
        wanted.entry(*id).or_default().push(*block);
    }
    let rows: Result<Vec<_>, StoreError> = wanted
        .into_iter()
        .map(|(id, blocks)| Ok((session.locate(&id)?, blocks)))
        .collect();
    Ok(join_reads(session, rows?))
}

/// Puts records, each with the blocks that it fills, into long reads.
pub(crate) fn join_reads(session: &Session, mut rows: Vec<(RunRow, Vec<BlockIndex>)>) -> Vec<Read> {
    // What is read at once has its bases read ahead at once.
    let framed_max = (bases_ahead_max(session) / 4).max(1);
    rows.sort_unstable_by_key(|(row, _)| (row.place.segment, row.offset));
    let (mut reads, mut framed): (Vec<Read>, _) = (Vec::new(), 0);
    for (row, blocks) in rows {
        framed += usize::from(row.bases > 0);
        match reads.last_mut() {
            Some(read) if framed <= framed_max && continues(read, &row) => {
                read.rows.push((row, blocks))
            }
            _ => {
                framed = usize::from(row.bases > 0);
                reads.push(Read {
                    rows: vec![(row, blocks)],
                    bytes: None,
                });
            }
        }
    }
    reads
}

fn continues(read: &Read, row: &RunRow) -> bool {
    let (first, end) = (
        read.first(),
        u64::from(read.first().offset) + read.length() as u64,
    );
    // A damaged index may have records overlap: those are read by themselves.
    let gap = u64::from(row.offset).checked_sub(end);
    let length = read.length() + row.record_bytes();
    first.place.segment == row.place.segment
        && gap.is_some_and(|gap| gap <= GAP_BYTES && length as u64 + gap <= READ_BYTES as u64)
}

/// Writes a block where it stands on the disk, as much of it as the disk has. Returns how much that is.
fn write_clipped(
    image: &OpenImage<'_>,
    (target, path): (&TargetFile, &Path),
    block: BlockIndex,
    bytes: &[u8],
) -> Result<u64, EngineError> {
    let record = image.record();
    let (offset, bytes) = clipped(block, bytes, record.block_size, record.virtual_size);
    target.write_at(bytes, offset).map_err(write_error(path))?;
    Ok(bytes.len() as u64)
}

/// Hands over some of an image's blocks to be written, in the order they stand in the store. `write` returns how many
/// bytes it wrote.
pub(crate) fn write_blocks(
    image: &OpenImage<'_>,
    workers: Workers,
    wanted: &BlockSet,
    write: impl Fn(BlockIndex, &[u8]) -> Result<u64, EngineError> + Sync,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let record = image.record();
    let (block_size, virtual_size) = (record.block_size, record.virtual_size);
    let mut feeder = Feeder::new(image);
    let window_reads = WINDOW_BYTES / READ_BYTES.max(block_size.as_usize());
    let mut queue: Vec<Read> = Vec::new();
    let mut written = 0;
    let mut bases_first = BasesFirst::new(image.session());
    let mut next = || {
        task.check()?;
        while queue.is_empty() {
            let Some(mut blocks) = feeder.next_blocks(WINDOW_BLOCKS)? else {
                return Ok(None);
            };
            (task.progress)(feeder.position(), Some(virtual_size));
            blocks.retain(|(block, _)| wanted.contains(*block));
            queue = plan_reads(image.session(), &blocks)?;
            queue.reverse();
        }
        let mut window = queue.split_off(queue.len().saturating_sub(window_reads));
        window.reverse();
        window
            .iter_mut()
            .for_each(|read| read.start(image.session()));
        Ok(Some(window))
    };
    workers.pipeline(
        || bases_first.next_window(&mut next, Read::places),
        |step: Step<Read>| {
            let read = match step {
                Step::Bases(read) => {
                    read.keep_bases(image.session());
                    return Ok(0);
                }
                Step::Work(read) => read,
            };
            let mut written = 0;
            read.finish(image.session(), |blocks, bytes| {
                for block in blocks {
                    written += write(*block, bytes)?;
                }
                Ok(())
            })?;
            Ok::<_, EngineError>(written)
        },
        |results| {
            results
                .into_iter()
                .try_for_each(|bytes| bytes.map(|bytes| written += bytes))
        },
    )?;
    feeder.finish(written)
}

/// Returns where a block goes and as much of it as the image has.
fn clipped(
    block: BlockIndex,
    bytes: &[u8],
    block_size: BlockSize,
    virtual_size: u64,
) -> (u64, &[u8]) {
    let offset = block.byte_offset(block_size);
    let length = usize::try_from(virtual_size.saturating_sub(offset))
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    (offset, bytes.get(..length).unwrap_or_default())
}

/// Walks a stretch of an image's map in block order. If that is all of it, it computes the digest of what it walked over.
struct Feeder<'a, I: Iterator> {
    image: &'a OpenImage<'a>,
    chunks: Peekable<I>,
    digester: Option<ImageDigester>,
    blocks: Blocks,
    next: u64,
    data_blocks: u64,
}

/// A data block and its chunk.
type MapRow = Result<(BlockIndex, ChunkId), StoreError>;

impl<'a> Feeder<'a, std::iter::Empty<MapRow>> {
    fn new(image: &'a OpenImage<'a>) -> Feeder<'a, impl Iterator<Item = MapRow> + 'a> {
        Self::over(image, 0..image.stack().block_count())
    }

    fn over(
        image: &'a OpenImage<'a>,
        blocks: Blocks,
    ) -> Feeder<'a, impl Iterator<Item = MapRow> + 'a> {
        let record = image.record();
        let is_all = blocks == (0..image.stack().block_count());
        Feeder {
            image,
            chunks: image.stack().chunks_in(blocks.clone()).peekable(),
            digester: is_all.then(|| ImageDigester::new(record.virtual_size, record.block_size)),
            next: blocks.start,
            blocks,
            data_blocks: 0,
        }
    }
}

impl<I: Iterator<Item = MapRow>> Feeder<'_, I> {
    /// Returns the next data blocks, at most `count`; `None` after the last.
    fn next_blocks(
        &mut self,
        count: usize,
    ) -> Result<Option<Vec<(BlockIndex, ChunkId)>>, StoreError> {
        self.next_groups(count, 1)
    }

    /// Returns the next data blocks, `count` or as many more as there are in the same group of `group` blocks; `None`
    /// after the last.
    fn next_groups(
        &mut self,
        count: usize,
        group: u64,
    ) -> Result<Option<Vec<(BlockIndex, ChunkId)>>, StoreError> {
        let blocks: Result<Vec<_>, _> = self.chunks.by_ref().take(count).collect();
        let mut blocks = blocks?;
        let group_of = |block: BlockIndex| u64::from(block.get()) / group;
        if let Some(last) = blocks.last().map(|(last, _)| group_of(*last)) {
            let in_group = |row: &MapRow| {
                row.as_ref()
                    .map_or(true, |(block, _)| group_of(*block) == last)
            };
            while let Some(row) = self.chunks.next_if(in_group) {
                blocks.push(row?);
            }
        }
        for (block, id) in &blocks {
            if let Some(digester) = &mut self.digester {
                digester.push_zeros(u64::from(block.get()) - self.next);
                digester.push_data(id);
            }
            self.next = u64::from(block.get()) + 1;
        }
        self.data_blocks += blocks.len() as u64;
        Ok((!blocks.is_empty()).then_some(blocks))
    }

    fn position(&self) -> u64 {
        (self.next << self.image.record().block_size.log2()).min(self.image.record().virtual_size)
    }

    /// Makes sure that what was walked over is the image that was asked for, if it was all of it.
    fn finish(self, written_bytes: u64) -> Result<GetReport, EngineError> {
        let record = self.image.record();
        if let Some(mut digester) = self.digester {
            digester.push_zeros(self.blocks.end.saturating_sub(self.next));
            let found = digester.finish();
            if found != record.digest {
                let (name, expected) = (record.name.clone(), record.digest);
                return Err(EngineError::DigestMismatch {
                    name,
                    expected,
                    found,
                });
            }
        }
        let zero_blocks = self.blocks.end - self.blocks.start - self.data_blocks;
        Ok(GetReport {
            virtual_size: record.virtual_size,
            digest: record.digest,
            written_bytes,
            zero_blocks,
        })
    }
}

/// Consecutive blocks on their way to be written in order.
#[derive(Debug)]
struct Piece {
    blocks: Blocks,
    reads: Vec<Read>,
}

/// Which blocks are handed over in order, and how they are kept together.
#[derive(Debug)]
pub(crate) struct InOrder<'a> {
    /// The stretch of the image that is walked over.
    pub(crate) blocks: Blocks,
    /// The blocks to read; `None` for all that hold data.
    pub(crate) wanted: Option<&'a BlockSet>,
    /// Blocks of a group, counted from the disk's first, come in the same piece.
    pub(crate) group: u64,
    /// How much is read ahead.
    pub(crate) pace: Pace<'a>,
    /// Whether whoever takes the pieces may be kept waiting by somebody outside.
    pub(crate) waits: Waits,
}

impl<'a> InOrder<'a> {
    /// Some blocks of the whole image, for somebody who does not wait for others.
    pub(crate) fn of_all(image: &OpenImage<'_>, wanted: &'a BlockSet, group: u64) -> Self {
        Self {
            blocks: 0..image.stack().block_count(),
            wanted: Some(wanted),
            group,
            pace: Pace::steady(WINDOW_BYTES),
            waits: Waits::Nowhere,
        }
    }
}

/// Hands over an image's data in the order of the disk, verified: pieces of consecutive blocks to `work`, on all cores,
/// with the range that they are all the data of; what it makes of them to `take`, in order.
///
/// Returns what was walked over; its `written_bytes` are for the caller to set.
pub(crate) fn in_order<R: Send>(
    image: &OpenImage<'_>,
    workers: Workers,
    plan: InOrder<'_>,
    work: impl Fn(Blocks, Vec<(BlockIndex, Buffer)>) -> R + Sync,
    mut take: impl FnMut(R) -> Result<(), EngineError> + Send,
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let record = image.record();
    let (block_bytes, virtual_size) = (record.block_size.as_usize(), record.virtual_size);
    let InOrder { wanted, group, .. } = plan;
    let mut pace = plan.pace;
    let mut walked = plan.blocks.start;
    let mut feeder = Feeder::over(image, plan.blocks);
    let mut bases_first = BasesFirst::new(image.session());
    let mut next = || {
        task.check()?;
        let mut window = Vec::new();
        let window_bytes = pace.next_window();
        // Several pieces a window: each is decoded by one thread.
        let piece_bytes = (window_bytes / 8).min(PIECE_BYTES).max(block_bytes);
        let piece_blocks = piece_bytes / block_bytes;
        while window.len() < (window_bytes / piece_bytes).max(1) {
            let Some(mut blocks) = feeder.next_groups(piece_blocks, group)? else {
                break;
            };
            if let Some(wanted) = wanted {
                blocks.retain(|(block, _)| wanted.contains(*block));
            }
            let mut reads = plan_reads(image.session(), &blocks)?;
            reads
                .iter_mut()
                .for_each(|read| read.start(image.session()));
            window.push(Piece {
                blocks: walked..feeder.next,
                reads,
            });
            walked = feeder.next;
        }
        (task.progress)(feeder.position(), Some(virtual_size));
        Ok((!window.is_empty()).then_some(window))
    };
    let places = |piece: &Piece| piece.reads.iter().flat_map(Read::places).collect();
    workers.pipeline_with(
        plan.waits,
        || bases_first.next_window(&mut next, places),
        |step: Step<Piece>| {
            let piece = match step {
                Step::Bases(read) => {
                    read.keep_bases(image.session());
                    return Ok(None);
                }
                Step::Work(piece) => piece,
            };
            let mut decoded = Vec::new();
            for read in piece.reads {
                read.finish(image.session(), |blocks, bytes| {
                    decoded.extend(blocks.iter().map(|block| (*block, Buffer::copied(bytes))));
                    Ok(())
                })?;
            }
            decoded.sort_unstable_by_key(|(block, _)| *block);
            Ok::<_, EngineError>(Some(work(piece.blocks, decoded)))
        },
        |results| {
            let mut results = results.into_iter();
            results.try_for_each(|result| result?.map_or(Ok(()), &mut take))
        },
    )?;
    feeder.finish(0)
}

fn get_stream(
    image: &OpenImage<'_>,
    workers: Workers,
    out: &mut (dyn Write + Send),
    task: Task<'_>,
) -> Result<GetReport, EngineError> {
    let zeros = Buffer::zeroed(image.record().block_size.as_usize());
    let mut sink = |piece: StreamPiece| match piece {
        StreamPiece::Data(bytes) => out.write_all(&bytes),
        StreamPiece::Zeros(mut rest) => {
            while rest > 0 {
                let length = usize::try_from(rest).unwrap_or(usize::MAX).min(zeros.len());
                out.write_all(zeros.get(..length).unwrap_or_default())?;
                rest -= length as u64;
            }
            Ok(())
        }
    };
    let all = 0..image.record().virtual_size;
    let pace = Pace::steady(WINDOW_BYTES);
    let report = stream(image, workers, (all, pace), &mut sink, task)?;
    out.flush().map_err(output_error)?;
    Ok(report)
}

pub(crate) fn output_error(source: io::Error) -> EngineError {
    EngineError::WriteTarget {
        name: "the output".to_owned(),
        source,
    }
}

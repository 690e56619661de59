//! Differences in the form of Ceph's `rbd export-diff`: written from two images of a store, applied in a store or to a disk.
//!
//! Such a difference names no content: the base must be named by whoever applies it, and nobody can tell whether it is
//! the right one. What comes out is therefore an image like any other, with the digest that it has. All that a difference
//! tells is whether it starts from a snapshot at all: one that does is not applied to nothing, and what one that does not
//! leaves out reads as zeros.

mod format;

pub use format::RbdVersion;

use super::create::DeltaDestination;
use super::show::open;
use super::stream::ids_in;
use super::{DeltaError, DeltaSource};
use crate::get::plan_reads;
use crate::put::{is_zero, refuse_taken};
use crate::{EngineError, OpenImage, Task, Workers};
use format::{Gather, RbdExtent, RbdFile, RbdWriter};
use std::io;
use std::ops::Range;
use std::path::Path;
use tegula_format::{BlockIndex, BlockSet, ChunkId, ImageName, ImageRecord, ParentReference};
use tegula_io::{Buffer, Scratch, TargetFile};
use tegula_store::{Encoded, IdTable, Ingest, NewImage, Session, Spool};

/// Blocks in a step of the pipeline, and steps in a window.
const PIECE_BLOCKS: usize = 32;
const WINDOW_PIECES: usize = 8;

/// The longest range of bytes that is written: that of the objects an RBD image is made of.
const RANGE_BYTES_MAX: u64 = 4 << 20;

/// What a difference is to say of the snapshots it is of.
#[derive(Debug, Clone, Copy)]
pub struct RbdNames<'a> {
    /// The snapshot to start from: by the base's name if it has none of its own, and none without a base.
    pub from: Option<&'a str>,
    /// The snapshot to make.
    pub to: Option<&'a str>,
}

/// Writes the difference of two images, or all of one. Returns how many bytes it has.
pub(crate) fn create(
    workers: Workers,
    session: &Session,
    (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
    (version, names): (RbdVersion, RbdNames<'_>),
    destination: DeltaDestination<'_>,
    task: Task<'_>,
) -> Result<u64, EngineError> {
    let tables = super::walk::tables(session, base, image)?;
    let record = image.record();
    let (block_size, size) = (record.block_size, record.virtual_size);
    destination.write(|out, name| {
        let failed = |source| EngineError::WriteTarget {
            name: name.to_owned(),
            source,
        };
        let mut writer = RbdWriter {
            out,
            version,
            written: 0,
        };
        let from = base.map(|base| names.from.unwrap_or(base.record().name.as_str()));
        writer.begin(from, names.to, size).map_err(failed)?;
        let range = |first, end| range_in(record, first..end);
        let range_blocks = range_blocks(record);
        let (mut runs, mut range_end) = (tables.data.runs().peekable(), 0);
        let mut zeros = tables.zero.runs().peekable();
        let mut blocks = tables.data.iter().zip(ids_in(tables.ids.as_slice()));
        let writer = &mut writer;
        workers.pipeline(
            || {
                task.check()?;
                let mut window = Vec::with_capacity(WINDOW_PIECES);
                while window.len() < WINDOW_PIECES {
                    let piece: Vec<_> = blocks.by_ref().take(PIECE_BLOCKS).collect();
                    let Some((last, _)) = piece.last() else { break };
                    (task.progress)(last.byte_offset(block_size), Some(size));
                    let mut reads = plan_reads(session, &piece)?;
                    reads.iter_mut().for_each(|read| read.start(session));
                    window.push(reads);
                }
                Ok((!window.is_empty()).then_some(window))
            },
            |reads| {
                let mut chunks = Vec::new();
                for read in reads {
                    read.finish_records(session, |blocks, bytes, _| {
                        chunks.extend(blocks.iter().map(|block| (*block, Buffer::copied(bytes))));
                        Ok(())
                    })?;
                }
                chunks.sort_unstable_by_key(|(block, _)| *block);
                Ok::<_, EngineError>(chunks)
            },
            |results| {
                for chunks in results {
                    for (block, bytes) in chunks? {
                        let first = u64::from(block.get());
                        while let Some(run) = zeros.next_if(|run| run.start < first) {
                            let (offset, length) = range(run.start, run.end);
                            writer.zeros(offset, length).map_err(failed)?;
                        }
                        if first >= range_end {
                            while runs.next_if(|run| run.end <= first).is_some() {}
                            let run_end = runs.peek().map_or(first + 1, |run| run.end);
                            range_end = run_end.min(first + range_blocks);
                            let (offset, length) = range(first, range_end);
                            writer.data(offset, length).map_err(failed)?;
                        }
                        let (_, length) = range(first, first + 1);
                        let length = usize::try_from(length).unwrap_or(usize::MAX);
                        let bytes = bytes.get(..length).unwrap_or_default();
                        writer.bytes(bytes).map_err(failed)?;
                    }
                }
                Ok::<_, EngineError>(())
            },
        )?;
        for run in zeros {
            let (offset, length) = range(run.start, run.end);
            writer.zeros(offset, length).map_err(failed)?;
        }
        writer.end().map_err(failed)?;
        Ok(writer.written)
    })
}

/// Returns how many bytes the difference would have that [`create`] writes. Reads no chunk.
pub(crate) fn size(
    session: &Session,
    (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
    (version, names): (RbdVersion, RbdNames<'_>),
) -> Result<u64, EngineError> {
    let tables = super::walk::tables(session, base, image)?;
    let record = image.record();
    let mut writer = RbdWriter {
        out: &mut io::sink(),
        version,
        written: 0,
    };
    let from = base.map(|base| names.from.unwrap_or(base.record().name.as_str()));
    let mut count = || {
        writer.begin(from, names.to, record.virtual_size)?;
        for run in tables.data.runs() {
            let mut first = run.start;
            while first < run.end {
                let end = run.end.min(first + range_blocks(record));
                let (offset, length) = range_in(record, first..end);
                writer.data(offset, length)?;
                writer.written += length;
                first = end;
            }
        }
        for run in tables.zero.runs() {
            let (offset, length) = range_in(record, run);
            writer.zeros(offset, length)?;
        }
        writer.end()
    };
    count().expect("because nothing is written anywhere");
    Ok(writer.written)
}

/// Returns where some blocks begin, and how many bytes of the image they have.
fn range_in(record: &ImageRecord, blocks: Range<u64>) -> (u64, u64) {
    let log2 = record.block_size.log2();
    let offset = blocks.start << log2;
    (
        offset,
        (blocks.end << log2).min(record.virtual_size) - offset,
    )
}

/// Returns how many blocks a range of bytes has at most.
fn range_blocks(record: &ImageRecord) -> u64 {
    (RANGE_BYTES_MAX >> record.block_size.log2()).max(1)
}

/// Reads a difference to its end; what comes in order is gathered.
fn read<'g>(
    source: DeltaSource<'_>,
    version: RbdVersion,
    gather: Gather<'g>,
) -> Result<RbdFile<'g>, EngineError> {
    match source {
        DeltaSource::File(path) => {
            let name = path.display().to_string();
            Ok(RbdFile::open(name, open(path)?, version)?)
        }
        DeltaSource::Stream(stream) => {
            let name = "the input".to_owned();
            Ok(RbdFile::gather(name, stream, gather, version)?)
        }
    }
}

/// What to make of a difference.
#[derive(Debug)]
pub struct RbdRequest<'a> {
    /// The difference.
    pub source: DeltaSource<'a>,
    /// Its version.
    pub version: RbdVersion,
    /// The image it is a difference from, if from any. That it is the right one cannot be checked.
    pub base: Option<ImageName>,
    /// The new image's name.
    pub name: ImageName,
    /// Whether it may take the place of an image of that name.
    pub replace: bool,
}

/// Makes an image of a difference and its base.
pub(crate) fn apply(
    session: &Session,
    workers: Workers,
    request: RbdRequest<'_>,
    task: Task<'_>,
) -> Result<ImageRecord, EngineError> {
    if !request.replace {
        refuse_taken(session, &request.name)?;
    }
    let base = request
        .base
        .as_ref()
        .map(|base| OpenImage::open(session, base))
        .transpose()?;
    let gather = Gather::InStore(Spool::new(session));
    let file = read(request.source, request.version, gather)?;
    let block_size = session.block_size();
    let name = file.name().to_owned();
    match (file.from(), &base) {
        (Some(_), Some(_)) | (None, None) => {}
        (Some(from), None) => {
            let snapshot = from.to_owned();
            return Err(DeltaError::RbdBaseNeeded { name, snapshot }.into());
        }
        (None, Some(_)) => return Err(DeltaError::RbdWithoutBase { name }.into()),
    }
    if file.size() > block_size.image_bytes_max() {
        return Err(EngineError::TooLarge {
            name,
            found: file.size(),
            limit: block_size.image_bytes_max(),
            block_size,
        });
    }
    let ingest = Ingest::begin(session)?;
    let overlay = Overlay {
        session,
        base: base.as_ref(),
        file: &file,
    };
    let Touched { touched, erased } = overlay.touched();
    let (mut data, mut zero) = (BlockSet::new(), BlockSet::new());
    let mut ids = IdTable::begin(session);
    let mut blocks = touched.iter();
    workers.pipeline(
        || {
            task.check()?;
            let window: Vec<_> = blocks.by_ref().take(PIECE_BLOCKS * WINDOW_PIECES).collect();
            if let Some(last) = window.last() {
                (task.progress)(last.byte_offset(block_size), Some(file.size()));
            }
            Ok((!window.is_empty()).then_some(window))
        },
        |block| Ok::<_, EngineError>((block, overlay.outcome(&ingest, block)?)),
        |results| {
            for result in results {
                match result? {
                    (_, Outcome::Same) => {}
                    (block, Outcome::Zero) => zero.push(block),
                    (block, Outcome::Known(id)) => {
                        data.push(block);
                        ids.push(&id)?;
                    }
                    (block, Outcome::New(chunk)) => {
                        ingest.store(&chunk)?;
                        data.push(block);
                        ids.push(&chunk.id)?;
                    }
                }
            }
            Ok::<_, EngineError>(())
        },
    )?;
    zero.union_with(&erased);
    let parent = base.as_ref().map(|base| ParentReference {
        name: base.record().name.clone(),
        digest: base.record().digest,
    });
    let image = NewImage {
        name: request.name,
        replace: request.replace,
        virtual_size: file.size(),
        parent,
        base: base.as_ref().map(OpenImage::stack),
        data,
        zero,
    };
    let (record, _) = ingest.finish(image, ids)?;
    Ok(record)
}

/// What became of a block.
enum Outcome {
    /// It is as in the base.
    Same,
    /// It reads as zeros, where the base has a chunk.
    Zero,
    /// It holds a chunk that the store has.
    Known(ChunkId),
    /// It holds a chunk that is to be stored.
    New(Encoded),
}

/// The blocks that a difference is about.
struct Touched {
    /// Those that have to be looked at.
    touched: BlockSet,
    /// Those that had data and are all zero now.
    erased: BlockSet,
}

/// A difference laid over its base.
struct Overlay<'a> {
    session: &'a Session,
    base: Option<&'a OpenImage<'a>>,
    file: &'a RbdFile<'a>,
}

impl Overlay<'_> {
    /// Returns the blocks that may not be as in the base: those that a range touches, and the one in which the image is
    /// cut off.
    ///
    /// What becomes zero costs nothing where it was zero, and where it was not, it is not read: a whole disk may be that.
    fn touched(&self) -> Touched {
        let block_size = self.session.block_size();
        let (mut touched, mut erased) = (BlockSet::new(), BlockSet::new());
        for extent in self.file.extents() {
            let (first, end) = (extent.offset, extent.end());
            touched.insert_range(first >> block_size.log2()..block_size.blocks_in(end));
            if extent.data.is_none() {
                let whole = block_size.blocks_in(first)..end >> block_size.log2();
                touched.remove_range(whole.clone());
                erased.insert_range(whole);
            }
        }
        match self.base {
            Some(base) => erased.intersect_with(&base.stack().data()),
            None => erased = BlockSet::new(),
        }
        let base_size = self.base.map_or(0, |base| base.record().virtual_size);
        let cut = !self
            .file
            .size()
            .is_multiple_of(u64::from(block_size.bytes()));
        if cut && self.file.size() < base_size {
            touched.insert(block_size.block_at(self.file.size()));
        }
        Touched { touched, erased }
    }

    fn outcome(&self, ingest: &Ingest<'_>, block: BlockIndex) -> Result<Outcome, EngineError> {
        let before = match self.base {
            Some(base) if u64::from(block.get()) < base.stack().block_count() => {
                base.stack().chunk(block)?
            }
            _ => None,
        };
        let bytes = self.block(block, before)?;
        if is_zero(&bytes) {
            return Ok(match before {
                Some(_) => Outcome::Zero,
                None => Outcome::Same,
            });
        }
        let id = ChunkId::of(&bytes);
        if before == Some(id) {
            return Ok(Outcome::Same);
        }
        Ok(match ingest.has_or_claim(&id) {
            true => Outcome::Known(id),
            false => Outcome::New(ingest.compress(id, &bytes)),
        })
    }

    /// Returns the bytes of a block, zeros past the image's end.
    fn block(&self, block: BlockIndex, before: Option<ChunkId>) -> Result<Buffer, EngineError> {
        let block_size = self.session.block_size();
        let start = block.byte_offset(block_size);
        let end = start + u64::from(block_size.bytes());
        let mut bytes = match before {
            Some(id) => self.session.read_chunk(&id)?,
            None => Buffer::zeroed(block_size.as_usize()),
        };
        let extents = self.file.extents();
        let first = extents.partition_point(|extent| extent.end() <= start);
        let extents = extents.iter().skip(first);
        for extent in extents.take_while(|extent| extent.offset < end) {
            let (from, to) = (extent.offset.max(start), extent.end().min(end));
            let into = bytes.get_mut(within(from - start)..within(to - start));
            let into = into.expect("because the range was cut to the block");
            self.file.read(extent, from - extent.offset, into)?;
        }
        let kept = within(self.file.size().clamp(start, end) - start);
        bytes.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        Ok(bytes)
    }
}

fn within(offset: u64) -> usize {
    usize::try_from(offset).expect("because blocks are short")
}

/// Applies a difference to a disk. All of it is read and checked first; run again after an interruption it does the same
/// once more, to the same end. Whether the disk is its base cannot be checked: who asks for it must say that it may be
/// `unverified`. Where the difference starts from nothing, what it leaves out becomes zeros, and there is nothing to check.
///
/// # Errors
/// [`EngineError::Delta`] if the difference is damaged, or starts from a snapshot and is not to be applied unverified:
/// nothing is written then.
pub fn apply_rbd_to_disk(
    source: DeltaSource<'_>,
    version: RbdVersion,
    (path, unverified): (&Path, bool),
    task: Task<'_>,
) -> Result<u64, EngineError> {
    let disk = TargetFile::open_in_place(path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let gather = Gather::InDirectory(Scratch::new(directory));
    let file = read(source, version, gather)?;
    if let Some(snapshot) = file.from().filter(|_| !unverified) {
        return Err(EngineError::from(DeltaError::RbdUnverified {
            name: file.name().to_owned(),
            snapshot: snapshot.to_owned(),
            disk: path.display().to_string(),
        }));
    }
    let failed = |source: io::Error| EngineError::WriteTarget {
        name: path.display().to_string(),
        source,
    };
    let found = disk.bytes().map_err(failed)?;
    match disk.is_block_device() {
        true if found < file.size() => {
            let (path, needed) = (path.to_owned(), file.size());
            return Err(EngineError::DestinationTooSmall {
                path,
                found,
                needed,
            });
        }
        true => {}
        false => disk.set_len(file.size()).map_err(failed)?,
    }
    let (mut written, mut end) = (0, 0);
    let mut buffer = Buffer::stale(1 << 20);
    for extent in file.extents() {
        let RbdExtent { offset, length, .. } = *extent;
        if file.from().is_none() {
            disk.zero_range(end, offset - end).map_err(failed)?;
        }
        end = extent.end();
        if extent.data.is_none() {
            task.check()?;
            disk.zero_range(offset, length).map_err(failed)?;
            continue;
        }
        let mut done = 0;
        while done < length {
            task.check()?;
            (task.progress)(offset + done, Some(file.size()));
            let step = within((length - done).min(buffer.len() as u64));
            let piece = buffer
                .get_mut(..step)
                .expect("because it was cut to the buffer");
            file.read(extent, done, piece)?;
            disk.write_at(piece, offset + done).map_err(failed)?;
            done += step as u64;
        }
        written += length;
    }
    if file.from().is_none() {
        disk.zero_range(end, file.size() - end).map_err(failed)?;
    }
    disk.sync().map_err(failed)?;
    Ok(written)
}

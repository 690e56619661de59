//! Putting an image in: read, compare with the parent, hash, look up, compress; then write in order (design 4.4).

use crate::hint::{self, HintedDisk};
use crate::stream::Streams;
use crate::thin::Reused;
use crate::walk::{BATCH_BYTES, DiskBatch, DiskWalk, WalkPlan};
use crate::workers::Waits;
use crate::{
    BlockSource, ChangeHint, ChangedBlocks, Content, EngineError, HintChecks, HintReport, Source,
    SourceExtent, Task, Workers,
};
use std::io::{self, Read};
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, ChunkId, IdPrefix, ImageName, ImageRecord, ParentReference,
    Sketch,
};
use tegula_io::Buffer;
use tegula_store::{Encoded, IdTable, Ingest, LayerStack, NewChunk, NewImage, Session, StoreError};

/// The most steps in a window of the pipeline. Three windows of blocks and their records are what a put holds in memory.
const WINDOW_BATCHES: usize = 32;

/// Steps that a smaller window has, each of them smaller then: every core is to have one.
const WINDOW_BATCHES_MIN: usize = 4;

/// What to put.
#[derive(Debug)]
pub struct PutRequest<'a> {
    /// The new image's name.
    pub name: ImageName,
    /// Its bytes.
    pub source: Source<'a>,
    /// The image it is a changed copy of, if it is one. Only speed and layers depend on it, never the result.
    pub parent: Option<ImageName>,
    /// Whether it may take the place of an image of that name.
    pub replace: bool,
}

/// What a put did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutReport {
    /// The image.
    pub record: ImageRecord,
    /// Bytes read from the source: holes are not.
    pub read_bytes: u64,
    /// Chunks that were not in the store.
    pub new_chunks: u64,
    /// Their bytes before compression.
    pub new_bytes: u64,
    /// How many of them are stored as frames over other chunks.
    pub framed_chunks: u64,
    /// Bytes of the segments they went into.
    pub stored_new_bytes: u64,
    /// Blocks whose chunk was in the store already.
    pub reused_chunks: u64,
    /// Blocks that read as zeros, holes among them.
    pub zero_blocks: u64,
    /// Chunks taken over from a put that was interrupted.
    pub recovered_chunks: u64,
    /// Chunks stored once more, so that the image need not be read from many thinly used segments.
    pub stored_again_chunks: u64,
    /// What became of the hint, if there was one.
    pub hint: Option<HintReport>,
}

/// What became of one block.
#[derive(Debug)]
enum Outcome {
    /// It reads as zeros.
    Zero,
    /// It is as in the base.
    Same,
    /// It holds a chunk, which somebody else stores or the store has.
    Known(ChunkId),
    /// It holds a chunk that is to be stored.
    New(Encoded),
    /// It holds a chunk that is to be stored, maybe as a frame over others: that is decided in stream order.
    Fresh(Fresh),
}

/// A chunk to be stored in a store that may have prefix frames.
#[derive(Debug)]
struct Fresh {
    id: ChunkId,
    sketch: Sketch,
    /// What the parent has at the same block.
    before: Option<ChunkId>,
}

/// Consecutive blocks with what became of each.
#[derive(Debug)]
struct Judged {
    first: BlockIndex,
    /// Bytes read from the source.
    read_bytes: u64,
    outcomes: Vec<Outcome>,
    /// The blocks, if some are still to be compressed.
    data: Option<Buffer>,
}

pub(crate) fn put(
    session: &Session,
    (workers, streams): (Workers, &Streams),
    request: PutRequest<'_>,
    task: Task<'_>,
) -> Result<PutReport, EngineError> {
    let over = Over::open(session, &request)?;
    Ok(put_over(session, (workers, streams), request, (over, None), task)?.0)
}

/// Puts a disk in of which somebody says what was changed since it was the parent.
pub(crate) fn put_changed(
    session: &Session,
    (workers, streams): (Workers, &Streams),
    request: PutRequest<'_>,
    (hint, checks): (&ChangeHint, HintChecks),
    task: Task<'_>,
) -> Result<PutReport, EngineError> {
    let over = Over::open(session, &request)?;
    let mut report = HintReport {
        used: false,
        reason: None,
        changed_bytes: hint.changed_bytes(),
        sampled_blocks: 0,
        missed_blocks: None,
    };
    let usable = match (&request.source, &over) {
        (Source::Stream(_), _) => Err("a stream has to be read to its end anyway".to_owned()),
        (_, None) => Err("there is no parent that the rest could be taken from".to_owned()),
        (Source::Disk(disk), Some(over)) => {
            let usable = hint.for_disk(*disk, &over.record);
            usable.map(|changed| (*disk, changed))
        }
    };
    let (disk, changed) = match usable {
        Ok(usable) => usable,
        Err(reason) => {
            report.reason = Some(reason);
            let (put, _) = put_over(session, (workers, streams), request, (over, None), task)?;
            return Ok(PutReport {
                hint: Some(report),
                ..put
            });
        }
    };
    let wrong = match &over {
        Some(over) if !checks.paranoid => {
            let random = &*session.store().environment().random;
            let (sampled, wrong) =
                hint::sample(disk, &changed, &over.base, (random, checks.sample))?;
            report.sampled_blocks = sampled;
            wrong
        }
        _ => None,
    };
    report.reason = match (checks.paranoid, wrong) {
        (true, _) => Some("everything was compared, as asked".to_owned()),
        (false, Some(offset)) => Some(format!(
            "the block at byte {offset} differs from the parent's, and it does not name it"
        )),
        (false, None) => None,
    };
    report.used = report.reason.is_none();
    let hinted = HintedDisk {
        disk,
        changed: &changed,
    };
    let request = PutRequest {
        source: Source::Disk(if report.used { &hinted } else { disk }),
        ..request
    };
    let watched = (!report.used).then_some(&changed);
    let (put, missed) = put_over(session, (workers, streams), request, (over, watched), task)?;
    report.missed_blocks = missed;
    Ok(PutReport {
        hint: Some(report),
        ..put
    })
}

/// The parent, with its map.
struct Over {
    record: ImageRecord,
    base: LayerStack,
}

impl Over {
    /// Opens the parent, if there is one, and refuses what cannot be put.
    fn open(session: &Session, request: &PutRequest<'_>) -> Result<Option<Self>, EngineError> {
        refuse_upper_part_alone(&request.source, request.parent.as_ref())?;
        if !request.replace {
            refuse_taken(session, &request.name)?;
        }
        let Some(parent) = &request.parent else {
            return Ok(None);
        };
        let record = session.image(parent)?;
        let base = LayerStack::of_image(session, &record)?;
        Ok(Some(Self { record, base }))
    }
}

/// Puts an image in, over its parent if there is one. Also returns how many blocks differ from the parent's that lie
/// outside of what was said to be changed.
fn put_over(
    session: &Session,
    (workers, streams): (Workers, &Streams),
    request: PutRequest<'_>,
    (over, changed): (Option<Over>, Option<&ChangedBlocks>),
    task: Task<'_>,
) -> Result<(PutReport, Option<u64>), EngineError> {
    let PutRequest {
        name,
        source,
        replace,
        ..
    } = request;
    let (parent, base) = over.map(|over| (over.record, over.base)).unzip();
    let ingest = Ingest::begin(session)?;
    let recovered_chunks = ingest.recover_abandoned()?;
    let mut map = NewMap::new(&ingest, base.as_ref());
    let virtual_size = match source {
        Source::Disk(disk) => put_disk(&mut map, workers, disk, task)?,
        Source::Stream(stream) => put_stream(&mut map, (workers, streams), stream, task)?,
    };
    task.check()?;
    let NewMap {
        data,
        mut same,
        ids,
        read_bytes,
        known,
        mut reused,
        framed,
        ..
    } = map;
    let mut zero = base.as_ref().map(LayerStack::data).unwrap_or_default();
    let block_count = session.block_size().blocks_in(virtual_size);
    zero.truncate(block_count);
    same.truncate(block_count);
    let zero_blocks = block_count - data.len() - same.len();
    zero.subtract(&data);
    zero.subtract(&same);
    let reused_chunks = known + same.len();
    if let Some(base) = &base {
        reused.push_same(base, &same)?;
    }
    let stored_again_chunks = reused.store_again(&ingest, task)?;
    let missed =
        changed.map(|changed| count_outside(changed, [&data, &zero], session.block_size()));
    let parent = parent.map(|parent| ParentReference {
        name: parent.name,
        digest: parent.digest,
    });
    let image = NewImage {
        name,
        replace,
        virtual_size,
        parent,
        base: base.as_ref(),
        data,
        zero,
    };
    let (record, totals) = ingest.finish(image, ids)?;
    let not_new = recovered_chunks + stored_again_chunks;
    let report = PutReport {
        record,
        read_bytes,
        new_chunks: totals.new_chunks - not_new,
        new_bytes: totals.new_bytes - not_new * u64::from(session.block_size().bytes()),
        framed_chunks: framed,
        stored_new_bytes: totals.stored_bytes,
        reused_chunks,
        zero_blocks,
        recovered_chunks,
        stored_again_chunks,
        hint: None,
    };
    Ok((report, missed))
}

/// Counts the blocks of some sets that were not said to be changed.
fn count_outside(changed: &ChangedBlocks, sets: [&BlockSet; 2], block_size: BlockSize) -> u64 {
    let outside = |block: &BlockIndex| {
        let start = block.byte_offset(block_size);
        !changed.touches(start..start + u64::from(block_size.bytes()))
    };
    let counts = sets.map(|set| set.iter().filter(outside).count() as u64);
    counts.iter().sum()
}

/// Refuses an overlay without what it lies over.
fn refuse_upper_part_alone(
    source: &Source<'_>,
    parent: Option<&ImageName>,
) -> Result<(), EngineError> {
    match source {
        Source::Disk(disk) if parent.is_none() => match disk.overlay_of() {
            Some(overlay_of) => Err(EngineError::ParentNeeded {
                name: disk.name().to_owned(),
                overlay_of: overlay_of.to_owned(),
            }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Says no before any work is done; whoever takes the name meanwhile is noticed at the commit.
pub(crate) fn refuse_taken(session: &Session, name: &ImageName) -> Result<(), StoreError> {
    match session.image(name) {
        Err(StoreError::ImageNotFound { .. }) => Ok(()),
        // An interrupted rename may have left an old name behind: only the whole list tells.
        Ok(_) if !session.images()?.iter().any(|image| image.name == *name) => Ok(()),
        Ok(_) => Err(StoreError::ImageExists { name: name.clone() }),
        Err(error) => Err(error),
    }
}

/// The new image's map as it grows, in block order.
#[derive(Debug)]
struct NewMap<'a, 'i> {
    ingest: &'i Ingest<'a>,
    base: Option<&'i LayerStack>,
    block_size: BlockSize,
    data: BlockSet,
    same: BlockSet,
    ids: IdTable<'a>,
    read_bytes: u64,
    known: u64,
    reused: Reused,
    framed: u64,
}

impl<'a, 'i> NewMap<'a, 'i> {
    fn new(ingest: &'i Ingest<'a>, base: Option<&'i LayerStack>) -> Self {
        let block_size = ingest.session().block_size();
        let (data, same, ids) = (BlockSet::new(), BlockSet::new(), ingest.id_table());
        Self {
            ingest,
            base,
            block_size,
            data,
            same,
            ids,
            read_bytes: 0,
            known: 0,
            reused: Reused::default(),
            framed: 0,
        }
    }

    /// Takes in the blocks that are the parent's, whatever those hold.
    fn take_inherited(&mut self, mut blocks: BlockSet) {
        if let Some(base) = self.base {
            blocks.intersect_with(&base.data());
            self.same.union_with(&blocks);
        }
    }

    /// Takes in what became of a window of blocks.
    fn take(&mut self, workers: Workers, window: Vec<Judged>) -> Result<(), EngineError> {
        let mut framed = self.compress_fresh(workers, &window)?.into_iter();
        for judged in window {
            self.read_bytes += judged.read_bytes;
            for (block, outcome) in blocks_from(judged.first).zip(judged.outcomes) {
                match outcome {
                    Outcome::Zero => {}
                    Outcome::Same => self.same.push(block),
                    Outcome::Known(id) => {
                        self.known += 1;
                        self.reused.push(id);
                        self.data.push(block);
                        self.ids.push(&id)?;
                    }
                    Outcome::New(chunk) => self.take_chunk(block, &chunk)?,
                    Outcome::Fresh(_) => {
                        let chunk = framed.next().expect("because each was compressed");
                        self.take_chunk(block, &chunk)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take_chunk(&mut self, block: BlockIndex, chunk: &Encoded) -> Result<(), EngineError> {
        self.ingest.store(chunk)?;
        self.framed += u64::from(!chunk.bases.is_empty());
        self.data.push(block);
        Ok(self.ids.push(&chunk.id)?)
    }

    /// Compresses the fresh chunks of a window. Which of them are framed over others is decided in stream order, by one
    /// thread; the work is then done by all.
    fn compress_fresh(
        &self,
        workers: Workers,
        window: &[Judged],
    ) -> Result<Vec<Encoded>, EngineError> {
        let mut chunks = Vec::new();
        for judged in window {
            let data = judged.data.as_deref().unwrap_or_default();
            let blocks = data.chunks_exact(self.block_size.as_usize());
            for (outcome, block) in judged.outcomes.iter().zip(blocks) {
                if let Outcome::Fresh(fresh) = outcome {
                    chunks.push(NewChunk {
                        id: fresh.id,
                        block,
                        sketch: &fresh.sketch,
                        before: fresh.before,
                    });
                }
            }
        }
        let plans = self.ingest.plan_frames(&chunks)?;
        let here = chunks
            .iter()
            .map(|chunk| (IdPrefix::of(&chunk.id), (chunk.id, chunk.block)))
            .collect();
        let planned: Vec<_> = chunks.iter().zip(&plans).collect();
        Ok(workers.map(planned, |(chunk, plan)| {
            self.ingest.compress_planned(chunk, plan, &here)
        }))
    }
}

/// What the workers need to know.
#[derive(Debug, Clone, Copy)]
struct Judge<'a, 'i> {
    ingest: &'i Ingest<'a>,
    base: Option<&'i LayerStack>,
    block_size: BlockSize,
}

impl Judge<'_, '_> {
    /// Judges every block of a buffer whose last one is padded.
    fn judge(
        &self,
        first: BlockIndex,
        read_bytes: u64,
        data: Buffer,
    ) -> Result<Judged, EngineError> {
        let outcomes = self.outcomes(first, &data)?;
        let fresh = |outcome| matches!(outcome, &Outcome::Fresh(_));
        let data = outcomes.iter().any(fresh).then_some(data);
        Ok(Judged {
            first,
            read_bytes,
            outcomes,
            data,
        })
    }

    fn outcomes(&self, first: BlockIndex, data: &[u8]) -> Result<Vec<Outcome>, EngineError> {
        let blocks = u64::from(first.get())
            ..u64::from(first.get()) + (data.len() / self.block_size.as_usize()) as u64;
        let mut base = self.base.map(|base| base.chunks_in(blocks).peekable());
        let mut outcomes = Vec::with_capacity(data.len() / self.block_size.as_usize());
        for (block, bytes) in blocks_from(first).zip(data.chunks_exact(self.block_size.as_usize()))
        {
            let before = match base
                .as_mut()
                .and_then(|base| base.next_if(|chunk| at_or_error(chunk, block)))
            {
                Some(chunk) => Some(chunk?.1),
                None => None,
            };
            outcomes.push(self.outcome(before, bytes));
        }
        Ok(outcomes)
    }

    /// Returns the parent's block; `None` if it reads as zeros.
    fn parent_block(&self, block: BlockIndex) -> Result<Option<Buffer>, StoreError> {
        let Some(base) = self
            .base
            .filter(|base| u64::from(block.get()) < base.block_count())
        else {
            return Ok(None);
        };
        let id = base.chunk(block)?;
        id.map(|id| self.ingest.session().read_chunk(&id))
            .transpose()
    }

    /// The lookup ladder, cheapest first.
    fn outcome(&self, before: Option<ChunkId>, block: &[u8]) -> Outcome {
        if is_zero(block) {
            return Outcome::Zero;
        }
        let id = ChunkId::of(block);
        if before == Some(id) {
            return Outcome::Same;
        }
        match self.ingest.has_or_claim(&id) {
            true => Outcome::Known(id),
            false if self.ingest.makes_frames() => Outcome::Fresh(Fresh {
                sketch: Sketch::of(block, self.block_size),
                id,
                before,
            }),
            false => Outcome::New(self.ingest.compress(id, block)),
        }
    }
}

/// Returns the blocks from `first` to the last there can be.
fn blocks_from(first: BlockIndex) -> impl Iterator<Item = BlockIndex> {
    (first.get()..=u32::MAX).map(BlockIndex::new)
}

fn at_or_error(chunk: &Result<(BlockIndex, ChunkId), StoreError>, block: BlockIndex) -> bool {
    chunk.as_ref().map_or(true, |(at, _)| *at == block)
}

/// Tells whether all bytes are zero. The first look at 64 bytes decides for nearly every block that is not.
pub(crate) fn is_zero(block: &[u8]) -> bool {
    let (head, rest) = block.split_at_checked(64).unwrap_or((block, &[]));
    head.iter().all(|byte| *byte == 0)
        && rest
            .chunks(4096)
            .all(|piece| piece.iter().fold(0, |or, byte| or | byte) == 0)
}

/// Returns how many steps a window has: where a step is one block longer than most steps are, fewer of them.
fn window_batches(block_size: BlockSize) -> usize {
    let batch_bytes = BATCH_BYTES.max(block_size.as_usize());
    (WINDOW_BATCHES * BATCH_BYTES / batch_bytes).max(WINDOW_BATCHES_MIN)
}

fn put_disk(
    map: &mut NewMap<'_, '_>,
    workers: Workers,
    disk: &dyn BlockSource,
    task: Task<'_>,
) -> Result<u64, EngineError> {
    let virtual_size = disk.bytes();
    check_size(disk.name(), virtual_size, map.block_size)?;
    let judge = Judge {
        ingest: map.ingest,
        base: map.base,
        block_size: map.block_size,
    };
    let plan = WalkPlan {
        block_size: map.block_size,
        parent_bytes: map.base.map(LayerStack::virtual_size),
    };
    let window_batches = window_batches(map.block_size);
    let mut walk = DiskWalk::new(disk, plan);
    let read_error = |offset| move |source| EngineError::of_source(disk.name(), offset, source);
    workers.pipeline(
        || {
            task.check()?;
            let mut window = Vec::with_capacity(window_batches);
            while window.len() < window_batches {
                match walk.next_batch().map_err(read_error(walk.position()))? {
                    Some(batch) => window.push(batch),
                    None => break,
                }
            }
            (task.progress)(walk.position(), Some(virtual_size));
            Ok((!window.is_empty()).then_some(window))
        },
        |batch: DiskBatch| {
            let offset = batch.first.byte_offset(judge.block_size);
            let (buffer, read_bytes) = read_batch(&judge, disk, &batch)
                .map_err(|error| error.into_engine_error(read_error(offset)))?;
            judge.judge(batch.first, read_bytes, buffer)
        },
        |results| {
            let window: Result<Vec<_>, _> = results.into_iter().collect();
            map.take(workers, window?)
        },
    )?;
    map.take_inherited(walk.into_inherited());
    disk.check_unchanged()?;
    Ok(virtual_size)
}

/// Why a batch could not be read.
enum ReadFailure {
    Source(io::Error),
    Parent(StoreError),
}

impl ReadFailure {
    fn into_engine_error(self, of_source: impl FnOnce(io::Error) -> EngineError) -> EngineError {
        match self {
            Self::Source(error) => of_source(error),
            Self::Parent(error) => error.into(),
        }
    }
}

/// Reads a batch, the last block padded. Also returns how many bytes came from the source.
fn read_batch(
    judge: &Judge<'_, '_>,
    disk: &dyn BlockSource,
    batch: &DiskBatch,
) -> Result<(Buffer, u64), ReadFailure> {
    let offset = batch.first.byte_offset(judge.block_size);
    let Some(parts) = &batch.parts else {
        let length = usize::try_from(batch.bytes).expect("because a batch is short");
        let mut buffer = Buffer::stale(length.next_multiple_of(judge.block_size.as_usize()));
        let (wanted, padding) = buffer.split_at_mut(length);
        padding.fill(0);
        disk.read_at(wanted, offset).map_err(ReadFailure::Source)?;
        return Ok((buffer, batch.bytes));
    };
    let mut block = Buffer::zeroed(judge.block_size.as_usize());
    let parent = judge
        .parent_block(batch.first)
        .map_err(ReadFailure::Parent)?;
    let mut read_bytes = 0;
    for SourceExtent { range, content } in parts {
        let place = |at: u64| usize::try_from(at - offset).expect("because blocks are short");
        let (from, to) = (place(range.start), place(range.end));
        let part = block
            .get_mut(from..to)
            .expect("because a part lies in its block");
        match content {
            Content::Data => {
                disk.read_at(part, range.start)
                    .map_err(ReadFailure::Source)?;
                read_bytes += range.end - range.start;
            }
            Content::Inherited => {
                if let Some(parent) = &parent {
                    part.copy_from_slice(
                        parent
                            .get(from..to)
                            .expect("because a chunk fills its block"),
                    );
                }
            }
        }
    }
    Ok((block, read_bytes))
}

/// Consecutive blocks of a stream.
#[derive(Debug)]
struct StreamBatch {
    first: BlockIndex,
    bytes: u64,
    data: Buffer,
}

fn put_stream(
    map: &mut NewMap<'_, '_>,
    (workers, streams): (Workers, &Streams),
    stream: &mut (dyn Read + Send),
    task: Task<'_>,
) -> Result<u64, EngineError> {
    const NAME: &str = "the input";
    let judge = Judge {
        ingest: map.ingest,
        base: map.base,
        block_size: map.block_size,
    };
    let _active = streams.begin();
    let (mut virtual_size, mut ended) = (0, false);
    workers.pipeline_with(
        Waits::Feeding,
        || {
            let window_bytes = (WINDOW_BATCHES * BATCH_BYTES).min(streams.share());
            let batch_bytes = (window_bytes / WINDOW_BATCHES_MIN)
                .min(BATCH_BYTES)
                .next_multiple_of(judge.block_size.as_usize());
            let mut window = Vec::with_capacity(WINDOW_BATCHES);
            while window.len() < (window_bytes / batch_bytes).max(1) && !ended {
                task.check()?;
                let mut data = Buffer::stale(batch_bytes);
                let bytes =
                    read_full(stream, &mut data).map_err(|source| EngineError::ReadSource {
                        name: NAME.to_owned(),
                        offset: virtual_size,
                        source,
                    })?;
                ended = bytes < batch_bytes;
                if bytes > 0 {
                    check_size(NAME, virtual_size + bytes as u64, judge.block_size)?;
                    data.as_vec_mut()
                        .truncate(bytes.next_multiple_of(judge.block_size.as_usize()));
                    data.iter_mut().skip(bytes).for_each(|padding| *padding = 0);
                    let first = judge.block_size.block_at(virtual_size);
                    window.push(StreamBatch {
                        first,
                        bytes: bytes as u64,
                        data,
                    });
                    virtual_size += bytes as u64;
                }
            }
            (task.progress)(virtual_size, None);
            Ok((!window.is_empty()).then_some(window))
        },
        |batch: StreamBatch| judge.judge(batch.first, batch.bytes, batch.data),
        |results| {
            let window: Result<Vec<_>, _> = results.into_iter().collect();
            map.take(workers, window?)
        },
    )?;
    Ok(virtual_size)
}

/// Fills a buffer as far as the stream goes.
pub(crate) fn read_full(stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn check_size(name: &str, found: u64, block_size: BlockSize) -> Result<(), EngineError> {
    match block_size.image_bytes_max() {
        limit if found > limit => Err(EngineError::TooLarge {
            name: name.to_owned(),
            found,
            limit,
            block_size,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_16_mib_whatever_the_size_of_blocks() {
        for block_size in [BlockSize::MIN, BlockSize::DEFAULT, BlockSize::MAX] {
            let batch_bytes = BATCH_BYTES.max(block_size.as_usize());
            assert_eq!(window_batches(block_size) * batch_bytes, 16 << 20);
        }
    }

    #[test]
    fn one_byte_anywhere_makes_a_block_not_zero() {
        for length in [4096, 65_536] {
            let mut block = vec![0; length];
            assert!(is_zero(&block));
            for at in [0, 63, 64, 4095, length / 2, length - 1] {
                block[at] = 1;
                assert!(!is_zero(&block), "byte {at} of {length}");
                block[at] = 0;
            }
        }
    }
}

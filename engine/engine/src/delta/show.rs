//! Looking at a stream: what it turns into what, and whether it is whole.

use super::stream::{DeltaFile, StreamBytes};
use super::{DeltaError, DeltaSource};
use crate::{EngineError, Extent, ExtentKind, Task};
use std::io::Read;
use std::path::Path;
use tegula_format::{
    BlockSet, BlockSize, Corruption, DELTA_TRAILER_BYTES, DeltaEnd, DeltaHeader, DeltaTrailer,
    RECORD_HEADER_BYTES, Structure,
};
use tegula_io::{RawSource, Scratch};

/// Bytes taken at once from a stream that comes in order; its header is always in the first of them.
const PIECE_BYTES: usize = 1 << 20;

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaSummary {
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The image it starts from; without one it holds all of its target.
    pub base: Option<DeltaEnd>,
    /// The image it makes.
    pub target: DeltaEnd,
    /// Blocks that hold another chunk than in the base.
    pub data_blocks: u64,
    /// Blocks that are zeroed.
    pub zero_blocks: u64,
    /// Chunks that it carries.
    pub records: u64,
    /// Bytes of their records.
    pub record_bytes: u64,
    /// Bytes of all of it.
    pub bytes: u64,
    /// What it changes, in the order of blocks.
    pub extents: Vec<Extent>,
}

impl DeltaSummary {
    pub(super) fn of(file: &DeltaFile<'_>) -> Self {
        let (header, trailer) = (file.header(), file.trailer());
        Self::of_parts(header, trailer, file.bytes(), file.data(), file.zero())
    }

    pub(super) fn of_parts(
        header: &DeltaHeader,
        trailer: &DeltaTrailer,
        bytes: u64,
        data: &BlockSet,
        zero: &BlockSet,
    ) -> Self {
        Self {
            block_size: header.block_size,
            base: header.base,
            target: header.target,
            data_blocks: header.data_blocks(),
            zero_blocks: header.zero_blocks(),
            records: trailer.records,
            record_bytes: trailer.record_bytes,
            bytes,
            extents: extents(header, data, zero),
        }
    }
}

/// Returns both sets as extents, cut at the target's end.
fn extents(header: &DeltaHeader, data: &BlockSet, zero: &BlockSet) -> Vec<Extent> {
    let log2 = header.block_size.log2();
    let of = |set: &BlockSet, kind| -> Vec<Extent> {
        set.runs()
            .map(|run| {
                let offset = run.start << log2;
                let end = (run.end << log2).min(header.target.virtual_size);
                Extent {
                    offset,
                    length: end - offset,
                    kind,
                }
            })
            .collect()
    };
    let mut extents = of(data, ExtentKind::Data);
    extents.extend(of(zero, ExtentKind::Zero));
    extents.sort_unstable_by_key(|extent| extent.offset);
    extents
}

/// Reads a whole stream and makes sure that it is one: every header, checksum and hash but those of the chunks' bytes,
/// for which their bases may be needed.
///
/// # Errors
/// [`EngineError::Delta`].
pub fn show_delta(path: &Path, task: Task<'_>) -> Result<DeltaSummary, EngineError> {
    let file = DeltaFile::open(path.display().to_string(), open(path)?)?;
    let mut records = file.records();
    while let Some(record) = records.next_record()? {
        task.check()?;
        (task.progress)(record.offset, Some(file.bytes()));
    }
    Ok(DeltaSummary::of(&file))
}

pub(super) fn open(path: &Path) -> Result<Box<dyn StreamBytes>, EngineError> {
    Ok(Box::new(RawSource::open(path)?))
}

const INPUT: &str = "the input";

impl DeltaSource<'_> {
    /// Opens a stream; one that comes in order is first gathered in the store.
    pub(super) fn into_file<'s>(
        self,
        session: &'s tegula_store::Session,
        task: Task<'_>,
    ) -> Result<DeltaFile<'s>, EngineError> {
        match self {
            Self::File(path) => Ok(DeltaFile::open(path.display().to_string(), open(path)?)?),
            Self::Stream(stream) => {
                let mut spool = tegula_store::Spool::new(session);
                gather(stream, task, |piece| Ok(spool.append(piece)?))?;
                Ok(DeltaFile::open(
                    INPUT.to_owned(),
                    Box::new(spool.finish()?),
                )?)
            }
        }
    }

    /// Opens a stream; one that comes in order is first gathered in a directory.
    pub(super) fn into_file_in(
        self,
        directory: &Path,
        task: Task<'_>,
    ) -> Result<DeltaFile<'static>, EngineError> {
        match self {
            Self::File(path) => Ok(DeltaFile::open(path.display().to_string(), open(path)?)?),
            Self::Stream(stream) => {
                let failed = |source| scratch_error(directory, source);
                let mut scratch = Scratch::new(directory);
                gather(stream, task, |piece| scratch.append(piece).map_err(failed))?;
                let gathered = scratch.finish().map_err(failed)?;
                Ok(DeltaFile::open(INPUT.to_owned(), Box::new(gathered))?)
            }
        }
    }
}

/// What is told if a directory does not take what is gathered there.
pub(super) fn scratch_error(directory: &Path, source: std::io::Error) -> EngineError {
    EngineError::WriteTarget {
        name: format!("a temporary file in {}", directory.display()),
        source,
    }
}

/// Takes all of a stream. What is no delta, or goes on longer than any delta of its kind, is not waited for.
fn gather(
    stream: &mut (dyn Read + Send),
    task: Task<'_>,
    mut append: impl FnMut(&[u8]) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let damaged = |source| DeltaError::Damaged {
        name: INPUT.to_owned(),
        offset: 0,
        source,
    };
    let mut piece = vec![0; PIECE_BYTES];
    let (mut have, mut limit) = (0, None);
    loop {
        task.check()?;
        let bytes =
            crate::put::read_full(stream, &mut piece).map_err(|source| DeltaError::Read {
                name: INPUT.to_owned(),
                offset: have,
                source,
            })?;
        let piece = piece.get(..bytes).unwrap_or_default();
        let need = match limit {
            Some(need) => need,
            None => longest_stream(piece).map_err(damaged)?,
        };
        limit = Some(need);
        have += bytes as u64;
        if have > need {
            let what = Structure::Delta;
            return Err(damaged(Corruption::Truncated { what, need, have }).into());
        }
        append(piece)?;
        (task.progress)(have, None);
        if bytes < PIECE_BYTES {
            return Ok(());
        }
    }
}

/// Returns the length of the longest stream that begins with these bytes.
fn longest_stream(bytes: &[u8]) -> Result<u64, Corruption> {
    let (header, length) = DeltaHeader::decode(bytes)?;
    let record = (RECORD_HEADER_BYTES as u64) + u64::from(header.block_size.bytes());
    Ok((length as u64)
        .saturating_add(header.data_bytes())
        .saturating_add(header.zero_bytes())
        .saturating_add(header.ids_bytes())
        .saturating_add(header.records_max().saturating_mul(record))
        .saturating_add(DELTA_TRAILER_BYTES as u64))
}

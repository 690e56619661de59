//! The journal: the base's chunks that would be lost, where the others stand, and how many steps are done.
//!
//! It is a head, one row for each needed chunk, the saved chunks, a seal, then a mark now and then. As long as the seal
//! is not whole, nothing was written to the disk.

use super::{Places, Where, Work};
use crate::EngineError;
use crate::delta::DeltaError;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use tegula_format::{
    BlockSize, ChunkId, Corruption, JOURNAL_MARK_BYTES, JOURNAL_ROW_BYTES, JournalHead,
    JournalMark, JournalRow, JournalSeal, Structure,
};
use tegula_io::{Buffer, LogFile};

/// Bytes read or written at once.
const PIECE_BYTES: usize = 1 << 20;

/// A journal's file as it was found.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is sealed: the disk may be changed in part.
    Before(Journal),
    /// Nothing was done yet.
    Now(Empty),
}

/// A journal that is still to be written.
#[derive(Debug)]
pub(super) struct Empty(Log);

/// A sealed journal.
#[derive(Debug)]
pub(super) struct Journal {
    log: Log,
    block_size: BlockSize,
    base_size: u64,
    rows: HashMap<ChunkId, JournalRow>,
    saved_start: u64,
    saved: u64,
    done: u64,
}

/// The file, with its name.
#[derive(Debug)]
struct Log {
    path: String,
    file: LogFile,
}

impl Log {
    fn failed(&self) -> impl Fn(io::Error) -> DeltaError + use<> {
        let path = self.path.clone();
        move |source| DeltaError::Journal {
            path: path.clone(),
            source,
        }
    }

    fn damaged(&self) -> impl Fn(Corruption) -> DeltaError + use<> {
        let path = self.path.clone();
        move |source| DeltaError::JournalDamaged {
            path: path.clone(),
            source,
        }
    }

    fn read(&self, offset: u64, length: usize) -> Result<Buffer, DeltaError> {
        let mut buffer = Buffer::stale(length);
        self.file
            .read_at(&mut buffer, offset)
            .map_err(self.failed())?;
        Ok(buffer)
    }
}

/// Returns the head of the journal of this work.
fn head_of(work: &Work<'_>, rows: u64, saved: u64) -> Result<JournalHead, EngineError> {
    let header = work.file.header();
    Ok(JournalHead {
        delta: work.file.trailer().hash,
        disk: work.disk.identity()?,
        block_size: header.block_size,
        rows,
        saved,
    })
}

impl Journal {
    /// Opens the journal of this work, or creates it. A sealed one of other work is refused.
    pub(super) fn open(path: PathBuf, work: &Work<'_>) -> Result<Begun, EngineError> {
        let name = path.display().to_string();
        let file = LogFile::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DeltaError::JournalBusy { path: name.clone() },
            _ => DeltaError::Journal {
                path: name.clone(),
                source,
            },
        })?;
        let log = Log { path: name, file };
        let Some((head, rows_start)) = read_head(&log)? else {
            return Ok(Begun::Now(Empty(log)));
        };
        if !is_sealed(&log, &head, rows_start)? {
            return Ok(Begun::Now(Empty(log)));
        }
        let expected = head_of(work, head.rows, head.saved)?;
        let another = |of| DeltaError::JournalOfAnother {
            path: log.path.clone(),
            of,
        };
        if head.disk != expected.disk {
            return Err(another("disk").into());
        }
        if head != expected {
            return Err(another("delta").into());
        }
        Self::read(log, &head, rows_start, work).map(Begun::Before)
    }

    fn read(
        log: Log,
        head: &JournalHead,
        rows_start: u64,
        work: &Work<'_>,
    ) -> Result<Self, EngineError> {
        let mut rows = HashMap::new();
        let saved_start = rows_start + head.rows_bytes();
        let mut offset = rows_start;
        while offset < saved_start {
            let piece = PIECE_BYTES - PIECE_BYTES % JOURNAL_ROW_BYTES;
            let left = usize::try_from(saved_start - offset).unwrap_or(usize::MAX);
            let bytes = log.read(offset, piece.min(left))?;
            for row in bytes.chunks_exact(JOURNAL_ROW_BYTES) {
                let (id, row) = JournalRow::decode(row, head).map_err(log.damaged())?;
                rows.insert(id, row);
            }
            offset += bytes.len() as u64;
        }
        let marks_start = saved_start + head.saved_bytes() + JournalSeal::BYTES as u64;
        let done = last_mark(&log, marks_start)?;
        Ok(Self {
            log,
            block_size: head.block_size,
            base_size: work.base_size(),
            rows,
            saved_start,
            saved: head.saved,
            done,
        })
    }

    /// Returns how many steps are known to be done.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn saved_bytes(&self) -> u64 {
        self.saved * u64::from(self.block_size.bytes())
    }

    /// Notes that so many steps are done and synced.
    pub(super) fn mark(&self, done: u64) -> Result<(), EngineError> {
        self.log
            .file
            .append(&JournalMark { done }.encode())
            .and_then(|()| self.log.file.sync())
            .map_err(self.log.failed())?;
        Ok(())
    }

    /// Returns a chunk of the base, verified.
    pub(super) fn chunk(&self, work: &Work<'_>, id: &ChunkId) -> Result<Buffer, EngineError> {
        let missing = || DeltaError::ChunkNotCarried {
            name: work.file.name().to_owned(),
            id: *id,
        };
        let bytes = match self.rows.get(id).ok_or_else(missing)? {
            JournalRow::Block(block) => {
                work.disk
                    .read_block(*block, self.block_size, self.base_size)?
            }
            JournalRow::Saved(at) => {
                let offset = u64::from(*at) << self.block_size.log2();
                let length = self.block_size.as_usize();
                self.log.read(self.saved_start + offset, length)?
            }
        };
        match ChunkId::of(&bytes) == *id {
            true => Ok(bytes),
            false => Err(missing().into()),
        }
    }

    pub(super) fn remove(self) -> Result<(), EngineError> {
        let failed = self.log.failed();
        Ok(self.log.file.remove().map_err(failed)?)
    }
}

impl Empty {
    /// Takes the file away again.
    pub(super) fn remove(self) -> Result<(), EngineError> {
        let failed = self.0.failed();
        Ok(self.0.file.remove().map_err(failed)?)
    }

    /// Saves what would be lost, and makes it durable: from here on the disk may be changed.
    pub(super) fn seal(self, work: &Work<'_>, places: &Places) -> Result<Journal, EngineError> {
        let Self(log) = self;
        let failed = log.failed();
        log.file.truncate(0).map_err(&failed)?;
        let saved: Vec<_> = work.saved(places).collect();
        let head = head_of(work, places.len() as u64, saved.len() as u64)?;
        let mut hasher = blake3::Hasher::new();
        let mut batch = Vec::with_capacity(PIECE_BYTES);
        let write = |batch: &mut Vec<u8>, hasher: &mut blake3::Hasher| {
            hasher.update(batch);
            let written = log.file.append(batch).map_err(&failed);
            batch.clear();
            written
        };
        batch.extend_from_slice(&head.encode());
        let rows_start = batch.len() as u64;
        let mut rows: Vec<(ChunkId, JournalRow)> = Vec::with_capacity(places.len());
        for (at, (id, _)) in (0..).zip(&saved) {
            rows.push((*id, JournalRow::Saved(at)));
        }
        let on_disk = |(id, place): (&ChunkId, &Where)| {
            place.stays.then_some((*id, JournalRow::Block(place.block)))
        };
        rows.extend(places.iter().filter_map(on_disk));
        for (id, row) in &rows {
            batch.extend_from_slice(&row.encode(id));
            if batch.len() >= PIECE_BYTES {
                write(&mut batch, &mut hasher)?;
            }
        }
        for (id, block) in &saved {
            work.task.check()?;
            let base_size = work.base_size();
            let bytes = work.disk.read_block(*block, head.block_size, base_size)?;
            if ChunkId::of(&bytes) != *id {
                let name = work.disk.name().to_owned();
                return Err(EngineError::SourceChanged { name });
            }
            batch.extend_from_slice(&bytes);
            if batch.len() >= PIECE_BYTES {
                write(&mut batch, &mut hasher)?;
            }
        }
        write(&mut batch, &mut hasher)?;
        let seal = JournalSeal {
            hash: *hasher.finalize().as_bytes(),
        };
        // In this order: a seal that is there is that of all that stands before it.
        log.file
            .sync()
            .and_then(|()| log.file.append(&seal.encode()))
            .and_then(|()| log.file.sync())
            .map_err(&failed)?;
        Ok(Journal {
            block_size: head.block_size,
            base_size: work.base_size(),
            rows: rows.into_iter().collect(),
            saved_start: rows_start + head.rows_bytes(),
            saved: head.saved,
            done: 0,
            log,
        })
    }
}

/// Returns the head and where the rows begin; `None` if the journal was not begun or is not whole that far.
fn read_head(log: &Log) -> Result<Option<(JournalHead, u64)>, DeltaError> {
    let have = log.file.bytes();
    if have == 0 {
        return Ok(None);
    }
    let length = usize::try_from(have).unwrap_or(usize::MAX);
    let bytes = log.read(0, length.min(JournalHead::BYTES))?;
    match JournalHead::decode(&bytes) {
        Ok(head) => Ok(Some((head, bytes.len() as u64))),
        // Cut off while it was written: but only if what is there could be the beginning of ours.
        Err(Corruption::Truncated { .. }) if JournalHead::may_begin_with(&bytes) => Ok(None),
        Err(error) if error.needs_newer_program() => Err(log.damaged()(error)),
        Err(Corruption::BadMagic { .. } | Corruption::Truncated { .. }) => {
            Err(DeltaError::NotAJournal {
                path: log.path.clone(),
            })
        }
        Err(error) => Err(log.damaged()(error)),
    }
}

/// Tells whether all that a journal is to hold is there and right.
fn is_sealed(log: &Log, head: &JournalHead, rows_start: u64) -> Result<bool, DeltaError> {
    let end = rows_start
        .saturating_add(head.rows_bytes())
        .saturating_add(head.saved_bytes());
    if log.file.bytes() < end.saturating_add(JournalSeal::BYTES as u64) {
        return Ok(false);
    }
    let Ok(seal) = JournalSeal::decode(&log.read(end, JournalSeal::BYTES)?) else {
        // The length may be durable before the bytes are.
        return Ok(false);
    };
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let piece = log.read(offset, left.min(PIECE_BYTES))?;
        hasher.update(&piece);
        offset += piece.len() as u64;
    }
    match *hasher.finalize().as_bytes() == seal.hash {
        true => Ok(true),
        // The seal is synced after what it covers: this is damage.
        false => Err(log.damaged()(Corruption::Hash {
            what: Structure::Journal,
            part: "what is before the seal",
        })),
    }
}

/// Returns what the last whole mark says.
fn last_mark(log: &Log, start: u64) -> Result<u64, DeltaError> {
    let marks = log.file.bytes().saturating_sub(start) / JOURNAL_MARK_BYTES as u64;
    for at in (0..marks).rev() {
        let offset = start + at * JOURNAL_MARK_BYTES as u64;
        if let Ok(mark) = JournalMark::decode(&log.read(offset, JOURNAL_MARK_BYTES)?) {
            // What is behind it was never whole: the next mark takes its place.
            let end = offset + JOURNAL_MARK_BYTES as u64;
            log.file.truncate(end).map_err(log.failed())?;
            return Ok(mark.done);
        }
    }
    log.file.truncate(start).map_err(log.failed())?;
    Ok(0)
}

//! Segments: written by appending, sealed once, then only read (SPEC 4).

use crate::{Encoded, Environment, Session, Store, StoreError, files, paths};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tegula_format::{
    BASE_ID_BYTES, IngestId, Place, RunRow, SEGMENT_DATA_START, SEGMENT_SLOTS_MAX,
    SEGMENT_TRAILER_BYTES, SegmentHeader, SegmentNumber, SegmentTrailer, Slot, StoreConfig,
    TOC_ROW_BYTES, Toc, TocRow,
};
use tegula_io::sync::{Mutex, PoisonError};
use tegula_io::{Buffer, Existing, NewFile, StorePath, StoredFile};

/// The size at which a segment is sealed and the next one begun.
pub const SEGMENT_TARGET_BYTES: u64 = 64 << 20;

/// How much is gathered before it is handed to the storage.
const BATCH_BYTES: usize = 1 << 20;

/// A segment being written. Dropped without [`Self::seal`] it is taken away again.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    environment: Environment,
    config: StoreConfig,
    number: SegmentNumber,
    path: StorePath,
    file: Option<Box<dyn NewFile>>,
    batch: Buffer,
    toc: Toc,
    end: u64,
}

impl SegmentWriter {
    /// Begins the segment with the next free number.
    pub(crate) fn create(store: &Store, ingest: IngestId, floor: u32) -> Result<Self, StoreError> {
        let (environment, config) = (store.environment().clone(), *store.config());
        loop {
            let number = next_number(&environment, floor)?;
            let path = paths::open_segment(number);
            let file = match environment.storage.create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(StoreError::io("create", &path))?,
            };
            let header = SegmentHeader {
                store: config.id,
                number,
                block_size: config.block_size,
                ingest,
            };
            let mut batch = Buffer::with_capacity(BATCH_BYTES);
            batch.as_vec_mut().extend_from_slice(&header.encode());
            let (file, toc) = (Some(file), Toc::new());
            let writer = Self {
                environment,
                config,
                number,
                path,
                file,
                batch,
                toc,
                end: SEGMENT_DATA_START,
            };
            // Another writer may have sealed this very number between our listing and our creating: its rename took
            // the name we then found free.
            if writer
                .environment
                .storage
                .open(&paths::sealed_segment(number))
                .is_err()
            {
                return Ok(writer);
            }
            return Self::create(store, ingest, number.get());
        }
    }

    /// Tells whether the segment must be sealed before another record goes in.
    pub(crate) fn is_full(&self) -> bool {
        is_full(self.end, self.toc.rows().len())
    }

    /// Appends a chunk's record.
    pub(crate) fn append(&mut self, chunk: &Encoded) -> Result<RunRow, StoreError> {
        let slot = u16::try_from(self.toc.rows().len());
        let slot = Slot::new(slot.expect("because a full segment is sealed"));
        let offset = u32::try_from(self.end).expect("because a full segment is sealed");
        let (id, stored_length) = (chunk.id, chunk.stored_length);
        self.toc
            .push(id, offset, stored_length, chunk.codec, &chunk.bases);
        self.end += chunk.record.len() as u64;
        if self.batch.len() + chunk.record.len() > BATCH_BYTES {
            self.flush()?;
        }
        self.batch.as_vec_mut().extend_from_slice(&chunk.record);
        Ok(RunRow {
            id,
            place: Place {
                segment: self.number,
                slot,
            },
            offset,
            stored_length,
            bases: chunk.bases.count(),
        })
    }

    /// Writes the table of contents, makes all of it durable, then gives it the name of a sealed segment. The name
    /// is durable once the segments' directory is synced. Returns the file's length.
    pub(crate) fn seal(mut self) -> Result<u64, StoreError> {
        let toc_offset = u32::try_from(self.end).expect("because a full segment is sealed");
        let toc = self.toc.encode(toc_offset, self.config.block_size);
        let toc_bytes = toc.len() as u64;
        self.flush()?;
        let file = self
            .file
            .as_mut()
            .expect("because only seal() and drop() take it");
        file.append(Buffer::from(toc))
            .map_err(StoreError::io("write", &self.path))?;
        file.sync().map_err(StoreError::io("sync", &self.path))?;
        let sealed = paths::sealed_segment(self.number);
        self.environment
            .storage
            .rename(&self.path, &sealed, Existing::Refuse)
            .map_err(StoreError::io("publish", &sealed))?;
        self.file = None;
        Ok(self.end + toc_bytes)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::replace(&mut self.batch, Buffer::with_capacity(BATCH_BYTES));
        let file = self
            .file
            .as_mut()
            .expect("because only seal() and drop() take it");
        file.append(batch)
            .map_err(StoreError::io("write", &self.path))
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If this fails the segment is abandoned, and collection takes it.
            drop(self.environment.storage.remove(&self.path));
        }
    }
}

fn is_full(end: u64, rows: usize) -> bool {
    end >= SEGMENT_TARGET_BYTES || rows == SEGMENT_SLOTS_MAX
}

/// How long segments would be, without writing any.
#[derive(Debug, Default)]
pub(crate) struct SegmentSizes {
    sealed: u64,
    end: u64,
    rows: usize,
    base_ids: usize,
}

impl SegmentSizes {
    /// Takes in a chunk as [`SegmentWriter::append`] does.
    pub(crate) fn append(&mut self, chunk: &Encoded) {
        if self.rows == 0 || is_full(self.end, self.rows) {
            *self = Self {
                sealed: self.bytes(),
                end: SEGMENT_DATA_START,
                rows: 0,
                base_ids: 0,
            };
        }
        self.end += chunk.record.len() as u64;
        self.rows += 1;
        self.base_ids += chunk.bases.ids().len();
    }

    /// Returns the bytes of all segments together.
    pub(crate) fn bytes(&self) -> u64 {
        if self.rows == 0 {
            return self.sealed;
        }
        let table = self.rows * TOC_ROW_BYTES + self.base_ids * BASE_ID_BYTES;
        self.sealed + self.end + (table + SEGMENT_TRAILER_BYTES) as u64
    }
}

/// Returns a number above every segment there is and every one there was.
fn next_number(environment: &Environment, floor: u32) -> Result<SegmentNumber, StoreError> {
    let mut entries = files::list(environment, paths::SEGMENTS)?;
    // Those that repair moved aside had numbers too.
    entries.extend(files::list(environment, paths::QUARANTINE)?);
    let highest = entries
        .iter()
        .filter_map(|entry| paths::parse_segment(&entry.name))
        .map(|file| match file {
            paths::SegmentFile::Sealed(number) | paths::SegmentFile::Open(number) => number.get(),
        });
    let above = highest.max().unwrap_or(0).max(floor);
    above
        .checked_add(1)
        .map(SegmentNumber::new)
        .ok_or(StoreError::OutOfSegments)
}

/// Returns the numbers of all sealed segments, ascending, each with its file's length.
pub(crate) fn list_sealed(
    environment: &Environment,
) -> Result<Vec<(SegmentNumber, u64)>, StoreError> {
    let entries = files::list(environment, paths::SEGMENTS)?;
    let sealed = entries
        .iter()
        .filter_map(|entry| match paths::parse_segment(&entry.name) {
            Some(paths::SegmentFile::Sealed(number)) => Some((number, entry.bytes)),
            _ => None,
        });
    Ok(sealed.collect())
}

/// Open sealed segments, a bounded number of them.
#[derive(Debug, Default)]
pub(crate) struct SegmentFiles(Mutex<HashMap<SegmentNumber, Arc<dyn StoredFile>>>);

/// How many segments are kept open. A descriptor each, and the usual limit is 1024.
const OPEN_MAX: usize = 256;

impl SegmentFiles {
    pub(crate) fn open(
        &self,
        environment: &Environment,
        number: SegmentNumber,
    ) -> Result<Arc<dyn StoredFile>, StoreError> {
        if let Some(file) = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
        {
            return Ok(Arc::clone(file));
        }
        let path = paths::sealed_segment(number);
        let file = environment
            .storage
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

/// What a sealed segment says of itself: head and table of contents, checked.
#[derive(Debug)]
pub struct SegmentTable {
    /// The head.
    pub header: SegmentHeader,
    /// Its chunks.
    pub toc: Toc,
    /// The file's length.
    pub file_bytes: u64,
}

impl SegmentTable {
    /// Reads head, trailer and table of contents of a sealed segment.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they are damaged, or the segment is another's.
    pub fn read(session: &Session, number: SegmentNumber) -> Result<Self, StoreError> {
        let path = paths::sealed_segment(number);
        let (environment, config) = (session.environment(), session.store().config());
        let file = environment
            .storage
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let header = read_header(&*file, number, config, &path)?;
        let trailer = read_trailer(&*file, &path)?;
        let toc = file
            .read_at(u64::from(trailer.toc_offset), trailer.toc_bytes())
            .wait()
            .map_err(StoreError::io("read", &path))?;
        let toc = trailer
            .decode_toc(&toc, &config.chunk_rules())
            .map_err(StoreError::corrupt(&path))?;
        Ok(Self {
            header,
            toc,
            file_bytes: file.bytes(),
        })
    }

    /// Returns how many chunks a sealed segment has, without reading its table.
    pub(crate) fn count_rows(
        environment: &Environment,
        number: SegmentNumber,
    ) -> Result<u32, StoreError> {
        let path = paths::sealed_segment(number);
        let file = environment
            .storage
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        Ok(read_trailer(&*file, &path)?.rows)
    }

    /// Returns the rows, in slot order.
    pub fn rows(&self) -> &[TocRow] {
        self.toc.rows()
    }

    /// Returns the bytes that a table of contents has for some of its rows.
    pub(crate) fn toc_bytes(&self, chosen: impl Fn(&RunRow) -> bool) -> u64 {
        let rows = self.run_rows().filter(chosen);
        let bytes = rows.map(|row| TOC_ROW_BYTES + usize::from(row.bases) * BASE_ID_BYTES);
        bytes.sum::<usize>() as u64
    }

    /// Returns the rows as the index has them.
    pub fn run_rows(&self) -> impl Iterator<Item = RunRow> + '_ {
        self.rows().iter().enumerate().map(|(slot, row)| {
            let slot =
                Slot::new(u16::try_from(slot).expect("because a table has at most 2^16 rows"));
            let place = Place {
                segment: self.header.number,
                slot,
            };
            RunRow {
                id: row.id,
                place,
                offset: row.offset,
                stored_length: row.stored_length,
                bases: row.bases,
            }
        })
    }
}

/// Reads who wrote a sealed segment.
pub(crate) fn read_ingest(
    session: &Session,
    number: SegmentNumber,
) -> Result<IngestId, StoreError> {
    let path = paths::sealed_segment(number);
    let file = session
        .environment()
        .storage
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    Ok(read_header(&*file, number, session.store().config(), &path)?.ingest)
}

pub(crate) fn read_header(
    file: &dyn StoredFile,
    number: SegmentNumber,
    config: &StoreConfig,
    path: &StorePath,
) -> Result<SegmentHeader, StoreError> {
    let length =
        usize::try_from(SEGMENT_DATA_START.min(file.bytes())).expect("because a head is short");
    let bytes = file
        .read_at(0, length)
        .wait()
        .map_err(StoreError::io("read", path))?;
    let header = SegmentHeader::decode(&bytes).map_err(StoreError::corrupt(path))?;
    let strange = |field, found, expected| {
        let what = tegula_format::Structure::SegmentHeader;
        Err(StoreError::corrupt(path)(
            tegula_format::Corruption::Field {
                what,
                field,
                found,
                expected,
            },
        ))
    };
    if header.number != number {
        return strange(
            "number",
            u64::from(header.number.get()),
            "the number in the file's name",
        );
    }
    if header.block_size != config.block_size {
        return strange(
            "block_size_log2",
            u64::from(header.block_size.log2()),
            "the store's",
        );
    }
    if header.store != config.id {
        return strange(
            "store",
            0,
            "this store's id: the segment is another store's",
        );
    }
    Ok(header)
}

fn read_trailer(file: &dyn StoredFile, path: &StorePath) -> Result<SegmentTrailer, StoreError> {
    let length = (SEGMENT_TRAILER_BYTES as u64).min(file.bytes());
    let start = file.bytes() - length;
    let length = usize::try_from(length).expect("because a trailer is short");
    let bytes = file
        .read_at(start, length)
        .wait()
        .map_err(StoreError::io("read", path))?;
    SegmentTrailer::decode(&bytes, file.bytes()).map_err(StoreError::corrupt(path))
}

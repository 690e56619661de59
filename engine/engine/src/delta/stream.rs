//! A stream that can be read anywhere: its head and tables believed once, its records read in order.

use super::DeltaError;
use crate::EngineError;
use std::fmt;
use std::io;
use std::ops::Range;
use tegula_format::{
    BASES_MAX, Bases, BlockSet, ChunkId, ChunkRules, Corruption, DELTA_TRAILER_BYTES, DeltaHeader,
    DeltaTrailer, ENVELOPE_BYTES, RECORD_HEADER_BYTES, RecordHeader, Structure, envelope_length,
};
use tegula_io::{Buffer, Mapped, RawSource};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

/// The bytes of a stream, wherever they are.
pub(super) trait StreamBytes: fmt::Debug + Sync + Send {
    /// Returns how many there are.
    fn bytes(&self) -> u64;

    /// Fills `buffer` with those at `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl StreamBytes for RawSource {
    fn bytes(&self) -> u64 {
        self.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }
}

impl StreamBytes for tegula_store::Spooled<'_> {
    fn bytes(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        copy_from(self.as_slice(), buffer, offset)
    }
}

impl StreamBytes for Mapped {
    fn bytes(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        copy_from(self.as_slice(), buffer, offset)
    }
}

fn copy_from(bytes: &[u8], buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let start = usize::try_from(offset).ok();
    let rest = start.and_then(|start| bytes.get(start..));
    let found = rest.and_then(|rest| rest.get(..buffer.len()));
    buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
    Ok(())
}

/// A delta stream whose header, tables and trailer were read and checked. Its records were not yet looked at.
#[derive(Debug)]
pub(super) struct DeltaFile<'a> {
    name: String,
    bytes: Box<dyn StreamBytes + 'a>,
    header: DeltaHeader,
    data: BlockSet,
    zero: BlockSet,
    ids_start: u64,
    trailer: DeltaTrailer,
    /// Has taken in everything before the records.
    hasher: blake3::Hasher,
}

impl<'a> DeltaFile<'a> {
    /// Reads and checks everything but the records.
    ///
    /// # Errors
    /// [`DeltaError::Damaged`] or [`DeltaError::Read`].
    pub(super) fn open(name: String, bytes: Box<dyn StreamBytes + 'a>) -> Result<Self, DeltaError> {
        let source = Located {
            name: &name,
            bytes: &*bytes,
        };
        let mut hasher = blake3::Hasher::new();
        let (header, head_bytes) = source.header(&mut hasher)?;
        let parts_end = (head_bytes as u64)
            .saturating_add(header.data_bytes())
            .saturating_add(header.zero_bytes());
        let records_start = parts_end.saturating_add(header.ids_bytes());
        let need = records_start.saturating_add(DELTA_TRAILER_BYTES as u64);
        if bytes.bytes() < need {
            return Err(source.truncated(need));
        }
        let sets = source.read(head_bytes as u64..parts_end)?;
        hasher.update(&sets);
        let data_bytes = usize::try_from(header.data_bytes()).unwrap_or(usize::MAX);
        let (data, zero) = sets.split_at_checked(data_bytes).unwrap_or_default();
        let damaged = |offset| source.damaged(offset);
        let data = header
            .decode_data(data)
            .map_err(damaged(head_bytes as u64))?;
        let zero_start = head_bytes as u64 + header.data_bytes();
        let zero = header
            .decode_zero(zero, &data)
            .map_err(damaged(zero_start))?;
        let mut ids_hasher = blake3::Hasher::new();
        let zero_chunk = ChunkId::of(&vec![0; header.block_size.as_usize()]);
        let mut strange = None;
        source.pieces(parts_end..records_start, |piece| {
            hasher.update(piece);
            ids_hasher.update(piece);
            for id in ids_in(piece) {
                if let Err(found) = header.check_id(&id, &zero_chunk) {
                    strange.get_or_insert(found);
                }
            }
            Ok(())
        })?;
        header
            .check_ids_hash(ids_hasher.finalize().as_bytes())
            .and(strange.map_or(Ok(()), Err))
            .map_err(damaged(parts_end))?;
        let trailer_start = bytes.bytes() - DELTA_TRAILER_BYTES as u64;
        let trailer = DeltaTrailer::decode(&source.read(trailer_start..bytes.bytes())?)
            .map_err(damaged(trailer_start))?;
        trailer
            .check_counts(trailer.records, trailer_start - records_start)
            .map_err(damaged(trailer_start))?;
        header
            .check_records(&trailer)
            .map_err(damaged(trailer_start))?;
        Ok(Self {
            name,
            bytes,
            header,
            data,
            zero,
            ids_start: parts_end,
            trailer,
            hasher,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn header(&self) -> &DeltaHeader {
        &self.header
    }

    pub(super) fn trailer(&self) -> &DeltaTrailer {
        &self.trailer
    }

    /// Returns the length of the whole stream.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.bytes()
    }

    /// Returns the blocks that hold another chunk than in the base.
    pub(super) fn data(&self) -> &BlockSet {
        &self.data
    }

    /// Returns the blocks that read as zeros from now on.
    pub(super) fn zero(&self) -> &BlockSet {
        &self.zero
    }

    fn located(&self) -> Located<'_> {
        Located {
            name: &self.name,
            bytes: &*self.bytes,
        }
    }

    fn records_start(&self) -> u64 {
        self.ids_start + self.header.ids_bytes()
    }

    /// Hands over the table of chunk ids, whole ids in pieces.
    pub(super) fn ids(
        &self,
        each: impl FnMut(&[u8]) -> Result<(), DeltaError>,
    ) -> Result<(), DeltaError> {
        self.located()
            .pieces(self.ids_start..self.records_start(), each)
    }

    /// Returns what its records are held against.
    pub(super) fn rules(&self) -> ChunkRules {
        ChunkRules {
            block_size: self.header.block_size,
            prefix_frames: true,
        }
    }

    /// Reads the record at an offset that another look at the stream has found.
    pub(super) fn record_at(&self, offset: u64) -> Result<StreamRecord, DeltaError> {
        let source = self.located();
        let head = source.read(offset..offset + RECORD_HEADER_BYTES as u64)?;
        let header = RecordHeader::decode(&head, &self.rules()).map_err(self.damaged(offset))?;
        let bytes = source.read(offset..offset + header.record_bytes() as u64)?;
        header.verify(&bytes).map_err(self.damaged(offset))?;
        Ok(StreamRecord {
            offset,
            header,
            bytes,
        })
    }

    /// Names every record in order by what its head says. Their checksums are not looked at, nor what they hold.
    pub(super) fn heads(
        &self,
        mut each: impl FnMut(&RecordHead) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let end = self.bytes() - DELTA_TRAILER_BYTES as u64;
        let mut offset = self.records_start();
        while offset < end {
            let length = (RECORD_HEADER_BYTES + BASES_MAX * 32) as u64;
            let head = self.located().read(offset..end.min(offset + length))?;
            let damaged = |source| self.damaged(offset)(source);
            let header = RecordHeader::decode(&head, &self.rules()).map_err(damaged)?;
            let record_bytes = header.record_bytes() as u64;
            if record_bytes > end - offset {
                let (what, need, have) = (Structure::Record, record_bytes, end - offset);
                return Err(damaged(Corruption::Truncated { what, need, have }).into());
            }
            let bases = header.bases(&head).map_err(damaged)?;
            each(&RecordHead {
                offset,
                record_bytes,
                id: header.id,
                bases,
            })?;
            offset += record_bytes;
        }
        Ok(())
    }

    /// Begins to read the records in order.
    pub(super) fn records(&self) -> Records<'_> {
        let offset = self.records_start();
        Records {
            file: self,
            hasher: self.hasher.clone(),
            offset,
            records: 0,
            ahead: Buffer::default(),
            ahead_start: offset,
        }
    }

    pub(super) fn damaged(&self, offset: u64) -> impl FnOnce(Corruption) -> DeltaError + use<> {
        self.located().damaged(offset)
    }
}

/// What the head of a record says.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHead {
    /// Where it begins.
    pub(super) offset: u64,
    /// The length of the whole record.
    pub(super) record_bytes: u64,
    /// The chunk.
    pub(super) id: ChunkId,
    /// What it builds on.
    pub(super) bases: Bases,
}

/// A whole record of a stream; its header and checksum are right.
#[derive(Debug)]
pub(super) struct StreamRecord {
    /// Where it begins.
    pub(super) offset: u64,
    pub(super) header: RecordHeader,
    /// All its bytes.
    pub(super) bytes: Buffer,
}

impl StreamRecord {
    pub(super) fn id(&self) -> ChunkId {
        self.header.id
    }
}

/// Reads the records of a stream in order; at their end it knows whether the stream is whole.
pub(super) struct Records<'a> {
    file: &'a DeltaFile<'a>,
    hasher: blake3::Hasher,
    offset: u64,
    records: u64,
    /// What was read ahead, and where it begins.
    ahead: Buffer,
    ahead_start: u64,
}

impl Records<'_> {
    /// Returns the next record; after the last, makes sure that the trailer is that of this stream, and returns `None`.
    ///
    /// # Errors
    /// [`DeltaError::Damaged`] or [`DeltaError::Read`].
    pub(super) fn next_record(&mut self) -> Result<Option<StreamRecord>, DeltaError> {
        let file = self.file;
        let end = file.bytes() - DELTA_TRAILER_BYTES as u64;
        let offset = self.offset;
        if offset == end {
            let record_bytes = end - file.records_start();
            file.trailer
                .check(self.records, record_bytes, &mut self.hasher.clone())
                .map_err(file.damaged(end))?;
            return Ok(None);
        }
        let head = self.at(offset, RECORD_HEADER_BYTES)?;
        let header = RecordHeader::decode(head, &file.rules()).map_err(file.damaged(offset))?;
        let bytes = Buffer::copied(self.at(offset, header.record_bytes())?);
        header.verify(&bytes).map_err(file.damaged(offset))?;
        file.header
            .hashed
            .take(&mut self.hasher, &header.id, &bytes);
        self.offset += bytes.len() as u64;
        self.records += 1;
        Ok(Some(StreamRecord {
            offset,
            header,
            bytes,
        }))
    }

    /// Returns `length` bytes of the records' part of the stream.
    fn at(&mut self, offset: u64, length: usize) -> Result<&[u8], DeltaError> {
        let file = self.file;
        let end = file.bytes() - DELTA_TRAILER_BYTES as u64;
        let wanted_end = offset + length as u64;
        if wanted_end > end {
            return Err(file.damaged(offset)(Corruption::Truncated {
                what: Structure::Record,
                need: length as u64,
                have: end - offset,
            }));
        }
        if wanted_end > self.ahead_start + self.ahead.len() as u64 {
            let read_end = wanted_end.max(offset + PIECE_BYTES as u64).min(end);
            self.ahead = file.located().read(offset..read_end)?;
            self.ahead_start = offset;
        }
        let start =
            usize::try_from(offset - self.ahead_start).expect("because little is read ahead");
        let found = self.ahead.get(start..start + length);
        Ok(found.expect("because it was just read"))
    }
}

/// Returns the whole ids in a piece of a table.
pub(super) fn ids_in(piece: &[u8]) -> impl Iterator<Item = ChunkId> + '_ {
    piece
        .chunks_exact(32)
        .filter_map(|id| id.first_chunk().copied())
        .map(ChunkId::from_bytes)
}

/// Bytes with their name.
#[derive(Debug, Clone, Copy)]
struct Located<'a> {
    name: &'a str,
    bytes: &'a (dyn StreamBytes + 'a),
}

impl Located<'_> {
    fn damaged(&self, offset: u64) -> impl FnOnce(Corruption) -> DeltaError + use<> {
        let name = self.name.to_owned();
        move |source| DeltaError::Damaged {
            name,
            offset,
            source,
        }
    }

    fn truncated(&self, need: u64) -> DeltaError {
        self.damaged(0)(Corruption::Truncated {
            what: Structure::Delta,
            need,
            have: self.bytes.bytes(),
        })
    }

    fn read(&self, range: Range<u64>) -> Result<Buffer, DeltaError> {
        // Never more than there is: whoever asks has compared the range with the length.
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut buffer = Buffer::stale(length);
        self.bytes
            .read_at(&mut buffer, range.start)
            .map_err(|source| DeltaError::Read {
                name: self.name.to_owned(),
                offset: range.start,
                source,
            })?;
        Ok(buffer)
    }

    fn pieces(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(&[u8]) -> Result<(), DeltaError>,
    ) -> Result<(), DeltaError> {
        let mut next = range.start;
        while next < range.end {
            let end = range.end.min(next + PIECE_BYTES as u64);
            each(&self.read(next..end)?)?;
            next = end;
        }
        Ok(())
    }

    fn header(&self, hasher: &mut blake3::Hasher) -> Result<(DeltaHeader, usize), DeltaError> {
        let have = self.bytes.bytes();
        let head = self.read(0..have.min(ENVELOPE_BYTES as u64))?;
        let length = envelope_length(&head).map_err(|_| self.truncated(ENVELOPE_BYTES as u64))?;
        // Read no further than a header of ours goes; one that claims more is refused by what it says.
        let length = have.min(length as u64).min(PIECE_BYTES as u64);
        let bytes = self.read(0..length)?;
        let (header, length) = DeltaHeader::decode(&bytes).map_err(self.damaged(0))?;
        hasher.update(bytes.get(..length).unwrap_or_default());
        Ok((header, length))
    }
}

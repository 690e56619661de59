//! Segments: append-only files of chunk records, sealed with their own table of contents (SPEC 4).

use crate::envelope::{self, Kind};
use crate::record::check_lengths;
use crate::{
    BASES_MAX, Bases, BlockSize, ChunkId, ChunkRules, Codec, Corruption, Hex, RECORD_HEADER_BYTES,
    SegmentNumber, StoreId, Structure,
};
use std::fmt;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const KIND: Kind = Kind {
    what: Structure::SegmentHeader,
    magic: *b"TGSEGMT\n",
};
const TRAILER_MAGIC: [u8; 8] = *b"TGSEALED";

/// Where the first record begins: the header fills the bytes before it.
pub const SEGMENT_DATA_START: u64 = 73;

/// The most chunks a segment can have: a slot has 16 bits.
pub const SEGMENT_SLOTS_MAX: usize = 1 << 16;

/// Bytes of a row of the table of contents.
pub const TOC_ROW_BYTES: usize = 48;

/// Bytes of an entry in the table of base ids behind the rows.
pub const BASE_ID_BYTES: usize = 32;

/// Bytes of the trailer, the last of a sealed segment.
pub const SEGMENT_TRAILER_BYTES: usize = 64;

/// The random identity of one writer's work: the segments that an unfinished ingest has sealed are known by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IngestId([u8; 16]);

impl IngestId {
    /// Takes 16 random bytes for an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the hexadecimal form.
    pub fn parse(text: &str) -> Option<Self> {
        Hex::parse(text).map(Self)
    }
}

impl fmt::Display for IngestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for IngestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IngestId({self})")
    }
}

/// The head of a segment: whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub store: StoreId,
    /// Its number, also its file's name.
    pub number: SegmentNumber,
    /// The size of its chunks.
    pub block_size: BlockSize,
    /// The ingest that wrote it.
    pub ingest: IngestId,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    store: [u8; 16],
    number: u32,
    block_size_log2: u8,
    ingest: [u8; 16],
    reserved: u32,
}

impl SegmentHeader {
    /// Returns the [`SEGMENT_DATA_START`] bytes of the header.
    pub fn encode(&self) -> Vec<u8> {
        let body = Body {
            store: *self.store.as_bytes(),
            number: self.number.get(),
            block_size_log2: self.block_size.log2(),
            ingest: self.ingest.0,
            reserved: 0,
        };
        envelope::encode(KIND, &body)
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// Whatever is wrong with it; see [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let (body, used): (Body, usize) = envelope::decode(KIND, bytes)?;
        if used as u64 != SEGMENT_DATA_START {
            let found = used as u64;
            return Err(Corruption::Field {
                what: KIND.what,
                field: "body_length",
                found,
                expected: "41",
            });
        }
        if body.reserved != 0 {
            return Err(Corruption::Field {
                what: KIND.what,
                field: "reserved",
                found: u64::from(body.reserved),
                expected: "0",
            });
        }
        Ok(Self {
            store: StoreId::from_bytes(body.store),
            number: SegmentNumber::new(body.number),
            block_size: BlockSize::decode(body.block_size_log2, KIND.what)?,
            ingest: IngestId(body.ingest),
        })
    }
}

/// One chunk in a segment's table of contents; its slot is its position in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TocRow {
    /// The chunk.
    pub id: ChunkId,
    /// Where its record begins.
    pub offset: u32,
    /// Bytes of its payload.
    pub stored_length: u32,
    /// How the payload holds it.
    pub codec: Codec,
    /// How many chunks its frame has as its prefix.
    pub bases: u8,
    /// Where their ids begin in the table of base ids.
    first_base: u32,
}

impl TocRow {
    /// Returns the bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.stored_length as usize
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRow {
    id: [u8; 32],
    offset: U32,
    stored_length: U32,
    raw_length: U32,
    codec: u8,
    bases: u8,
    reserved: U16,
}

/// A segment's table of contents: a row for each chunk, and the ids of the chunks that frames have as their prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toc {
    rows: Vec<TocRow>,
    base_ids: Vec<ChunkId>,
}

impl Toc {
    /// Begins a table without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the chunk whose record begins at `offset`.
    ///
    /// # Panics
    /// If there is no slot left.
    pub fn push(
        &mut self,
        id: ChunkId,
        offset: u32,
        stored_length: u32,
        codec: Codec,
        bases: &Bases,
    ) {
        assert!(self.rows.len() < SEGMENT_SLOTS_MAX, "a slot has 16 bits");
        let first_base = u32::try_from(self.base_ids.len()).expect("because slots are few");
        self.base_ids.extend_from_slice(bases.ids());
        self.rows.push(TocRow {
            id,
            offset,
            stored_length,
            codec,
            bases: bases.count(),
            first_base,
        });
    }

    /// Returns the rows in slot order.
    pub fn rows(&self) -> &[TocRow] {
        &self.rows
    }

    /// Returns the bases of one of this table's rows.
    pub fn bases_of(&self, row: &TocRow) -> &[ChunkId] {
        let first = row.first_base as usize;
        self.base_ids
            .get(first..first + usize::from(row.bases))
            .unwrap_or_default()
    }

    /// Returns the table's bytes and the trailer that seal a segment whose records end at `toc_offset`.
    pub fn encode(&self, toc_offset: u32, block_size: BlockSize) -> Vec<u8> {
        let length = self.rows.len() * TOC_ROW_BYTES + self.base_ids.len() * BASE_ID_BYTES;
        let mut bytes = Vec::with_capacity(length + SEGMENT_TRAILER_BYTES);
        for row in &self.rows {
            let raw = RawRow {
                id: *row.id.as_bytes(),
                offset: U32::new(row.offset),
                stored_length: U32::new(row.stored_length),
                raw_length: U32::new(block_size.bytes()),
                codec: row.codec.code(),
                bases: row.bases,
                reserved: U16::ZERO,
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        self.base_ids
            .iter()
            .for_each(|id| bytes.extend_from_slice(id.as_bytes()));
        let count = |length| u32::try_from(length).expect("because slots are few");
        let mut trailer = RawTrailer {
            magic: TRAILER_MAGIC,
            toc_offset: U32::new(toc_offset),
            rows: U32::new(count(self.rows.len())),
            toc_hash: *blake3::hash(&bytes).as_bytes(),
            base_ids: U32::new(count(self.base_ids.len())),
            reserved: [0; 8],
            crc: U32::ZERO,
        };
        trailer.crc = U32::new(trailer.computed_crc());
        bytes.extend_from_slice(trailer.as_bytes());
        bytes
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawTrailer {
    magic: [u8; 8],
    toc_offset: U32,
    rows: U32,
    toc_hash: [u8; 32],
    base_ids: U32,
    reserved: [u8; 8],
    crc: U32,
}

impl RawTrailer {
    fn computed_crc(&self) -> u32 {
        let (guarded, _crc) = self.as_bytes().split_at(SEGMENT_TRAILER_BYTES - 4);
        crc32fast::hash(guarded)
    }
}

/// The end of a sealed segment, checked against the file's length: where its table of contents stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentTrailer {
    /// Where the records end and the table begins.
    pub toc_offset: u32,
    /// How many chunks there are.
    pub rows: u32,
    /// How many base ids their frames have.
    pub base_ids: u32,
    toc_hash: [u8; 32],
}

impl SegmentTrailer {
    /// Reads the last [`SEGMENT_TRAILER_BYTES`] of a segment of `file_bytes`.
    ///
    /// # Errors
    /// [`Corruption`]; in particular if the table it describes is not exactly what lies before it.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, Corruption> {
        let what = Structure::SegmentTrailer;
        let raw = RawTrailer::read_from_bytes(bytes).map_err(|_| Corruption::Truncated {
            what,
            need: SEGMENT_TRAILER_BYTES as u64,
            have: bytes.len() as u64,
        })?;
        if raw.magic != TRAILER_MAGIC {
            return Err(Corruption::BadMagic {
                what,
                found: raw.magic,
            });
        }
        let (stored, computed) = (raw.crc.get(), raw.computed_crc());
        if stored != computed {
            return Err(Corruption::Checksum {
                what,
                stored,
                computed,
            });
        }
        if raw.reserved != [0; 8] {
            return Err(Corruption::Field {
                what,
                field: "reserved",
                found: 1,
                expected: "0",
            });
        }
        let rows = raw.rows.get();
        if rows as usize > SEGMENT_SLOTS_MAX {
            return Err(Corruption::Field {
                what,
                field: "rows",
                found: u64::from(rows),
                expected: "at most 2^16",
            });
        }
        let base_ids = raw.base_ids.get();
        if u64::from(base_ids) > u64::from(rows) * BASES_MAX as u64 {
            return Err(Corruption::Field {
                what,
                field: "base_ids",
                found: u64::from(base_ids),
                expected: "at most two a row",
            });
        }
        let toc_offset = raw.toc_offset.get();
        let end = u64::from(toc_offset)
            + u64::from(rows) * TOC_ROW_BYTES as u64
            + u64::from(base_ids) * BASE_ID_BYTES as u64
            + SEGMENT_TRAILER_BYTES as u64;
        if u64::from(toc_offset) < SEGMENT_DATA_START || end != file_bytes {
            let found = u64::from(toc_offset);
            let expected = "where rows, base ids and trailer fill the rest of the file";
            return Err(Corruption::Field {
                what,
                field: "toc_offset",
                found,
                expected,
            });
        }
        Ok(Self {
            toc_offset,
            rows,
            base_ids,
            toc_hash: raw.toc_hash,
        })
    }

    /// Returns the bytes of the table of contents.
    pub fn toc_bytes(&self) -> usize {
        self.row_bytes() + self.base_ids as usize * BASE_ID_BYTES
    }

    fn row_bytes(&self) -> usize {
        self.rows as usize * TOC_ROW_BYTES
    }

    /// Reads the table of contents: `bytes` are the [`Self::toc_bytes`] at `toc_offset`.
    ///
    /// # Errors
    /// [`Corruption`] if the hash does not fit, a row's record does not lie right behind the one before, or the base
    /// ids are not those of the rows.
    pub fn decode_toc(&self, bytes: &[u8], rules: &ChunkRules) -> Result<Toc, Corruption> {
        let what = Structure::Toc;
        if bytes.len() != self.toc_bytes() {
            let (need, have) = (self.toc_bytes() as u64, bytes.len() as u64);
            return Err(Corruption::Truncated { what, need, have });
        }
        if *blake3::hash(bytes).as_bytes() != self.toc_hash {
            return Err(Corruption::Hash {
                what,
                part: "the table",
            });
        }
        let (raw_rows, raw_ids) = bytes.split_at(self.row_bytes());
        let raw_rows = <[RawRow]>::ref_from_bytes(raw_rows)
            .expect("because the length is a multiple of a row's");
        let mut next_offset = SEGMENT_DATA_START;
        let mut toc = Toc {
            rows: Vec::with_capacity(raw_rows.len()),
            base_ids: Vec::with_capacity(self.base_ids as usize),
        };
        for raw in raw_rows {
            check_row(raw, rules)?;
            let (id, offset) = (ChunkId::from_bytes(raw.id), raw.offset.get());
            if u64::from(offset) != next_offset {
                let found = u64::from(offset);
                return Err(Corruption::Field {
                    what,
                    field: "offset",
                    found,
                    expected: "the end of the record before",
                });
            }
            let stored_length = raw.stored_length.get();
            next_offset += RECORD_HEADER_BYTES as u64 + u64::from(stored_length);
            let ids = raw_ids.get(toc.base_ids.len() * BASE_ID_BYTES..);
            let bases = Bases::decode(what, &id, raw.bases, ids.unwrap_or_default())
                .map_err(|error| too_few_base_ids(error, self.base_ids))?;
            let codec = Codec::decode(raw.codec, what)?;
            toc.push(id, offset, stored_length, codec, &bases);
        }
        if next_offset != u64::from(self.toc_offset) {
            let expected = "the end of the last record";
            return Err(Corruption::Field {
                what,
                field: "toc_offset",
                found: u64::from(self.toc_offset),
                expected,
            });
        }
        if toc.base_ids.len() != self.base_ids as usize {
            return Err(wrong_base_ids(self.base_ids));
        }
        Ok(toc)
    }
}

fn check_row(raw: &RawRow, rules: &ChunkRules) -> Result<(), Corruption> {
    let what = Structure::Toc;
    let codec = Codec::decode(raw.codec, what)?;
    let (stored, length) = (raw.stored_length.get(), raw.raw_length.get());
    check_lengths(what, rules, (codec, raw.bases), stored, length)?;
    match raw.reserved.get() {
        0 => Ok(()),
        reserved => Err(Corruption::Field {
            what,
            field: "reserved",
            found: u64::from(reserved),
            expected: "0",
        }),
    }
}

/// A row that finds its ids cut short says that the trailer counted too few.
fn too_few_base_ids(error: Corruption, stated: u32) -> Corruption {
    match error {
        Corruption::Truncated { .. } => wrong_base_ids(stated),
        other => other,
    }
}

fn wrong_base_ids(stated: u32) -> Corruption {
    Corruption::Field {
        what: Structure::Toc,
        field: "base_ids",
        found: u64::from(stated),
        expected: "the sum of the rows' bases",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            store: StoreId::from_bytes([7; 16]),
            number: SegmentNumber::new(9),
            block_size: BlockSize::MIN,
            ingest: IngestId::from_bytes([3; 16]),
        }
    }

    const RULES: ChunkRules = ChunkRules {
        block_size: BlockSize::MIN,
        prefix_frames: true,
    };

    /// A table of chunks with these bases, behind records that end at the returned offset.
    fn sealed(bases: [&[ChunkId]; 3]) -> (Vec<u8>, u32) {
        let mut offset = u32::try_from(SEGMENT_DATA_START).unwrap();
        let mut toc = Toc::new();
        for (stored_length, bases) in [140, 4096, 77].into_iter().zip(bases) {
            let codec = if stored_length == 4096 {
                Codec::Raw
            } else {
                Codec::Zstd
            };
            let bases = Bases::new(bases).unwrap();
            toc.push(ChunkId::of(&[1]), offset, stored_length, codec, &bases);
            offset += stored_length + 52;
        }
        (toc.encode(offset, BlockSize::MIN), offset)
    }

    fn ids() -> Vec<ChunkId> {
        [2u8, 3, 4].map(|n| ChunkId::of(&[n])).into()
    }

    fn read(bytes: &[u8], toc_offset: u32) -> Result<Toc, Corruption> {
        let (toc, trailer) = bytes.split_at(bytes.len() - SEGMENT_TRAILER_BYTES);
        let trailer = SegmentTrailer::decode(trailer, u64::from(toc_offset) + bytes.len() as u64)?;
        trailer.decode_toc(toc, &RULES)
    }

    #[test]
    fn the_header_fills_the_bytes_before_the_first_record() {
        let bytes = header().encode();
        assert_eq!(bytes.len() as u64, SEGMENT_DATA_START);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn the_table_reads_back() {
        let ids = ids();
        for bases in [[&[][..]; 3], [&ids[..2], &[], &ids[2..]]] {
            let (bytes, offset) = sealed(bases);
            let toc = read(&bytes, offset).unwrap();
            let lengths: Vec<_> = toc.rows().iter().map(|row| row.stored_length).collect();
            assert_eq!(lengths, [140, 4096, 77]);
            let found: Vec<_> = toc.rows().iter().map(|row| toc.bases_of(row)).collect();
            assert_eq!(found, bases);
        }
    }

    #[test]
    fn every_flipped_bit_of_table_and_trailer_is_an_error() {
        let ids = ids();
        for bases in [[&[][..]; 3], [&ids[..2], &[], &ids[2..]]] {
            let (good, offset) = sealed(bases);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&bad, offset).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn base_ids_that_are_not_those_of_the_rows_are_refused() {
        let ids = ids();
        let (good, offset) = sealed([&ids[..2], &[], &ids[2..]]);
        for (at, bases) in [(45, 1), (45, 0), (45 + 96, 2)] {
            let mut bad = good.clone();
            bad[at] = bases;
            let (table, trailer) = bad.split_at_mut(good.len() - SEGMENT_TRAILER_BYTES);
            trailer[16..48].copy_from_slice(blake3::hash(table).as_bytes());
            let crc = crc32fast::hash(&trailer[..60]).to_le_bytes();
            trailer[60..].copy_from_slice(&crc);
            let error = read(&bad, offset).unwrap_err();
            let expected = matches!(
                error,
                Corruption::Field {
                    field: "base_ids",
                    ..
                }
            );
            assert!(expected, "{error}");
        }
    }

    #[test]
    fn a_trailer_of_a_longer_or_shorter_file_is_an_error() {
        let (bytes, offset) = sealed([&[]; 3]);
        assert!(read(&bytes, offset + 1).is_err());
        assert!(read(&bytes, offset - 1).is_err());
    }
}

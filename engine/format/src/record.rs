//! Chunk records: what a segment is made of (SPEC 4.2).

use crate::{ChunkId, Corruption, Structure};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 52;

const MAGIC: [u8; 4] = *b"TGRC";
const WHAT: Structure = Structure::Record;

/// How a record's payload holds its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// The chunk's bytes as they are.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// Returns the byte that stands for it on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    pub(crate) fn decode(code: u8, what: Structure) -> Result<Self, Corruption> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            _ => Err(Corruption::Field {
                what,
                field: "codec",
                found: u64::from(code),
                expected: "0 or 1",
            }),
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    codec: u8,
    bases: u8,
    reserved: U16,
    stored_length: U32,
    raw_length: U32,
    id: [u8; 32],
    crc: U32,
}

/// A record's header, its fields within their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// How the payload holds the chunk.
    pub codec: Codec,
    /// Bytes of the payload.
    pub stored_length: u32,
    /// Bytes of the chunk: the store's block size.
    pub raw_length: u32,
    /// What the chunk's bytes hash to.
    pub id: ChunkId,
    crc: u32,
}

impl RecordHeader {
    /// Reads a header; the checksum is for [`Self::verify`], since it covers the payload too.
    ///
    /// # Errors
    /// [`Corruption`] if it is cut short, has no magic, or a field is beyond what a chunk of `block_bytes` can have.
    pub fn decode(bytes: &[u8], block_bytes: u32) -> Result<Self, Corruption> {
        let (raw, _) = RawHeader::read_from_prefix(bytes).map_err(|_| Corruption::Truncated {
            what: WHAT,
            need: RECORD_HEADER_BYTES as u64,
            have: bytes.len() as u64,
        })?;
        if raw.magic != MAGIC {
            let mut found = [0; 8];
            found
                .iter_mut()
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
            return Err(Corruption::BadMagic { what: WHAT, found });
        }
        let codec = Codec::decode(raw.codec, WHAT)?;
        check_lengths(
            WHAT,
            codec,
            raw.bases,
            raw.stored_length.get(),
            raw.raw_length.get(),
            block_bytes,
        )?;
        if raw.reserved.get() != 0 {
            let found = u64::from(raw.reserved.get());
            return Err(Corruption::Field {
                what: WHAT,
                field: "reserved",
                found,
                expected: "0",
            });
        }
        Ok(Self {
            codec,
            stored_length: raw.stored_length.get(),
            raw_length: raw.raw_length.get(),
            id: ChunkId::from_bytes(raw.id),
            crc: raw.crc.get(),
        })
    }

    /// Checks the checksum over `record`: the header's bytes and the payload's, nothing more.
    ///
    /// # Errors
    /// [`Corruption::Truncated`] or [`Corruption::Checksum`].
    pub fn verify(&self, record: &[u8]) -> Result<(), Corruption> {
        if record.len() != self.record_bytes() {
            let (need, have) = (self.record_bytes() as u64, record.len() as u64);
            return Err(Corruption::Truncated {
                what: WHAT,
                need,
                have,
            });
        }
        let computed = checksum(record).expect("the length was just checked");
        match computed == self.crc {
            true => Ok(()),
            false => Err(Corruption::Checksum {
                what: WHAT,
                stored: self.crc,
                computed,
            }),
        }
    }

    /// Returns the bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.stored_length as usize
    }
}

/// Refuses lengths no chunk can have: a raw one is stored as it is, a compressed one shorter.
pub(crate) fn check_lengths(
    what: Structure,
    codec: Codec,
    bases: u8,
    stored: u32,
    raw: u32,
    block_bytes: u32,
) -> Result<(), Corruption> {
    let field = |field, found, expected| {
        Err(Corruption::Field {
            what,
            field,
            found,
            expected,
        })
    };
    if bases != 0 {
        return field(
            "bases",
            u64::from(bases),
            "0: prefix frames are not part of version 1",
        );
    }
    if raw != block_bytes {
        return field("raw_length", u64::from(raw), "the store's block size");
    }
    match codec {
        Codec::Raw if stored != raw => field(
            "stored_length",
            u64::from(stored),
            "raw_length, as it is raw",
        ),
        Codec::Zstd if stored == 0 || stored >= raw => field(
            "stored_length",
            u64::from(stored),
            "less than raw_length, as it is compressed",
        ),
        _ => Ok(()),
    }
}

/// Appends a whole record to `into`.
///
/// # Panics
/// If the payload is longer than 4 GiB; blocks have at most 4 MiB.
pub fn encode_record(
    into: &mut Vec<u8>,
    id: &ChunkId,
    codec: Codec,
    payload: &[u8],
    raw_length: u32,
) {
    let start = into.len();
    let header = RawHeader {
        magic: MAGIC,
        codec: codec.code(),
        bases: 0,
        reserved: U16::ZERO,
        stored_length: U32::new(
            u32::try_from(payload.len()).expect("because blocks have at most 4 MiB"),
        ),
        raw_length: U32::new(raw_length),
        id: *id.as_bytes(),
        crc: U32::ZERO,
    };
    into.extend_from_slice(header.as_bytes());
    into.extend_from_slice(payload);
    let record = into.get_mut(start..).expect("because it was just appended");
    let crc = checksum(record).expect("because the header was just written");
    let field = record
        .get_mut(RECORD_HEADER_BYTES - 4..RECORD_HEADER_BYTES)
        .expect("because the header is there");
    field.copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32 of a record without the checksum field itself.
fn checksum(record: &[u8]) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(record.get(..RECORD_HEADER_BYTES - 4)?);
    hasher.update(record.get(RECORD_HEADER_BYTES..)?);
    Some(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_record(
            &mut bytes,
            &ChunkId::of(&[5; 4096]),
            Codec::Zstd,
            b"payload",
            4096,
        );
        bytes
    }

    fn read(bytes: &[u8]) -> Result<RecordHeader, Corruption> {
        let header = RecordHeader::decode(bytes, 4096)?;
        header.verify(bytes)?;
        Ok(header)
    }

    #[test]
    fn a_record_reads_back() {
        let header = read(&record()).unwrap();
        assert_eq!(
            (header.codec, header.stored_length, header.raw_length),
            (Codec::Zstd, 7, 4096)
        );
        assert_eq!(header.id, ChunkId::of(&[5; 4096]));
        assert_eq!(size_of::<RawHeader>(), RECORD_HEADER_BYTES);
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        let good = record();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_no_chunk_can_have_are_refused() {
        for (codec, stored, raw) in [
            (Codec::Raw, 4095, 4096),
            (Codec::Zstd, 4096, 4096),
            (Codec::Zstd, 0, 4096),
            (Codec::Zstd, 9, 8192),
        ] {
            assert!(
                check_lengths(WHAT, codec, 0, stored, raw, 4096).is_err(),
                "{codec:?} {stored} {raw}"
            );
        }
        assert!(
            check_lengths(WHAT, Codec::Zstd, 1, 9, 4096, 4096).is_err(),
            "prefix frame"
        );
    }
}

//! Chunk records: what a segment is made of (SPEC 4.2).

use crate::{BASES_MAX, Bases, ChunkId, ChunkRules, Corruption, Structure};
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
    /// One zstd frame, behind the ids of the chunks that are its prefix, if it has any.
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
    /// How many chunks the frame has as its prefix.
    pub bases: u8,
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
    /// [`Corruption`] if it is cut short, has no magic, or a field is beyond what `rules` let a chunk have.
    pub fn decode(bytes: &[u8], rules: &ChunkRules) -> Result<Self, Corruption> {
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
        let (stored, length) = (raw.stored_length.get(), raw.raw_length.get());
        check_lengths(WHAT, rules, (codec, raw.bases), stored, length)?;
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
            bases: raw.bases,
            stored_length: stored,
            raw_length: length,
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

    /// Reads the ids of the frame's bases from a record that passed [`Self::verify`].
    ///
    /// # Errors
    /// [`Corruption::Field`] if one is the chunk's own, or both are the same.
    pub fn bases(&self, record: &[u8]) -> Result<Bases, Corruption> {
        let payload = record.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        Bases::decode(WHAT, &self.id, self.bases, payload)
    }

    /// Returns the bytes of a record before its frame, or before the chunk itself if it is raw.
    pub fn frame_offset(&self) -> usize {
        RECORD_HEADER_BYTES + usize::from(self.bases) * size_of::<ChunkId>()
    }

    /// Returns the bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.stored_length as usize
    }
}

/// Refuses lengths no chunk can have: a raw one is stored as it is, a compressed one shorter, behind the ids of its bases.
pub(crate) fn check_lengths(
    what: Structure,
    rules: &ChunkRules,
    (codec, bases): (Codec, u8),
    stored: u32,
    raw: u32,
) -> Result<(), Corruption> {
    let field = |field, found: u32, expected| {
        Err(Corruption::Field {
            what,
            field,
            found: u64::from(found),
            expected,
        })
    };
    if usize::from(bases) > BASES_MAX {
        return field("bases", bases.into(), "at most 2");
    }
    if bases > 0 && !rules.prefix_frames {
        let expected = "0, as the store's configuration excludes prefix frames";
        return field("bases", bases.into(), expected);
    }
    if bases > 0 && codec == Codec::Raw {
        return field("bases", bases.into(), "0, as it is raw");
    }
    if raw != rules.block_size.bytes() {
        return field("raw_length", raw, "the store's block size");
    }
    let ids = u32::from(bases) * 32;
    match codec {
        Codec::Raw if stored != raw => field("stored_length", stored, "raw_length, as it is raw"),
        Codec::Zstd if stored <= ids || stored >= raw => field(
            "stored_length",
            stored,
            "more than its bases' ids and less than raw_length, as it is compressed",
        ),
        _ => Ok(()),
    }
}

/// Appends a whole record to `into`: `frame` is the zstd frame, or the chunk's own bytes if it is raw.
///
/// # Panics
/// If the payload is longer than 4 GiB; blocks have at most 4 MiB.
pub fn encode_record(
    into: &mut Vec<u8>,
    id: &ChunkId,
    codec: Codec,
    bases: &Bases,
    frame: &[u8],
    raw_length: u32,
) {
    let start = into.len();
    let stored_length = frame.len() + size_of_val(bases.ids());
    let header = RawHeader {
        magic: MAGIC,
        codec: codec.code(),
        bases: bases.count(),
        reserved: U16::ZERO,
        stored_length: U32::new(
            u32::try_from(stored_length).expect("because blocks have at most 4 MiB"),
        ),
        raw_length: U32::new(raw_length),
        id: *id.as_bytes(),
        crc: U32::ZERO,
    };
    into.extend_from_slice(header.as_bytes());
    bases.as_bytes().for_each(|id| into.extend_from_slice(id));
    into.extend_from_slice(frame);
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
    use crate::BlockSize;

    const RULES: ChunkRules = ChunkRules {
        block_size: BlockSize::MIN,
        prefix_frames: true,
    };

    fn record(bases: &[ChunkId]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (id, bases) = (ChunkId::of(&[5; 4096]), Bases::new(bases).unwrap());
        encode_record(&mut bytes, &id, Codec::Zstd, &bases, b"payload", 4096);
        bytes
    }

    fn some_bases() -> [ChunkId; 2] {
        [ChunkId::of(b"one"), ChunkId::of(b"another")]
    }

    fn read(bytes: &[u8], rules: &ChunkRules) -> Result<(RecordHeader, Bases), Corruption> {
        let header = RecordHeader::decode(bytes, rules)?;
        header.verify(bytes)?;
        Ok((header, header.bases(bytes)?))
    }

    fn field(bytes: &[u8], rules: &ChunkRules) -> &'static str {
        match read(bytes, rules) {
            Err(Corruption::Field { field, .. }) => field,
            other => panic!("no field is accused: {other:?}"),
        }
    }

    #[test]
    fn a_record_reads_back() {
        let (header, bases) = read(&record(&[]), &RULES).unwrap();
        assert_eq!(
            (header.codec, header.stored_length, header.raw_length),
            (Codec::Zstd, 7, 4096)
        );
        assert_eq!(header.id, ChunkId::of(&[5; 4096]));
        assert!(bases.is_empty());
        assert_eq!(size_of::<RawHeader>(), RECORD_HEADER_BYTES);
    }

    #[test]
    fn a_record_with_bases_reads_back() {
        for count in 1..=2 {
            let ids = &some_bases()[..count];
            let bytes = record(ids);
            let (header, bases) = read(&bytes, &RULES).unwrap();
            assert_eq!(bases.ids(), ids);
            assert_eq!(header.stored_length as usize, 7 + 32 * count);
            assert_eq!(&bytes[header.frame_offset()..], b"payload");
        }
    }

    #[test]
    fn every_flipped_bit_is_an_error() {
        for bases in [&[][..], &some_bases()[..1], &some_bases()] {
            let good = record(bases);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&bad, &RULES).is_err(), "bit {bit}");
            }
            for length in 0..good.len() {
                assert!(read(&good[..length], &RULES).is_err(), "cut at {length}");
            }
        }
    }

    #[test]
    fn bases_that_cannot_be_are_refused() {
        let [one, _] = some_bases();
        let own = ChunkId::of(&[5; 4096]);
        for ids in [&[own][..], &[one, own], &[one, one]] {
            assert_eq!(field(&record(ids), &RULES), "base", "{ids:?}");
        }
        let mut three = record(&some_bases());
        three[5] = 3;
        assert_eq!(field(&three, &RULES), "bases");
        let plain = ChunkRules {
            prefix_frames: false,
            ..RULES
        };
        assert_eq!(field(&record(&[one]), &plain), "bases");
        assert!(read(&record(&[]), &plain).is_ok());
    }

    #[test]
    fn lengths_no_chunk_can_have_are_refused() {
        for (codec, bases, stored, raw) in [
            (Codec::Raw, 0, 4095, 4096),
            (Codec::Raw, 1, 4096, 4096),
            (Codec::Zstd, 0, 4096, 4096),
            (Codec::Zstd, 0, 0, 4096),
            (Codec::Zstd, 0, 9, 8192),
            (Codec::Zstd, 1, 32, 4096),
            (Codec::Zstd, 2, 64, 4096),
            (Codec::Zstd, 3, 999, 4096),
        ] {
            assert!(
                check_lengths(WHAT, &RULES, (codec, bases), stored, raw).is_err(),
                "{codec:?} {bases} {stored} {raw}"
            );
        }
        assert_eq!(
            check_lengths(WHAT, &RULES, (Codec::Zstd, 2), 65, 4096),
            Ok(())
        );
    }
}

//! Between a chunk's bytes and its record: compress, decompress, verify.

use crate::{Session, StoreError, paths, prefix};
use std::cell::RefCell;
use tegula_format::{
    Bases, BlockSize, ChunkId, ChunkRules, Codec, Corruption, RecordHeader, RunRow, encode_record,
};
use tegula_io::Buffer;

/// A chunk is kept raw unless compression saves at least this fraction of it: decoding should pay.
const WORTHWHILE_SAVING: usize = 64;

/// A chunk as its record holds it.
#[derive(Debug)]
pub struct Encoded {
    /// The chunk.
    pub id: ChunkId,
    /// The whole record.
    pub record: Buffer,
    /// How the payload holds it.
    pub codec: Codec,
    /// Bytes of the payload.
    pub stored_length: u32,
    /// The chunks that its frame has as its prefix.
    pub bases: Bases,
}

/// Why a chunk's record is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ChunkDamage {
    /// The record itself is wrong.
    #[error(transparent)]
    Record(#[from] Corruption),
    /// The record is another chunk's.
    #[error("its record is that of chunk {found}")]
    OtherChunk {
        /// The chunk found.
        found: ChunkId,
    },
    /// The payload does not decompress to a block.
    #[error("its payload does not decompress: {reason}")]
    Decompress {
        /// What the decompressor said.
        reason: String,
    },
    /// The payload is a frame that has other chunks as its prefix, and they were not given.
    #[error("its frame has {count} other chunks as its prefix")]
    NeedsBases {
        /// How many.
        count: u8,
    },
    /// A chunk that its frame has as its prefix cannot be had.
    #[error("chunk {base}, which its frame has as its prefix, cannot be read")]
    Base {
        /// That chunk.
        base: ChunkId,
        /// Why not.
        source: Box<StoreError>,
    },
    /// Its frame has as its prefix a chunk that is such a frame again, and so on.
    #[error("it takes too many other chunks to decode it, one as the prefix of the next")]
    TooDeep,
    /// The bytes hash to something else.
    #[error("its bytes hash to {found}")]
    Hash {
        /// The hash found.
        found: ChunkId,
    },
    /// The segment ends before the record does.
    #[error("the segment ends before its record does")]
    PastEnd,
    /// Its length cannot be.
    #[error("its payload has {found} bytes, more than a block")]
    Length {
        /// The length found.
        found: u32,
    },
}

pub(crate) fn damaged(row: &RunRow, source: ChunkDamage) -> StoreError {
    StoreError::ChunkDamaged {
        segment: row.place.segment,
        offset: u64::from(row.offset),
        id: row.id,
        source,
    }
}

thread_local! {
    // Contexts are large and slow to make; each thread keeps the last level's.
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
}

/// Compresses a block into a record; keeps it raw where that does not pay.
pub fn compress(id: ChunkId, block: &[u8], level: i32) -> Encoded {
    let raw_length = u32::try_from(block.len()).expect("because blocks have at most 4 MiB");
    let mut payload = Buffer::with_capacity(block.len());
    let compressed = COMPRESSOR.with_borrow_mut(|slot| {
        if !matches!(slot, Some((kept, _)) if *kept == level) {
            *slot = zstd::bulk::Compressor::new(level)
                .ok()
                .map(|compressor| (level, compressor));
        }
        let (_, compressor) = slot.as_mut()?;
        compressor
            .compress_to_buffer(block, payload.as_vec_mut())
            .ok()
    });
    let worthwhile = |length: &usize| *length <= payload_bytes_max(block.len());
    let (codec, payload) = match compressed
        .filter(worthwhile)
        .and_then(|length| payload.get(..length))
    {
        Some(payload) => (Codec::Zstd, payload),
        None => (Codec::Raw, block),
    };
    encoded(id, codec, Bases::NONE, payload, raw_length)
}

/// Puts a record around a frame, or around the chunk itself if it is raw.
pub(crate) fn encoded(
    id: ChunkId,
    codec: Codec,
    bases: Bases,
    frame: &[u8],
    raw_length: u32,
) -> Encoded {
    let payload_bytes = frame.len() + size_of_val(bases.ids());
    let mut record = Buffer::with_capacity(tegula_format::RECORD_HEADER_BYTES + payload_bytes);
    encode_record(record.as_vec_mut(), &id, codec, &bases, frame, raw_length);
    let stored_length =
        u32::try_from(payload_bytes).expect("because a payload is no longer than its block");
    Encoded {
        id,
        record,
        codec,
        stored_length,
        bases,
    }
}

/// Returns the record of a chunk as it stands in its segment. To be asked for one that was read and checked a moment ago.
pub(crate) fn stored(session: &Session, row: &RunRow) -> Result<Encoded, StoreError> {
    let path = paths::sealed_segment(row.place.segment);
    let record = session.read_segment(row, row.record_bytes())?.wait();
    let record = record.map_err(StoreError::io("read", &path))?;
    let rules = session.store().config().chunk_rules();
    let checked =
        CheckedRecord::check(&record, &row.id, &rules).map_err(|damage| damaged(row, damage))?;
    let (codec, bases) = (checked.codec(), *checked.bases());
    Ok(Encoded {
        id: row.id,
        record,
        codec,
        bases,
        stored_length: row.stored_length,
    })
}

/// Tells the longest payload that is worth storing instead of a block as it is.
pub(crate) fn payload_bytes_max(block_bytes: usize) -> usize {
    block_bytes - block_bytes / WORTHWHILE_SAVING
}

/// A record whose header, checksum, id and base ids are right: what is left is to decode it.
#[derive(Debug)]
pub struct CheckedRecord<'a> {
    header: RecordHeader,
    bases: Bases,
    frame: &'a [u8],
}

impl<'a> CheckedRecord<'a> {
    /// Checks that `record` is a whole record of the chunk `id`, down to the checksum. What it decodes to is not looked
    /// at yet.
    ///
    /// # Errors
    /// The first [`ChunkDamage`] found.
    pub fn check(record: &'a [u8], id: &ChunkId, rules: &ChunkRules) -> Result<Self, ChunkDamage> {
        let header = RecordHeader::decode(record, rules)?;
        header.verify(record)?;
        if header.id != *id {
            return Err(ChunkDamage::OtherChunk { found: header.id });
        }
        let bases = header.bases(record)?;
        let frame = record.get(header.frame_offset()..);
        let frame = frame.expect("because a payload is longer than its bases' ids");
        Ok(Self {
            header,
            bases,
            frame,
        })
    }

    /// Returns the chunks that [`Self::decode`] needs, in this order.
    pub fn bases(&self) -> &Bases {
        &self.bases
    }

    /// Returns how the payload holds the chunk.
    pub fn codec(&self) -> Codec {
        self.header.codec
    }

    /// Decodes the chunk into `block` and makes sure that its bytes hash to its id. `bases` are the bytes of the chunks
    /// in [`Self::bases`].
    ///
    /// # Errors
    /// [`ChunkDamage`]; `block` then holds nothing to be used.
    pub fn decode(&self, bases: &[&[u8]], block: &mut [u8]) -> Result<(), ChunkDamage> {
        if bases.len() != self.bases.ids().len() {
            let count = self.bases.count();
            return Err(ChunkDamage::NeedsBases { count });
        }
        match self.header.codec {
            Codec::Raw => block.copy_from_slice(self.frame),
            Codec::Zstd => prefix::decompress(self.frame, bases, block)?,
        }
        match ChunkId::of(block) {
            found if found == self.header.id => Ok(()),
            found => Err(ChunkDamage::Hash { found }),
        }
    }
}

/// Decodes a whole record that needs no other chunk into `block`, and makes sure it is the chunk `id`: header, checksum,
/// decompression, hash.
///
/// # Errors
/// The first [`ChunkDamage`] found; `block` then holds nothing to be used. [`ChunkDamage::NeedsBases`] for a frame that
/// has other chunks as its prefix: that is for [`CheckedRecord`].
pub fn decode_record(record: &[u8], id: &ChunkId, block: &mut [u8]) -> Result<(), ChunkDamage> {
    let rules = ChunkRules {
        block_size: BlockSize::from_bytes(block.len() as u64)
            .expect("because a block has the size of one"),
        prefix_frames: true,
    };
    CheckedRecord::check(record, id, &rules)?.decode(&[], block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn compressible_blocks_shrink_and_noise_stays_raw() {
        for (block, codec) in [(vec![7; 65_536], Codec::Zstd), (noise(65_536), Codec::Raw)] {
            let id = ChunkId::of(&block);
            let encoded = compress(id, &block, 1);
            assert_eq!(encoded.codec, codec);
            let mut back = vec![0; block.len()];
            decode_record(&encoded.record, &id, &mut back).unwrap();
            assert!(back == block);
        }
    }

    #[test]
    fn a_sound_record_of_another_chunk_is_not_served() {
        let (mine, other) = (vec![1; 4096], vec![2; 4096]);
        let record = compress(ChunkId::of(&other), &other, 1).record;
        let damage = decode_record(&record, &ChunkId::of(&mine), &mut [0; 4096]).unwrap_err();
        assert!(matches!(damage, ChunkDamage::OtherChunk { .. }), "{damage}");
    }

    #[test]
    fn a_record_whose_bytes_do_not_hash_to_its_id_is_not_served() {
        let wrong = ChunkId::of(b"something else");
        let record = compress(wrong, &[3; 4096], 1).record;
        let damage = decode_record(&record, &wrong, &mut [0; 4096]).unwrap_err();
        assert!(matches!(damage, ChunkDamage::Hash { .. }), "{damage}");
    }
}

//! Between a chunk's bytes and its record: compress, decompress, verify.

use crate::StoreError;
use std::cell::RefCell;
use tegula_format::{ChunkId, Codec, Corruption, RecordHeader, RunRow, encode_record};
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
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
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
    let worthwhile = |length: &usize| *length <= block.len() - block.len() / WORTHWHILE_SAVING;
    let (codec, payload) = match compressed
        .filter(worthwhile)
        .and_then(|length| payload.get(..length))
    {
        Some(payload) => (Codec::Zstd, payload),
        None => (Codec::Raw, block),
    };
    let mut record = Buffer::with_capacity(tegula_format::RECORD_HEADER_BYTES + payload.len());
    encode_record(record.as_vec_mut(), &id, codec, payload, raw_length);
    let stored_length =
        u32::try_from(payload.len()).expect("because a payload is no longer than its block");
    Encoded {
        id,
        record,
        codec,
        stored_length,
    }
}

/// Decodes a whole record into `block` and makes sure it is the chunk `id`: header, checksum, decompression, hash.
///
/// # Errors
/// The first [`ChunkDamage`] found; `block` then holds nothing to be used.
pub fn decode_record(record: &[u8], id: &ChunkId, block: &mut [u8]) -> Result<(), ChunkDamage> {
    let block_bytes = u32::try_from(block.len()).expect("because blocks have at most 4 MiB");
    let header = RecordHeader::decode(record, block_bytes)?;
    header.verify(record)?;
    if header.id != *id {
        return Err(ChunkDamage::OtherChunk { found: header.id });
    }
    let payload = record
        .get(tegula_format::RECORD_HEADER_BYTES..)
        .expect("because verify() checked the length");
    match header.codec {
        Codec::Raw => block.copy_from_slice(payload),
        Codec::Zstd => decompress(payload, block)?,
    }
    match ChunkId::of(block) {
        found if found == *id => Ok(()),
        found => Err(ChunkDamage::Hash { found }),
    }
}

fn decompress(payload: &[u8], block: &mut [u8]) -> Result<(), ChunkDamage> {
    let failed = |reason: String| ChunkDamage::Decompress { reason };
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot =
                Some(zstd::bulk::Decompressor::new().map_err(|error| failed(error.to_string()))?);
        }
        let decompressor = slot.as_mut().expect("because it was just filled");
        match decompressor.decompress_to_buffer(payload, block) {
            Ok(length) if length == block.len() => Ok(()),
            Ok(length) => Err(failed(format!("{length} bytes instead of {}", block.len()))),
            Err(error) => Err(failed(error.to_string())),
        }
    })
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

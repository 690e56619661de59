//! Chunk records: header, checksum, decompression, hash.

use crate::reseal;
use crate::world::{self, RULES};
use tegula_format::{Bases, ChunkId, Codec, RecordHeader, encode_record};
use tegula_store::{CheckedRecord, decode_record};

/// Blocks here are of the smallest size.
const BLOCK: usize = 4096;

/// Whatever is served as a chunk is that chunk.
pub fn record(data: &[u8]) {
    for bytes in [data.to_vec(), reseal::record(data)] {
        let block_bytes = u32::try_from(BLOCK).unwrap();
        let Ok(header) = RecordHeader::decode(&bytes, &RULES) else {
            continue;
        };
        assert!(header.record_bytes() <= 52 + BLOCK);
        let mut block = vec![0xaa; BLOCK];
        if decode_record(&bytes, &header.id, &mut block).is_ok() {
            assert_eq!(ChunkId::of(&block), header.id);
            if header.codec == Codec::Raw {
                let mut again = Vec::new();
                encode_record(
                    &mut again,
                    &header.id,
                    Codec::Raw,
                    &Bases::NONE,
                    &block,
                    block_bytes,
                );
                assert_eq!(again, bytes);
            }
        }
        // With the chunks that its frame has as its prefix it is that chunk or nothing as well.
        if let Ok(checked) = CheckedRecord::check(&bytes, &header.id, &RULES) {
            let bases = [20, 21].map(world::block);
            let bases: Vec<&[u8]> = bases.iter().map(Vec::as_slice).collect();
            let given = checked.bases().ids().len();
            if checked.decode(&bases[..given], &mut block).is_ok() {
                assert_eq!(ChunkId::of(&block), header.id);
            }
        }
        // Under the name of another chunk it must not be served, whatever it holds.
        assert!(decode_record(&bytes, &ChunkId::of(data), &mut block).is_err());
        // Nor may a record whose id is what its bytes hash to be refused for anything but its own damage.
        if let (Codec::Raw, Some(payload)) = (header.codec, bytes.get(52..52 + BLOCK)) {
            let mut again = Vec::new();
            let id = ChunkId::of(payload);
            encode_record(
                &mut again,
                &id,
                Codec::Raw,
                &Bases::NONE,
                payload,
                block_bytes,
            );
            decode_record(&again, &id, &mut block).unwrap();
        }
    }
}

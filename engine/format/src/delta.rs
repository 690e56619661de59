//! Delta streams: what turns one image into another, as a file or on a wire (SPEC 15).
//!
//! A stream is a header, two sets of blocks, a table of chunk ids, chunk records (SPEC 4.2) and a trailer. The header
//! holds the hashes of the tables, so they can be believed before the first record comes; the trailer holds the hash of
//! everything.

use crate::envelope::{self, Features, Kind};
use crate::image_record::checked_size;
use crate::{BlockSet, BlockSize, ChunkId, Corruption, ImageDigest, Structure};

const KIND: Kind = Kind {
    what: Structure::Delta,
    magic: *b"TGDELTA\n",
};
const WHAT: Structure = Structure::Delta;
const TRAILER: Structure = Structure::DeltaTrailer;

/// What the trailer begins with: no record begins so.
pub const DELTA_TRAILER_MAGIC: [u8; 8] = *b"TGDELEND";

/// Bytes of a delta's trailer, the last of a stream.
pub const DELTA_TRAILER_BYTES: usize = 60;

/// Bytes of a trailer that the hash in it covers, after all that stands before the trailer.
pub const DELTA_TRAILER_HASHED_BYTES: usize = 24;

/// The longest serialized set of blocks: a container of 8 KiB for each of 2^16 keys, with cookie, flags and offsets.
const SET_BYTES_MAX: u64 = 4 + 8_192 + 65_536 * (4 + 4 + 8_192);

/// The most records a stream may have for each block that it sets: carried chunks, and those that only others build on.
const RECORDS_PER_BLOCK_MAX: u64 = 64;

/// The bit of the refuse mask that says that the trailer's hash covers of each record its name alone.
const RECORDS_BY_NAME: u32 = 1;

/// What the trailer's hash covers of the records (SPEC 15.5). Either way each record has its own checksum, and each chunk
/// its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashedRecords {
    /// Every byte: a stream that was written from its beginning to its end.
    #[default]
    Whole,
    /// The chunk's id and the record's length: so the trailer is known before any record is read, and a stream can be
    /// gone on with anywhere.
    ByName,
}

impl HashedRecords {
    /// Takes a record in; `record_bytes` is what [`Self::Whole`] needs.
    pub fn take(self, hasher: &mut blake3::Hasher, id: &ChunkId, record_bytes: &[u8]) {
        match self {
            Self::Whole => {
                hasher.update(record_bytes);
            }
            Self::ByName => {
                let length = u32::try_from(record_bytes.len());
                Self::take_name(hasher, id, length.expect("because records are short"));
            }
        }
    }

    /// Takes in a record of which the name alone counts.
    pub fn take_name(hasher: &mut blake3::Hasher, id: &ChunkId, record_bytes: u32) {
        hasher.update(id.as_bytes());
        hasher.update(&record_bytes.to_le_bytes());
    }
}

/// An image at one end of a delta: its length and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaEnd {
    /// Its length in bytes.
    pub virtual_size: u64,
    /// Its content.
    pub digest: ImageDigest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct End {
    virtual_size: u64,
    digest: [u8; 32],
}

impl From<DeltaEnd> for End {
    fn from(end: DeltaEnd) -> Self {
        Self {
            virtual_size: end.virtual_size,
            digest: *end.digest.as_bytes(),
        }
    }
}

impl End {
    fn checked(self, block_size: BlockSize) -> Result<DeltaEnd, Corruption> {
        checked_size(self.virtual_size, block_size, WHAT)?;
        Ok(DeltaEnd {
            virtual_size: self.virtual_size,
            digest: ImageDigest::from_bytes(self.digest),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Body {
    block_size_log2: u8,
    base: Option<End>,
    target: End,
    data_blocks: u64,
    zero_blocks: u64,
    data_length: u64,
    data_hash: [u8; 32],
    zero_length: u64,
    zero_hash: [u8; 32],
    ids_hash: [u8; 32],
}

/// The head of a delta: which image it starts from, which it makes, and how long its tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaHeader {
    /// The size of the blocks of both images.
    pub block_size: BlockSize,
    /// The image the delta is to be applied to; without one it holds all of its target.
    pub base: Option<DeltaEnd>,
    /// The image it makes.
    pub target: DeltaEnd,
    /// What the trailer's hash covers of the records.
    pub hashed: HashedRecords,
    body: Body,
}

impl DeltaHeader {
    /// Reads the head at the start of `bytes`; returns it with its length.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), Corruption> {
        let (body, length, features): (Body, usize, _) =
            envelope::decode_with_features(KIND, RECORDS_BY_NAME, bytes)?;
        let block_size = BlockSize::decode(body.block_size_log2, WHAT)?;
        let base = body.base.map(|base| base.checked(block_size)).transpose()?;
        let target = body.target.checked(block_size)?;
        let header = Self {
            block_size,
            base,
            target,
            hashed: match features.refuse & RECORDS_BY_NAME {
                0 => HashedRecords::Whole,
                _ => HashedRecords::ByName,
            },
            body,
        };
        header.check_counts()?;
        Ok((header, length))
    }

    fn check_counts(&self) -> Result<(), Corruption> {
        let field = |field, found, expected| {
            Err(Corruption::Field {
                what: WHAT,
                field,
                found,
                expected,
            })
        };
        let Body {
            data_blocks,
            zero_blocks,
            data_length,
            zero_length,
            ..
        } = self.body;
        if data_blocks > self.target_blocks() {
            let expected = "no more than the target has blocks";
            return field("data_blocks", data_blocks, expected);
        }
        if zero_blocks > self.zero_end().min(self.target_blocks() - data_blocks) {
            let expected = "no more than both images have blocks, less those set";
            return field("zero_blocks", zero_blocks, expected);
        }
        if data_length > SET_BYTES_MAX {
            return field("data_length", data_length, "no more than a set can have");
        }
        if zero_length > SET_BYTES_MAX {
            return field("zero_length", zero_length, "no more than a set can have");
        }
        Ok(())
    }

    /// Returns how many blocks the base has; none, if there is no base.
    pub fn base_blocks(&self) -> u64 {
        self.base
            .map_or(0, |base| self.block_size.blocks_in(base.virtual_size))
    }

    /// Returns how many blocks the target has.
    pub fn target_blocks(&self) -> u64 {
        self.block_size.blocks_in(self.target.virtual_size)
    }

    /// Returns the first block that cannot be zeroed: the base has none there, or the target has none.
    fn zero_end(&self) -> u64 {
        self.base_blocks().min(self.target_blocks())
    }

    /// Returns how many blocks hold another chunk than in the base.
    pub fn data_blocks(&self) -> u64 {
        self.body.data_blocks
    }

    /// Returns how many blocks read as zeros from now on.
    pub fn zero_blocks(&self) -> u64 {
        self.body.zero_blocks
    }

    /// Returns the length of the serialized set of blocks that hold another chunk.
    pub fn data_bytes(&self) -> u64 {
        self.body.data_length
    }

    /// Returns the length of the serialized set of blocks that are zeroed.
    pub fn zero_bytes(&self) -> u64 {
        self.body.zero_length
    }

    /// Returns the length of the table of chunk ids.
    pub fn ids_bytes(&self) -> u64 {
        // At most 2^32 blocks, checked in check_counts().
        self.body.data_blocks * 32
    }

    /// Refuses a trailer of more records than the stream may have.
    ///
    /// # Errors
    /// [`Corruption::Field`].
    pub fn check_records(&self, trailer: &DeltaTrailer) -> Result<(), Corruption> {
        match trailer.records > self.records_max() {
            false => Ok(()),
            true => Err(Corruption::Field {
                what: TRAILER,
                field: "records",
                found: trailer.records,
                expected: "at most 64 for each block that is set",
            }),
        }
    }

    /// Returns the most records that the stream may have.
    pub fn records_max(&self) -> u64 {
        self.body.data_blocks * RECORDS_PER_BLOCK_MAX
    }

    /// Reads the set of blocks that hold another chunk than in the base.
    ///
    /// # Errors
    /// [`Corruption`] if hash, serialization, limits or count are wrong.
    pub fn decode_data(&self, bytes: &[u8]) -> Result<BlockSet, Corruption> {
        let (hash, count) = (&self.body.data_hash, self.body.data_blocks);
        block_set(bytes, hash, count, self.target_blocks(), "the data set")
    }

    /// Reads the set of blocks that read as zeros from now on.
    ///
    /// # Errors
    /// [`Corruption`] as for [`Self::decode_data`], or if it shares a block with `data`.
    pub fn decode_zero(&self, bytes: &[u8], data: &BlockSet) -> Result<BlockSet, Corruption> {
        let (hash, count) = (&self.body.zero_hash, self.body.zero_blocks);
        let zero = block_set(bytes, hash, count, self.zero_end(), "the zero set")?;
        match zero.is_disjoint(data) {
            true => Ok(zero),
            false => Err(Corruption::Field {
                what: WHAT,
                field: "the zero set",
                found: zero.len(),
                expected: "no block that is also set",
            }),
        }
    }

    /// Refuses the id of the all-zero chunk, which stands for no block.
    ///
    /// # Errors
    /// [`Corruption::Field`].
    pub fn check_id(&self, id: &ChunkId, zero_chunk: &ChunkId) -> Result<(), Corruption> {
        match id == zero_chunk {
            false => Ok(()),
            true => Err(Corruption::Field {
                what: WHAT,
                field: "ids",
                found: id.prefix(),
                expected: "not the id of the chunk of zeros",
            }),
        }
    }

    /// Compares the hash of the table of chunk ids with the one stated.
    ///
    /// # Errors
    /// [`Corruption::Hash`].
    pub fn check_ids_hash(&self, found: &[u8; 32]) -> Result<(), Corruption> {
        match *found == self.body.ids_hash {
            true => Ok(()),
            false => Err(Corruption::Hash {
                what: WHAT,
                part: "the table of chunk ids",
            }),
        }
    }
}

fn block_set(
    bytes: &[u8],
    hash: &[u8; 32],
    count: u64,
    block_count: u64,
    part: &'static str,
) -> Result<BlockSet, Corruption> {
    if blake3::hash(bytes).as_bytes() != hash {
        return Err(Corruption::Hash { what: WHAT, part });
    }
    let set = BlockSet::decode(bytes, block_count, WHAT)?;
    match set.len() == count {
        true => Ok(set),
        false => Err(Corruption::Field {
            what: WHAT,
            field: part,
            found: set.len(),
            expected: "as many blocks as stated",
        }),
    }
}

/// The parts of a delta before its records.
#[derive(Debug, Clone, Copy)]
pub struct DeltaParts<'a> {
    /// The size of the blocks of both images.
    pub block_size: BlockSize,
    /// The image the delta is to be applied to.
    pub base: Option<DeltaEnd>,
    /// The image it makes.
    pub target: DeltaEnd,
    /// The blocks that hold another chunk than in the base.
    pub data: &'a BlockSet,
    /// The blocks that read as zeros from now on.
    pub zero: &'a BlockSet,
    /// The hash of the chunk ids of `data`, in block order, 32 bytes each.
    pub ids_hash: [u8; 32],
    /// What the trailer's hash will cover of the records.
    pub hashed: HashedRecords,
}

impl DeltaParts<'_> {
    /// Returns the header, and the bytes of header and sets. The chunk ids come next, then records.
    ///
    /// # Panics
    /// If the parts do not fit each other.
    pub fn encode(&self) -> (DeltaHeader, Vec<u8>) {
        let (data, zero) = (self.data.encode(), self.zero.encode());
        let body = Body {
            block_size_log2: self.block_size.log2(),
            base: self.base.map(End::from),
            target: self.target.into(),
            data_blocks: self.data.len(),
            zero_blocks: self.zero.len(),
            data_length: data.len() as u64,
            data_hash: *blake3::hash(&data).as_bytes(),
            zero_length: zero.len() as u64,
            zero_hash: *blake3::hash(&zero).as_bytes(),
            ids_hash: self.ids_hash,
        };
        let features = Features {
            refuse: match self.hashed {
                HashedRecords::Whole => 0,
                HashedRecords::ByName => RECORDS_BY_NAME,
            },
            ..Features::default()
        };
        let head = envelope::encode_with_features(KIND, features, &body);
        let (header, _) = DeltaHeader::decode(&head).expect("because the parts fit each other");
        header
            .decode_data(&data)
            .and_then(|data| header.decode_zero(&zero, &data))
            .expect("because the parts fit each other");
        (header, [head, data, zero].concat())
    }
}

/// The end of a delta: how much there was, and the hash of all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaTrailer {
    /// How many records the stream has.
    pub records: u64,
    /// How many bytes they have together.
    pub record_bytes: u64,
    /// The BLAKE3 hash of everything before this field: of every byte, or, for records, of what
    /// [`HashedRecords::ByName`] says.
    pub hash: [u8; 32],
}

impl DeltaTrailer {
    /// Returns the trailer of a stream of which `hasher` was given everything before, records as [`HashedRecords`] says.
    pub fn seal(records: u64, record_bytes: u64, hasher: &mut blake3::Hasher) -> Self {
        hasher.update(&hashed_part(records, record_bytes));
        Self {
            records,
            record_bytes,
            hash: *hasher.finalize().as_bytes(),
        }
    }

    /// Returns the trailer's bytes.
    pub fn encode(&self) -> [u8; DELTA_TRAILER_BYTES] {
        let mut bytes = [0; DELTA_TRAILER_BYTES];
        let fields = hashed_part(self.records, self.record_bytes)
            .into_iter()
            .chain(self.hash);
        bytes
            .iter_mut()
            .zip(fields)
            .for_each(|(to, from)| *to = from);
        let (guarded, checksum) = bytes
            .split_last_chunk_mut::<4>()
            .expect("because a trailer is longer than 4 bytes");
        *checksum = crc32fast::hash(guarded).to_le_bytes();
        bytes
    }

    /// Reads a trailer. Its hash is for whoever has read everything before.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let bytes: &[u8; DELTA_TRAILER_BYTES] =
            bytes.try_into().map_err(|_| Corruption::Truncated {
                what: TRAILER,
                need: DELTA_TRAILER_BYTES as u64,
                have: bytes.len() as u64,
            })?;
        let (magic, rest) = bytes.split_first_chunk::<8>().expect("because 60 ≥ 8");
        if *magic != DELTA_TRAILER_MAGIC {
            return Err(Corruption::BadMagic {
                what: TRAILER,
                found: *magic,
            });
        }
        let (guarded, stored) = bytes.split_last_chunk::<4>().expect("because 60 ≥ 4");
        let (stored, computed) = (u32::from_le_bytes(*stored), crc32fast::hash(guarded));
        if stored != computed {
            return Err(Corruption::Checksum {
                what: TRAILER,
                stored,
                computed,
            });
        }
        let (records, rest) = rest.split_first_chunk().expect("because 52 ≥ 8");
        let (record_bytes, rest) = rest.split_first_chunk().expect("because 44 ≥ 8");
        let (hash, _) = rest.split_first_chunk().expect("because 36 ≥ 32");
        Ok(Self {
            records: u64::from_le_bytes(*records),
            record_bytes: u64::from_le_bytes(*record_bytes),
            hash: *hash,
        })
    }

    /// Compares what the trailer states with what was read before it.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn check(
        &self,
        records: u64,
        record_bytes: u64,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), Corruption> {
        self.check_counts(records, record_bytes)?;
        match Self::seal(records, record_bytes, hasher) == *self {
            true => Ok(()),
            false => Err(Corruption::Hash {
                what: TRAILER,
                part: "everything before",
            }),
        }
    }

    /// Compares the counts alone.
    ///
    /// # Errors
    /// [`Corruption::Field`].
    pub fn check_counts(&self, records: u64, record_bytes: u64) -> Result<(), Corruption> {
        let field = |field, found| {
            Err(Corruption::Field {
                what: TRAILER,
                field,
                found,
                expected: "as many as there are",
            })
        };
        if self.records != records {
            return field("records", self.records);
        }
        if self.record_bytes != record_bytes {
            return field("record_bytes", self.record_bytes);
        }
        Ok(())
    }
}

/// The bytes of the trailer before its hash.
fn hashed_part(records: u64, record_bytes: u64) -> [u8; DELTA_TRAILER_HASHED_BYTES] {
    let mut bytes = [0; DELTA_TRAILER_HASHED_BYTES];
    let fields = DELTA_TRAILER_MAGIC
        .into_iter()
        .chain(records.to_le_bytes())
        .chain(record_bytes.to_le_bytes());
    bytes
        .iter_mut()
        .zip(fields)
        .for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockIndex;

    fn end(blocks: u64, kind: u8) -> DeltaEnd {
        DeltaEnd {
            virtual_size: (blocks << 12) - 5,
            digest: ImageDigest::from_bytes([kind; 32]),
        }
    }

    /// A whole stream without records: from nine blocks to twelve, or to twelve from nothing.
    fn stream(base: bool, hashed: HashedRecords) -> Vec<u8> {
        let data: BlockSet = [0, 3, 11].map(BlockIndex::new).into_iter().collect();
        let zero: BlockSet = base.then(|| BlockIndex::new(7)).into_iter().collect();
        let ids: Vec<u8> = (0..3u8)
            .flat_map(|n| *ChunkId::of(&[n]).as_bytes())
            .collect();
        let (_, head) = DeltaParts {
            block_size: BlockSize::MIN,
            base: base.then(|| end(9, 1)),
            target: end(12, 2),
            data: &data,
            zero: &zero,
            ids_hash: *blake3::hash(&ids).as_bytes(),
            hashed,
        }
        .encode();
        let mut bytes = [head, ids].concat();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        bytes.extend(DeltaTrailer::seal(0, 0, &mut hasher).encode());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(DeltaHeader, u64, u64), Corruption> {
        let cut = |start: usize, length: u64| {
            let end = start.saturating_add(usize::try_from(length).unwrap());
            bytes.get(start..end).ok_or(Corruption::Truncated {
                what: WHAT,
                need: end as u64,
                have: bytes.len() as u64,
            })
        };
        let (header, length) = DeltaHeader::decode(bytes)?;
        let data = header.decode_data(cut(length, header.data_bytes())?)?;
        let length = length + usize::try_from(header.data_bytes()).unwrap();
        let zero = header.decode_zero(cut(length, header.zero_bytes())?, &data)?;
        let length = length + usize::try_from(header.zero_bytes()).unwrap();
        let ids = cut(length, header.ids_bytes())?;
        header.check_ids_hash(blake3::hash(ids).as_bytes())?;
        let length = length + ids.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..length]);
        DeltaTrailer::decode(&bytes[length..])?.check(0, 0, &mut hasher)?;
        Ok((header, data.len(), zero.len()))
    }

    #[test]
    fn a_delta_reads_back() {
        let hashes = [HashedRecords::Whole, HashedRecords::ByName];
        for (base, hashed) in [true, false].into_iter().zip(hashes) {
            let (header, data, zero) = read(&stream(base, hashed)).unwrap();
            assert_eq!(header.hashed, hashed);
            assert_eq!(header.base, base.then(|| end(9, 1)));
            assert_eq!(header.target, end(12, 2));
            assert_eq!((data, zero), (3, u64::from(base)));
            assert_eq!((header.target_blocks(), header.records_max()), (12, 192));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = stream(true, HashedRecords::ByName);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "cut at {length}");
        }
        assert!(read(&[good, vec![0]].concat()).is_err(), "one byte more");
    }

    #[test]
    fn blocks_that_an_image_does_not_have_are_refused() {
        let block = |n| BlockSet::from_iter([BlockIndex::new(n)]);
        let none = BlockSet::new();
        let encode = |data: &BlockSet, zero: &BlockSet| {
            DeltaParts {
                block_size: BlockSize::MIN,
                base: Some(end(9, 1)),
                target: end(12, 2),
                data,
                zero,
                ids_hash: [0; 32],
                hashed: HashedRecords::Whole,
            }
            .encode()
        };
        encode(&block(11), &block(8));
        for (data, zero) in [
            (block(12), none.clone()),
            (none.clone(), block(9)),
            (block(3), block(3)),
        ] {
            let refused = std::panic::catch_unwind(|| encode(&data, &zero));
            assert!(refused.is_err(), "{data:?} {zero:?}");
        }
    }
}

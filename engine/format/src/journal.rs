//! The journal of a delta that is applied to a disk in place (SPEC 15.7): what its parts are as bytes.

use crate::envelope::{self, ENVELOPE_BYTES, Kind};
use crate::{BlockIndex, BlockSize, ChunkId, Corruption, Structure};

const KIND: Kind = Kind {
    what: Structure::Journal,
    magic: *b"TGJOURN\n",
};
const WHAT: Structure = Structure::Journal;
const SEAL_MAGIC: [u8; 8] = *b"TGJSEALD";
const MARK_MAGIC: [u8; 4] = *b"TGJM";

/// Bytes of a row.
pub const JOURNAL_ROW_BYTES: usize = 40;

/// Bytes of a mark.
pub const JOURNAL_MARK_BYTES: usize = 16;

/// What a journal is, before its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalHead {
    /// The hash in the trailer of the delta that is applied.
    pub delta: [u8; 32],
    /// What tells the disk from others on its machine.
    pub disk: (u64, u64),
    /// The size of the delta's blocks.
    pub block_size: BlockSize,
    /// How many rows there are.
    pub rows: u64,
    /// How many chunks are saved.
    pub saved: u64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    delta: [u8; 32],
    disk: (u64, u64),
    block_size_log2: u8,
    rows: u64,
    saved: u64,
}

impl JournalHead {
    /// Bytes of a head.
    pub const BYTES: usize = ENVELOPE_BYTES + 65;

    /// Returns the head's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = Body {
            delta: self.delta,
            disk: self.disk,
            block_size_log2: self.block_size.log2(),
            rows: self.rows,
            saved: self.saved,
        };
        envelope::encode(KIND, &body)
    }

    /// Reads a head that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let body: Body = envelope::decode_whole(KIND, bytes)?;
        let block_size = BlockSize::decode(body.block_size_log2, WHAT)?;
        let field = |field, found, expected| {
            Err(Corruption::Field {
                what: WHAT,
                field,
                found,
                expected,
            })
        };
        if body.rows > 1 << 32 {
            return field("rows", body.rows, "no more than an image can have chunks");
        }
        if body.saved > body.rows {
            return field("saved", body.saved, "no more than there are rows");
        }
        Ok(Self {
            delta: body.delta,
            disk: body.disk,
            block_size,
            rows: body.rows,
            saved: body.saved,
        })
    }

    /// Tells whether `bytes`, too few for a head, could be the first bytes of one.
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        bytes.iter().zip(KIND.magic).all(|(a, b)| *a == b)
    }

    /// Returns the bytes of all rows.
    pub fn rows_bytes(&self) -> u64 {
        self.rows * JOURNAL_ROW_BYTES as u64
    }

    /// Returns the bytes of all saved chunks.
    pub fn saved_bytes(&self) -> u64 {
        self.saved * u64::from(self.block_size.bytes())
    }
}

/// Where a chunk of the base is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalRow {
    /// In a block of the disk that is left as it is.
    Block(BlockIndex),
    /// In the journal, with so many saved chunks before it.
    Saved(u32),
}

impl JournalRow {
    /// Returns the row's bytes.
    pub fn encode(&self, id: &ChunkId) -> [u8; JOURNAL_ROW_BYTES] {
        let (kind, number): (u32, u32) = match self {
            Self::Block(block) => (0, block.get()),
            Self::Saved(at) => (1, *at),
        };
        let mut bytes = [0; JOURNAL_ROW_BYTES];
        let fields = id.as_bytes().iter().copied();
        let fields = fields.chain(kind.to_le_bytes()).chain(number.to_le_bytes());
        bytes
            .iter_mut()
            .zip(fields)
            .for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads a row that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8], head: &JournalHead) -> Result<(ChunkId, Self), Corruption> {
        let bytes: &[u8; JOURNAL_ROW_BYTES] = exactly(bytes)?;
        let (id, rest) = bytes.split_first_chunk().expect("because 40 ≥ 32");
        let (kind, rest) = rest.split_first_chunk().expect("because 8 ≥ 4");
        let (number, _) = rest.split_first_chunk().expect("because 4 ≥ 4");
        let (kind, number) = (u32::from_le_bytes(*kind), u32::from_le_bytes(*number));
        let field = |field, found, expected| {
            Err(Corruption::Field {
                what: WHAT,
                field,
                found: u64::from(found),
                expected,
            })
        };
        let row = match kind {
            0 => Self::Block(BlockIndex::new(number)),
            1 if u64::from(number) < head.saved => Self::Saved(number),
            1 => return field("number", number, "less than there are saved chunks"),
            _ => return field("kind", kind, "0 or 1"),
        };
        Ok((ChunkId::from_bytes(*id), row))
    }
}

/// What makes a journal count: it is written when all before it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSeal {
    /// The BLAKE3 hash of head, rows and saved chunks.
    pub hash: [u8; 32],
}

impl JournalSeal {
    /// Bytes of a seal.
    pub const BYTES: usize = 44;

    /// Returns the seal's bytes.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        sealed(SEAL_MAGIC.into_iter().chain(self.hash))
    }

    /// Reads a seal that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let bytes: &[u8; Self::BYTES] = exactly(bytes)?;
        let rest = after_magic(bytes, &SEAL_MAGIC)?;
        let (hash, _) = rest.split_first_chunk().expect("because 36 ≥ 32");
        Ok(Self { hash: *hash })
    }
}

/// How far the writing is: everything before it is durable on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalMark {
    /// How many steps are done.
    pub done: u64,
}

impl JournalMark {
    /// Returns the mark's bytes.
    pub fn encode(&self) -> [u8; JOURNAL_MARK_BYTES] {
        sealed(MARK_MAGIC.into_iter().chain(self.done.to_le_bytes()))
    }

    /// Reads a mark that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let bytes: &[u8; JOURNAL_MARK_BYTES] = exactly(bytes)?;
        let rest = after_magic(bytes, &MARK_MAGIC)?;
        let (done, _) = rest.split_first_chunk().expect("because 12 ≥ 8");
        Ok(Self {
            done: u64::from_le_bytes(*done),
        })
    }
}

fn exactly<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], Corruption> {
    bytes.try_into().map_err(|_| Corruption::Truncated {
        what: WHAT,
        need: N as u64,
        have: bytes.len() as u64,
    })
}

/// Returns fields with their CRC-32 behind them.
fn sealed<const N: usize>(fields: impl Iterator<Item = u8>) -> [u8; N] {
    let mut bytes = [0; N];
    let (guarded, checksum) = bytes
        .split_last_chunk_mut::<4>()
        .expect("because nothing sealed is shorter");
    guarded
        .iter_mut()
        .zip(fields)
        .for_each(|(to, from)| *to = from);
    *checksum = crc32fast::hash(guarded).to_le_bytes();
    bytes
}

/// Checks magic and checksum; returns what stands between the magic and the end.
fn after_magic<'a>(bytes: &'a [u8], magic: &[u8]) -> Result<&'a [u8], Corruption> {
    let Some(rest) = bytes.strip_prefix(magic) else {
        let mut found = [0; 8];
        found
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        return Err(Corruption::BadMagic { what: WHAT, found });
    };
    let (guarded, stored) = bytes
        .split_last_chunk::<4>()
        .expect("because nothing sealed is shorter");
    let (stored, computed) = (u32::from_le_bytes(*stored), crc32fast::hash(guarded));
    match stored == computed {
        true => Ok(rest),
        false => Err(Corruption::Checksum {
            what: WHAT,
            stored,
            computed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> JournalHead {
        JournalHead {
            delta: [1; 32],
            disk: (5, 7),
            block_size: BlockSize::MIN,
            rows: 3,
            saved: 2,
        }
    }

    #[test]
    fn the_parts_of_a_journal_read_back() {
        let bytes = head().encode();
        assert_eq!(bytes.len(), JournalHead::BYTES);
        assert_eq!(JournalHead::decode(&bytes), Ok(head()));
        assert!(JournalHead::may_begin_with(&bytes[..5]));
        assert!(!JournalHead::may_begin_with(b"#!/bin/sh"));
        let id = ChunkId::of(b"chunk");
        for row in [JournalRow::Block(BlockIndex::new(9)), JournalRow::Saved(1)] {
            assert_eq!(JournalRow::decode(&row.encode(&id), &head()), Ok((id, row)));
        }
        let (seal, mark) = (JournalSeal { hash: [3; 32] }, JournalMark { done: 1 << 40 });
        assert_eq!(JournalSeal::decode(&seal.encode()), Ok(seal));
        assert_eq!(JournalMark::decode(&mark.encode()), Ok(mark));
    }

    #[test]
    fn every_flipped_bit_of_head_seal_and_mark_is_an_error() {
        fn none_decodes<T>(good: &[u8], decode: impl Fn(&[u8]) -> Result<T, Corruption>) {
            for bit in 0..good.len() * 8 {
                let mut bad = good.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad).is_err(), "bit {bit} of {}", good.len());
            }
            assert!(decode(&good[1..]).is_err());
        }
        none_decodes(&head().encode(), JournalHead::decode);
        none_decodes(&JournalSeal { hash: [3; 32] }.encode(), JournalSeal::decode);
        none_decodes(&JournalMark { done: 4 }.encode(), JournalMark::decode);
        let row = JournalRow::Saved(2).encode(&ChunkId::of(b"chunk"));
        assert!(JournalRow::decode(&row, &head()).is_err(), "no such chunk");
    }
}

//! Layers: immutable block maps, full or over a parent (SPEC 6).

use crate::envelope::{self, Features, Kind};
use crate::image_record::checked_size;
use crate::{BlockSet, BlockSize, ChunkId, Corruption, Hex, IngestId, Structure};
use std::fmt;

const KIND: Kind = Kind {
    what: Structure::Layer,
    magic: *b"TGLAYER\n",
};
const WHAT: Structure = Structure::Layer;

/// Bytes of the id table that one checksum covers.
pub const LAYER_PAGE_BYTES: usize = 1 << 16;

/// The deepest stack a layer may lie on, itself included.
pub const LAYER_DEPTH_MAX: u32 = 1 << 16;

/// The bit of the mask to ignore that says [`LayerSummary::differs`].
const DIFFERS: u32 = 1;

const ID_CONTEXT: &str = "tegula 2026-11-22 layer id v1";

/// A layer's identity: the hash of its head, which holds the hashes of its parts. Also its file's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId([u8; 32]);

impl LayerId {
    /// Takes 32 bytes that were read for an id.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the hexadecimal form.
    pub fn parse(text: &str) -> Option<Self> {
        Hex::parse(text).map(Self)
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Body {
    ingest: [u8; 16],
    block_size_log2: u8,
    virtual_size: u64,
    parent: Option<[u8; 32]>,
    depth: u32,
    data_blocks: u64,
    zero_blocks: u64,
    data_length: u64,
    data_hash: [u8; 32],
    zero_length: u64,
    zero_hash: [u8; 32],
    pages_hash: [u8; 32],
    ids_hash: [u8; 32],
}

/// What a layer is, before its parts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSummary {
    /// The ingest that wrote it: what an unfinished one has written is known by it.
    pub ingest: IngestId,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The length of the image it maps, in bytes.
    pub virtual_size: u64,
    /// The layer below; a full layer has none.
    pub parent: Option<LayerId>,
    /// How many layers there are from this one down, itself included.
    pub depth: u32,
    /// How many blocks it sets.
    pub data_blocks: u64,
    /// How many blocks it zeroes.
    pub zero_blocks: u64,
    /// Whether its writer made sure that each block it sets holds another chunk than what lies below has there, and that
    /// this has a chunk wherever it zeroes. Says nothing of a full layer.
    pub differs: bool,
}

/// The head of a layer file: what it is, and where its parts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerHeader {
    /// What the layer is.
    pub summary: LayerSummary,
    body: Body,
    start: u64,
    id: LayerId,
}

impl LayerHeader {
    /// Reads the head of a layer file of `file_bytes`.
    ///
    /// # Errors
    /// [`Corruption`]; in particular if the parts do not fill the file exactly.
    pub fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, Corruption> {
        let (body, start, features): (Body, usize, _) =
            envelope::decode_with_features(KIND, 0, bytes)?;
        let id = id_of(bytes.get(..start).expect("because decode() read that many"));
        let summary = checked_summary(&body, features)?;
        let header = Self {
            summary,
            body,
            start: start as u64,
            id,
        };
        match header.ids_start().checked_add(header.ids_bytes()) {
            Some(end) if end == file_bytes => Ok(header),
            end => Err(Corruption::Truncated {
                what: WHAT,
                need: end.unwrap_or(u64::MAX),
                have: file_bytes,
            }),
        }
    }

    /// Returns the layer's identity.
    pub fn id(&self) -> LayerId {
        self.id
    }

    fn zero_start(&self) -> u64 {
        self.start.saturating_add(self.body.data_length)
    }

    fn pages_start(&self) -> u64 {
        self.zero_start().saturating_add(self.body.zero_length)
    }

    fn ids_start(&self) -> u64 {
        self.pages_start()
            .saturating_add(self.ids_bytes().div_ceil(LAYER_PAGE_BYTES as u64) * 4)
    }

    fn ids_bytes(&self) -> u64 {
        // At most 2^32 blocks, checked in checked_summary.
        self.body.data_blocks * 32
    }
}

fn checked_summary(body: &Body, features: Features) -> Result<LayerSummary, Corruption> {
    let field = |field, found, expected| {
        Err(Corruption::Field {
            what: WHAT,
            field,
            found,
            expected,
        })
    };
    let block_size = BlockSize::decode(body.block_size_log2, WHAT)?;
    checked_size(body.virtual_size, block_size, WHAT)?;
    let blocks = block_size.blocks_in(body.virtual_size);
    if body.data_blocks > blocks {
        return field(
            "data_blocks",
            body.data_blocks,
            "no more than the image has blocks",
        );
    }
    if body.zero_blocks > blocks - body.data_blocks {
        return field(
            "zero_blocks",
            body.zero_blocks,
            "no more than the blocks left",
        );
    }
    if body.parent.is_none() && body.zero_blocks > 0 {
        return field(
            "zero_blocks",
            body.zero_blocks,
            "0, as a full layer has nothing to zero",
        );
    }
    if body.depth > LAYER_DEPTH_MAX || body.parent.is_none() != (body.depth == 1) || body.depth == 0
    {
        return field(
            "depth",
            u64::from(body.depth),
            "1 for a full layer, more for a child",
        );
    }
    Ok(LayerSummary {
        ingest: IngestId::from_bytes(body.ingest),
        block_size,
        virtual_size: body.virtual_size,
        parent: body.parent.map(LayerId),
        depth: body.depth,
        data_blocks: body.data_blocks,
        zero_blocks: body.zero_blocks,
        differs: features.ignore & DIFFERS != 0,
    })
}

fn id_of(head: &[u8]) -> LayerId {
    LayerId(blake3::derive_key(ID_CONTEXT, head))
}

/// The parts a layer file is made of.
#[derive(Debug, Clone, Copy)]
pub struct LayerParts<'a> {
    /// The ingest that writes it. Makes every layer file another one, so that a layer about to be removed is never
    /// the one that somebody has just written.
    pub ingest: IngestId,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// The length of the image it maps, in bytes.
    pub virtual_size: u64,
    /// The layer below and how deep that one is.
    pub parent: Option<(LayerId, u32)>,
    /// The blocks it sets.
    pub data: &'a BlockSet,
    /// The blocks it zeroes; empty for a full layer.
    pub zero: &'a BlockSet,
    /// Whether all that it says is known to differ from what lies below: see [`LayerSummary::differs`].
    pub differs: bool,
}

/// What a layer's head says about its id table, summed up piece by piece: a table need not be in memory to be written.
#[derive(Debug, Clone, Default)]
pub struct LayerIds {
    bytes: u64,
    /// The checksums of the pages that are full.
    pages: Vec<u8>,
    /// The checksum of the page that is not, so far.
    page: crc32fast::Hasher,
    hash: blake3::Hasher,
}

impl LayerIds {
    /// Begins with an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sums up a whole table: ids of 32 bytes each, in block order.
    pub fn of(ids: &[u8]) -> Self {
        let mut sums = Self::new();
        sums.push(ids);
        sums
    }

    /// Adds the bytes of further ids.
    pub fn push(&mut self, mut ids: &[u8]) {
        self.hash.update(ids);
        while !ids.is_empty() {
            let room = LAYER_PAGE_BYTES as u64 - self.bytes % LAYER_PAGE_BYTES as u64;
            let room = usize::try_from(room).expect("because a page is short");
            let (piece, rest) = ids.split_at_checked(room).unwrap_or((ids, &[]));
            self.page.update(piece);
            self.bytes += piece.len() as u64;
            ids = rest;
            if piece.len() == room {
                let page = std::mem::take(&mut self.page).finalize();
                self.pages.extend_from_slice(&page.to_le_bytes());
            }
        }
    }

    /// Returns how many bytes the ids have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn pages(&self) -> Vec<u8> {
        let mut pages = self.pages.clone();
        if !self.bytes.is_multiple_of(LAYER_PAGE_BYTES as u64) {
            pages.extend_from_slice(&self.page.clone().finalize().to_le_bytes());
        }
        pages
    }
}

impl LayerParts<'_> {
    /// Begins the head of the layer's file: it has a length now, and bytes when the id table was gone through.
    ///
    /// # Panics
    /// If a block is both set and zeroed.
    pub fn begin_head(&self) -> LayerHead {
        assert!(
            self.data.is_disjoint(self.zero),
            "a block is set or zeroed, not both"
        );
        let data = self.data.encode();
        let zero = self.zero.encode();
        let body = Body {
            ingest: *self.ingest.as_bytes(),
            block_size_log2: self.block_size.log2(),
            virtual_size: self.virtual_size,
            parent: self.parent.map(|(id, _)| id.0),
            depth: self.parent.map_or(1, |(_, depth)| depth + 1),
            data_blocks: self.data.len(),
            zero_blocks: self.zero.len(),
            data_length: data.len() as u64,
            data_hash: *blake3::hash(&data).as_bytes(),
            zero_length: zero.len() as u64,
            zero_hash: *blake3::hash(&zero).as_bytes(),
            pages_hash: [0; 32],
            ids_hash: [0; 32],
        };
        let features = Features {
            ignore: if self.differs { DIFFERS } else { 0 },
            ..Features::default()
        };
        checked_summary(&body, features).expect("because the parts of a layer fit each other");
        LayerHead {
            body,
            features,
            bitmaps: [data, zero].concat(),
        }
    }
}

/// What stands in a layer's file before its id table, but for what is said there of that table.
#[derive(Debug)]
pub struct LayerHead {
    body: Body,
    features: Features,
    /// Both, as they stand in the file.
    bitmaps: Vec<u8>,
}

impl LayerHead {
    /// Returns how long it will be, in bytes.
    pub fn bytes(&self) -> usize {
        let pages = (self.body.data_blocks * 32).div_ceil(LAYER_PAGE_BYTES as u64);
        let pages = usize::try_from(pages).expect("because a table has at most 2^32 ids");
        // Hashes take the same room whatever they are.
        envelope::encode_with_features(KIND, self.features, &self.body).len()
            + self.bitmaps.len()
            + pages * 4
    }

    /// Returns the layer's identity, and the head with what it says of the id table.
    ///
    /// # Panics
    /// If there is not one id for each block that is set.
    pub fn finish(self, ids: &LayerIds) -> (LayerId, Vec<u8>) {
        assert_eq!(
            ids.bytes,
            self.body.data_blocks * 32,
            "one id for each block that is set"
        );
        let pages = ids.pages();
        let body = Body {
            pages_hash: *blake3::hash(&pages).as_bytes(),
            ids_hash: *ids.hash.finalize().as_bytes(),
            ..self.body
        };
        let head = envelope::encode_with_features(KIND, self.features, &body);
        (id_of(&head), [head, self.bitmaps, pages].concat())
    }
}

/// A layer over its file's bytes, usually a memory map.
#[derive(Debug, Clone, Copy)]
pub struct LayerSections<'a> {
    header: LayerHeader,
    data: &'a [u8],
    zero: &'a [u8],
    pages: &'a [u8],
    ids: &'a [u8],
}

impl<'a> LayerSections<'a> {
    /// Splits the bytes of a whole file by its head. Checks no content.
    ///
    /// # Errors
    /// [`Corruption::Truncated`] if `bytes` are not the whole file the head was read from.
    pub fn new(header: LayerHeader, bytes: &'a [u8]) -> Result<Self, Corruption> {
        let slice = |start: u64, end: u64| {
            bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        let end = header.ids_start() + header.ids_bytes();
        let parts = || {
            Some(Self {
                header,
                data: slice(header.start, header.zero_start())?,
                zero: slice(header.zero_start(), header.pages_start())?,
                pages: slice(header.pages_start(), header.ids_start())?,
                ids: slice(header.ids_start(), end)?,
            })
        };
        parts().ok_or(Corruption::Truncated {
            what: WHAT,
            need: end,
            have: bytes.len() as u64,
        })
    }

    /// Returns the blocks the layer sets, after checking their hash.
    ///
    /// # Errors
    /// [`Corruption`] if hash, serialization, limits or count are wrong.
    pub fn data(&self) -> Result<BlockSet, Corruption> {
        let body = &self.header.body;
        self.block_set(
            self.data,
            &body.data_hash,
            body.data_blocks,
            "the bitmap of set blocks",
        )
    }

    /// Returns the blocks the layer zeroes, after checking their hash.
    ///
    /// # Errors
    /// As for [`Self::data`].
    pub fn zero(&self) -> Result<BlockSet, Corruption> {
        let body = &self.header.body;
        self.block_set(
            self.zero,
            &body.zero_hash,
            body.zero_blocks,
            "the bitmap of zeroed blocks",
        )
    }

    fn block_set(
        &self,
        bytes: &[u8],
        hash: &[u8; 32],
        count: u64,
        part: &'static str,
    ) -> Result<BlockSet, Corruption> {
        if blake3::hash(bytes).as_bytes() != hash {
            return Err(Corruption::Hash { what: WHAT, part });
        }
        let summary = &self.header.summary;
        let set = BlockSet::decode(
            bytes,
            summary.block_size.blocks_in(summary.virtual_size),
            WHAT,
        )?;
        match set.len() == count {
            true => Ok(set),
            false => Err(Corruption::Field {
                what: WHAT,
                field: part,
                found: set.len(),
                expected: "as many as stated",
            }),
        }
    }

    /// Returns the chunk id at `position` of the id table, or `None` past its end. Not checked: see
    /// [`Self::verify_page`].
    pub fn id(&self, position: u64) -> Option<ChunkId> {
        let start = usize::try_from(position).ok()?.checked_mul(32)?;
        self.ids
            .get(start..)?
            .first_chunk()
            .copied()
            .map(ChunkId::from_bytes)
    }

    /// Returns how many pages the id table has.
    pub fn pages(&self) -> usize {
        self.ids.len().div_ceil(LAYER_PAGE_BYTES)
    }

    /// Checks the page checksums themselves, which [`Self::verify_page`] believes: 4 bytes for each 64 KiB of ids.
    ///
    /// # Errors
    /// [`Corruption::Hash`].
    pub fn verify_page_checksums(&self) -> Result<(), Corruption> {
        match *blake3::hash(self.pages).as_bytes() == self.header.body.pages_hash {
            true => Ok(()),
            false => Err(Corruption::Hash {
                what: WHAT,
                part: "the page checksums",
            }),
        }
    }

    /// Checks one page of the id table against its checksum; the page of `position` is `position / 2048`.
    ///
    /// # Errors
    /// [`Corruption::Checksum`].
    pub fn verify_page(&self, page: usize) -> Result<(), Corruption> {
        let stored = self
            .pages
            .chunks_exact(4)
            .nth(page)
            .and_then(|bytes| bytes.first_chunk());
        let (Some(bytes), Some(stored)) = (self.ids.chunks(LAYER_PAGE_BYTES).nth(page), stored)
        else {
            let have = self.pages() as u64;
            return Err(Corruption::Truncated {
                what: WHAT,
                need: page as u64 + 1,
                have,
            });
        };
        let (stored, computed) = (u32::from_le_bytes(*stored), crc32fast::hash(bytes));
        if stored != computed {
            return Err(Corruption::Checksum {
                what: WHAT,
                stored,
                computed,
            });
        }
        Ok(())
    }

    /// Checks everything: bitmaps, their disjointness, page checksums, ids.
    ///
    /// # Errors
    /// The first [`Corruption`] found.
    pub fn verify(&self) -> Result<(), Corruption> {
        if !self.data()?.is_disjoint(&self.zero()?) {
            let found = self.header.summary.zero_blocks;
            return Err(Corruption::Field {
                what: WHAT,
                field: "zeroed blocks",
                found,
                expected: "none that is set",
            });
        }
        self.verify_page_checksums()?;
        (0..self.pages()).try_for_each(|page| self.verify_page(page))?;
        if *blake3::hash(self.ids).as_bytes() != self.header.body.ids_hash {
            return Err(Corruption::Hash {
                what: WHAT,
                part: "the chunk ids",
            });
        }
        Ok(())
    }

    /// Returns the id table: 32 bytes for each block that is set.
    pub fn ids(&self) -> &'a [u8] {
        self.ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockIndex;

    fn whole(parts: LayerParts<'_>, ids: &[u8]) -> (LayerId, Vec<u8>) {
        let head = parts.begin_head();
        let length = head.bytes();
        let (id, head) = head.finish(&LayerIds::of(ids));
        assert_eq!(head.len(), length);
        (id, [&head, ids].concat())
    }

    fn layer(parent: Option<(LayerId, u32)>) -> (LayerId, Vec<u8>) {
        let ingest = IngestId::from_bytes([8; 16]);
        let data: BlockSet = [0, 3, 4].map(BlockIndex::new).into_iter().collect();
        let zero: BlockSet = parent.iter().map(|_| BlockIndex::new(7)).collect();
        let ids: Vec<u8> = (0..3u8)
            .flat_map(|n| *ChunkId::of(&[n]).as_bytes())
            .collect();
        let (block_size, virtual_size) = (BlockSize::MIN, 4096 * 9 - 5);
        let parts = LayerParts {
            ingest,
            block_size,
            virtual_size,
            parent,
            data: &data,
            zero: &zero,
            differs: parent.is_some(),
        };
        whole(parts, &ids)
    }

    fn read(bytes: &[u8]) -> Result<(LayerHeader, Option<ChunkId>), Corruption> {
        let header = LayerHeader::decode(bytes, bytes.len() as u64)?;
        let sections = LayerSections::new(header, bytes)?;
        sections.verify()?;
        Ok((header, sections.id(2)))
    }

    #[test]
    fn a_layer_reads_back_and_knows_its_id() {
        for parent in [None, Some((LayerId::from_bytes([9; 32]), 4))] {
            let (id, bytes) = layer(parent);
            let (header, third) = read(&bytes).unwrap();
            assert_eq!(header.id(), id);
            assert_eq!(third, Some(ChunkId::of(&[2])));
            assert_eq!(header.summary.depth, parent.map_or(1, |_| 5));
            assert_eq!(header.summary.parent, parent.map(|(id, _)| id));
            assert_eq!(header.summary.differs, parent.is_some());
            assert_eq!(
                (header.summary.data_blocks, header.summary.virtual_size),
                (3, 4096 * 9 - 5)
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_found_or_makes_another_layer() {
        let (id, good) = layer(Some((LayerId::from_bytes([9; 32]), 1)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                read(&bad).map_or(true, |(header, _)| header.id() != id),
                "bit {bit}"
            );
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_long_id_table_is_checked_page_by_page() {
        let mut data = BlockSet::new();
        data.insert_range(0..5000);
        let ids: Vec<u8> = (0..5000u32)
            .flat_map(|n| *ChunkId::of(&n.to_le_bytes()).as_bytes())
            .collect();
        let mut sums = LayerIds::new();
        // However the table comes in: a head that was summed up in pieces is the same head.
        ids.chunks(1000).for_each(|piece| sums.push(piece));
        let parts = LayerParts {
            ingest: IngestId::from_bytes([8; 16]),
            block_size: BlockSize::MIN,
            virtual_size: 5000 << 12,
            parent: None,
            data: &data,
            zero: &BlockSet::new(),
            differs: false,
        };
        let at_once = LayerIds::of(&ids);
        let head = |ids| parts.begin_head().finish(ids);
        assert_eq!(head(&at_once), head(&sums));
        let (_, mut bytes) = whole(parts, &ids);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let header = LayerHeader::decode(&bytes, bytes.len() as u64).unwrap();
        let sections = LayerSections::new(header, &bytes).unwrap();
        let sound: Vec<_> = (0..sections.pages())
            .map(|page| sections.verify_page(page).is_ok())
            .collect();
        assert_eq!(sound, [true, true, false]);
    }
}

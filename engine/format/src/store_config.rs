//! What a store was made with (SPEC 3).

use crate::envelope::{self, Features, Kind};
use crate::{BlockSize, ChunkRules, Corruption, Hex, Structure};
use std::fmt;

const KIND: Kind = Kind {
    what: Structure::StoreConfig,
    magic: *b"TGSTORE\n",
};

/// The lowest zstd level a store may be given.
pub const ZSTD_LEVEL_MIN: i32 = -7;
/// The highest zstd level a store may be given.
pub const ZSTD_LEVEL_MAX: i32 = 19;

/// The bit of the refuse mask that says that chunks may be frames with other chunks as their prefix.
const PREFIX_FRAMES: u32 = 1;

/// The bit of the ignore mask that says that the store has a copy of this file.
const HAS_COPY: u32 = 1;

/// A store's random identity. Segments carry it, so that one cannot stray into another store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Takes 16 random bytes for an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({self})")
    }
}

/// The configuration of a store. Written once, and a second time beside it; never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreConfig {
    /// Which store this is.
    pub id: StoreId,
    /// The block size of every image in it.
    pub block_size: BlockSize,
    /// The zstd level new chunks are compressed at.
    pub zstd_level: i32,
    /// Whether chunks may be stored as frames that have other chunks as their prefix.
    pub prefix_frames: bool,
    /// Whether the store was made with a copy of its configuration: one that is missing is then a loss.
    pub has_copy: bool,
    /// When it was made, microseconds since 1970-01-01 UTC.
    pub created_at_us: i64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    id: [u8; 16],
    block_size_log2: u8,
    zstd_level: i32,
    created_at_us: i64,
}

impl StoreConfig {
    /// Returns what chunks of this store are held against.
    pub fn chunk_rules(&self) -> ChunkRules {
        ChunkRules {
            block_size: self.block_size,
            prefix_frames: self.prefix_frames,
        }
    }

    /// Returns the bytes of the configuration file.
    pub fn encode(&self) -> Vec<u8> {
        let body = Body {
            id: self.id.0,
            block_size_log2: self.block_size.log2(),
            zstd_level: self.zstd_level,
            created_at_us: self.created_at_us,
        };
        let features = Features {
            refuse: if self.prefix_frames { PREFIX_FRAMES } else { 0 },
            ignore: if self.has_copy { HAS_COPY } else { 0 },
        };
        envelope::encode_with_features(KIND, features, &body)
    }

    /// Reads the configuration file.
    ///
    /// # Errors
    /// Whatever is wrong with it; see [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let (body, features): (Body, _) =
            envelope::decode_whole_with_features(KIND, PREFIX_FRAMES, bytes)?;
        if !(ZSTD_LEVEL_MIN..=ZSTD_LEVEL_MAX).contains(&body.zstd_level) {
            return Err(Corruption::Field {
                what: KIND.what,
                field: "zstd_level",
                found: u64::from(body.zstd_level.cast_unsigned()),
                expected: "-7 to 19",
            });
        }
        Ok(Self {
            id: StoreId(body.id),
            block_size: BlockSize::decode(body.block_size_log2, KIND.what)?,
            zstd_level: body.zstd_level,
            prefix_frames: features.refuse & PREFIX_FRAMES != 0,
            has_copy: features.ignore & HAS_COPY != 0,
            created_at_us: body.created_at_us,
        })
    }
}

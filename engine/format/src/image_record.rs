//! The record that makes an image exist (SPEC 7).

use crate::envelope::{self, Kind};
use crate::{BlockSize, Corruption, Hex, ImageDigest, ImageName, LayerId, Structure};
use std::fmt;

const KIND: Kind = Kind {
    what: Structure::ImageRecord,
    magic: *b"TGIMAGE\n",
};

/// The random identity of one state of an image: renaming, replacing or coalescing makes a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// Takes 16 random bytes for an id.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

/// Where an image came from. Shown to people; no read and no deletion depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentReference {
    /// The parent's name at that time.
    pub name: ImageName,
    /// The parent's content.
    pub digest: ImageDigest,
}

/// An image: its name, its content, the layer that maps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// This state of the image.
    pub id: RecordId,
    /// Its name. Also the name of the file, so that swapped files are noticed.
    pub name: ImageName,
    /// Its length in bytes.
    pub virtual_size: u64,
    /// The size of its blocks.
    pub block_size: BlockSize,
    /// Its content.
    pub digest: ImageDigest,
    /// Its newest layer.
    pub layer: LayerId,
    /// Where it came from.
    pub parent: Option<ParentReference>,
    /// The record this one takes the place of, under another name: a rename is done once this record stands,
    /// whether or not the old file is gone yet.
    pub supersedes: Option<RecordId>,
    /// How many blocks hold data.
    pub data_blocks: u64,
    /// When it was put, microseconds since 1970-01-01 UTC.
    pub created_at_us: i64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Body {
    id: [u8; 16],
    name: String,
    virtual_size: u64,
    block_size_log2: u8,
    digest: [u8; 32],
    layer: [u8; 32],
    parent: Option<Parent>,
    supersedes: Option<[u8; 16]>,
    data_blocks: u64,
    created_at_us: i64,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Parent {
    name: String,
    digest: [u8; 32],
}

impl ImageRecord {
    /// Returns the bytes of the record's file.
    pub fn encode(&self) -> Vec<u8> {
        let parent = self.parent.as_ref().map(|parent| Parent {
            name: parent.name.as_str().to_owned(),
            digest: *parent.digest.as_bytes(),
        });
        let body = Body {
            id: self.id.0,
            name: self.name.as_str().to_owned(),
            virtual_size: self.virtual_size,
            block_size_log2: self.block_size.log2(),
            digest: *self.digest.as_bytes(),
            layer: *self.layer.as_bytes(),
            parent,
            supersedes: self.supersedes.map(|id| id.0),
            data_blocks: self.data_blocks,
            created_at_us: self.created_at_us,
        };
        envelope::encode(KIND, &body)
    }

    /// Tells whether bytes begin as a record does, however damaged what follows may be.
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        bytes.starts_with(&KIND.magic)
    }

    /// Reads a record's file.
    ///
    /// # Errors
    /// Whatever is wrong with it; see [`Corruption`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Corruption> {
        let body: Body = envelope::decode_whole(KIND, bytes)?;
        let block_size = BlockSize::decode(body.block_size_log2, KIND.what)?;
        checked_size(body.virtual_size, block_size, KIND.what)?;
        if body.data_blocks > block_size.blocks_in(body.virtual_size) {
            return Err(Corruption::Field {
                what: KIND.what,
                field: "data_blocks",
                found: body.data_blocks,
                expected: "no more than the image has blocks",
            });
        }
        let parent = body.parent.map(|parent| {
            Ok::<_, Corruption>(ParentReference {
                name: parsed_name(&parent.name)?,
                digest: ImageDigest::from_bytes(parent.digest),
            })
        });
        Ok(Self {
            id: RecordId(body.id),
            name: parsed_name(&body.name)?,
            virtual_size: body.virtual_size,
            block_size,
            digest: ImageDigest::from_bytes(body.digest),
            layer: LayerId::from_bytes(body.layer),
            parent: parent.transpose()?,
            supersedes: body.supersedes.map(RecordId),
            data_blocks: body.data_blocks,
            created_at_us: body.created_at_us,
        })
    }
}

/// Refuses a virtual size that blocks of that size cannot cover.
pub(crate) fn checked_size(
    virtual_size: u64,
    block_size: BlockSize,
    what: Structure,
) -> Result<(), Corruption> {
    if virtual_size > block_size.image_bytes_max() {
        let expected = "no more than 2^32 blocks and 2^60 bytes";
        return Err(Corruption::Field {
            what,
            field: "virtual_size",
            found: virtual_size,
            expected,
        });
    }
    Ok(())
}

fn parsed_name(text: &str) -> Result<ImageName, Corruption> {
    ImageName::parse(text).map_err(|error| Corruption::Body {
        what: KIND.what,
        reason: error.to_string(),
    })
}

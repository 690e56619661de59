//! An image's record as JSON: the fields that every command shows by the same names.

use serde::Serialize;
use tegula_engine::ImageRecord;

/// An image.
#[derive(Debug, Serialize)]
pub(crate) struct RecordFields {
    pub(crate) name: String,
    pub(crate) virtual_size: u64,
    pub(crate) block_size: u32,
    pub(crate) digest: String,
    pub(crate) parent: Option<String>,
    pub(crate) parent_digest: Option<String>,
    pub(crate) data_blocks: u64,
    pub(crate) zero_blocks: u64,
    pub(crate) created_at: String,
}

impl From<&ImageRecord> for RecordFields {
    fn from(record: &ImageRecord) -> Self {
        let parent = record.parent.as_ref();
        Self {
            name: record.name.to_string(),
            virtual_size: record.virtual_size,
            block_size: record.block_size.bytes(),
            digest: record.digest.to_string(),
            parent: parent.map(|parent| parent.name.to_string()),
            parent_digest: parent.map(|parent| parent.digest.to_string()),
            data_blocks: record.data_blocks,
            zero_blocks: record.block_size.blocks_in(record.virtual_size) - record.data_blocks,
            created_at: crate::units::moment(record.created_at_us),
        }
    }
}

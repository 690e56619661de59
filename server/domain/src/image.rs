//! An image: what the catalog knows about it.

use crate::{IllegalTransition, ImageId, ImageStatus, Location, Timestamp, Visibility};
use std::collections::{BTreeMap, BTreeSet};

/// A digest of an image's bytes, besides the MD5 checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHash {
    /// The name of the function: `sha512`, `sha256`, …
    pub algorithm: String,
    /// The digest, in lower-case hexadecimal.
    pub value: String,
}

/// What an image is an increment of, and what the engine says of it (Images API extension, lineage).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The image it was made from.
    pub parent: Option<ImageId>,
    /// Bytes that its blocks take up beside those of the parent.
    pub delta_bytes: Option<u64>,
    /// How many ancestors its layers stand on.
    pub chain_depth: Option<u32>,
    /// The image digest of the engine: `blake3-tree:64k:HEX`.
    pub tree_hash: Option<String>,
}

/// An image, as the catalog keeps it. Who may see what of it is not its business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id, never used again for another.
    pub id: ImageId,
    /// Its name; many may have the same.
    pub name: Option<String>,
    /// Its state.
    pub status: ImageStatus,
    /// Who may find it.
    pub visibility: Visibility,
    /// Whether it must not be deleted.
    pub protected: bool,
    /// Whether it stays out of lists that do not ask for hidden images.
    pub hidden: bool,
    /// The MD5 of its bytes, in lower-case hexadecimal.
    pub checksum: Option<String>,
    /// Another digest of its bytes.
    pub hash: Option<ContentHash>,
    /// The project it belongs to.
    pub owner: Option<String>,
    /// The length of its bytes.
    pub size: Option<u64>,
    /// The length of the disk in it.
    pub virtual_size: Option<u64>,
    /// The format of the disk.
    pub disk_format: Option<String>,
    /// The format of what the disk comes in.
    pub container_format: Option<String>,
    /// Memory that a machine needs to run it, in MiB.
    pub min_ram: u32,
    /// Disk that a machine needs to run it, in GiB.
    pub min_disk: u32,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its properties besides those above, by name. Kept whole whoever saves it: what a caller may not see is hidden when it
    /// is shown, never taken away here.
    pub properties: BTreeMap<String, String>,
    /// Where its bytes are.
    pub locations: Vec<Location>,
    /// What it is an increment of.
    pub lineage: Lineage,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// How often it was saved: what a compare-and-set compares.
    pub version: u64,
}

/// What the maker of an image says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewImage {
    /// The id it wants.
    pub id: Option<ImageId>,
    /// Its name.
    pub name: Option<String>,
    /// Who may find it; shared if not said.
    pub visibility: Option<Visibility>,
    /// Whether it must not be deleted.
    pub protected: bool,
    /// Whether it stays out of lists.
    pub hidden: bool,
    /// The project it is to belong to; the caller's if not said.
    pub owner: Option<Option<String>>,
    /// The format of the disk.
    pub disk_format: Option<String>,
    /// The format of what the disk comes in.
    pub container_format: Option<String>,
    /// Memory that a machine needs, in MiB.
    pub min_ram: u32,
    /// Disk that a machine needs, in GiB.
    pub min_disk: u32,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its other properties.
    pub properties: BTreeMap<String, String>,
    /// The image it is an increment of.
    pub parent: Option<ImageId>,
}

impl Image {
    /// Moves the image to another state. Entering [`ImageStatus::Queued`] forgets what was known of its bytes.
    ///
    /// # Errors
    /// [`IllegalTransition`], and the image is as it was.
    pub fn transition(&mut self, to: ImageStatus) -> Result<(), IllegalTransition> {
        self.status = self.status.become_(to)?;
        if to == ImageStatus::Queued {
            self.size = None;
            self.virtual_size = None;
            self.checksum = None;
            self.hash = None;
            self.locations.clear();
            self.lineage = Lineage {
                parent: self.lineage.parent.take(),
                ..Lineage::default()
            };
        }
        Ok(())
    }

    /// Whether both formats are known: what an image needs before its bytes may come.
    pub const fn has_formats(&self) -> bool {
        self.disk_format.is_some() && self.container_format.is_some()
    }
}

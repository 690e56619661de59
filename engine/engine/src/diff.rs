//! What differs between two images.

use crate::{EngineError, OpenImage};
use tegula_format::{BlockIndex, ChunkId, ImageDigest};

/// What a range of the newer image holds, where it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes.
    Data,
    /// Zeros, where the base has bytes.
    Zero,
}

/// A range in which two images differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// What the newer image holds there.
    pub kind: ExtentKind,
}

/// What turns one image into another: its length, then these extents. Ascending, none touching another of its kind,
/// none past the newer image's end. What the newer image has past the base's end and no extent names reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The base's digest: by it whoever gets the list knows to what it applies.
    pub base_digest: ImageDigest,
    /// The newer image's digest.
    pub digest: ImageDigest,
    /// The base's length in bytes.
    pub base_size: u64,
    /// The newer image's length in bytes.
    pub size: u64,
    /// Where they differ.
    pub extents: Vec<Extent>,
}

impl Diff {
    /// Returns how many bytes all extents have together.
    pub fn changed_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }
}

/// Compares two images, related or not. Reads no chunk: related images cost what their own layers hold, unrelated
/// ones a look at every id.
pub(crate) fn diff(base: &OpenImage<'_>, image: &OpenImage<'_>) -> Result<Diff, EngineError> {
    let mut extents = Extents {
        image,
        list: Vec::new(),
    };
    walk(base, image, |block, chunk| {
        extents.push(block, kind_of(chunk));
        Ok(())
    })?;
    let (base_size, size) = (base.record().virtual_size, image.record().virtual_size);
    Ok(Diff {
        base_digest: base.record().digest,
        digest: image.record().digest,
        base_size,
        size,
        extents: extents.list,
    })
}

pub(crate) fn kind_of(chunk: Option<ChunkId>) -> ExtentKind {
    match chunk {
        Some(_) => ExtentKind::Data,
        None => ExtentKind::Zero,
    }
}

/// Names every block of the image in which it differs from the base, ascending, with the chunk it holds; with nothing,
/// if it reads as zeros and the base has a chunk there.
pub(crate) fn walk(
    base: &OpenImage<'_>,
    image: &OpenImage<'_>,
    mut each: impl FnMut(BlockIndex, Option<ChunkId>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let block_count = image.stack().block_count();
    let mut candidates = base.stack().may_differ(image.stack());
    candidates.truncate(block_count);
    let ours = image.stack().chunks_of(&candidates);
    let theirs = base.stack().chunks_of(&candidates);
    for (ours, theirs) in ours.zip(theirs) {
        let ((block, ours), (_, theirs)) = (ours?, theirs?);
        if ours != theirs {
            each(block, ours)?;
        }
    }
    Ok(())
}

struct Extents<'a> {
    image: &'a OpenImage<'a>,
    list: Vec<Extent>,
}

impl Extents<'_> {
    /// Adds a block, cut at the image's end.
    fn push(&mut self, block: BlockIndex, kind: ExtentKind) {
        let record = self.image.record();
        let offset = block.byte_offset(record.block_size);
        let end = record
            .virtual_size
            .min(offset + u64::from(record.block_size.bytes()));
        match self.list.last_mut() {
            Some(last) if last.kind == kind && last.offset + last.length == offset => {
                last.length += end - offset
            }
            _ => self.list.push(Extent {
                offset,
                length: end - offset,
                kind,
            }),
        }
    }
}

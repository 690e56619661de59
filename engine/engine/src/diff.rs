//! What differs between two images.

use crate::{EngineError, OpenImage};
use tegula_format::{Blocks, ImageDigest};

/// What a range of the newer image holds, where it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes.
    Data,
    /// Zeros, where the base has bytes.
    Zero,
}

impl ExtentKind {
    /// Returns the kind of blocks that hold chunks, or of those that do not.
    pub(crate) fn of(has_data: bool) -> Self {
        match has_data {
            true => Self::Data,
            false => Self::Zero,
        }
    }
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
    let difference = image.stack().difference(base.stack())?;
    let runs = difference.runs().into_iter();
    let extents = runs.map(|(run, has_data)| extent(run, has_data, image));
    let extents = extents.collect();
    let (base_size, size) = (base.record().virtual_size, image.record().virtual_size);
    Ok(Diff {
        base_digest: base.record().digest,
        digest: image.record().digest,
        base_size,
        size,
        extents,
    })
}

/// Returns where a run of blocks is, cut at the image's end.
fn extent(run: Blocks, has_data: bool, image: &OpenImage<'_>) -> Extent {
    let record = image.record();
    let log2 = record.block_size.log2();
    let offset = run.start << log2;
    Extent {
        offset,
        length: (run.end << log2).min(record.virtual_size) - offset,
        kind: ExtentKind::of(has_data),
    }
}

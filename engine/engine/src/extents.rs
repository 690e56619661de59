//! What an image holds, or in what it differs from another, a page at a time: for whoever asks over a wire.

use crate::{EngineError, Extent, ExtentKind, OpenImage};
use std::ops::Range;
use tegula_format::{BlockSize, ImageDigest};

/// Blocks that are compared at once, to begin with.
const COMPARED_FIRST: u64 = 1 << 18;

/// Which part of the list of extents is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentWindow {
    /// Where it begins, in bytes of the image; not necessarily where a block does.
    pub offset: u64,
    /// How many extents it may have; at least 1.
    pub limit: usize,
    /// Only extents of this kind; `None` for both.
    pub only: Option<ExtentKind>,
}

/// A part of the list of extents. With a base these are where the image differs from it; past the base's end all of the
/// image is named, as it is. Without one they are all of the image.
///
/// Ascending, none touching another of its kind, none past the image's end. Asked from `next` on, the list continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentPage {
    /// The image's digest.
    pub digest: ImageDigest,
    /// The image's length in bytes.
    pub size: u64,
    /// The digest of what it is compared with.
    pub base_digest: Option<ImageDigest>,
    /// Its length in bytes.
    pub base_size: Option<u64>,
    /// The size of the blocks that are compared: no extent is cut finer, but at the window's and the image's ends.
    pub block_size: BlockSize,
    /// The extents that begin in this part.
    pub extents: Vec<Extent>,
    /// Where the next part begins; `None` if there is none.
    pub next: Option<u64>,
}

/// Lists extents. Reads no chunk.
pub(crate) fn extents(
    base: Option<&OpenImage<'_>>,
    image: &OpenImage<'_>,
    window: ExtentWindow,
) -> Result<ExtentPage, EngineError> {
    let record = image.record();
    let mut page = Page {
        extents: Vec::new(),
        next: None,
        window,
        size: record.virtual_size,
        block_size: record.block_size,
    };
    let blocks = page.first_block()..record.block_size.blocks_in(record.virtual_size);
    match base {
        None => page.all_of(image, blocks),
        Some(base) => page.differing(base, image, blocks)?,
    }
    let base = base.map(OpenImage::record);
    Ok(ExtentPage {
        digest: record.digest,
        size: record.virtual_size,
        base_digest: base.map(|base| base.digest),
        base_size: base.map(|base| base.virtual_size),
        block_size: record.block_size,
        extents: page.extents,
        next: page.next,
    })
}

struct Page {
    extents: Vec<Extent>,
    next: Option<u64>,
    window: ExtentWindow,
    size: u64,
    block_size: BlockSize,
}

impl Page {
    fn first_block(&self) -> u64 {
        match self.window.offset < self.size {
            true => u64::from(self.block_size.block_at(self.window.offset).get()),
            false => self.block_size.blocks_in(self.size),
        }
    }

    /// Adds blocks of one kind. Tells whether there may be more.
    fn push(&mut self, blocks: Range<u64>, kind: ExtentKind) -> bool {
        if self.window.only.is_some_and(|only| only != kind) || blocks.is_empty() {
            return true;
        }
        let log2 = self.block_size.log2();
        let offset = (blocks.start << log2).max(self.window.offset);
        let end = (blocks.end << log2).min(self.size);
        let full = self.extents.len() >= self.window.limit.max(1);
        match self.extents.last_mut() {
            Some(last) if last.kind == kind && last.offset + last.length == offset => {
                last.length += end - offset;
            }
            _ if full => {
                self.next = Some(offset);
                return false;
            }
            _ => self.extents.push(Extent {
                offset,
                length: end - offset,
                kind,
            }),
        }
        true
    }

    /// Names blocks as they are in the image.
    fn all_of(&mut self, image: &OpenImage<'_>, blocks: Range<u64>) {
        let data = image.stack().data();
        let mut next = blocks.start;
        for run in data.runs_in(blocks.clone()) {
            let zeros = next..run.start;
            next = run.end;
            if !self.push(zeros, ExtentKind::Zero) || !self.push(run, ExtentKind::Data) {
                return;
            }
        }
        self.push(next..blocks.end, ExtentKind::Zero);
    }

    /// Names blocks in which the image differs from the base.
    fn differing(
        &mut self,
        base: &OpenImage<'_>,
        image: &OpenImage<'_>,
        blocks: Range<u64>,
    ) -> Result<(), EngineError> {
        let base_blocks = self.block_size.blocks_in(base.record().virtual_size);
        let shared = blocks.start..blocks.end.min(base_blocks).max(blocks.start);
        // A page may be full soon: so ever longer parts are compared.
        let (mut next, mut length) = (shared.start, COMPARED_FIRST);
        while next < shared.end {
            let part = next..shared.end.min(next.saturating_add(length));
            let difference = image.stack().difference_in(base.stack(), part.clone())?;
            for (run, has_data) in difference.runs() {
                if !self.push(run, ExtentKind::of(has_data)) {
                    return Ok(());
                }
            }
            (next, length) = (part.end, length.saturating_mul(2));
        }
        self.all_of(image, shared.end..blocks.end);
        Ok(())
    }
}

//! What a put does with a disk, step by step: holes are stepped over, what the parent has is taken over whole blocks at
//! a time, the rest is read in batches.
//!
//! A block that is inherited in part is made whole here: read from the source if that can be, else put together from
//! the parent's block and the source's own pieces.

use crate::source::{BlockSource, Content, SourceExtent};
use std::io;
use tegula_format::{BlockIndex, BlockSet, BlockSize};

/// How many bytes one step of work reads and hashes.
pub(crate) const BATCH_BYTES: usize = 512 << 10;

/// Consecutive blocks to be read from a disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DiskBatch {
    pub(crate) first: BlockIndex,
    /// Whole blocks, or as much of the last one as the disk has.
    pub(crate) bytes: u64,
    /// Which parts come from where, if not all is to be read from the source: then it is one block, and what lies
    /// between the parts is zeros.
    pub(crate) parts: Option<Vec<SourceExtent>>,
}

/// How a disk is put over its parent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkPlan {
    pub(crate) block_size: BlockSize,
    /// The parent's length in bytes, if there is one.
    pub(crate) parent_bytes: Option<u64>,
}

/// Walks a disk from its first block to its last.
#[derive(Debug)]
pub(crate) struct DiskWalk<'a> {
    disk: &'a dyn BlockSource,
    plan: WalkPlan,
    virtual_size: u64,
    /// Everything before is done; a multiple of the block size, or the end.
    next: u64,
    /// The extent being walked; not before `next`, but for its beginning.
    extent: Option<SourceExtent>,
    /// Blocks that are the parent's as a whole.
    inherited: BlockSet,
}

impl<'a> DiskWalk<'a> {
    pub(crate) fn new(disk: &'a dyn BlockSource, plan: WalkPlan) -> Self {
        Self {
            disk,
            plan,
            virtual_size: disk.bytes(),
            next: 0,
            extent: None,
            inherited: BlockSet::new(),
        }
    }

    /// Returns where the walk stands, in bytes.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// Returns the blocks that need not be looked at: those that are the parent's. To be asked at the end.
    pub(crate) fn into_inherited(self) -> BlockSet {
        self.inherited
    }

    /// Returns the next blocks to be read; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> io::Result<Option<DiskBatch>> {
        let block = u64::from(self.plan.block_size.bytes());
        while let Some(extent) = self.extent_at(self.next)? {
            self.next = self.next.max(extent.range.start / block * block);
            // All that this extent alone decides: whole blocks, and the last one if it reaches the end.
            let whole = match extent.range.end {
                end if end >= self.virtual_size => self.virtual_size,
                end => end / block * block,
            };
            match extent.content {
                Content::Data if self.reads_all() => {
                    let end = extent.range.end.div_ceil(block).saturating_mul(block);
                    return Ok(Some(self.batch(end)));
                }
                Content::Data if extent.range.start <= self.next && whole > self.next => {
                    return Ok(Some(self.batch(whole)));
                }
                Content::Inherited if extent.range.start <= self.next => {
                    let whole = self.without_cut_tail(whole);
                    if whole <= self.next {
                        return self.mixed_block().map(Some);
                    }
                    self.inherit(whole);
                }
                _ => return self.mixed_block().map(Some),
            }
        }
        self.next = self.virtual_size;
        Ok(None)
    }

    /// Tells whether every block that is not inherited as a whole is read from the source.
    fn reads_all(&self) -> bool {
        self.disk.overlay_of().is_none()
    }

    /// Takes off the last block if the parent has bytes in it past this disk's end: then it is not the parent's block.
    fn without_cut_tail(&self, end: u64) -> u64 {
        let block = u64::from(self.plan.block_size.bytes());
        match self.plan.parent_bytes {
            Some(parent) if end == self.virtual_size && parent > end => end / block * block,
            _ => end,
        }
    }

    fn inherit(&mut self, end: u64) {
        let block = u64::from(self.plan.block_size.bytes());
        self.inherited
            .insert_range(self.next / block..end.div_ceil(block));
        self.next = end;
    }

    /// Returns a batch from here to `end` at most.
    fn batch(&mut self, end: u64) -> DiskBatch {
        let block = u64::from(self.plan.block_size.bytes());
        let end = end
            .min(self.next + (BATCH_BYTES as u64).max(block))
            .min(self.virtual_size);
        let batch = DiskBatch {
            first: self.plan.block_size.block_at(self.next),
            bytes: end - self.next,
            parts: None,
        };
        self.next = end;
        batch
    }

    /// Returns the block at hand, which more than one extent decides.
    fn mixed_block(&mut self) -> io::Result<DiskBatch> {
        let start = self.next;
        let end = (start + u64::from(self.plan.block_size.bytes())).min(self.virtual_size);
        if self.reads_all() {
            return Ok(self.batch(end));
        }
        let mut parts = Vec::new();
        let mut at = start;
        while let Some(extent) = self.extent_at(at)?.filter(|next| next.range.start < end) {
            let range = extent.range.start.max(at)..extent.range.end.min(end);
            at = range.end;
            parts.push(SourceExtent { range, ..extent });
            if at >= end {
                break;
            }
        }
        let inherits = parts.iter().any(|part| part.content == Content::Inherited);
        let batch = self.batch(end);
        Ok(DiskBatch {
            parts: inherits.then_some(parts),
            ..batch
        })
    }

    /// Returns the extent at or after `from`, within the disk.
    fn extent_at(&mut self, from: u64) -> io::Result<Option<SourceExtent>> {
        if from >= self.virtual_size {
            return Ok(None);
        }
        if let Some(extent) = self.extent.as_ref().filter(|at| at.range.end > from) {
            return Ok(Some(extent.clone()));
        }
        let Some(mut extent) = self.disk.next_extent(from)? else {
            return Ok(None);
        };
        if extent.range.end <= from || extent.range.is_empty() {
            let message = format!("the extent {:?} was found from {from} on", extent.range);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        // A source that claims something past its end is read to its end.
        extent.range.end = extent.range.end.min(self.virtual_size);
        if extent.range.start >= self.virtual_size {
            return Ok(None);
        }
        // Without a parent there is nothing to inherit: it is read.
        if self.plan.parent_bytes.is_none() {
            extent.content = Content::Data;
        }
        self.extent = Some(extent.clone());
        Ok(Some(extent))
    }
}

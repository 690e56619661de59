//! What turns one image into another, by their maps.

use crate::resolve::Wanted;
use crate::{Layer, LayerStack, StoreError, parallel};
use std::collections::HashSet;
use std::sync::Arc;
use tegula_format::{BlockIndex, BlockSet, Blocks, ChunkId, LayerId};

/// Windows of blocks that are compared at once: 8 MiB of what differs, at most.
const WINDOWS: usize = 8;

/// What turns a base into an image of the same or another size.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Difference {
    /// The blocks at which the image holds another chunk than the base.
    pub data: BlockSet,
    /// The blocks of the image that read as zeros, and at which the base has a chunk.
    pub zero: BlockSet,
}

impl Difference {
    /// Returns the runs of blocks that differ, ascending, each with whether the image has chunks there.
    pub fn runs(&self) -> Vec<(Blocks, bool)> {
        let data = self.data.runs().map(|run| (run, true));
        let zero = self.zero.runs().map(|run| (run, false));
        let mut runs: Vec<_> = data.chain(zero).collect();
        runs.sort_unstable_by_key(|(run, _)| run.start);
        runs
    }
}

/// The layers of two stacks above the nearest one that they share.
struct Apart<'a> {
    layers: Vec<&'a Layer>,
    /// Whether there is a layer that they share.
    related: bool,
}

impl<'a> Apart<'a> {
    fn of(base: &'a LayerStack, image: &'a LayerStack) -> Self {
        let mine: HashSet<LayerId> = base.layers().iter().map(|layer| layer.id()).collect();
        let ids = image.layers().iter().map(|layer| layer.id());
        let common = ids.clone().find(|id| mine.contains(id));
        let above = |stack: &'a LayerStack| {
            let layers = stack.layers().iter().map(Arc::as_ref);
            layers.take_while(move |layer| Some(layer.id()) != common)
        };
        Self {
            layers: above(base).chain(above(image)).collect(),
            related: common.is_some(),
        }
    }

    /// Returns from which block on some layer has nothing to say, and what lies below it is cut off.
    fn shortest(&self) -> u64 {
        let counts = self.layers.iter().map(|layer| layer.block_count());
        counts.min().unwrap_or(u64::MAX)
    }

    /// Returns the blocks that some layer touches.
    fn touched(&self) -> BlockSet {
        let mut touched = BlockSet::new();
        for layer in &self.layers {
            touched.union_with(layer.data());
            touched.union_with(layer.zero());
        }
        touched
    }

    /// Returns the blocks that differ for sure: those that one layer alone touches, if that is said to differ from what
    /// lies below it, which both images have.
    fn certain(&self) -> BlockSet {
        let (mut certain, mut once, mut twice) =
            (BlockSet::new(), BlockSet::new(), BlockSet::new());
        if !self.related {
            return certain;
        }
        for layer in &self.layers {
            for blocks in [layer.data(), layer.zero()] {
                let mut again = once.clone();
                again.intersect_with(blocks);
                twice.union_with(&again);
                once.union_with(blocks);
                if layer.summary().differs {
                    certain.union_with(blocks);
                }
            }
        }
        certain.subtract(&twice);
        certain.truncate(self.shortest());
        certain
    }
}

impl LayerStack {
    /// Returns the blocks in which this image differs from another, related or not.
    ///
    /// Looks at the blocks alone that a layer above the nearest common one touches; at their ids, on all cores, only where
    /// that layer does not say that it differs, or several touch a block.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a layer's table is damaged.
    pub fn difference(&self, base: &Self) -> Result<Difference, StoreError> {
        self.difference_in(base, 0..self.block_count())
    }

    /// Returns those blocks of a range in which this image differs from another: see [`Self::difference`].
    ///
    /// # Errors
    /// As for [`Self::difference`].
    pub fn difference_in(&self, base: &Self, blocks: Blocks) -> Result<Difference, StoreError> {
        let end = blocks.end.min(self.block_count());
        let apart = Apart::of(base, self);
        let within = |set: &mut BlockSet| {
            set.truncate(end);
            set.remove_range(0..blocks.start.min(end));
        };
        let mut certain = apart.certain();
        within(&mut certain);
        let mut difference = Difference::default();
        for visible in self.visible() {
            let mut data = visible.clone();
            data.intersect_with(&certain);
            difference.data.union_with(&data);
        }
        let mut others = self.may_differ(base, &apart);
        within(&mut others);
        others.subtract(&certain);
        certain.subtract(&difference.data);
        difference.zero = certain;
        self.compare(base, &others, &mut difference)?;
        Ok(difference)
    }

    /// Returns the blocks in which two images may differ: those that a layer above their nearest common one touches
    /// in either, and those past the shortest size above it. Unrelated images may differ wherever either has data.
    fn may_differ(&self, base: &Self, apart: &Apart<'_>) -> BlockSet {
        let mut blocks = apart.touched();
        let block_count_max = self.block_count().max(base.block_count());
        if apart.related && apart.shortest() < block_count_max {
            // Above the common layer one image was cut shorter: its blocks past the cut read as zeros there.
            for stack in [self, base] {
                let mut data = stack.data();
                data.remove_range(0..apart.shortest());
                blocks.union_with(&data);
            }
        }
        blocks
    }

    /// Adds those of some blocks that differ.
    fn compare(
        &self,
        base: &Self,
        blocks: &BlockSet,
        difference: &mut Difference,
    ) -> Result<(), StoreError> {
        let ours = Wanted::new(self.layers(), self.visible(), blocks);
        let theirs = Wanted::new(base.layers(), base.visible(), blocks);
        for windows in ours.windows().chunks(WINDOWS) {
            let found = parallel::map(windows, 1, |first| {
                let mut found = Vec::new();
                for (ours, theirs) in ours.in_window(*first).zip(theirs.in_window(*first)) {
                    let ((block, ours), (_, theirs)) = (ours?, theirs?);
                    if ours != theirs {
                        found.push((block, ours.is_some()));
                    }
                }
                Ok::<_, StoreError>(found)
            });
            for found in found {
                for (block, has_data) in found? {
                    match has_data {
                        true => difference.data.insert(block),
                        false => difference.zero.insert(block),
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells whether a layer that sets some blocks, to chunks of these ids in order, and zeroes others would say nothing
    /// that this stack does not say already.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a layer's table is damaged.
    pub(crate) fn differs_from(
        &self,
        data: &BlockSet,
        ids: &[u8],
        zero: &BlockSet,
    ) -> Result<bool, StoreError> {
        let mut zeros_here = zero.clone();
        zeros_here.subtract(&self.data());
        if !zeros_here.is_empty() {
            return Ok(false);
        }
        let here = Wanted::new(self.layers(), self.visible(), data);
        let differ = parallel::map(&here.windows(), 1, |first| {
            let before = usize::try_from(data.count_in(0..*first));
            let before = before.expect("because there are at most 2^32 blocks");
            let ids = ids.chunks_exact(size_of::<ChunkId>()).skip(before);
            for (row, id) in here.in_window(*first).zip(ids) {
                if row?.1.is_some_and(|here| here == id) {
                    return Ok(false);
                }
            }
            Ok::<_, StoreError>(true)
        });
        differ
            .into_iter()
            .try_fold(true, |all, differ| Ok(all && differ?))
    }

    /// Walks some blocks that hold data, with their chunks, in ascending order. Costs what they are, not what the image
    /// is.
    ///
    /// Each item is [`StoreError::Corrupt`] where a layer's table is damaged.
    pub fn chunks_of<'a>(
        &'a self,
        blocks: &'a BlockSet,
    ) -> impl Iterator<Item = Result<(BlockIndex, ChunkId), StoreError>> + use<'a> {
        let wanted = Arc::new(Wanted::new(self.layers(), self.visible(), blocks));
        wanted.windows().into_iter().flat_map(move |first| {
            let rows = wanted.in_window(first);
            let found = rows.filter_map(|row| match row {
                Ok((block, id)) => id.map(|id| Ok((block, ChunkId::from_bytes(*id)))),
                Err(error) => Some(Err(error)),
            });
            found.collect::<Vec<_>>()
        })
    }
}

//! A layer and all below it, merged once when it is opened, so that reading costs the same at any depth (SPEC 6.2).

use crate::resolve::{ChunksIn, WINDOW_BLOCKS};
use crate::{Layer, Session, StoreError, parallel};
use std::sync::Arc;
use tegula_format::{
    BlockIndex, BlockSet, BlockSize, Blocks, ChunkId, GroupDigester, ImageDigest, ImageDigester,
    ImageRecord, LayerId,
};

/// Windows of blocks whose part of a digest is computed at once: 2 MiB of it.
const DIGEST_WINDOWS: usize = 1024;

/// An image's block map: for every block the chunk it holds, or nothing, which reads as zeros.
#[derive(Debug, Clone)]
pub struct LayerStack {
    /// Newest first.
    layers: Vec<Arc<Layer>>,
    /// For each layer the blocks that are read from it: what it sets and no newer layer sets, zeroes or cuts off.
    /// No two of them share a block.
    visible: Vec<BlockSet>,
}

/// A part of a stack, as a child image is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackParts {
    /// How many layers there are.
    pub depth: usize,
    /// How many blocks hold data.
    pub data_blocks: u64,
    /// How many rows all id tables have together, those of hidden blocks included.
    pub rows: u64,
}

impl LayerStack {
    /// Opens a layer and all below it.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] or [`StoreError::Corrupt`].
    pub fn open(session: &Session, top: &LayerId) -> Result<Self, StoreError> {
        let mut layers: Vec<Arc<Layer>> = Vec::new();
        let mut next = Some(*top);
        while let Some(id) = next {
            let layer = session.layer(&id)?;
            check_below(layers.last(), &layer)?;
            check_block_size(&layer, session.block_size())?;
            next = layer.summary().parent;
            layers.push(layer);
        }
        Ok(Self::merge(layers))
    }

    /// Returns what lies below the newest `above` layers, or `None` if that is nothing.
    pub(crate) fn below(&self, above: usize) -> Option<Self> {
        let layers = self.layers.get(above..).unwrap_or_default();
        (!layers.is_empty()).then(|| Self::merge(layers.to_vec()))
    }

    /// Opens the map of an image, and makes sure it is as long as the image's record says.
    ///
    /// # Errors
    /// As for [`Self::open`]; [`StoreError::Corrupt`] names the record if the two do not fit.
    pub fn of_image(session: &Session, record: &ImageRecord) -> Result<Self, StoreError> {
        let stack = Self::open(session, &record.layer)?;
        if stack.virtual_size() == record.virtual_size && stack.block_size() == record.block_size {
            return Ok(stack);
        }
        let source = tegula_format::Corruption::Field {
            what: tegula_format::Structure::ImageRecord,
            field: "virtual_size",
            found: record.virtual_size,
            expected: "the length of its layer",
        };
        Err(StoreError::Corrupt {
            path: crate::paths::image(&record.name),
            source,
        })
    }

    fn merge(layers: Vec<Arc<Layer>>) -> Self {
        let mut covered = BlockSet::new();
        let mut block_count_min = u64::MAX;
        let mut visible = Vec::with_capacity(layers.len());
        for layer in &layers {
            let mut blocks = layer.data().clone();
            blocks.subtract(&covered);
            // Whatever a newer, shorter image did not have reads as zeros, even if a still newer one is longer again.
            blocks.truncate(block_count_min);
            block_count_min = block_count_min.min(layer.block_count());
            covered.union_with(layer.data());
            covered.union_with(layer.zero());
            visible.push(blocks);
        }
        Self { layers, visible }
    }

    /// Returns the layers, newest first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Returns, for each layer, the blocks that are read from it.
    pub(crate) fn visible(&self) -> &[BlockSet] {
        &self.visible
    }

    fn top(&self) -> &Layer {
        self.layers
            .first()
            .expect("because a stack has at least the layer it was opened with")
    }

    /// Returns the newest layer's id and the depth of the stack.
    pub fn reference(&self) -> (LayerId, u32) {
        (self.top().id(), self.top().summary().depth)
    }

    /// Returns the image's length in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.top().summary().virtual_size
    }

    /// Returns the size of its blocks.
    pub fn block_size(&self) -> BlockSize {
        self.top().summary().block_size
    }

    /// Returns how many blocks the image has.
    pub fn block_count(&self) -> u64 {
        self.top().block_count()
    }

    /// Returns what the stack amounts to.
    pub fn parts(&self) -> StackParts {
        StackParts {
            depth: self.layers.len(),
            data_blocks: self.visible.iter().map(BlockSet::len).sum(),
            rows: self
                .layers
                .iter()
                .map(|layer| layer.summary().data_blocks)
                .sum(),
        }
    }

    /// Returns the blocks that hold data.
    pub fn data(&self) -> BlockSet {
        let mut data = BlockSet::new();
        self.visible
            .iter()
            .for_each(|blocks| data.union_with(blocks));
        data
    }

    /// Returns the chunk a block holds; `None` reads as zeros.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the layer's table is damaged there.
    pub fn chunk(&self, block: BlockIndex) -> Result<Option<ChunkId>, StoreError> {
        let holder = self
            .visible
            .iter()
            .zip(&self.layers)
            .find(|(blocks, _)| blocks.contains(block));
        holder.map(|(_, layer)| layer.id_of(block)).transpose()
    }

    /// Returns the blocks of a run that hold data, each with its chunk, in ascending order.
    ///
    /// Each item is [`StoreError::Corrupt`] where a layer's table is damaged.
    pub fn chunks_in(
        &self,
        blocks: Blocks,
    ) -> impl Iterator<Item = Result<(BlockIndex, ChunkId), StoreError>> + use<'_> {
        self.rows_in(blocks)
            .map(|row| row.map(|(block, id)| (block, ChunkId::from_bytes(*id))))
    }

    fn rows_in(&self, blocks: Blocks) -> ChunksIn<'_> {
        let end = blocks.end.min(self.block_count());
        ChunksIn::new(&self.layers, blocks.start.min(end)..end)
    }

    /// Computes the digest of the image that the stack maps, on all cores.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a layer's table is damaged.
    pub fn digest(&self) -> Result<ImageDigest, StoreError> {
        let block_count = self.block_count();
        let mut digester = ImageDigester::new(self.virtual_size(), self.block_size());
        let windows = block_count.div_ceil(WINDOW_BLOCKS);
        for first in (0..windows).step_by(DIGEST_WINDOWS) {
            let part = first..windows.min(first + DIGEST_WINDOWS as u64);
            let firsts: Vec<u64> = part.map(|window| window * WINDOW_BLOCKS).collect();
            let groups = parallel::map(&firsts, 1, |first| {
                self.groups_of(*first..block_count.min(first + WINDOW_BLOCKS))
            });
            for groups in groups {
                digester.push_groups(&groups?);
            }
        }
        Ok(digester.finish())
    }

    fn groups_of(&self, blocks: Blocks) -> Result<Vec<[u8; 32]>, StoreError> {
        let mut groups = GroupDigester::default();
        let mut next = blocks.start;
        for row in self.rows_in(blocks.clone()) {
            let (block, id) = row?;
            groups.push_zeros(u64::from(block.get()) - next);
            groups.push_data(id);
            next = u64::from(block.get()) + 1;
        }
        groups.push_zeros(blocks.end - next);
        Ok(groups.finish())
    }

    /// Returns all blocks that hold data, each with its chunk, in ascending order.
    ///
    /// Each item is [`StoreError::Corrupt`] where a layer's table is damaged.
    pub fn chunks(
        &self,
    ) -> impl Iterator<Item = Result<(BlockIndex, ChunkId), StoreError>> + use<'_> {
        self.chunks_in(0..self.block_count())
    }
}

/// Refuses a layer whose blocks are not of the store's size.
fn check_block_size(layer: &Layer, expected: BlockSize) -> Result<(), StoreError> {
    let found = layer.summary().block_size;
    if found == expected {
        return Ok(());
    }
    let source = tegula_format::Corruption::Field {
        what: tegula_format::Structure::Layer,
        field: "block_size_log2",
        found: u64::from(found.log2()),
        expected: "the store's",
    };
    Err(StoreError::Corrupt {
        path: crate::paths::layer(&layer.id()),
        source,
    })
}

/// Refuses a layer that the one above it cannot stand on.
fn check_below(above: Option<&Arc<Layer>>, layer: &Layer) -> Result<(), StoreError> {
    let Some(above) = above else { return Ok(()) };
    let (upper, lower) = (above.summary(), layer.summary());
    let what = tegula_format::Structure::Layer;
    let path = crate::paths::layer(&above.id());
    let field = |field, found, expected| {
        Err(StoreError::Corrupt {
            path,
            source: tegula_format::Corruption::Field {
                what,
                field,
                found,
                expected,
            },
        })
    };
    if upper.block_size != lower.block_size {
        return field(
            "block_size_log2",
            u64::from(upper.block_size.log2()),
            "that of the layer below",
        );
    }
    // Ids are hashes of heads that name the parent, so there can be no loop; the depth makes sure of it.
    if upper.depth != lower.depth + 1 {
        return field(
            "depth",
            u64::from(upper.depth),
            "one more than the layer below",
        );
    }
    Ok(())
}

//! Which chunk each block of a stack holds, in block order.
//!
//! A window of blocks is painted layer by layer, the oldest first, so that what a newer layer says covers what an older
//! one says. That costs a step for each row of each layer and each block, whatever the depth; where only a few blocks
//! are wanted, a step for each of these and each run of the layers.

use crate::{Layer, StoreError};
use std::sync::Arc;
use tegula_format::{BlockIndex, BlockSet, Blocks};

/// Blocks that are painted at once; a multiple of what a container of a bitmap and a group of the digest hold.
pub(crate) const WINDOW_BLOCKS: u64 = 1 << 16;

/// Wanted blocks of a window from which on all of it is painted.
const DENSE: u64 = WINDOW_BLOCKS / 8;

/// Where the id of a block's chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// The layer, counted from the newest; [`ZEROS`] has none.
    layer: u32,
    /// The position in its table.
    position: u32,
}

/// The slot of a block that reads as zeros.
const ZEROS: Slot = Slot {
    layer: u32::MAX,
    position: 0,
};

/// A window of blocks that was painted.
#[derive(Debug)]
struct Canvas<'a> {
    layers: &'a [Arc<Layer>],
    window: Blocks,
    slots: Vec<Slot>,
}

impl<'a> Canvas<'a> {
    fn new(layers: &'a [Arc<Layer>]) -> Self {
        Self {
            layers,
            window: 0..0,
            slots: Vec::new(),
        }
    }

    /// Begins a window in which every block reads as zeros.
    fn begin(&mut self, window: Blocks) {
        self.slots.clear();
        self.slots.resize(index(window.end - window.start), ZEROS);
        self.window = window;
    }

    fn clear(&mut self, blocks: Blocks) {
        self.slots_of(blocks).for_each(|slot| *slot = ZEROS);
    }

    /// Lets a run of blocks be read from a layer, the first one from a position of its table.
    fn fill(&mut self, blocks: Blocks, layer: usize, first: u64) {
        let layer = u32::try_from(layer).expect("because a stack has at most 65,536 layers");
        for (slot, position) in self.slots_of(blocks).zip(first..) {
            let position = u32::try_from(position).expect("because a table has at most 2^32 ids");
            *slot = Slot { layer, position };
        }
    }

    fn slots_of(&mut self, blocks: Blocks) -> impl Iterator<Item = &mut Slot> {
        let start = self.window.start;
        let slots = index(blocks.start - start)..index(blocks.end - start);
        self.slots.get_mut(slots).into_iter().flatten()
    }

    /// Tells whether some layer sets a block of a window: most of a large disk is holes.
    fn has_data(&self, window: &Blocks) -> bool {
        let mut layers = self.layers.iter();
        layers.any(|layer| layer.data().count_in(window.clone()) > 0)
    }

    /// Paints all blocks of a window.
    fn paint(&mut self, window: Blocks) {
        self.begin(window.clone());
        let layers = self.layers;
        for (number, layer) in layers.iter().enumerate().rev() {
            // Past a layer's end there are zeros, whatever older layers have there.
            let end = layer.block_count().clamp(window.start, window.end);
            self.clear(end..window.end);
            for run in layer.zero().runs_in(window.clone()) {
                self.clear(run);
            }
            let mut position = layer.position_of(window.start);
            for run in layer.data().runs_in(window.clone()) {
                let length = run.end - run.start;
                self.fill(run, number, position);
                position += length;
            }
        }
    }

    /// Paints those blocks of a window that are read from each layer and wanted.
    fn paint_hits(&mut self, window: Blocks, hits: &[BlockSet]) {
        self.begin(window.clone());
        let layers = self.layers;
        for ((number, layer), hits) in layers.iter().enumerate().zip(hits) {
            let mut data = layer.data().runs_in(window.clone());
            let (mut run, mut position) = (0..0, layer.position_of(window.start));
            for hit in hits.runs_in(window.clone()) {
                while run.end < hit.end {
                    position += run.end - run.start;
                    run = data
                        .next()
                        .expect("because a block is read only from a layer that sets it");
                }
                let first = position + (hit.start - run.start);
                self.fill(hit, number, first);
            }
        }
    }

    /// Returns the id of the chunk that a block of the window holds.
    fn chunk(&self, block: u64) -> Option<Result<&'a [u8; 32], StoreError>> {
        let slot = self.slots.get(index(block - self.window.start))?;
        let layer = self.layers.get(slot.layer as usize)?;
        Some(layer.id_bytes(u64::from(slot.position)))
    }
}

/// Narrows a distance within a window.
fn index(blocks: u64) -> usize {
    usize::try_from(blocks).expect("because a window is short")
}

/// Narrows the number of a block.
fn block_index(block: u64) -> BlockIndex {
    BlockIndex::new(u32::try_from(block).expect("because an image has at most 2^32 blocks"))
}

/// Walks all blocks of a run that hold data, each with its chunk.
#[derive(Debug)]
pub(crate) struct ChunksIn<'a> {
    canvas: Canvas<'a>,
    blocks: Blocks,
    next: u64,
}

impl<'a> ChunksIn<'a> {
    /// Begins at the first of `blocks`, none of which is past the newest layer's end.
    pub(crate) fn new(layers: &'a [Arc<Layer>], blocks: Blocks) -> Self {
        Self {
            canvas: Canvas::new(layers),
            next: blocks.start,
            blocks,
        }
    }
}

impl<'a> Iterator for ChunksIn<'a> {
    type Item = Result<(BlockIndex, &'a [u8; 32]), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.blocks.end {
            if self.next >= self.canvas.window.end {
                let end = (self.next / WINDOW_BLOCKS + 1) * WINDOW_BLOCKS;
                let window = self.next..end.min(self.blocks.end);
                if !self.canvas.has_data(&window) {
                    self.next = window.end;
                    continue;
                }
                self.canvas.paint(window);
            }
            // Most of a window may be zeros: they are stepped over at once.
            let slots = self
                .canvas
                .slots
                .get(index(self.next - self.canvas.window.start)..);
            let zeros = slots
                .into_iter()
                .flatten()
                .take_while(|slot| **slot == ZEROS);
            self.next += zeros.count() as u64;
            if self.next >= self.canvas.window.end {
                continue;
            }
            let block = self.next;
            self.next += 1;
            if let Some(id) = self.canvas.chunk(block) {
                return Some(id.map(|id| (block_index(block), id)));
            }
        }
        None
    }
}

/// Which chunks some wanted blocks of a stack hold.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    layers: &'a [Arc<Layer>],
    blocks: &'a BlockSet,
    /// The wanted blocks that are read from each layer.
    hits: Vec<BlockSet>,
}

impl<'a> Wanted<'a> {
    pub(crate) fn new(
        layers: &'a [Arc<Layer>],
        visible: &[BlockSet],
        blocks: &'a BlockSet,
    ) -> Self {
        let hits = visible.iter().map(|visible| {
            let mut hits = visible.clone();
            hits.intersect_with(blocks);
            hits
        });
        let hits = hits.collect();
        Self {
            layers,
            blocks,
            hits,
        }
    }

    /// Returns the first wanted blocks of all windows that have one, each rounded down to where its window begins.
    pub(crate) fn windows(&self) -> Vec<u64> {
        let mut windows = Vec::new();
        let mut next = 0;
        while let Some(block) = self.blocks.iter_in(next..1 << 32).next() {
            let first = u64::from(block.get()) / WINDOW_BLOCKS * WINDOW_BLOCKS;
            windows.push(first);
            next = first + WINDOW_BLOCKS;
        }
        windows
    }

    /// Walks the wanted blocks of a window, each with the id of the chunk it holds, if it holds one.
    pub(crate) fn in_window(
        &self,
        first: u64,
    ) -> impl Iterator<Item = Result<(BlockIndex, Option<&'a [u8; 32]>), StoreError>> + '_ {
        let window = first..first + WINDOW_BLOCKS;
        let mut canvas = Canvas::new(self.layers);
        match self.blocks.count_in(window.clone()) > DENSE {
            true => canvas.paint(window.clone()),
            false => canvas.paint_hits(window.clone(), &self.hits),
        }
        self.blocks.iter_in(window).map(move |block| {
            let id = canvas.chunk(u64::from(block.get())).transpose()?;
            Ok((block, id))
        })
    }
}

/// Gathers the ids of all blocks of a window that hold data.
pub(crate) fn ids_in(layers: &[Arc<Layer>], window: Blocks) -> Result<Vec<u8>, StoreError> {
    let mut canvas = Canvas::new(layers);
    let mut ids = Vec::new();
    if canvas.has_data(&window) {
        canvas.paint(window);
    }
    // What stands together in a layer is taken at once.
    let follows = |slot: &Slot, next: &Slot| {
        slot.layer == next.layer && (*slot == ZEROS || slot.position + 1 == next.position)
    };
    for run in canvas.slots.chunk_by(follows) {
        let first = run.first().expect("because no run is empty");
        if let Some(layer) = layers.get(first.layer as usize) {
            let first = u64::from(first.position);
            ids.extend_from_slice(layer.ids_bytes(first..first + run.len() as u64)?);
        }
    }
    Ok(ids)
}

//! What images cost: set algebra on the places of their chunks, and on their layers.
//!
//! An image's bytes on disk are the records of its chunks and of those that they stand on, what a segment's table of
//! contents says of each, the files of its layers, and its own record. Not counted are the 137 bytes of head and trailer that a segment has, whatever is in
//! it, and the index, which is derived.

use crate::{EngineError, Runs};
use std::collections::HashMap;
use tegula_format::{ImageName, ImageRecord, LayerId};
use tegula_store::{LayerStack, LiveSet, SegmentTables, Session};

/// What one image costs. All byte counts but the first two are bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image's name.
    pub name: ImageName,
    /// Its length.
    pub virtual_size: u64,
    /// Bytes of its blocks that hold data, before compression, duplicates counted each time.
    pub logical_bytes: u64,
    /// All that it needs.
    pub stored_bytes: u64,
    /// What only it needs: to the byte what deleting it, and nothing else, lets a collection free that leaves no
    /// garbage, heads and trailers of segments apart.
    pub exclusive_bytes: u64,
}

impl ImageUsage {
    /// Returns the bytes that other images need too.
    pub fn shared_bytes(&self) -> u64 {
        self.stored_bytes - self.exclusive_bytes
    }
}

/// What several images cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Each by itself, by name.
    pub images: Vec<ImageUsage>,
    /// What at least one of them needs.
    pub stored_bytes: u64,
    /// What no other image needs: what deleting all of them lets a collection free.
    pub together_bytes: u64,
}

/// An image with what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its record.
    pub record: ImageRecord,
    /// How many layers a read may come from.
    pub layers: usize,
    /// What it costs.
    pub usage: ImageUsage,
    /// How scattered it stands in the store.
    pub runs: Runs,
}

/// A store in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Images.
    pub images: u64,
    /// Their lengths together.
    pub virtual_bytes: u64,
    /// Bytes of their data blocks together, before deduplication and compression.
    pub logical_bytes: u64,
    /// Bytes of all segment files.
    pub stored_bytes: u64,
    /// Bytes of the records that images need.
    pub live_bytes: u64,
    /// Chunks that images need, each once.
    pub chunks: u64,
    /// Bytes of those chunks before compression.
    pub chunk_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of layers, index, image records and the rest.
    pub metadata_bytes: u64,
}

impl Statistics {
    /// Returns how often each stored byte is used: logical bytes by bytes of distinct chunks. 1 for an empty store.
    pub fn dedup_ratio(&self) -> f64 {
        ratio(self.logical_bytes, self.chunk_bytes)
    }

    /// Returns how far chunks shrink: their bytes by the bytes of their records. 1 for an empty store.
    pub fn compression_ratio(&self) -> f64 {
        ratio(self.chunk_bytes, self.live_bytes)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio shown to people needs no more than 52 bits"
)]
fn ratio(whole: u64, part: u64) -> f64 {
    if part == 0 {
        1.0
    } else {
        whole as f64 / part as f64
    }
}

/// Computes what some images cost, seen among all.
///
/// Goes through the images twice, one at a time: first to learn what more than one of them needs, then to see what each
/// has for itself. So the sets that are held are of the store's chunks, however many images there are.
pub(crate) fn usage(session: &Session, names: &[ImageName]) -> Result<Usage, EngineError> {
    let records = session.images()?;
    for name in names {
        session.image(name)?;
    }
    let chosen = |record: &ImageRecord| names.is_empty() || names.contains(&record.name);
    let mut sums = Sums::new(session);
    // What exactly one image needs: everything, less what was seen a second time.
    let (mut once, mut again) = (LiveSet::default(), LiveSet::default());
    let (mut inside, mut outside) = (LiveSet::default(), LiveSet::default());
    let mut layers: HashMap<LayerId, LayerUse> = HashMap::new();
    let mut records_inside = 0;
    for record in &records {
        let stack = LayerStack::of_image(session, record)?;
        let set = LiveSet::of_image(session, &stack)?;
        for layer in stack.layers() {
            let used = layers.entry(layer.id()).or_default();
            used.bytes = layer.file_bytes();
            used.images += 1;
            used.chosen += u64::from(chosen(record));
        }
        let mut both = set.clone();
        both.intersect_with(&once);
        again.union_with(&both);
        once.union_with(&set);
        match chosen(record) {
            true => {
                inside.union_with(&set);
                records_inside += record.encode().len() as u64;
            }
            false => outside.union_with(&set),
        }
    }
    let mut images = Vec::new();
    for record in records.iter().filter(|record| chosen(record)) {
        let stack = LayerStack::of_image(session, record)?;
        let mut set = LiveSet::of_image(session, &stack)?;
        let own_layers = || {
            stack
                .layers()
                .iter()
                .filter_map(|layer| layers.get(&layer.id()))
        };
        let record_bytes = record.encode().len() as u64;
        let all_layers: u64 = own_layers().map(|used| used.bytes).sum();
        let stored_bytes = sums.of(&set)? + all_layers + record_bytes;
        set.subtract(&again);
        let its_layers: u64 = own_layers()
            .filter(|used| used.images == 1)
            .map(|used| used.bytes)
            .sum();
        images.push(ImageUsage {
            name: record.name.clone(),
            virtual_size: record.virtual_size,
            logical_bytes: logical_bytes(record, &stack)?,
            stored_bytes,
            exclusive_bytes: sums.of(&set)? + its_layers + record_bytes,
        });
    }
    let layers_where = |counts: fn(&LayerUse) -> bool| -> u64 {
        let counted = layers.values().filter(|used| counts(used));
        counted.map(|used| used.bytes).sum()
    };
    let stored_bytes = sums.of(&inside)? + layers_where(|used| used.chosen > 0) + records_inside;
    inside.subtract(&outside);
    let only_chosen = layers_where(|used| used.chosen > 0 && used.chosen == used.images);
    Ok(Usage {
        images,
        stored_bytes,
        together_bytes: sums.of(&inside)? + only_chosen + records_inside,
    })
}

/// How many images need a layer.
#[derive(Debug, Default)]
struct LayerUse {
    bytes: u64,
    images: u64,
    chosen: u64,
}

/// Adds up what chunks take in segments.
#[derive(Debug)]
struct Sums<'a>(SegmentTables<'a>);

impl<'a> Sums<'a> {
    fn new(session: &'a Session) -> Self {
        Self(SegmentTables::new(session))
    }

    /// Returns the bytes of the records and of the rows that say where they are.
    fn of(&mut self, places: &LiveSet) -> Result<u64, EngineError> {
        let records = places.stored_bytes(&mut self.0)?;
        Ok(records + places.table_bytes(&mut self.0)?)
    }
}

/// Returns the bytes of an image's data blocks; the last block counts as far as the image goes.
fn logical_bytes(record: &ImageRecord, stack: &LayerStack) -> Result<u64, EngineError> {
    let block_bytes = u64::from(record.block_size.bytes());
    let whole = record.data_blocks * block_bytes;
    let tail = record.virtual_size % block_bytes;
    if tail == 0 {
        return Ok(whole);
    }
    let last = record.block_size.block_at(record.virtual_size - 1);
    Ok(match stack.chunk(last)? {
        Some(_) => whole - (block_bytes - tail),
        None => whole,
    })
}

pub(crate) fn statistics(session: &Session) -> Result<Statistics, EngineError> {
    let records = session.images()?;
    let (mut live, mut logical_bytes_sum) = (LiveSet::default(), 0);
    for record in &records {
        let stack = LayerStack::of_image(session, record)?;
        live.union_with(&LiveSet::of_image(session, &stack)?);
        logical_bytes_sum += logical_bytes(record, &stack)?;
    }
    let chunk_bytes = live.len() * u64::from(session.block_size().bytes());
    let files = session.file_bytes()?;
    Ok(Statistics {
        images: records.len() as u64,
        virtual_bytes: records.iter().map(|record| record.virtual_size).sum(),
        logical_bytes: logical_bytes_sum,
        stored_bytes: files.segment_bytes,
        live_bytes: live.stored_bytes(&mut SegmentTables::new(session))?,
        chunks: live.len(),
        chunk_bytes,
        segments: files.segments,
        metadata_bytes: files.other_bytes,
    })
}

pub(crate) fn info(session: &Session, name: &ImageName) -> Result<ImageInfo, EngineError> {
    let record = session.image(name)?;
    let stack = LayerStack::of_image(session, &record)?;
    let (layers, runs) = (stack.layers().len(), Runs::of(session, &stack)?);
    let usage = usage(session, std::slice::from_ref(name))?.images;
    let usage = usage.into_iter().next().ok_or_else(|| {
        EngineError::Store(tegula_store::StoreError::ImageNotFound {
            name: name.as_str().to_owned(),
        })
    })?;
    Ok(ImageInfo {
        record,
        layers,
        usage,
        runs,
    })
}

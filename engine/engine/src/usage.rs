//! What images cost: set algebra on the places of their chunks.

use crate::{EngineError, OpenImage};
use tegula_format::{ImageName, ImageRecord};
use tegula_store::{LiveSet, SegmentTables, Session};

/// What one image costs. All byte counts but the first two are bytes of chunk records on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image's name.
    pub name: ImageName,
    /// Its length.
    pub virtual_size: u64,
    /// Bytes of its blocks that hold data, before compression, duplicates counted each time.
    pub logical_bytes: u64,
    /// Records of all chunks it needs.
    pub stored_bytes: u64,
    /// Records that only it needs: what deleting it, and nothing else, makes garbage.
    pub exclusive_bytes: u64,
}

impl ImageUsage {
    /// Returns the bytes of records that other images need too.
    pub fn shared_bytes(&self) -> u64 {
        self.stored_bytes - self.exclusive_bytes
    }
}

/// What several images cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Each by itself, by name.
    pub images: Vec<ImageUsage>,
    /// Records that at least one of them needs.
    pub stored_bytes: u64,
    /// Records that no other image needs: what deleting all of them makes garbage.
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
pub(crate) fn usage(session: &Session, names: &[ImageName]) -> Result<Usage, EngineError> {
    let records = session.images()?;
    for name in names {
        session.image(name)?;
    }
    let chosen = |record: &ImageRecord| names.is_empty() || names.contains(&record.name);
    let sets = live_sets(session, &records)?;
    let mut tables = SegmentTables::new(session);
    // What exactly one image needs: everything, less what was seen a second time.
    let (mut once, mut again) = (LiveSet::default(), LiveSet::default());
    let (mut inside, mut outside) = (LiveSet::default(), LiveSet::default());
    for (record, set) in records.iter().zip(&sets) {
        let mut both = set.clone();
        both.intersect_with(&once);
        again.union_with(&both);
        once.union_with(set);
        if chosen(record) {
            inside.union_with(set)
        } else {
            outside.union_with(set)
        }
    }
    let mut images = Vec::new();
    for (record, set) in records
        .iter()
        .zip(sets)
        .filter(|(record, _)| chosen(record))
    {
        let stored_bytes = set.stored_bytes(&mut tables)?;
        let mut exclusive = set;
        exclusive.subtract(&again);
        images.push(ImageUsage {
            name: record.name.clone(),
            virtual_size: record.virtual_size,
            logical_bytes: logical_bytes(session, record)?,
            stored_bytes,
            exclusive_bytes: exclusive.stored_bytes(&mut tables)?,
        });
    }
    let stored_bytes = inside.stored_bytes(&mut tables)?;
    inside.subtract(&outside);
    Ok(Usage {
        images,
        stored_bytes,
        together_bytes: inside.stored_bytes(&mut tables)?,
    })
}

/// Returns the bytes of an image's data blocks; the last block counts as far as the image goes.
fn logical_bytes(session: &Session, record: &ImageRecord) -> Result<u64, EngineError> {
    let block_bytes = u64::from(record.block_size.bytes());
    let whole = record.data_blocks * block_bytes;
    let tail = record.virtual_size % block_bytes;
    if tail == 0 {
        return Ok(whole);
    }
    let last = record.block_size.block_at(record.virtual_size - 1);
    let image = OpenImage::open(session, &record.name)?;
    Ok(if image.stack().chunk(last)?.is_some() {
        whole - (block_bytes - tail)
    } else {
        whole
    })
}

fn live_sets(session: &Session, records: &[ImageRecord]) -> Result<Vec<LiveSet>, EngineError> {
    let sets = records.iter().map(|record| {
        let image = OpenImage::open(session, &record.name)?;
        Ok(LiveSet::of_image(session, image.stack())?)
    });
    sets.collect()
}

pub(crate) fn statistics(session: &Session) -> Result<Statistics, EngineError> {
    let records = session.images()?;
    let mut live = LiveSet::default();
    live_sets(session, &records)?
        .iter()
        .for_each(|set| live.union_with(set));
    let chunk_bytes = live.len() * u64::from(session.block_size().bytes());
    let logical: Result<Vec<_>, EngineError> = records
        .iter()
        .map(|record| logical_bytes(session, record))
        .collect();
    let files = session.file_bytes()?;
    Ok(Statistics {
        images: records.len() as u64,
        virtual_bytes: records.iter().map(|record| record.virtual_size).sum(),
        logical_bytes: logical?.iter().sum(),
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
    let image = OpenImage::open(session, name)?;
    let usage = usage(session, std::slice::from_ref(name))?.images;
    let usage = usage.into_iter().next().ok_or_else(|| {
        EngineError::Store(tegula_store::StoreError::ImageNotFound {
            name: name.as_str().to_owned(),
        })
    })?;
    Ok(ImageInfo {
        record,
        layers: image.stack().layers().len(),
        usage,
    })
}

//! Verification of what images consist of: their layers, their digests, and that every chunk is somewhere whole.
//!
//! One image is open at a time. What is kept of it is which blocks are read from which layer, so that a layer's table is
//! gone through once, however many images lie on it.

use super::{Damage, Finding, Verification, blank_finding, finding, missing_finding, path_of};
use crate::standing::{Chooser, Needs};
use crate::{Index, Layer, LayerStack, LiveSet, Session, StoreError, layer, parallel, paths};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use tegula_format::{
    BlockSet, ChunkId, ImageDigest, ImageDigester, ImageRecord, LayerId, Place, RunRow,
};
use tegula_io::StorePath;

/// The blocks that some image reads from each layer.
pub(super) type Needed = HashMap<LayerId, BlockSet>;

/// Layers that cannot be read, with the images that need them, by name.
type DamagedLayers = BTreeMap<StorePath, (StoreError, Vec<String>)>;

/// Chunks that are looked up together by all cores.
const LOOKUP_BATCH: usize = 1 << 16;

impl Session {
    /// Checks the layers, all of them or those of some images, and the digest of each image.
    pub(super) fn verify_images(
        &self,
        records: &[ImageRecord],
        all: bool,
        result: &mut Verification,
    ) -> Result<Needed, StoreError> {
        let (mut damaged, mut checked) = (DamagedLayers::new(), HashSet::new());
        let mut needed = Needed::new();
        if all {
            for id in layer::list_layers(self.environment())? {
                if !self.state().condemns_layer(&id) {
                    self.verify_layer(&id, &mut checked, &mut damaged)?;
                }
            }
        }
        for record in records {
            result.images += 1;
            let name = record.name.as_str();
            let stack = match LayerStack::of_image(self, record) {
                Ok(stack) => stack,
                Err(error) if error.is_unreadable() => {
                    let path = path_of(&error).unwrap_or_else(|| paths::layer(&record.layer));
                    let entry = damaged.entry(path).or_insert_with(|| (error, Vec::new()));
                    entry.1.push(name.to_owned());
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (layer, visible) in stack.layers().iter().zip(stack.visible()) {
                let id = layer.id();
                self.verify_layer(&id, &mut checked, &mut damaged)?;
                if let Some((_, images)) = damaged.get_mut(&paths::layer(&id)) {
                    images.push(name.to_owned());
                }
                needed.entry(id).or_default().union_with(visible);
            }
            check_digest(record, digest_of(record, &stack), result)?;
        }
        result.layers = checked.len() as u64;
        for (path, (error, mut images)) in damaged {
            images.sort();
            images.dedup();
            result.findings.push(Finding {
                images,
                ..finding(&path, &error)
            });
            // What may be whole but of a newer format is not for repair to touch.
            if error.is_damage() {
                result.damage.layers.push(path);
            }
        }
        Ok(needed)
    }

    /// Checks a layer, once.
    fn verify_layer(
        &self,
        id: &LayerId,
        checked: &mut HashSet<LayerId>,
        damaged: &mut DamagedLayers,
    ) -> Result<(), StoreError> {
        if !checked.insert(*id) {
            return Ok(());
        }
        match Layer::open(self.environment(), id).and_then(|layer| layer.verify()) {
            Err(error) if error.is_unreadable() => {
                damaged
                    .entry(paths::layer(id))
                    .or_insert_with(|| (error, Vec::new()));
                Ok(())
            }
            other => other,
        }
    }

    /// Looks up every chunk that images need, and adds those that stand nowhere whole, as far as records were checked
    /// before. Returns the places of the others.
    pub(super) fn verify_places(
        &self,
        needed: &Needed,
        index: &Index,
        result: &mut Verification,
    ) -> Result<LiveSet, StoreError> {
        let bad: HashSet<Place> = result.damage.rows.iter().map(|row| row.place).collect();
        let usable = |row: &RunRow| !bad.contains(&row.place) && index.is_usable(row.place);
        let whole = Chooser::among(self, index, usable);
        let find = |id: ChunkId| match whole.choose(&id) {
            Ok(row) => Ok(row.map(|row| (id, row)).ok_or(id)),
            // What it stands on cannot be known.
            Err(error) if error.is_unreadable() => Ok(Err(id)),
            Err(error) => Err(error),
        };
        let (mut needs, mut absent) = (Needs::default(), Vec::new());
        for (id, visible) in needed {
            let layer = match Layer::open(self.environment(), id) {
                Ok(layer) => layer,
                // It has its own finding already.
                Err(error) if error.is_unreadable() => continue,
                Err(error) => return Err(error),
            };
            let mut positions = visible.iter().map(|block| layer.data().rank_before(block));
            loop {
                let batch: Vec<u64> = positions.by_ref().take(LOOKUP_BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                let found = parallel::map(&batch, 1024, |position| {
                    layer.id_at(*position).and_then(find)
                });
                let mut ordinals = Vec::with_capacity(batch.len());
                for found in found {
                    match found {
                        Ok(Ok((_, row))) if row.bases == 0 => ordinals.push(row.place),
                        Ok(Ok((id, _))) => whole.need(&id, &mut needs)?,
                        Ok(Err(id)) => absent.push(id),
                        Err(error) if error.is_unreadable() => {}
                        Err(error) => return Err(error),
                    }
                }
                // Sorted, so that each container of the bitmap is touched once.
                ordinals.sort_unstable();
                ordinals
                    .into_iter()
                    .for_each(|place| _ = needs.places.insert(place));
            }
        }
        for id in absent {
            if !result.damage.missing.insert(id) {
                continue;
            }
            let lacking = whole.lacking(&id)?;
            for (row, base) in lacking {
                let (segment, offset) = (row.place.segment, row.offset);
                let message = format!(
                    "chunk {id}, in segment {segment} at {offset:#x}, stands on chunk {base}, which is nowhere whole"
                );
                // The segment is not at fault.
                result.findings.push(Finding {
                    message,
                    ..missing_finding(&paths::directory(paths::IMAGES), id)
                });
                note_lost_segments(base, index, &mut result.damage);
                let on_it = result.damage.stood_on.entry(base).or_default();
                on_it.push(id);
            }
            let damaged_here = |row: RunRow| bad.contains(&row.place);
            // Where it stands damaged, or on what is, it has a finding of its own.
            let stands = !whole.places(&id).is_empty();
            if !stands && !index.places(&id).any(damaged_here) {
                note_lost_segments(id, index, &mut result.damage);
                let message = StoreError::ChunkMissing { id }.to_string();
                result.findings.push(Finding {
                    message,
                    ..missing_finding(&paths::directory(paths::IMAGES), id)
                });
            }
        }
        Ok(needs.places)
    }

    /// Adds to each finding about a chunk the images that hold it; the place of what is nowhere is the first of these.
    pub(super) fn name_images(
        &self,
        records: &[ImageRecord],
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let (findings, damage) = (&mut result.findings, &result.damage);
        let mut holders: HashMap<ChunkId, Vec<String>> = findings
            .iter()
            .filter_map(|finding| finding.chunk)
            .chain(damage.lost.values().flatten().copied())
            .map(|id| (id, Vec::new()))
            .collect();
        if holders.is_empty() {
            return Ok(());
        }
        // Who holds what stands on a chunk holds that chunk.
        let mut under: HashMap<ChunkId, Vec<ChunkId>> = HashMap::new();
        for (base, on_it) in &damage.stood_on {
            for id in on_it {
                under.entry(*id).or_default().push(*base);
            }
        }
        for record in records {
            let stack = match LayerStack::of_image(self, record) {
                Ok(stack) => stack,
                Err(error) if error.is_unreadable() => continue,
                Err(error) => return Err(error),
            };
            for chunk in stack.chunks() {
                let Ok((_, id)) = chunk else { continue };
                let bases = under.get(&id).map_or(&[][..], Vec::as_slice);
                for id in bases.iter().chain([&id]) {
                    if let Some(names) = holders.get_mut(id)
                        && names.last().map(String::as_str) != Some(record.name.as_str())
                    {
                        names.push(record.name.as_str().to_owned());
                    }
                }
            }
        }
        let nowhere = paths::directory(paths::IMAGES).to_string();
        for finding in findings.iter_mut() {
            let names = finding.chunk.and_then(|id| holders.get(&id));
            let Some(names) = names else { continue };
            if let (true, Some(first)) = (finding.path == nowhere, names.first()) {
                finding.path = format!("{nowhere}/{first}.image");
            }
            finding.images.clone_from(names);
        }
        for (segment, chunks) in &damage.lost {
            let names = chunks.iter().filter_map(|id| holders.get(id)).flatten();
            let images: BTreeSet<&String> = names.collect();
            let count = chunks.len();
            let message = format!(
                "it is missing; by the index, chunks that images need stood there and nowhere else: {count}"
            );
            findings.push(Finding {
                images: images.into_iter().cloned().collect(),
                message,
                ..blank_finding(&paths::sealed_segment(*segment))
            });
        }
        Ok(())
    }
}

/// Notes the segments that a chunk stood in and that are gone. That a run names one is no damage by itself: so does every
/// run after a collection.
fn note_lost_segments(id: ChunkId, index: &Index, damage: &mut Damage) {
    for row in index.runs.iter().flat_map(|run| run.find(&id)) {
        let segment = row.place.segment;
        if !index.sealed.contains(segment.get()) {
            damage.lost.entry(segment).or_default().insert(id);
        }
    }
}

fn check_digest(
    record: &ImageRecord,
    digest: Result<(ImageDigest, u64), StoreError>,
    result: &mut Verification,
) -> Result<(), StoreError> {
    let message = match digest {
        Ok((digest, _)) if digest != record.digest => format!(
            "its blocks have the digest {digest}, the record says {}",
            record.digest
        ),
        Ok((_, data_blocks)) if data_blocks != record.data_blocks => format!(
            "it has {data_blocks} data blocks, the record says {}",
            record.data_blocks
        ),
        Ok(_) => return Ok(()),
        // The layer has its own finding already.
        Err(error) if error.is_unreadable() => return Ok(()),
        Err(error) => return Err(error),
    };
    result.findings.push(Finding {
        images: vec![record.name.as_str().to_owned()],
        message,
        ..blank_finding(&paths::image(&record.name))
    });
    Ok(())
}

/// Computes digest and number of data blocks of an image's map.
fn digest_of(record: &ImageRecord, stack: &LayerStack) -> Result<(ImageDigest, u64), StoreError> {
    let mut digester = ImageDigester::new(record.virtual_size, record.block_size);
    let (mut next, mut data_blocks) = (0, 0);
    for chunk in stack.chunks() {
        let (block, id) = chunk?;
        digester.push_zeros(u64::from(block.get()) - next);
        digester.push_data(&id);
        next = u64::from(block.get()) + 1;
        data_blocks += 1;
    }
    let blocks = record.block_size.blocks_in(record.virtual_size);
    digester.push_zeros(blocks.saturating_sub(next));
    Ok((digester.finish(), data_blocks))
}

//! Folding layers of a stack into one that reads the same: coalescing and flattening (SPEC 6.3).
//!
//! Only maps are read and written: no chunk, no segment, not even the index. Content and digest of the image stay.
//!
//! Deep stacks are folded without anyone asking, by whoever makes one deeper: the newest layers into one, as in a
//! log-structured merge tree, so that an id is rewritten a few times in its life and not at every sixteenth image.

use crate::layer::{IdTable, LayerIdSource, NewLayer, read_summary};
use crate::{Difference, Ingest, LayerStack, Session, Store, StoreError};
use std::collections::HashMap;
use tegula_format::{BlockSet, ImageName, ImageRecord, LayerId, LayerSummary};

/// A stack deeper than this is folded by whoever made it so deep.
pub const STACK_DEPTH_MAX: usize = 16;

/// The fewest layers that are folded to make a deep stack shallow again: fewer would leave too little room for the next.
const FOLD_LAYERS_MIN: usize = STACK_DEPTH_MAX / 2;

/// An image whose layers were folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// Its record now.
    pub record: ImageRecord,
    /// How many layers its stack had.
    pub layers_before: usize,
    /// How many it has.
    pub layers: usize,
}

/// Decides how many of the newest layers of a stack are to be folded without anyone asking, if any. `rows` are the
/// entries of each layer, the newest first.
///
/// Deltas that together exceed half of the base go into one full layer with it. Otherwise only a stack that is too deep
/// is folded: its newest layers, down to one that is larger than all of them together. So each entry is rewritten by a
/// layer at least twice as large, or together with seven others.
pub(crate) fn layers_to_fold(rows: &[u64]) -> Option<usize> {
    let (base, deltas) = rows.split_last()?;
    if deltas.iter().sum::<u64>() > base / 2 {
        return Some(rows.len());
    }
    if rows.len() <= STACK_DEPTH_MAX {
        return None;
    }
    let mut sum = 0;
    let sizes = (1..).zip(deltas.iter().zip(deltas.iter().skip(1)));
    let larger_below = sizes.filter(|(count, (size, below))| {
        sum += *size;
        *count >= FOLD_LAYERS_MIN && **below >= sum
    });
    let count = larger_below.map(|(count, _)| count).next();
    Some(count.unwrap_or(deltas.len()))
}

/// Returns how many entries a layer has.
fn rows_of(summary: &LayerSummary) -> u64 {
    summary.data_blocks + summary.zero_blocks
}

impl LayerStack {
    /// Returns how many of the newest layers are to be folded without anyone asking, if any.
    pub(crate) fn layers_to_fold(&self) -> Option<usize> {
        let rows = self.layers().iter().map(|layer| rows_of(layer.summary()));
        layers_to_fold(&rows.collect::<Vec<_>>())
    }

    /// Returns the newest `count` layers as one: over what lies below them, or full if that is nothing.
    fn fold(&self, count: usize) -> NewLayer<'_> {
        let upper = self.layers().get(..count).unwrap_or(self.layers());
        let below = self.below(count);
        let mut data = BlockSet::new();
        let visible = self.visible().iter().take(count);
        visible.for_each(|blocks| data.union_with(blocks));
        let mut zero = BlockSet::new();
        if let Some(below) = &below {
            for layer in upper {
                zero.union_with(layer.data());
                zero.union_with(layer.zero());
            }
            // Where an older one of them ends there are zeros from there on, for all newer ones (SPEC 6.2).
            let shortest = upper.iter().map(|layer| layer.block_count()).min();
            zero.insert_range(shortest.unwrap_or(0)..self.block_count());
            zero.truncate(self.block_count());
            zero.subtract(&data);
            // What reads as zeros anyway needs no word.
            zero.intersect_with(&below.data());
        }
        NewLayer {
            virtual_size: self.virtual_size(),
            parent: below.as_ref().map(Self::reference),
            data,
            zero,
            ids: LayerIdSource::Layers {
                layers: upper,
                blocks: self.block_count(),
            },
            // What one of them changed another may have changed back.
            differs: false,
        }
    }

    /// Returns this stack as one layer over another, related or not.
    fn over<'a>(&self, session: &'a Session, base: &Self) -> Result<NewLayer<'a>, StoreError> {
        let Difference { data, zero } = self.difference(base)?;
        let mut ids = IdTable::new(session.environment());
        for row in self.chunks_of(&data) {
            ids.push(&row?.1)?;
        }
        Ok(NewLayer {
            virtual_size: self.virtual_size(),
            parent: Some(base.reference()),
            data,
            zero,
            ids: LayerIdSource::Table(ids.finish()?),
            differs: true,
        })
    }
}

impl Ingest<'_> {
    /// Puts an image on a stack whose newest `count` layers are one.
    fn fold(
        &self,
        record: &ImageRecord,
        stack: &LayerStack,
        count: usize,
    ) -> Result<ImageRecord, StoreError> {
        let layer = stack.fold(count).publish(self.session(), self.id())?;
        self.replace_layer(record, layer)
    }

    /// Folds the stack of an image just published, if it is too deep or its deltas too large. Returns its record.
    pub(crate) fn keep_shallow(
        &self,
        record: &ImageRecord,
        stack: &LayerStack,
    ) -> Result<Option<ImageRecord>, StoreError> {
        let count = stack.layers_to_fold();
        count
            .map(|count| self.fold(record, stack, count))
            .transpose()
    }

    /// Writes the full layer that maps what a stack maps.
    pub(crate) fn write_full(&self, stack: &LayerStack) -> Result<LayerId, StoreError> {
        stack
            .fold(stack.layers().len())
            .publish(self.session(), self.id())
    }
}

impl Store {
    /// Makes one layer of an image's increments: of all, over the full layer they began with, or of those since another
    /// image. That need not be an ancestor; then the layer holds whatever differs. Where there is one increment or none,
    /// nothing is done.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`]; [`StoreError::ImageChanged`] if it is replaced or removed meanwhile.
    pub fn coalesce(
        &self,
        name: &ImageName,
        onto: Option<&ImageName>,
    ) -> Result<Folded, StoreError> {
        let session = self.begin()?;
        let record = session.image(name)?;
        let stack = LayerStack::of_image(&session, &record)?;
        let layers_before = stack.layers().len();
        let folded = |record, layers| Folded {
            record,
            layers_before,
            layers,
        };
        let Some(onto) = onto else {
            return match layers_before {
                0..=2 => Ok(folded(record, layers_before)),
                _ => {
                    let ingest = Ingest::begin_without_index(&session)?;
                    let record = ingest.fold(&record, &stack, layers_before - 1)?;
                    Ok(folded(record, 2))
                }
            };
        };
        let base = LayerStack::of_image(&session, &session.image(onto)?)?;
        let (base_layer, _) = base.reference();
        let above = stack
            .layers()
            .iter()
            .position(|layer| layer.id() == base_layer);
        let layers = base.layers().len() + 1;
        match above {
            // It lies on that image's layer as it is, or is that image.
            Some(0 | 1) => Ok(folded(record, layers_before)),
            Some(count) => {
                let ingest = Ingest::begin_without_index(&session)?;
                Ok(folded(ingest.fold(&record, &stack, count)?, layers))
            }
            None => {
                let ingest = Ingest::begin_without_index(&session)?;
                let layer = stack.over(&session, &base)?;
                let layer = layer.publish(&session, ingest.id())?;
                Ok(folded(ingest.replace_layer(&record, layer)?, layers))
            }
        }
    }

    /// Puts an image on one full layer of its own. It then says of no other image that it came from it, if
    /// `forget_parent`.
    ///
    /// # Errors
    /// As for [`Self::coalesce`].
    pub fn flatten(&self, name: &ImageName, forget_parent: bool) -> Result<Folded, StoreError> {
        let session = self.begin()?;
        let record = session.image(name)?;
        let stack = LayerStack::of_image(&session, &record)?;
        let layers_before = stack.layers().len();
        let mut new = record.clone();
        if forget_parent {
            new.parent = None;
        }
        if layers_before > 1 || new != record {
            let ingest = Ingest::begin_without_index(&session)?;
            if layers_before > 1 {
                new.layer = ingest.write_full(&stack)?;
            }
            new = ingest.replace_record(&record, new)?;
        }
        Ok(Folded {
            record: new,
            layers_before,
            layers: 1,
        })
    }

    /// Folds the stacks that are too deep: those of images whose writer did not live to do it.
    ///
    /// # Errors
    /// [`StoreError`] if a record or layer cannot be read, or the store not be written.
    pub fn coalesce_deep(&self) -> Result<(), StoreError> {
        let session = self.begin()?;
        let mut seen = HashMap::new();
        for record in session.images()? {
            let rows = rows_of_stack(&session, &record.layer, &mut seen)?;
            if layers_to_fold(&rows).is_none() {
                continue;
            }
            let stack = LayerStack::of_image(&session, &record)?;
            let ingest = Ingest::begin_without_index(&session)?;
            match ingest.keep_shallow(&record, &stack) {
                // Removed, renamed or replaced since it was listed.
                Ok(_) | Err(StoreError::ImageChanged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Reads how many entries each layer of a stack has, the newest first, from the heads of their files.
fn rows_of_stack(
    session: &Session,
    top: &LayerId,
    seen: &mut HashMap<LayerId, LayerSummary>,
) -> Result<Vec<u64>, StoreError> {
    let mut rows = Vec::new();
    let mut next = Some(*top);
    while let Some(id) = next {
        let summary = match seen.get(&id) {
            Some(summary) => *summary,
            None => *seen
                .entry(id)
                .or_insert(read_summary(session.environment(), &id)?),
        };
        rows.push(rows_of(&summary));
        next = summary.parent;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lays layers over a base as a chain of images does; returns the deepest stack there was and the rows written, those
    /// of the layers themselves included.
    fn chain(base: u64, deltas: impl Iterator<Item = u64>) -> (usize, u64) {
        let mut stack = vec![base];
        let (mut deepest, mut written) = (1, 0);
        for delta in deltas {
            stack.insert(0, delta);
            written += delta;
            if let Some(count) = layers_to_fold(&stack) {
                // Where no block is changed twice the fold is as large as its layers; a full layer has the base's blocks.
                let folded = match count == stack.len() {
                    true => base,
                    false => stack.iter().take(count).sum(),
                };
                stack.splice(..count, [folded]);
                written += folded;
            }
            deepest = deepest.max(stack.len());
        }
        (deepest, written)
    }

    #[test]
    fn a_thousand_changes_of_a_hundredth_are_rewritten_three_times_each() {
        let base = 1 << 24;
        let (deepest, written) = chain(base, (0..1000).map(|_| base / 100));
        assert!(deepest <= STACK_DEPTH_MAX, "{deepest} layers");
        // Once itself, once into a larger delta, twice as a part of the full layer that half a base of deltas becomes.
        // A full layer for every sixteenth image would write seven times as much as the images' own layers.
        let own = base / 100 * 1000;
        assert!(written < own * 42 / 10, "{written} rows for {own}");
    }

    #[test]
    fn deltas_of_half_the_base_become_a_full_layer_and_fewer_do_not() {
        assert_eq!(layers_to_fold(&[50, 100]), None);
        assert_eq!(layers_to_fold(&[51, 100]), Some(2));
        assert_eq!(layers_to_fold(&[20, 20, 11, 100]), Some(4));
        assert_eq!(layers_to_fold(&[1, 0]), Some(2));
        assert_eq!(layers_to_fold(&[0, 0]), None);
        assert_eq!(layers_to_fold(&[7]), None);
        assert_eq!(layers_to_fold(&[]), None);
    }

    proptest! {
        #[test]
        fn no_chain_gets_too_deep_or_rewrites_its_rows_again_and_again(
            base in 0..100_000u64,
            deltas in prop::collection::vec(0..1000u64, 0..300),
        ) {
            let own: u64 = deltas.iter().sum();
            let (deepest, written) = chain(base, deltas.into_iter());
            prop_assert!(deepest <= STACK_DEPTH_MAX);
            prop_assert!(written <= own * 12, "{} rows for {}", written, own);
        }
    }
}

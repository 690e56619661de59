//! Repair of the maps of images: made again from another store's image of the same content.

use super::RepairReport;
use crate::{IdTable, Ingest, LayerStack, Session, Store, StoreError, paths};
use std::collections::HashSet;
use tegula_format::{BlockSet, LayerId};
use tegula_io::StorePath;

impl Store {
    /// Puts images whose layers are damaged or missing on a new full layer, made from an image of the same content
    /// in another store.
    pub(super) fn restore_layers(
        &self,
        from: &Store,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let theirs = from.begin()?;
        let (their_records, _) = theirs.images_and_damage()?;
        let session = self.begin()?;
        let (records, _) = session.images_and_damage()?;
        for record in records {
            let sound = LayerStack::of_image(&session, &record)
                .and_then(|stack| stack.layers().iter().try_for_each(|layer| layer.verify()));
            match sound {
                Ok(()) => continue,
                Err(error) if error.is_unreadable() => {}
                Err(error) => return Err(error),
            }
            let mut same = their_records
                .iter()
                .filter(|other| other.digest == record.digest);
            let ingest = Ingest::begin(&session)?;
            let chunks = same
                .find_map(|same| copy_chunks(&ingest, &theirs, &same.layer, report).transpose());
            if let Some((data, ids)) = chunks.transpose()? {
                ingest.relayer(&record, data, ids)?;
                report.restored_layers.push(record.name.as_str().to_owned());
            }
        }
        Ok(())
    }

    /// Moves damaged layers aside once it is certain that no image needs them.
    pub(super) fn set_layers_aside(
        &self,
        damaged: &[StorePath],
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let session = self.begin()?;
        let (records, damage) = session.images_and_damage()?;
        if !damage.is_empty() {
            return Ok(());
        }
        let mut needed = HashSet::new();
        for record in records {
            match LayerStack::of_image(&session, &record) {
                Ok(stack) => needed.extend(stack.layers().iter().map(|layer| layer.id())),
                // What lies below the layer that cannot be read is not known.
                Err(error) if error.is_unreadable() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        for path in damaged {
            let there = self.environment().storage.open(path).is_ok();
            let unneeded = |id| !needed.contains(&id);
            if there && paths::parse_layer(path.name()).is_some_and(unneeded) {
                self.move_aside(path, report)?;
            }
        }
        Ok(())
    }
}

/// Stores what another store's map needs and is not here. Returns the map, or `None` if that one is damaged too.
pub(super) fn copy_chunks<'a>(
    ingest: &Ingest<'a>,
    theirs: &Session,
    layer: &LayerId,
    report: &mut RepairReport,
) -> Result<Option<(BlockSet, IdTable<'a>)>, StoreError> {
    let mut copy = || {
        let stack = LayerStack::open(theirs, layer)?;
        let (mut data, mut ids) = (BlockSet::new(), ingest.id_table());
        for chunk in stack.chunks() {
            let (block, id) = chunk?;
            if !ingest.has_or_claim(&id) {
                ingest.store(&ingest.compress(id, &theirs.read_chunk(&id)?))?;
                report.healed_chunks += 1;
            }
            data.push(block);
            ids.push(&id)?;
        }
        Ok((data, ids))
    };
    match copy() {
        Ok(map) => Ok(Some(map)),
        Err(error) if StoreError::is_unreadable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

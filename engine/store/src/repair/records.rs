//! Repair of image records.

use super::RepairReport;
use super::layers::copy_chunks;
use crate::{Ingest, LayerStack, NewImage, Store, StoreError, files, images, layer, paths};
use std::collections::HashSet;
use tegula_format::{BlockSet, ImageDigester, ImageName, ImageRecord, LayerId};
use tegula_io::{Buffer, Existing, StorePath};

/// Where the name stands in an image record's file (SPEC 7): behind envelope and id.
const NAME_OFFSET: usize = 48;

impl Store {
    /// Brings back the records whose files are damaged.
    ///
    /// A record that is whole but stands under another's name goes to its own. A damaged one is made again from the
    /// layer it names; if that can no longer be told, from another store. What stood there is kept in quarantine.
    pub(super) fn restore_records(
        &self,
        damaged: &[StorePath],
        from: Option<&Store>,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        // All are read before any is replaced: two may stand in each other's place.
        let files: Result<Vec<_>, StoreError> = damaged
            .iter()
            .map(|path| Ok((path, self.bytes_of(path)?)))
            .collect();
        let files = files?;
        for (_, bytes) in &files {
            let bytes = bytes.as_deref().unwrap_or_default();
            if let Ok(record) = ImageRecord::decode(bytes) {
                self.put_in_its_place(&record, report)?;
            }
        }
        for (path, bytes) in files {
            self.restore_record(path, bytes.as_ref(), from, report)?;
        }
        Ok(())
    }

    /// Reads a record's file; `None` if the disk does not give its bytes back, or it is gone by now.
    fn bytes_of(&self, path: &StorePath) -> Result<Option<Buffer>, StoreError> {
        match files::read_if_present(self.environment(), path) {
            Err(error) if error.is_bad_medium() => Ok(None),
            read => read,
        }
    }

    /// Publishes a record that was found under another's name, unless a whole one stands under its own.
    fn put_in_its_place(
        &self,
        record: &ImageRecord,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let path = paths::image(&record.name);
        // What is judged under the lock stays so until it is replaced.
        let _lock = self.commit_lock()?;
        match images::read_record(self.environment(), &record.name) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(error) if error.is_damage() => self.keep(&path, report)?,
            Err(error) => return Err(error),
        }
        files::publish(
            self.environment(),
            &path,
            &record.encode(),
            Existing::Replace,
        )?;
        report
            .restored_records
            .push(record.name.as_str().to_owned());
        Ok(())
    }

    fn restore_record(
        &self,
        path: &StorePath,
        bytes: Option<&Buffer>,
        from: Option<&Store>,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let name = paths::parse_image(path.name());
        let misplaced = bytes.is_some_and(|bytes| ImageRecord::decode(bytes).is_ok());
        {
            let _lock = self.commit_lock()?;
            let now = name
                .as_ref()
                .map(|name| images::read_record(self.environment(), name));
            match now {
                // Another's file held it, or somebody has put the image again.
                Some(Ok(_)) => return Ok(()),
                // What may be whole but of a newer format is not for repair to touch.
                Some(Err(StoreError::NeedsNewerProgram { .. })) => return Ok(()),
                Some(Err(error)) if !error.is_damage() => return Err(error),
                _ => {}
            }
            if misplaced {
                // It stands in its own place by now.
                self.move_aside(path, report)?;
            }
        }
        let Some(name) = name else {
            // No image can have this file, and what does not even begin as a record never was one: it only stands in the
            // way of collection, which must know of every record what it needs.
            if bytes.is_some_and(|bytes| !misplaced && !ImageRecord::may_begin_with(bytes)) {
                self.move_aside(path, report)?;
            }
            return Ok(());
        };
        if let Some(bytes) = bytes
            && !misplaced
            && self.restore_from_layer(&name, bytes, report)?
        {
            return Ok(());
        }
        match from {
            Some(from) => self.restore_from_store(&name, bytes, from, report),
            None => Ok(()),
        }
    }

    /// Makes a record again if the layer it names can still be told: a layer's id is a hash, so that 32 bytes that are
    /// some layer's id are no accident. Nor is the image's own name where a record has it: without that these may be
    /// the bytes of another file.
    fn restore_from_layer(
        &self,
        name: &ImageName,
        bytes: &[u8],
        report: &mut RepairReport,
    ) -> Result<bool, StoreError> {
        let session = self.begin()?;
        let layers: HashSet<LayerId> = layer::list_layers(self.environment())?
            .into_iter()
            .collect();
        let windows = bytes
            .windows(32)
            .filter_map(|window| window.first_chunk().copied());
        let named: HashSet<_> = windows
            .map(LayerId::from_bytes)
            .filter(|id| layers.contains(id))
            .collect();
        let [id] = named.into_iter().collect::<Vec<_>>()[..] else {
            return Ok(false);
        };
        if digest_offset(name, bytes).is_none() {
            return Ok(false);
        }
        let stack = match LayerStack::open(&session, &id) {
            Ok(stack) => stack,
            Err(error) if error.is_unreadable() => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(record) = record_of(self, name, &stack)? else {
            return Ok(false);
        };
        let path = paths::image(name);
        // A copy is kept before the damaged file is replaced.
        self.keep_copy(&path, bytes, report)?;
        let _lock = self.commit_lock()?;
        let now = files::read_if_present(self.environment(), &path)?;
        if now.as_deref() != Some(bytes) {
            // Somebody has put the image again meanwhile.
            return Ok(true);
        }
        files::publish(
            self.environment(),
            &path,
            &record.encode(),
            Existing::Replace,
        )?;
        report
            .restored_records
            .push(record.name.as_str().to_owned());
        Ok(true)
    }

    /// Takes an image from another store: the one whose digest the damaged record still has, else the one of the same
    /// name.
    fn restore_from_store(
        &self,
        name: &ImageName,
        bytes: Option<&Buffer>,
        from: &Store,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let (session, theirs) = (self.begin()?, from.begin()?);
        if session.block_size() != theirs.block_size() {
            return Ok(());
        }
        let (records, _) = theirs.images_and_damage()?;
        let words = bytes.map(|bytes| &**bytes).unwrap_or_default();
        let digest = digest_offset(name, words).and_then(|at| words.get(at..at + 32));
        let by_digest = records
            .iter()
            .find(|record| Some(record.digest.as_bytes().as_slice()) == digest);
        let by_name = || records.iter().find(|record| record.name == *name);
        let Some(same) = by_digest.or_else(by_name) else {
            return Ok(());
        };
        let ingest = Ingest::begin(&session)?;
        let Some((data, ids)) = copy_chunks(&ingest, &theirs, &same.layer, report)? else {
            return Ok(());
        };
        let image = NewImage {
            name: name.clone(),
            replace: true,
            virtual_size: same.virtual_size,
            parent: same.parent.clone(),
            base: None,
            data,
            zero: BlockSet::new(),
        };
        // Somebody may put the image again at any moment: what stands there is judged under the lock.
        let path = paths::image(name);
        let mut still_damaged = || {
            match images::read_record(self.environment(), name) {
                Err(error) if error.is_damage() => self.keep(&path, report),
                Err(error) => Err(error),
                // Misplaced, it was moved aside just now.
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(StoreError::ImageChanged { name: name.clone() }),
            }
        };
        match ingest.finish_where(image, ids, &mut still_damaged) {
            Err(StoreError::ImageChanged { .. }) => return Ok(()),
            finished => drop(finished?),
        }
        report.restored_records.push(name.as_str().to_owned());
        Ok(())
    }

    /// Keeps what stands in a place and is about to be replaced: a copy, or, if it cannot be read, the file.
    pub(super) fn keep(
        &self,
        path: &StorePath,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        match files::read_whole(self.environment(), path) {
            Ok(bytes) => self.keep_copy(path, &bytes, report),
            Err(error) if error.is_bad_medium() => self.move_aside(path, report),
            Err(error) => Err(error),
        }
    }

    /// Keeps the bytes of a file that is about to be replaced.
    fn keep_copy(
        &self,
        path: &StorePath,
        bytes: &[u8],
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let id = self.new_record_id()?;
        let kept = paths::directory(paths::QUARANTINE).join(&format!("{id}-{}", path.name()));
        files::publish(self.environment(), &kept, bytes, Existing::Refuse)?;
        report.quarantined_files.push(kept.to_string());
        Ok(())
    }
}

/// Returns where the digest stands in a record's bytes, if the image's own name stands where a record has it.
fn digest_offset(name: &ImageName, bytes: &[u8]) -> Option<usize> {
    let name = name.as_str().as_bytes();
    let length = (name.len() as u64).to_le_bytes();
    let expected = [length.as_slice(), name].concat();
    let end = NAME_OFFSET + expected.len();
    // Behind the name: the virtual size and the block size.
    (bytes.get(NAME_OFFSET..end)? == expected).then_some(end + 9)
}

/// Returns a record of what a stack maps; `None` if one of its pages is damaged.
fn record_of(
    store: &Store,
    name: &ImageName,
    stack: &LayerStack,
) -> Result<Option<ImageRecord>, StoreError> {
    let mut digester = ImageDigester::new(stack.virtual_size(), stack.block_size());
    let (mut next, mut data_blocks) = (0, 0);
    for chunk in stack.chunks() {
        let (block, id) = match chunk {
            Err(error) if error.is_unreadable() => return Ok(None),
            chunk => chunk?,
        };
        digester.push_zeros(u64::from(block.get()) - next);
        digester.push_data(&id);
        next = u64::from(block.get()) + 1;
        data_blocks += 1;
    }
    digester.push_zeros(stack.block_count() - next);
    let (layer, _) = stack.reference();
    Ok(Some(ImageRecord {
        id: store.new_record_id()?,
        name: name.clone(),
        virtual_size: stack.virtual_size(),
        block_size: stack.block_size(),
        digest: digester.finish(),
        layer,
        parent: None,
        supersedes: None,
        data_blocks,
        created_at_us: store.environment().clock.now_us(),
    }))
}

//! Repair: makes derived data anew and heals what it has a good copy of.
//!
//! It only adds. A damaged file is moved aside, never deleted; a damaged chunk is put in quarantine, which makes
//! everybody treat it as absent, so that whoever brings it again heals the images that need it.

use crate::recover::whole_record;
use crate::segment::list_sealed;
use crate::verify::Damage;
use crate::{
    Depth, Finding, Ingest, LayerStack, Session, Store, StoreError, files, index, layer, paths,
};
use std::collections::HashSet;
use tegula_format::{
    BlockSet, ChunkId, ImageDigester, ImageRecord, LayerId, QuarantineList, SEGMENT_DATA_START,
    SegmentNumber,
};
use tegula_io::{Existing, LockMode, StorePath};

/// How a repair is to go about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repairs<'a> {
    /// Another store to take good copies from.
    pub from: Option<&'a Store>,
}

/// What a repair did.
#[derive(Debug, Default)]
pub struct RepairReport {
    /// Chunks stored again from the other store.
    pub healed_chunks: u64,
    /// Damaged records newly put in quarantine.
    pub quarantined_chunks: u64,
    /// Chunks saved from segments whose table is damaged, or that were never sealed.
    pub salvaged_chunks: u64,
    /// Damaged files moved to the quarantine directory.
    pub quarantined_files: Vec<String>,
    /// Image records made again from the layer they name.
    pub restored_records: Vec<String>,
    /// Images put on a new layer made from the other store.
    pub restored_layers: Vec<String>,
    /// Whether the index was made anew.
    pub index_rebuilt: bool,
    /// What is still wrong.
    pub remaining: Vec<Finding>,
}

impl Store {
    /// Mends what can be mended.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a collection runs; [`StoreError::Io`] if the storage fails.
    pub fn repair(
        &self,
        repairs: Repairs<'_>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<RepairReport, StoreError> {
        let path = paths::gc_lock();
        let lock = self
            .environment()
            .storage
            .try_lock(&path, LockMode::Exclusive);
        let Some(_lock) = lock.map_err(StoreError::io("lock", &path))? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        let mut report = RepairReport::default();
        let damage = self.begin()?.verify(Depth::Full, &[], progress)?.damage;
        self.put_in_quarantine(&damage, &mut report)?;
        for number in &damage.segments {
            self.salvage(*number, &mut report)?;
        }
        let session = self.begin()?;
        report.salvaged_chunks += Ingest::begin(&session)?.recover_abandoned()?;
        drop(session);
        if damage.index || !damage.segments.is_empty() {
            index::rebuild(&self.begin()?)?;
            report.index_rebuilt = true;
        }
        for path in &damage.records {
            self.restore_record(path, &mut report)?;
        }
        if let Some(from) = repairs.from {
            self.restore_layers(from, &mut report)?;
            self.heal(from, &mut report)?;
        }
        report.remaining = self.begin()?.verify(Depth::Fast, &[], progress)?.findings;
        Ok(report)
    }

    fn put_in_quarantine(
        &self,
        damage: &Damage,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let session = self.begin()?;
        let mut places = session.quarantine().places.clone();
        let before = places.len();
        places.extend(damage.rows.iter().map(|row| row.place));
        places.sort_unstable();
        places.dedup();
        report.quarantined_chunks = (places.len() - before) as u64;
        // Places of segments that are gone need no entry: their numbers are never given out again.
        let sealed: HashSet<_> = list_sealed(self.environment())?
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        places.retain(|place| sealed.contains(&place.segment));
        if places == session.quarantine().places {
            return Ok(());
        }
        let list = QuarantineList { places };
        files::publish(
            self.environment(),
            &paths::quarantined_places(),
            &list.encode(),
            Existing::Replace,
        )
    }

    /// Copies every whole record out of a segment whose head or table is damaged, then moves the file aside.
    fn salvage(&self, number: SegmentNumber, report: &mut RepairReport) -> Result<(), StoreError> {
        let session = self.begin()?;
        let ingest = Ingest::begin(&session)?;
        let path = paths::sealed_segment(number);
        let file = self
            .environment()
            .storage
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut offset = SEGMENT_DATA_START;
        // The longest a record can be; what is left of a window is read again with the next.
        let longest = tegula_format::RECORD_HEADER_BYTES + session.block_size().as_usize();
        let window = (longest * 2).max(1 << 20);
        while offset < file.bytes() {
            let length = usize::try_from((file.bytes() - offset).min(window as u64))
                .expect("because it is limited");
            let bytes = file
                .read_at(offset, length)
                .wait()
                .map_err(StoreError::io("read", &path))?;
            let last_window = offset + length as u64 == file.bytes();
            let end = if last_window {
                length
            } else {
                length - longest
            };
            let mut at = 0;
            while at < end {
                let rest = bytes.get(at..).unwrap_or_default();
                match whole_record(&session, rest) {
                    Ok(chunk) => {
                        at += chunk.record.len();
                        if !ingest.has_or_claim(&chunk.id) {
                            ingest.store(&chunk)?;
                            report.salvaged_chunks += 1;
                        }
                    }
                    // Past what is damaged to where the next record may begin.
                    Err(_) => at += 1 + next_magic(rest.get(1..).unwrap_or_default()),
                }
            }
            offset += at as u64;
        }
        ingest.seal_all()?;
        self.move_aside(&path, report)
    }

    /// Moves a damaged file to the quarantine directory.
    fn move_aside(&self, path: &StorePath, report: &mut RepairReport) -> Result<(), StoreError> {
        let environment = self.environment();
        let directory = paths::directory(paths::QUARANTINE);
        let mut to = directory.join(path.name());
        let mut attempt = 0;
        loop {
            match environment.storage.rename(path, &to, Existing::Refuse) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    attempt += 1;
                    to = directory.join(&format!("{}.{attempt}", path.name()));
                }
                done => break done.map_err(StoreError::io("move", path))?,
            }
        }
        files::sync_directory(environment, &directory)?;
        files::sync_directory(environment, &path.parent())?;
        report.quarantined_files.push(to.to_string());
        Ok(())
    }

    /// Makes a damaged image record again if the layer it names can still be told: a layer's id is a hash, so 32 bytes
    /// of the damaged file that are some layer's id are no accident.
    fn restore_record(
        &self,
        path: &StorePath,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let Some(name) = paths::parse_image(path.name()) else {
            return Ok(());
        };
        let session = self.begin()?;
        let layers: HashSet<LayerId> = layer::list_layers(self.environment())?
            .into_iter()
            .collect();
        let bytes = files::read_whole(self.environment(), path)?;
        let windows = bytes
            .windows(32)
            .filter_map(|window| window.first_chunk().copied());
        let named: HashSet<_> = windows
            .map(LayerId::from_bytes)
            .filter(|id| layers.contains(id))
            .collect();
        let [id] = named.into_iter().collect::<Vec<_>>()[..] else {
            return Ok(());
        };
        let stack = match LayerStack::open(&session, &id) {
            Ok(stack) => stack,
            Err(error) if error.is_corruption() => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut digester = ImageDigester::new(stack.virtual_size(), stack.block_size());
        let (mut next, mut data_blocks) = (0, 0);
        for chunk in stack.chunks() {
            let (block, id) = chunk?;
            digester.push_zeros(u64::from(block.get()) - next);
            digester.push_data(&id);
            next = u64::from(block.get()) + 1;
            data_blocks += 1;
        }
        digester.push_zeros(stack.block_count() - next);
        let record = ImageRecord {
            id: self.new_record_id()?,
            name,
            virtual_size: stack.virtual_size(),
            block_size: stack.block_size(),
            digest: digester.finish(),
            layer: id,
            parent: None,
            supersedes: None,
            data_blocks,
            created_at_us: self.environment().clock.now_us(),
        };
        let _lock = self.commit_lock()?;
        // A copy is kept before the damaged file is replaced.
        let kept =
            paths::directory(paths::QUARANTINE).join(&format!("{}-{}", record.id, path.name()));
        files::publish(self.environment(), &kept, &bytes, Existing::Refuse)?;
        files::publish(
            self.environment(),
            path,
            &record.encode(),
            Existing::Replace,
        )?;
        report.quarantined_files.push(kept.to_string());
        report
            .restored_records
            .push(record.name.as_str().to_owned());
        Ok(())
    }

    /// Puts images whose layers are damaged or missing on a new full layer, made from an image of the same content
    /// in another store.
    fn restore_layers(&self, from: &Store, report: &mut RepairReport) -> Result<(), StoreError> {
        let theirs = from.begin()?;
        let (their_records, _) = theirs.images_and_damage()?;
        let session = self.begin()?;
        let (records, _) = session.images_and_damage()?;
        for record in records {
            let sound = LayerStack::open(&session, &record.layer)
                .and_then(|stack| stack.layers().iter().try_for_each(|layer| layer.verify()));
            match sound {
                Ok(()) => continue,
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
            }
            let Some(same) = their_records
                .iter()
                .find(|other| other.digest == record.digest)
            else {
                continue;
            };
            let stack = LayerStack::open(&theirs, &same.layer)?;
            let ids: Result<Vec<_>, _> = stack.chunks().collect();
            let ids = ids?;
            let ingest = Ingest::begin(&session)?;
            for (_, id) in &ids {
                if !ingest.has_or_claim(id) {
                    ingest.store(&ingest.compress(*id, &theirs.read_chunk(id)?))?;
                    report.healed_chunks += 1;
                }
            }
            let data: BlockSet = ids.iter().map(|(block, _)| *block).collect();
            let damaged = record.layer;
            ingest.relayer(&record, data, ids.into_iter().map(|(_, id)| id))?;
            report.restored_layers.push(record.name.as_str().to_owned());
            let path = paths::layer(&damaged);
            if self.environment().storage.open(&path).is_ok() {
                self.move_aside(&path, report)?;
            }
        }
        Ok(())
    }

    /// Stores again, from another store, every chunk that an image needs and that is nowhere whole.
    fn heal(&self, from: &Store, report: &mut RepairReport) -> Result<(), StoreError> {
        let session = self.begin()?;
        let theirs = from.begin()?;
        let ingest = Ingest::begin(&session)?;
        for id in missing_chunks(&session)? {
            match theirs.read_chunk(&id) {
                Ok(block) if !ingest.has_or_claim(&id) => {
                    ingest.store(&ingest.compress(id, &block))?;
                    report.healed_chunks += 1;
                }
                Ok(_) => {}
                Err(error) if error.is_corruption() => {}
                Err(error) => return Err(error),
            }
        }
        ingest.seal_all()
    }
}

/// Returns the chunks that images need and that stand nowhere, or only in quarantine.
fn missing_chunks(session: &Session) -> Result<Vec<ChunkId>, StoreError> {
    let mut missing = HashSet::new();
    let (records, _) = session.images_and_damage()?;
    for record in records {
        let stack = match LayerStack::open(session, &record.layer) {
            Ok(stack) => stack,
            Err(error) if error.is_corruption() => continue,
            Err(error) => return Err(error),
        };
        for (_, id) in stack.chunks().flatten() {
            if session.index()?.lookup(&id).is_none() {
                missing.insert(id);
            }
        }
    }
    Ok(missing.into_iter().collect())
}

/// Returns where the next record may begin, or the length if nowhere.
fn next_magic(bytes: &[u8]) -> usize {
    bytes
        .windows(4)
        .position(|window| window == b"TGRC")
        .unwrap_or(bytes.len())
}

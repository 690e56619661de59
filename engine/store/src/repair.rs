//! Repair: makes derived data anew and heals what it has a good copy of.
//!
//! It only adds. A damaged file is moved aside, never deleted; a damaged chunk is put in quarantine, which makes
//! everybody treat it as absent, so that whoever brings it again heals the images that need it.

mod config;
mod layers;
mod records;
mod state;

pub use config::ConfigSource;

use crate::recover::FoundRecord;
use crate::segment::{SegmentTable, list_sealed};
use crate::standing::{Chooser, chooser};
use crate::verify::Damage;
use crate::{
    ChunkDamage, Depth, Finding, Index, Ingest, LayerStack, Session, Store, StoreError, files,
    index, paths,
};
use std::collections::HashSet;
use tegula_format::{
    BASE_DEPTH_MAX, ChunkId, QuarantineList, SEGMENT_DATA_START, SegmentHeader, SegmentNumber,
};
use tegula_io::{Buffer, Existing, LockMode, StorePath, StoredFile};

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
    /// Images whose record was made again: from the layer it names, from a copy found in another's place, or, where
    /// nothing of it is left, from the other store's image of that name.
    pub restored_records: Vec<String>,
    /// Images put on a new layer made from the other store.
    pub restored_layers: Vec<String>,
    /// Whether the collection state or the quarantine list could not be read and was begun anew.
    pub state_restored: bool,
    /// What the store's configuration was made again from, if it was lost or damaged.
    pub config_restored: Option<ConfigSource>,
    /// Whether the configuration's copy was made: it was lost or damaged, or the store never had one.
    pub config_copy_restored: bool,
    /// Whether the index was made anew.
    pub index_rebuilt: bool,
    /// What is still wrong.
    pub remaining: Vec<Finding>,
}

impl RepairReport {
    /// Adds what was done when the store was opened to be repaired.
    pub fn after(mut self, opening: Self) -> Self {
        self.config_restored = opening.config_restored;
        self.config_copy_restored |= opening.config_copy_restored;
        let later = std::mem::replace(&mut self.quarantined_files, opening.quarantined_files);
        self.quarantined_files.extend(later);
        self
    }
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
        let Some(_lock) = self.try_lock(&path, LockMode::Exclusive)? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        let mut report = RepairReport::default();
        self.restore_state(&mut report)?;
        self.restore_config_copy(&mut report)?;
        let mut damage = self.begin()?.verify(Depth::Full, &[], progress)?.damage;
        self.look_again(&mut damage)?;
        self.put_in_quarantine(&damage, &mut report)?;
        if damage.index || !damage.segments.is_empty() {
            // Before anything is salvaged: a run must not claim that a damaged segment's chunks are there.
            index::rebuild(&self.begin()?)?;
            report.index_rebuilt = true;
        }
        for number in &damage.segments {
            self.salvage(*number, &damage.segments, &mut report)?;
        }
        if report.quarantined_chunks > 0 || !damage.segments.is_empty() {
            self.begin_epoch()?;
        }
        let session = self.begin()?;
        report.salvaged_chunks += Ingest::begin(&session)?.recover_abandoned()?;
        drop(session);
        self.restore_records(&damage.records, repairs.from, &mut report)?;
        if let Some(from) = repairs.from {
            self.restore_layers(from, &mut report)?;
        }
        self.heal(repairs.from, &mut report)?;
        self.set_layers_aside(&damage.layers, &mut report)?;
        report.remaining = self.begin()?.verify(Depth::Fast, &[], progress)?.findings;
        Ok(report)
    }

    /// Takes back what was damaged a moment ago and is not now: a disk that fails now and then, or a loose cable. What is
    /// whole must not be put out of use.
    fn look_again(&self, damage: &mut Damage) -> Result<(), StoreError> {
        let session = self.begin()?;
        let mut rows = Vec::new();
        for row in damage.rows.drain(..) {
            match session.read_chunk_at(&row) {
                Ok(_) => {}
                // What it stands on is judged by itself.
                Err(error) if error.is_for_want_of_a_base() => {}
                Err(error) if error.is_unreadable() => rows.push(row),
                Err(error) => return Err(error),
            }
        }
        damage.rows = rows;
        let mut segments = Vec::new();
        for number in damage.segments.drain(..) {
            match SegmentTable::read(&session, number) {
                Ok(_) => {}
                Err(error) if error.is_unreadable() => segments.push(number),
                Err(error) => return Err(error),
            }
        }
        damage.segments = segments;
        Ok(())
    }

    /// Has every writer that began before look again, before it publishes, whether all its image needs is still there.
    fn begin_epoch(&self) -> Result<(), StoreError> {
        let _lock = self.commit_lock()?;
        let mut state = self.read_gc_state()?;
        state.epoch += 1;
        self.write_gc_state(&state)
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

    /// Copies every whole record out of a segment whose head or table is damaged, then moves the file aside. What stands
    /// in no segment but damaged ones is copied even if their tables, read once more, should be whole.
    fn salvage(
        &self,
        number: SegmentNumber,
        damaged: &[SegmentNumber],
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let session = self.begin()?;
        let index = session.index()?;
        let elsewhere = Chooser::among(&session, index, |row| {
            index.is_usable(row.place) && !damaged.contains(&row.place.segment)
        });
        let ingest = Ingest::begin(&session)?;
        let path = paths::sealed_segment(number);
        let file = self.environment().storage.open(&path);
        let file = match file.map_err(StoreError::io("open", &path)) {
            Err(error) if error.is_bad_medium() => return self.move_aside(&path, report),
            file => file?,
        };
        // First what stands by itself: then what stands on others finds those that stand in this very segment.
        for with_bases in [false, true] {
            let now = self.begin()?;
            let mut salvage = |record: &FoundRecord<'_>| {
                let id = record.header.id;
                if record.has_bases() != with_bases {
                    return Ok(true);
                }
                let chunk = match record.decode(&now) {
                    Ok(block) => record.by_itself(&ingest, &block),
                    // Whoever brings what it stands on heals it too.
                    Err(ChunkDamage::Base { .. }) => record.as_it_is(),
                    Err(_) => return Ok(false),
                };
                if !elsewhere.is_whole(&id)? && ingest.claim(&id) {
                    ingest.store(&chunk)?;
                    report.salvaged_chunks += 1;
                }
                Ok(true)
            };
            self.find_records(&now, &*file, &path, &mut salvage)?;
            ingest.seal_all()?;
        }
        // The number of a segment that strayed here under another's name was never given out, and must not be taken
        // for the highest one.
        let head = SEGMENT_DATA_START.min(file.bytes());
        let stray = file
            .read_at(0, usize::try_from(head).expect("because a head is short"))
            .wait()
            .ok()
            .and_then(|head| SegmentHeader::decode(&head).ok())
            .is_some_and(|header| header.number != number);
        let name = match stray {
            true => format!("stray-{}", path.name()),
            false => path.name().to_owned(),
        };
        self.move_aside_as(&path, &name, report)
    }

    /// Shows `found` every record of a segment that is right down to its checksum, wherever it stands; `false` says that
    /// it is none after all.
    fn find_records(
        &self,
        session: &Session,
        file: &dyn StoredFile,
        path: &StorePath,
        found: &mut dyn FnMut(&FoundRecord<'_>) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut offset = SEGMENT_DATA_START;
        // The longest a record can be; what is left of a window is read again with the next.
        let longest = tegula_format::RECORD_HEADER_BYTES + session.block_size().as_usize();
        let window = (longest * 2).max(1 << 20);
        while offset < file.bytes() {
            let length = usize::try_from((file.bytes() - offset).min(window as u64))
                .expect("because it is limited");
            let bytes = read_what_can_be_read(file, path, offset, length)?;
            let last_window = offset + length as u64 == file.bytes();
            let end = if last_window {
                length
            } else {
                length - longest
            };
            let mut at = 0;
            while at < end {
                let rest = bytes.get(at..).unwrap_or_default();
                let record = FoundRecord::at_start_of(session, rest);
                let whole = match &record {
                    Ok(record) => found(record)?,
                    Err(_) => false,
                };
                at += match record {
                    Ok(record) if whole => record.bytes.len(),
                    // Past what is damaged to where the next record may begin.
                    _ => 1 + next_magic(rest.get(1..).unwrap_or_default()),
                };
            }
            offset += at as u64;
        }
        Ok(())
    }

    /// Moves a damaged file to the quarantine directory.
    fn move_aside(&self, path: &StorePath, report: &mut RepairReport) -> Result<(), StoreError> {
        self.move_aside_as(path, path.name(), report)
    }

    fn move_aside_as(
        &self,
        path: &StorePath,
        name: &str,
        report: &mut RepairReport,
    ) -> Result<(), StoreError> {
        let kept = self.move_to_quarantine(path, name)?;
        report.quarantined_files.push(kept.to_string());
        Ok(())
    }

    /// Moves a file to the quarantine directory, under a name that nothing has there. Returns its path.
    pub(crate) fn move_to_quarantine(
        &self,
        path: &StorePath,
        name: &str,
    ) -> Result<StorePath, StoreError> {
        let environment = self.environment();
        let directory = paths::directory(paths::QUARANTINE);
        files::make_directory(environment, &directory)
            .map_err(StoreError::io("create", &directory))?;
        let mut to = directory.join(name);
        let mut attempt = 0;
        loop {
            match environment.storage.rename(path, &to, Existing::Refuse) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    attempt += 1;
                    to = directory.join(&format!("{name}.{attempt}"));
                }
                done => break done.map_err(StoreError::io("move", path))?,
            }
        }
        files::sync_directory(environment, &directory)?;
        files::sync_directory(environment, &path.parent())?;
        Ok(to)
    }

    /// Stores again every chunk that an image needs and that is nowhere whole: from a copy that was about to be
    /// collected, or from another store. First what others stand on; what is then still not whole is stored itself.
    fn heal(&self, from: Option<&Self>, report: &mut RepairReport) -> Result<(), StoreError> {
        let theirs = from.map(Self::begin).transpose()?;
        for wanted in [Wanted::WhatIsNowhere, Wanted::WhatIsNotWhole] {
            let session = self.begin()?;
            let ingest = Ingest::begin(&session)?;
            for id in missing_chunks(&session, wanted)? {
                let condemned = session.tables()?.lookup_even_condemned(&id);
                let mut block = condemned.and_then(|row| session.read_chunk_at(&row).ok());
                if let (None, Some(theirs)) = (&block, &theirs) {
                    block = match theirs.read_chunk(&id) {
                        Ok(block) => Some(block),
                        Err(error) if error.is_unreadable() => None,
                        Err(error) => return Err(error),
                    };
                }
                if let Some(block) = block
                    && !ingest.has_or_claim(&id)
                {
                    ingest.store(&ingest.compress(id, &block))?;
                    report.healed_chunks += 1;
                }
            }
            ingest.seal_all()?;
        }
        Ok(())
    }
}

/// Which of the chunks that cannot be had are to be stored again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Those that stand nowhere, or only in quarantine, be it that images need them or what images need stands on them.
    WhatIsNowhere,
    /// Those that images need and that cannot be had whole, for whatever reason.
    WhatIsNotWhole,
}

/// Returns the chunks that cannot be had.
fn missing_chunks(session: &Session, wanted: Wanted) -> Result<Vec<ChunkId>, StoreError> {
    let mut missing = HashSet::new();
    let (records, _) = session.images_and_damage()?;
    let index = session.index()?;
    for record in records {
        let stack = match LayerStack::of_image(session, &record) {
            Ok(stack) => stack,
            Err(error) if error.is_unreadable() => continue,
            Err(error) => return Err(error),
        };
        for (_, id) in stack.chunks().flatten() {
            if index.lookup(&id).is_some_and(|row| row.bases == 0) {
                continue;
            }
            match wanted {
                Wanted::WhatIsNowhere => add_absent(session, index, &id, &mut missing, 0)?,
                Wanted::WhatIsNotWhole if chooser(session, index).is_whole(&id)? => {}
                Wanted::WhatIsNotWhole => _ = missing.insert(id),
            }
        }
    }
    Ok(missing.into_iter().collect())
}

/// Adds a chunk if it stands nowhere, or else what keeps it from being whole and stands nowhere.
fn add_absent(
    session: &Session,
    index: &Index,
    id: &ChunkId,
    absent: &mut HashSet<ChunkId>,
    depth: u32,
) -> Result<(), StoreError> {
    let chooser = chooser(session, index);
    if depth > BASE_DEPTH_MAX || absent.contains(id) || chooser.is_whole(id)? {
        return Ok(());
    }
    let lacking = chooser.lacking(id)?;
    if chooser.places(id).is_empty() {
        absent.insert(*id);
    }
    for (_, base) in lacking {
        add_absent(session, index, &base, absent, depth + 1)?;
    }
    Ok(())
}

/// How much around a bad place of the disk is given up: a sector of today's disks.
const BAD_BYTES: usize = 4096;

/// Reads a part of a file; zeros stand for what the disk does not give back.
fn read_what_can_be_read(
    file: &dyn StoredFile,
    path: &StorePath,
    offset: u64,
    length: usize,
) -> Result<Buffer, StoreError> {
    let read = |offset, length| {
        let bytes = file.read_at(offset, length).wait();
        match bytes.map_err(StoreError::io("read", path)) {
            Err(error) if error.is_bad_medium() => Ok(None),
            read => read.map(Some),
        }
    };
    if let Some(bytes) = read(offset, length)? {
        return Ok(bytes);
    }
    let mut bytes = Buffer::with_capacity(length);
    while bytes.len() < length {
        // From sector to sector.
        let at = offset + bytes.len() as u64;
        let to_next = BAD_BYTES as u64 - at % BAD_BYTES as u64;
        let piece =
            usize::try_from(to_next).map_or(length, |piece| piece.min(length - bytes.len()));
        match read(at, piece)? {
            Some(read) => bytes.as_vec_mut().extend_from_slice(&read),
            None => bytes.as_vec_mut().extend(std::iter::repeat_n(0, piece)),
        }
    }
    Ok(bytes)
}

/// Returns where the next record may begin, or the length if nowhere.
fn next_magic(bytes: &[u8]) -> usize {
    bytes
        .windows(4)
        .position(|window| window == b"TGRC")
        .unwrap_or(bytes.len())
}

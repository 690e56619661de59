//! Verification: everything in a store checked, each finding pinned to where it is and whom it concerns.

use crate::segment::{SegmentTable, list_sealed};
use crate::{Index, Layer, LayerStack, Session, StoreError, codec, layer, paths};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use tegula_format::{
    BlockIndex, ChunkId, ImageDigest, ImageDigester, ImageName, ImageRecord, RecordHeader, RunRow,
    SegmentNumber,
};
use tegula_io::{Buffer, StorePath};

/// How thorough a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Structure and checksums of every file, payloads included.
    Fast,
    /// Also every chunk decompressed and hashed.
    Full,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file of the store.
    pub path: String,
    /// Where in it.
    pub offset: Option<u64>,
    /// The chunk concerned.
    pub chunk: Option<ChunkId>,
    /// The images that cannot be read in full because of it, by name.
    pub images: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// Whether only derived data is concerned, which can be made anew without loss.
    pub derived: bool,
}

/// What a verification looked at and found.
#[derive(Debug, Default)]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Chunk records checked.
    pub chunks: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Layers checked.
    pub layers: u64,
    /// Images checked.
    pub images: u64,
    /// What is wrong; empty if all is well.
    pub findings: Vec<Finding>,
    pub(crate) damage: Damage,
}

/// What repair needs to know.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// Records whose chunk is not to be had from there.
    pub(crate) rows: Vec<RunRow>,
    /// Segments whose own head or table is damaged.
    pub(crate) segments: Vec<SegmentNumber>,
    /// Whether an index run is damaged or missing.
    pub(crate) index: bool,
    /// Image records that cannot be read.
    pub(crate) records: Vec<StorePath>,
    /// Layer files that cannot be read.
    pub(crate) layers: Vec<StorePath>,
    /// Chunks that images need and that are nowhere whole.
    pub(crate) missing: HashSet<ChunkId>,
}

impl Session {
    /// Checks the store, or only what some images need.
    ///
    /// `progress` is called now and then with the bytes of segments read so far and the bytes there are.
    ///
    /// # Errors
    /// [`StoreError::ImageNotFound`] for an unknown name; [`StoreError::Io`] if the storage fails. Damage is no error
    /// but a finding.
    pub fn verify(
        &self,
        depth: Depth,
        only: &[ImageName],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Verification, StoreError> {
        let mut result = Verification::default();
        let records = self.verify_records(only, &mut result)?;
        let stacks = self.verify_layers(&records, only.is_empty(), &mut result)?;
        let index = self.index()?;
        match only {
            [] => {
                self.verify_segments(depth, progress, &mut result)?;
                self.verify_runs(index, &mut result);
                self.verify_images(&stacks, &mut result)?;
            }
            _ => self.verify_chunks_of(depth, &stacks, progress, &mut result)?,
        }
        name_images(&stacks, &mut result.findings)?;
        Ok(result)
    }

    fn verify_records(
        &self,
        only: &[ImageName],
        result: &mut Verification,
    ) -> Result<Vec<ImageRecord>, StoreError> {
        if !only.is_empty() {
            return only.iter().map(|name| self.image(name)).collect();
        }
        let (records, damage) = self.images_and_damage()?;
        for (path, error) in damage {
            let image = path
                .name()
                .strip_suffix(".image")
                .unwrap_or(path.name())
                .to_owned();
            result.findings.push(Finding {
                images: vec![image],
                ..finding(&path, &error)
            });
            result.damage.records.push(path);
        }
        Ok(records)
    }

    /// Checks the layers, all of them or those of some images, and opens the stacks of the images that can be opened.
    fn verify_layers(
        &self,
        records: &[ImageRecord],
        all: bool,
        result: &mut Verification,
    ) -> Result<Vec<(ImageRecord, LayerStack)>, StoreError> {
        let mut damaged = HashMap::new();
        let mut stacks = Vec::new();
        for record in records {
            result.images += 1;
            match LayerStack::of_image(self, record) {
                Ok(stack) => stacks.push((record.clone(), stack)),
                Err(error) if error.is_unreadable() => {
                    let path = path_of(&error).unwrap_or_else(|| paths::layer(&record.layer));
                    let entry = damaged.entry(path).or_insert_with(|| (error, Vec::new()));
                    entry.1.push(record.name.as_str().to_owned());
                }
                Err(error) => return Err(error),
            }
        }
        let ids: HashSet<_> = match all {
            true => layer::list_layers(self.environment())?
                .into_iter()
                .filter(|id| !self.state().condemns_layer(id))
                .collect(),
            false => stacks
                .iter()
                .flat_map(|(_, stack)| stack.layers())
                .map(|layer| layer.id())
                .collect(),
        };
        for id in ids {
            result.layers += 1;
            match Layer::open(self.environment(), &id).and_then(|layer| layer.verify()) {
                Ok(()) => {}
                Err(error) if error.is_unreadable() => {
                    let path = paths::layer(&id);
                    let users = stacks
                        .iter()
                        .filter(|(_, stack)| stack.layers().iter().any(|l| l.id() == id));
                    let users: Vec<_> = users
                        .map(|(record, _)| record.name.as_str().to_owned())
                        .collect();
                    damaged
                        .entry(path)
                        .or_insert_with(|| (error, Vec::new()))
                        .1
                        .extend(users);
                }
                Err(error) => return Err(error),
            }
        }
        for (path, (error, mut images)) in damaged {
            images.sort();
            images.dedup();
            result.findings.push(Finding {
                images,
                ..finding(&path, &error)
            });
            // What may be whole but of a newer format is not for repair to touch.
            if error.is_corruption() {
                result.damage.layers.push(path);
            }
        }
        Ok(stacks)
    }

    fn verify_segments(
        &self,
        depth: Depth,
        progress: &(dyn Fn(u64, u64) + Sync),
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let mut sealed = list_sealed(self.environment())?;
        // What is condemned may go at any moment, and nobody reads it any more.
        sealed.retain(|(number, _)| !self.state().condemns_segment(*number));
        let total: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
        let done = std::sync::atomic::AtomicU64::new(0);
        let checks: Result<Vec<_>, StoreError> = sealed
            .par_iter()
            .map(|(number, bytes)| {
                let check = self.verify_segment(*number, depth);
                let before = done.fetch_add(*bytes, std::sync::atomic::Ordering::Relaxed);
                progress(before + bytes, total);
                check
            })
            .collect();
        for check in checks? {
            result.segments += 1;
            result.chunks += check.chunks;
            result.bytes += check.bytes;
            result.findings.extend(check.findings);
            result.damage.rows.extend(check.bad_rows);
            result.damage.segments.extend(check.bad_table);
        }
        Ok(())
    }

    fn verify_segment(
        &self,
        number: SegmentNumber,
        depth: Depth,
    ) -> Result<SegmentCheck, StoreError> {
        let path = paths::sealed_segment(number);
        let mut check = SegmentCheck::default();
        let table = match SegmentTable::read(self, number) {
            Ok(table) => table,
            Err(error) if error.is_unreadable() => {
                check.findings.push(finding(&path, &error));
                check.bad_table = error.is_corruption().then_some(number);
                return Ok(check);
            }
            Err(error) => return Err(error),
        };
        let mut block = Buffer::zeroed(self.block_size().as_usize());
        for group in grouped(table.run_rows()) {
            let (first, length) = group_extent(&group);
            let bytes = self
                .read_segment(&first, length)?
                .wait()
                .map_err(StoreError::io("read", &path))?;
            check.bytes += bytes.len() as u64;
            for row in &group {
                check.chunks += 1;
                let start = (row.offset - first.offset) as usize;
                let record = bytes
                    .get(start..start + row.record_bytes())
                    .unwrap_or_default();
                if let Err(damage) = check_record(record, row, depth, &mut block) {
                    check.bad_rows.push(*row);
                    // What is in quarantine is no news: nobody reads it. If an image needs the chunk and it is
                    // nowhere else, that is a finding of its own.
                    if !self.quarantine().contains(row.place) {
                        let message = chain(&codec::damaged(row, damage));
                        check.findings.push(Finding {
                            message,
                            ..chunk_finding(&path, row)
                        });
                    }
                }
            }
        }
        Ok(check)
    }

    /// Checks the runs: each by itself, and against the tables of the segments it names.
    fn verify_runs(&self, index: &Index, result: &mut Verification) {
        let derived = |path: &StorePath, message: String| Finding {
            path: path.to_string(),
            offset: None,
            chunk: None,
            images: Vec::new(),
            message,
            derived: true,
        };
        for error in &index.damaged_runs {
            let path = path_of(error).unwrap_or_else(|| paths::directory(paths::INDEX));
            result.findings.push(derived(&path, chain(error)));
        }
        let table_rows = |segment| {
            SegmentTable::read(self, segment).map_or(Vec::new(), |table| table.run_rows().collect())
        };
        let mut expected: HashMap<SegmentNumber, Vec<RunRow>> = HashMap::new();
        for run in &index.runs {
            let Some(path) = &run.path else { continue };
            if let Err(source) = run.sections().verify() {
                result
                    .findings
                    .push(derived(path, chain(&StoreError::corrupt(path)(source))));
                continue;
            }
            let mut counts: HashMap<SegmentNumber, usize> = HashMap::new();
            let mut wrong = None;
            for row in run.sections().rows() {
                if !index.sealed.contains(row.place.segment.get()) {
                    continue;
                }
                let rows = expected
                    .entry(row.place.segment)
                    .or_insert_with(|| table_rows(row.place.segment));
                *counts.entry(row.place.segment).or_default() += 1;
                if !rows.is_empty() && rows.get(usize::from(row.place.slot.get())) != Some(&row) {
                    wrong.get_or_insert(format!(
                        "its row for chunk {} is not that of the segment",
                        row.id
                    ));
                }
            }
            for segment in run
                .segments
                .iter()
                .filter(|segment| index.sealed.contains(segment.get()))
            {
                expected
                    .entry(*segment)
                    .or_insert_with(|| table_rows(*segment));
            }
            let short = run.segments.iter().find(|segment| {
                expected.get(segment).is_some_and(|rows| {
                    !rows.is_empty()
                        && counts.get(segment).copied().unwrap_or_default() != rows.len()
                })
            });
            if let Some(segment) = short {
                wrong.get_or_insert(format!("it does not list every chunk of segment {segment}"));
            }
            if let Some(message) = wrong {
                result.findings.push(derived(path, message));
            }
        }
        result.damage.index = result.findings.iter().any(|finding| finding.derived);
    }

    /// Checks that every image's chunks are somewhere whole, and that its digest is that of its map.
    fn verify_images(
        &self,
        stacks: &[(ImageRecord, LayerStack)],
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let bad: HashSet<_> = result.damage.rows.iter().map(|row| row.place).collect();
        let tables = self.tables()?;
        let mut judged: HashMap<ChunkId, bool> = HashMap::new();
        for (record, stack) in stacks {
            let mut absent = Vec::new();
            let mut whole = |id: &ChunkId| {
                let sound = |row: RunRow| !bad.contains(&row.place) && tables.is_usable(row.place);
                *judged
                    .entry(*id)
                    .or_insert_with(|| tables.places(id).any(sound))
            };
            let digest = digest_of(record, stack, |_, id| {
                if !whole(id) {
                    absent.push(*id);
                }
            });
            self.check_digest(record, digest, result)?;
            for id in absent {
                if result.damage.missing.insert(id) && tables.places(&id).next().is_none() {
                    let path = paths::image(&record.name);
                    let message = StoreError::ChunkMissing { id }.to_string();
                    result.findings.push(Finding {
                        message,
                        ..missing_finding(&path, id)
                    });
                }
            }
        }
        Ok(())
    }

    fn check_digest(
        &self,
        record: &ImageRecord,
        digest: Result<(ImageDigest, u64), StoreError>,
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let path = paths::image(&record.name);
        let images = vec![record.name.as_str().to_owned()];
        match digest {
            Ok((digest, data_blocks))
                if digest == record.digest && data_blocks == record.data_blocks => {}
            Ok((digest, _)) if digest != record.digest => {
                let message = format!(
                    "its blocks have the digest {digest}, the record says {}",
                    record.digest
                );
                result.findings.push(Finding {
                    images,
                    message,
                    ..blank_finding(&path)
                });
            }
            Ok((_, data_blocks)) => {
                let message = format!(
                    "it has {data_blocks} data blocks, the record says {}",
                    record.data_blocks
                );
                result.findings.push(Finding {
                    images,
                    message,
                    ..blank_finding(&path)
                });
            }
            // The layer has its own finding already.
            Err(error) if error.is_unreadable() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Checks only what some images need.
    fn verify_chunks_of(
        &self,
        depth: Depth,
        stacks: &[(ImageRecord, LayerStack)],
        progress: &(dyn Fn(u64, u64) + Sync),
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let mut rows = HashSet::new();
        for (record, stack) in stacks {
            let mut ids = HashSet::new();
            let digest = digest_of(record, stack, |_, id| _ = ids.insert(*id));
            self.check_digest(record, digest, result)?;
            for id in ids {
                match self.locate_by_tables(&id) {
                    Ok(row) => drop(rows.insert((row.place, row.offset, row.stored_length, id))),
                    Err(error @ StoreError::ChunkMissing { .. }) => {
                        if result.damage.missing.insert(id) {
                            let path = paths::image(&record.name);
                            let message = chain(&error);
                            result.findings.push(Finding {
                                message,
                                ..missing_finding(&path, id)
                            });
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let mut rows: Vec<_> = rows
            .into_iter()
            .map(|(place, offset, stored_length, id)| RunRow {
                id,
                place,
                offset,
                stored_length,
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.place);
        let total: u64 = rows.iter().map(|row| row.record_bytes() as u64).sum();
        let segments: HashSet<_> = rows.iter().map(|row| row.place.segment).collect();
        result.segments = segments.len() as u64;
        for batch in rows.chunks(1024) {
            let outcomes: Vec<_> = batch
                .par_iter()
                .map(|row| (row, self.check_row(row, depth)))
                .collect();
            for (row, outcome) in outcomes {
                result.chunks += 1;
                result.bytes += row.record_bytes() as u64;
                match outcome {
                    Ok(()) => {}
                    Err(error) if error.is_corruption() => {
                        let path = paths::sealed_segment(row.place.segment);
                        result.findings.push(Finding {
                            message: chain(&error),
                            ..chunk_finding(&path, row)
                        });
                        result.damage.rows.push(*row);
                    }
                    Err(error) => return Err(error),
                }
            }
            progress(result.bytes, total);
        }
        Ok(())
    }

    fn check_row(&self, row: &RunRow, depth: Depth) -> Result<(), StoreError> {
        if depth == Depth::Full {
            return self.read_chunk_at(row).map(drop);
        }
        let path = paths::sealed_segment(row.place.segment);
        let record = self
            .read_segment(row, row.record_bytes())?
            .wait()
            .map_err(StoreError::io("read", &path))?;
        check_record(&record, row, depth, &mut []).map_err(|damage| codec::damaged(row, damage))
    }
}

#[derive(Debug, Default)]
struct SegmentCheck {
    chunks: u64,
    bytes: u64,
    findings: Vec<Finding>,
    bad_rows: Vec<RunRow>,
    bad_table: Option<SegmentNumber>,
}

/// How much of a segment is read at once.
const READ_BYTES: usize = 1 << 20;

/// Puts consecutive records together into reads of about [`READ_BYTES`].
fn grouped(rows: impl Iterator<Item = RunRow>) -> impl Iterator<Item = Vec<RunRow>> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        let mut group = vec![rows.next()?];
        let mut length = group.iter().map(RunRow::record_bytes).sum::<usize>();
        while let Some(row) = rows.next_if(|row| length + row.record_bytes() <= READ_BYTES) {
            length += row.record_bytes();
            group.push(row);
        }
        Some(group)
    })
}

fn group_extent(group: &[RunRow]) -> (RunRow, usize) {
    let first = *group.first().expect("because a group has at least one row");
    (first, group.iter().map(RunRow::record_bytes).sum())
}

fn check_record(
    record: &[u8],
    row: &RunRow,
    depth: Depth,
    block: &mut [u8],
) -> Result<(), crate::ChunkDamage> {
    if depth == Depth::Full {
        return codec::decode_record(record, &row.id, block);
    }
    let header = RecordHeader::decode(record, header_block_bytes(record))?;
    header.verify(record)?;
    match header.id == row.id {
        true => Ok(()),
        false => Err(crate::ChunkDamage::OtherChunk { found: header.id }),
    }
}

/// The raw length a record states; the table's own was checked against the block size already, and the checksum covers
/// this one.
fn header_block_bytes(record: &[u8]) -> u32 {
    record
        .get(12..16)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Computes digest and number of data blocks of an image's map, showing each block to `look`.
fn digest_of(
    record: &ImageRecord,
    stack: &LayerStack,
    mut look: impl FnMut(BlockIndex, &ChunkId),
) -> Result<(ImageDigest, u64), StoreError> {
    let mut digester = ImageDigester::new(record.virtual_size, record.block_size);
    let (mut next, mut data_blocks) = (0, 0);
    for chunk in stack.chunks() {
        let (block, id) = chunk?;
        look(block, &id);
        digester.push_zeros(u64::from(block.get()) - next);
        digester.push_data(&id);
        next = u64::from(block.get()) + 1;
        data_blocks += 1;
    }
    digester.push_zeros(
        record
            .block_size
            .blocks_in(record.virtual_size)
            .saturating_sub(next),
    );
    Ok((digester.finish(), data_blocks))
}

/// Adds to each finding about a chunk the images that hold it.
fn name_images(
    stacks: &[(ImageRecord, LayerStack)],
    findings: &mut [Finding],
) -> Result<(), StoreError> {
    let mut holders: HashMap<ChunkId, Vec<String>> = findings
        .iter()
        .filter_map(|finding| finding.chunk)
        .map(|id| (id, Vec::new()))
        .collect();
    if holders.is_empty() {
        return Ok(());
    }
    for (record, stack) in stacks {
        for chunk in stack.chunks() {
            let Ok((_, id)) = chunk else { continue };
            if let Some(names) = holders.get_mut(&id)
                && names.last().map(String::as_str) != Some(record.name.as_str())
            {
                names.push(record.name.as_str().to_owned());
            }
        }
    }
    for finding in findings.iter_mut() {
        if let Some(names) = finding.chunk.and_then(|id| holders.get(&id)) {
            finding.images = names.clone();
        }
    }
    Ok(())
}

fn blank_finding(path: &StorePath) -> Finding {
    let (path, message) = (path.to_string(), String::new());
    Finding {
        path,
        offset: None,
        chunk: None,
        images: Vec::new(),
        message,
        derived: false,
    }
}

fn finding(path: &StorePath, error: &StoreError) -> Finding {
    Finding {
        message: chain(error),
        ..blank_finding(path)
    }
}

fn chunk_finding(path: &StorePath, row: &RunRow) -> Finding {
    Finding {
        offset: Some(u64::from(row.offset)),
        chunk: Some(row.id),
        ..blank_finding(path)
    }
}

fn missing_finding(path: &StorePath, id: ChunkId) -> Finding {
    Finding {
        chunk: Some(id),
        ..blank_finding(path)
    }
}

/// Returns an error with its causes, each once.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn path_of(error: &StoreError) -> Option<StorePath> {
    match error {
        StoreError::Corrupt { path, .. } | StoreError::NeedsNewerProgram { path, .. } => {
            Some(path.clone())
        }
        StoreError::LayerMissing { id } => Some(paths::layer(id)),
        _ => None,
    }
}

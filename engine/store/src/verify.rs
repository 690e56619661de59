//! Verification: everything in a store checked, each finding pinned to where it is and whom it concerns.

mod foreign;
mod images;
mod runs;

use crate::config::CopyState;
use crate::segment::{SegmentTable, list_sealed};
use crate::{LiveSet, Session, Store, StoreError, parallel, paths, sketches};
use runs::RunCheck;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use tegula_format::{ChunkId, ImageName, ImageRecord, RunRow, SegmentNumber};
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
    /// What stands in the store's directories and is none of its files, by path: no damage, and left alone. Empty if
    /// only some images were checked.
    pub foreign_files: Vec<String>,
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
    /// What is not whole and has others standing on it: each with the chunks that images need and that do.
    pub(crate) stood_on: HashMap<ChunkId, Vec<ChunkId>>,
    /// Segments that are not there, each with the chunks that stood in it by the index, are needed and are nowhere else.
    pub(crate) lost: BTreeMap<SegmentNumber, HashSet<ChunkId>>,
}

impl Store {
    /// Checks the store, or only what some images need, as [`Session::verify`] does. That no session can begin in it, for want
    /// of its collection state or quarantine list, is a finding too.
    ///
    /// # Errors
    /// As for [`Session::verify`]; [`StoreError::Busy`] if there is such damage and a collection or repair is under way.
    pub fn verify(
        &self,
        depth: Depth,
        only: &[ImageName],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Verification, StoreError> {
        let (session, damage) = Session::begin_despite_damage(self)?;
        let mut result = session.verify(depth, only, progress)?;
        // Repair begins both anew, and nothing is lost.
        result.findings.extend(
            damage.iter().map(|error| {
                derived_finding(&path_of(error).unwrap_or_else(StorePath::root), error)
            }),
        );
        Ok(result)
    }
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
        let needed = self.verify_images(&records, only.is_empty(), &mut result)?;
        match only {
            [] => {
                let mut runs = RunCheck::new(self.index()?);
                self.verify_segments(depth, None, progress, Some(&runs), &mut result)?;
                // Runs that say what the tables say can stand in for them.
                let trusted = match runs.finish(&mut result) {
                    true => self.index()?,
                    false => self.tables()?,
                };
                self.verify_places(&needed, trusted, &mut result)?;
                for (path, error) in sketches::damaged(self.environment())? {
                    result.damage.index = true;
                    result.findings.push(derived_finding(&path, &error));
                }
                if let CopyState::Damaged(path, error) = self.check_config_copy()? {
                    result.findings.push(derived_finding(&path, &error));
                }
                result.foreign_files = self.foreign_files()?;
            }
            _ => {
                let places = self.verify_places(&needed, self.tables()?, &mut result)?;
                self.verify_segments(depth, Some(&places), progress, None, &mut result)?;
                if !result.damage.rows.is_empty() {
                    // What stands on what is damaged.
                    self.verify_places(&needed, self.tables()?, &mut result)?;
                }
            }
        }
        self.name_images(&records, &mut result)?;
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

    /// Checks the segments: all of them, or only the records at some places.
    ///
    /// What a segment takes in memory, its table, is let go before the next.
    fn verify_segments(
        &self,
        depth: Depth,
        only: Option<&LiveSet>,
        progress: &(dyn Fn(u64, u64) + Sync),
        runs: Option<&RunCheck<'_>>,
        result: &mut Verification,
    ) -> Result<(), StoreError> {
        let mut sealed = list_sealed(self.environment())?;
        // What is condemned may go at any moment, and nobody reads it any more.
        sealed.retain(|(number, _)| {
            !self.state().condemns_segment(*number)
                && only.is_none_or(|only| only.count_in(*number) > 0)
        });
        let total: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
        let done = AtomicU64::new(0);
        let checks = parallel::map(&sealed, 1, |(number, bytes)| {
            let check = self.verify_segment(*number, depth, only, runs);
            let before = done.fetch_add(*bytes, Ordering::Relaxed);
            progress(before + bytes, total);
            check
        });
        for check in checks {
            let check = check?;
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
        only: Option<&LiveSet>,
        runs: Option<&RunCheck<'_>>,
    ) -> Result<SegmentCheck, StoreError> {
        let path = paths::sealed_segment(number);
        let mut check = SegmentCheck::default();
        let table = match SegmentTable::read(self, number) {
            Ok(table) => table,
            Err(error) if error.is_unreadable() => {
                check.findings.push(finding(&path, &error));
                check.bad_table = error.is_damage().then_some(number);
                return Ok(check);
            }
            Err(error) => return Err(error),
        };
        if let Some(runs) = runs {
            runs.compare(&table);
        }
        let mut block = Buffer::zeroed(self.block_size().as_usize());
        let wanted = |row: &RunRow| only.is_none_or(|only| only.contains(row.place));
        for group in grouped(table.run_rows().filter(wanted)) {
            let (first, length) = group_extent(&group);
            let bytes = match self.read_records(&first, length) {
                Ok(bytes) => Some(bytes),
                // Some of them cannot be read: each by itself tells which.
                Err(error) if error.is_unreadable() => None,
                Err(error) => return Err(error),
            };
            for row in &group {
                check.chunks += 1;
                check.bytes += row.record_bytes() as u64;
                let start = (row.offset - first.offset) as usize;
                let checked = match &bytes {
                    Some(bytes) => {
                        let record = bytes.get(start..start + row.record_bytes());
                        self.judge(record.unwrap_or_default(), row, depth, &mut block)
                    }
                    None => self
                        .read_records(row, row.record_bytes())
                        .and_then(|record| self.judge(&record, row, depth, &mut block)),
                };
                match checked {
                    Ok(()) => {}
                    // What it stands on is judged by itself; if an image needs the chunk, that is a finding of its own.
                    Err(error) if error.is_for_want_of_a_base() => {}
                    Err(error) if error.is_unreadable() => {
                        check.bad_rows.push(*row);
                        // What is in quarantine is no news: nobody reads it. If an image needs the chunk and it is
                        // nowhere else, that is a finding of its own.
                        if !self.quarantine().contains(row.place) {
                            check.findings.push(Finding {
                                message: chain(&error),
                                ..chunk_finding(&path, row)
                            });
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(check)
    }

    /// Checks the record of a row, as thoroughly as is asked for.
    fn judge(
        &self,
        record: &[u8],
        row: &RunRow,
        depth: Depth,
        block: &mut [u8],
    ) -> Result<(), StoreError> {
        match depth {
            Depth::Fast => self.check_record(record, row),
            Depth::Full => self.decode_record(record, row, block).map(drop),
        }
    }

    /// Reads the bytes of records that stand one behind the other.
    fn read_records(&self, first: &RunRow, length: usize) -> Result<Buffer, StoreError> {
        let path = paths::sealed_segment(first.place.segment);
        self.read_segment(first, length)?
            .wait()
            .map_err(StoreError::io("read", &path))
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

/// Puts records that stand one behind the other together into reads of about [`READ_BYTES`].
fn grouped(rows: impl Iterator<Item = RunRow>) -> impl Iterator<Item = Vec<RunRow>> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        let mut group = vec![rows.next()?];
        let mut length = group.iter().map(RunRow::record_bytes).sum::<usize>();
        let end = |length: usize, first: &RunRow| u64::from(first.offset) + length as u64;
        while let Some(row) = rows.next_if(|row| {
            length + row.record_bytes() <= READ_BYTES
                && group.first().map(|first| end(length, first)) == Some(u64::from(row.offset))
        }) {
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

/// Damage that repair makes good out of what else there is.
fn derived_finding(path: &StorePath, error: &StoreError) -> Finding {
    Finding {
        derived: true,
        ..finding(path, error)
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
        StoreError::Io { path, .. } => Some(path.clone()),
        _ => None,
    }
}

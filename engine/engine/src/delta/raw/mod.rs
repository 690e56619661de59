//! Patching a disk in place: a file or block device that holds the base is made to hold the target.
//!
//! Nothing is written before the whole disk was hashed and is known to be the base. While it is, it is noted where those of
//! its chunks stand that the stream needs. Those of them that would be overwritten are saved in a journal beside the disk
//! first. So every step after that can be done again: whoever is killed starts the same command once more, and it goes on
//! behind the last step that was synced. At the end the whole disk is hashed again, and the journal removed.

mod disk;
mod journal;
mod write;

use super::carried::Carried;
use super::sorted::SortedIds;
use super::stream::DeltaFile;
use super::{DeltaError, DeltaSource};
use crate::{EngineError, Task, Workers};
use disk::{Disk, Where};
use journal::{Begun, Journal};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use tegula_format::{BlockIndex, BlockSet, ChunkId, DeltaEnd};
use tegula_io::{Mapped, Scratch};

/// What to apply to which disk.
#[derive(Debug)]
pub struct RawDeltaRequest<'a> {
    /// The stream.
    pub source: DeltaSource<'a>,
    /// The disk: a regular file or block device that holds the base.
    pub disk: &'a Path,
    /// The journal; beside the disk, if nothing is said and that is a file.
    pub journal: Option<&'a Path>,
    /// Only find out whether it can be done, and what would be.
    pub dry_run: bool,
}

/// What an apply did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawDeltaApplied {
    /// The image that the disk held.
    pub base: Option<DeltaEnd>,
    /// The image that the disk holds now.
    pub target: DeltaEnd,
    /// Whether it held that already.
    pub done_before: bool,
    /// Whether an earlier attempt was gone on with.
    pub resumed: bool,
    /// Bytes of blocks that hold another chunk now.
    pub written_bytes: u64,
    /// Bytes of blocks that were zeroed.
    pub zeroed_bytes: u64,
    /// Bytes of chunks that were saved in the journal.
    pub saved_bytes: u64,
}

/// Applies a delta to a disk. Once this returns, the disk holds the target, verified and durable.
///
/// # Errors
/// [`EngineError::Delta`] if the stream is damaged, or the disk is not its base: nothing is written then.
/// [`EngineError::Interrupted`] and whatever the disk says leave it in part as it was; the same request goes on.
pub fn apply_delta_to_disk(
    request: RawDeltaRequest<'_>,
    task: Task<'_>,
) -> Result<RawDeltaApplied, EngineError> {
    let workers = Workers::Pool;
    let disk = Disk::open(request.disk)?;
    let path = match request.journal {
        Some(path) => path.to_owned(),
        // What stands beside a device is in memory.
        None if disk.is_block_device() && !request.dry_run => {
            let disk = disk.name().to_owned();
            return Err(DeltaError::JournalNeeded { disk }.into());
        }
        None => journal_beside(request.disk),
    };
    let directory = parent_of(&path);
    let file = request.source.into_file_in(&directory, task)?;
    let ids = take_ids(&file, &directory)?;
    let sorted = SortedIds::new(ids.as_slice());
    let needs = Needs::of(&file, &sorted, task)?;
    let work = Work {
        disk: &disk,
        file: &file,
        sorted: &sorted,
        needs: &needs,
        workers,
        task,
    };
    let mut report = RawDeltaApplied {
        base: file.header().base,
        target: file.header().target,
        done_before: false,
        resumed: false,
        written_bytes: 0,
        zeroed_bytes: 0,
        saved_bytes: 0,
    };
    if request.dry_run {
        match work.look_at_base()? {
            None => report.done_before = true,
            Some(places) => {
                report.saved_bytes = work.saved(&places).count() as u64 * work.block_bytes();
                (report.written_bytes, report.zeroed_bytes) = work.changed_bytes();
            }
        }
        return Ok(report);
    }
    let journal = match Journal::open(path, &work)? {
        Begun::Before(journal) => {
            report.resumed = true;
            journal
        }
        Begun::Now(empty) => match work.look_at_base() {
            Ok(Some(places)) => empty.seal(&work, &places)?,
            Ok(None) => {
                empty.remove()?;
                report.done_before = true;
                return Ok(report);
            }
            Err(error) => {
                // If this fails there is an empty file: no hindrance.
                drop(empty.remove());
                return Err(error);
            }
        },
    };
    report.saved_bytes = journal.saved_bytes();
    (report.written_bytes, report.zeroed_bytes) = work.write(&journal)?;
    work.check_target(&journal)?;
    journal.remove()?;
    Ok(report)
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn journal_beside(disk: &Path) -> PathBuf {
    let mut name = disk.as_os_str().to_owned();
    name.push(".tegula-journal");
    PathBuf::from(name)
}

/// Gathers the stream's table of ids, so that it can be searched.
fn take_ids(file: &DeltaFile<'_>, directory: &Path) -> Result<Mapped, EngineError> {
    let failed = |source| super::show::scratch_error(directory, source);
    let mut scratch = Scratch::new(directory);
    let mut unwritten = None;
    file.ids(|piece| {
        if unwritten.is_none() {
            unwritten = scratch.append(piece).err();
        }
        Ok(())
    })?;
    match unwritten {
        Some(source) => Err(failed(source)),
        None => scratch.finish().map_err(failed),
    }
}

/// What the stream needs of the base.
#[derive(Debug)]
struct Needs {
    /// Chunks that blocks get and the stream does not carry, in the order of their first block.
    references: Vec<ChunkId>,
    /// All chunks that are needed of the base: those, and what carried ones build on.
    chunks: HashSet<ChunkId>,
    carried: Carried,
}

impl Needs {
    /// Reads all of the stream once, which also makes sure that it is whole.
    fn of(
        file: &DeltaFile<'_>,
        sorted: &SortedIds<'_>,
        task: Task<'_>,
    ) -> Result<Self, EngineError> {
        let mut missing: BlockSet = BlockSet::new();
        let mut first: Vec<u32> = sorted.first_positions().collect();
        first.sort_unstable();
        first
            .into_iter()
            .for_each(|position| missing.push(BlockIndex::new(position)));
        let mut records = file.records();
        while let Some(record) = records.next_record()? {
            task.check()?;
            if let Some(first) = sorted.positions(&record.id()).first() {
                missing.remove_range(u64::from(*first)..u64::from(*first) + 1);
            }
        }
        let references: Vec<_> = missing
            .iter()
            .map(|position| sorted.id(position.get()))
            .collect();
        let carried = Carried::of(file, task)?;
        let chunks = references
            .iter()
            .chain(carried.outside())
            .copied()
            .collect();
        Ok(Self {
            references,
            chunks,
            carried,
        })
    }
}

/// All that the steps need to know.
#[derive(Debug, Clone, Copy)]
struct Work<'a> {
    disk: &'a Disk,
    file: &'a DeltaFile<'a>,
    sorted: &'a SortedIds<'a>,
    needs: &'a Needs,
    workers: Workers,
    task: Task<'a>,
}

/// Where the chunks stand that are needed of the base.
type Places = HashMap<ChunkId, Where>;

impl Work<'_> {
    fn block_bytes(&self) -> u64 {
        u64::from(self.file.header().block_size.bytes())
    }

    fn base_size(&self) -> u64 {
        self.file.header().base.map_or(0, |base| base.virtual_size)
    }

    fn target_size(&self) -> u64 {
        self.file.header().target.virtual_size
    }

    /// Tells whether a block of the base is on the disk until the end.
    fn stays(&self, block: BlockIndex) -> bool {
        u64::from(block.get()) < self.file.header().target_blocks()
            && !self.file.data().contains(block)
            && !self.file.zero().contains(block)
    }

    /// Returns the chunks that have to be saved, in the order in which they stand on the disk.
    fn saved(&self, places: &Places) -> impl Iterator<Item = (ChunkId, BlockIndex)> {
        let mut saved: Vec<_> = places
            .iter()
            .filter(|(_, place)| !place.stays)
            .map(|(id, place)| (*id, place.block))
            .collect();
        saved.sort_unstable_by_key(|(_, block)| *block);
        saved.into_iter()
    }

    /// Returns how many bytes will be written, and how many zeroed.
    fn changed_bytes(&self) -> (u64, u64) {
        let (header, size) = (self.file.header(), self.target_size());
        let of = |set: &BlockSet| -> u64 {
            set.runs()
                .map(|run| {
                    let log2 = header.block_size.log2();
                    (run.end << log2).min(size) - (run.start << log2)
                })
                .sum()
        };
        (of(self.file.data()), of(self.file.zero()))
    }

    /// Makes sure that the disk holds the base, and finds the chunks that are needed of it. `None` if the disk holds the
    /// target already.
    fn look_at_base(&self) -> Result<Option<Places>, EngineError> {
        let header = self.file.header();
        let (disk, name) = (self.disk.name().to_owned(), self.file.name().to_owned());
        let found = self.disk.bytes()?;
        if self.disk.is_block_device() {
            self.disk
                .check_room(self.base_size().max(self.target_size()))?;
        }
        let may_be = |size| self.disk.is_block_device() || found == size;
        let mut digest = None;
        if let (Some(base), true) = (header.base, may_be(self.base_size())) {
            let mut places = Places::new();
            let in_disk = self.disk.digest(self, base.virtual_size, |block, id| {
                self.note(&mut places, block, id)
            })?;
            if in_disk == base.digest {
                return self.complete(places).map(Some);
            }
            digest = Some(in_disk);
        }
        if may_be(self.target_size()) {
            let same_length = self.target_size() == self.base_size();
            let in_disk = match digest.filter(|_| same_length) {
                Some(digest) => digest,
                None => self.disk.digest(self, self.target_size(), |_, _| ())?,
            };
            if in_disk == header.target.digest {
                return Ok(None);
            }
        }
        match header.base {
            // An empty file is what it starts from.
            None if found == 0 => self.complete(Places::new()).map(Some),
            None => Err(DeltaError::StartsFromNothing { disk, name }.into()),
            Some(base) => Err(match digest {
                Some(found) => DeltaError::OtherDisk {
                    disk,
                    name,
                    expected: base.digest,
                    found,
                },
                None => DeltaError::OtherLength {
                    disk,
                    name,
                    expected: base.virtual_size,
                    found,
                },
            }
            .into()),
        }
    }

    /// Notes where a needed chunk stands; best where it stays.
    fn note(&self, places: &mut Places, block: BlockIndex, id: ChunkId) {
        if self.needs.chunks.contains(&id) {
            let stays = self.stays(block);
            let place = places.entry(id).or_insert(Where { block, stays });
            if stays && !place.stays {
                *place = Where { block, stays };
            }
        }
    }

    /// Refuses a stream that needs what the base does not have.
    fn complete(&self, places: Places) -> Result<Places, EngineError> {
        match self.needs.chunks.iter().find(|id| !places.contains_key(id)) {
            None => Ok(places),
            Some(id) => Err(DeltaError::ChunkNotCarried {
                name: self.file.name().to_owned(),
                id: *id,
            }
            .into()),
        }
    }

    /// Makes sure that the disk holds the target. If it does not, the next attempt writes everything again.
    fn check_target(&self, journal: &Journal) -> Result<(), EngineError> {
        let expected = self.file.header().target.digest;
        match self.disk.digest(self, self.target_size(), |_, _| ())? {
            found if found == expected => Ok(()),
            found => {
                journal.mark(0)?;
                let disk = self.disk.name().to_owned();
                Err(DeltaError::DiskDiffers {
                    disk,
                    expected,
                    found,
                }
                .into())
            }
        }
    }
}

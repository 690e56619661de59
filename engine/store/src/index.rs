//! The index: where a chunk stands (SPEC 5). Derived from the segments' tables of contents.

use crate::segment::{SegmentTable, list_sealed};
use crate::{Environment, Session, StoreError, files, parallel, paths, sketches};
use roaring::RoaringBitmap;
use std::cmp::Reverse;
use std::io;
use tegula_format::{
    ChunkId, Corruption, ENVELOPE_BYTES, GcState, IdPrefix, Place, QuarantineList, RunBuilder,
    RunHeader, RunRow, RunSections, SegmentNumber, encode_run, envelope_length,
};
use tegula_io::{Buffer, Existing, LockMode, Mapped, StorePath};

/// More runs than this are merged by the next writer.
pub const RUNS_MAX: usize = 8;

/// Where the list of segments of nearly every run ends.
const RUN_HEAD_BYTES: usize = 64 << 10;

/// Rows that one core checks at a time.
const VERIFY_PIECE: usize = 1 << 18;

/// One run, mapped.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Its file; a run in memory has none.
    pub(crate) path: Option<StorePath>,
    mapped: Mapped,
    header: RunHeader,
    pub(crate) segments: Vec<SegmentNumber>,
}

impl Run {
    pub(crate) fn new(path: Option<StorePath>, mapped: Mapped) -> Result<Self, Corruption> {
        let bytes = mapped.as_slice();
        let header = RunHeader::decode(bytes, bytes.len() as u64)?;
        let segments = RunSections::new(&header, bytes)?.segments()?;
        Ok(Self {
            path,
            mapped,
            header,
            segments,
        })
    }

    /// Makes a run of rows in any order.
    pub(crate) fn in_memory(mut rows: Vec<RunRow>, segments: Vec<SegmentNumber>) -> Self {
        rows.sort_unstable();
        let bytes = encode_run(&rows, segments);
        Self::new(None, Mapped::new(bytes)).expect("because it was just encoded")
    }

    pub(crate) fn open(environment: &Environment, path: &StorePath) -> Result<Self, StoreError> {
        let file = environment
            .storage
            .open(path)
            .map_err(StoreError::io("open", path))?;
        // Checked before mapping, so that a file cut short is an error and not a fault.
        let head = file.bytes().min(ENVELOPE_BYTES as u64);
        let head = usize::try_from(head).expect("because an envelope is short");
        let head = file
            .read_at(0, head)
            .wait()
            .map_err(StoreError::io("read", path))?;
        if let Ok(length) = envelope_length(&head).map(|length| length as u64)
            && length > file.bytes()
        {
            let what = tegula_format::Structure::Run;
            let source = Corruption::Truncated {
                what,
                need: length,
                have: file.bytes(),
            };
            return Err(StoreError::corrupt(path)(source));
        }
        let mapped = file.map().map_err(StoreError::io("map", path))?;
        // What is looked at now: the head and the list of segments.
        mapped
            .check_readable(0..RUN_HEAD_BYTES)
            .map_err(StoreError::io("read", path))?;
        Self::new(Some(path.clone()), mapped).map_err(StoreError::corrupt(path))
    }

    pub(crate) fn sections(&self) -> RunSections<'_> {
        RunSections::new(&self.header, self.mapped.as_slice())
            .expect("because new() split it before")
    }

    /// Checks all of it.
    pub(crate) fn verify(&self) -> Result<(), StoreError> {
        let path = self.path.clone().unwrap_or_else(StorePath::root);
        self.mapped
            .check_readable(0..usize::MAX)
            .map_err(StoreError::io("read", &path))?;
        let sections = self.sections();
        let pieces: Vec<usize> = (0..sections.len()).step_by(VERIFY_PIECE).collect();
        let verify = |first: &usize| {
            sections.verify_rows(*first..first.saturating_add(VERIFY_PIECE).min(sections.len()))
        };
        sections
            .verify_sums()
            .and_then(|()| parallel::map(&pieces, 1, verify).into_iter().collect())
            .map_err(StoreError::corrupt(&path))
    }

    pub(crate) fn find(&self, id: &ChunkId) -> impl Iterator<Item = RunRow> + '_ {
        let sections = self.sections();
        let rows = sections.may_contain(id).then(|| sections.find(id));
        rows.into_iter().flatten()
    }
}

/// Everything a session knows about where chunks stand.
#[derive(Debug)]
pub struct Index {
    pub(crate) runs: Vec<Run>,
    /// Sealed segments that were there, condemned ones too.
    pub(crate) sealed: RoaringBitmap,
    condemned: RoaringBitmap,
    quarantine: QuarantineList,
    /// Runs that cannot be used, and why.
    pub(crate) damaged_runs: Vec<StoreError>,
    /// Segments whose own table cannot be read, and why.
    pub(crate) damaged_segments: Vec<(SegmentNumber, StoreError)>,
    /// Whether some segment was in no run and had to be read for its table.
    pub(crate) has_gaps: bool,
}

impl Index {
    /// Loads the runs, and the tables of contents of the segments that no run covers.
    pub(crate) fn load(session: &Session) -> Result<Self, StoreError> {
        loop {
            // Segments first: a run is published after its segments, so what is listed here and in no run later
            // truly is in none.
            let sealed = list_sealed(session.environment())?;
            match open_runs(session.environment()) {
                // Merged away between listing and opening: the merged run is there now.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok((runs, damaged_runs)) => {
                    let covered: RoaringBitmap = runs
                        .iter()
                        .flat_map(|run| &run.segments)
                        .map(|segment| segment.get())
                        .collect();
                    let missing = sealed.iter().map(|(number, _)| *number);
                    let missing: Vec<_> = missing
                        .filter(|number| !covered.contains(number.get()))
                        .collect();
                    let mut index = Self::with_tables(session, &missing)?;
                    index.has_gaps = !missing.is_empty();
                    index.runs.extend(runs);
                    index.damaged_runs = damaged_runs;
                    index.sealed = sealed.iter().map(|(number, _)| number.get()).collect();
                    return Ok(index);
                }
            }
        }
    }

    /// Makes an index from the tables of contents of all segments; nothing derived is read.
    pub(crate) fn from_tables(session: &Session) -> Result<Self, StoreError> {
        let sealed = list_sealed(session.environment())?;
        let numbers: Vec<_> = sealed.iter().map(|(number, _)| *number).collect();
        let mut index = Self::with_tables(session, &numbers)?;
        index.sealed = numbers.iter().map(|number| number.get()).collect();
        Ok(index)
    }

    fn with_tables(session: &Session, numbers: &[SegmentNumber]) -> Result<Self, StoreError> {
        let (mut rows, mut damaged_segments) = (TableRows::default(), Vec::new());
        for number in numbers {
            match SegmentTable::read(session, *number) {
                Ok(table) => rows.add(session.environment(), &table),
                // Collected since it was listed: only a condemned segment can be.
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_unreadable() => damaged_segments.push((*number, error)),
                Err(error) => return Err(error),
            }
        }
        let runs = rows.finish(session.environment());
        let condemned = condemned_set(session.state());
        let quarantine = session.quarantine().clone();
        let sealed = RoaringBitmap::new();
        Ok(Self {
            runs,
            sealed,
            condemned,
            quarantine,
            damaged_runs: Vec::new(),
            damaged_segments,
            has_gaps: false,
        })
    }

    /// Finds a chunk: of its places that are neither condemned nor in quarantine, one where it stands by itself rather
    /// than on other chunks, and of those the newest.
    ///
    /// The newest, since a writer that stores a chunk once more does it to have it where it is read in one go with
    /// others. And everybody who asks gets the same place, so that accounting can count places. Where it
    /// stands on others, that these are there is not looked at.
    pub fn lookup(&self, id: &ChunkId) -> Option<RunRow> {
        self.places(id)
            .filter(|row| !self.condemned.contains(row.place.segment.get()))
            .min_by_key(preference)
    }

    /// Finds many chunks, as [`Self::lookup`] finds one. `ids` ascend; the answers are in their order.
    pub(crate) fn lookup_sorted(&self, ids: &[ChunkId]) -> Vec<Option<RunRow>> {
        let mut found: Vec<Option<RunRow>> = vec![None; ids.len()];
        for run in &self.runs {
            run.sections().find_sorted(ids, |position, row| {
                let best = found.get_mut(position).expect("because it counts the ids");
                if self.is_there(row.place)
                    && self.is_usable(row.place)
                    && best.is_none_or(|best| preference(&row) < preference(&best))
                {
                    *best = Some(row);
                }
            });
        }
        found
    }

    /// Finds a chunk that may stand only in condemned segments: to carry it over before they go.
    pub(crate) fn lookup_even_condemned(&self, id: &ChunkId) -> Option<RunRow> {
        self.lookup(id)
            .or_else(|| self.places(id).min_by_key(preference))
    }

    /// Returns every place of a chunk that is not in quarantine.
    pub(crate) fn places<'a>(&'a self, id: &'a ChunkId) -> impl Iterator<Item = RunRow> + 'a {
        let rows = self.runs.iter().flat_map(move |run| run.find(id));
        rows.filter(|row| self.is_there(row.place) && !self.quarantine.contains(row.place))
    }

    /// Tells whether a place's segment was there when the index was loaded.
    fn is_there(&self, place: Place) -> bool {
        self.sealed.contains(place.segment.get())
    }

    /// Finds a chunk that stands by itself, with no base, by the head of its id.
    pub(crate) fn find_plain(&self, prefix: IdPrefix) -> Option<RunRow> {
        self.runs
            .iter()
            .flat_map(|run| run.sections().find_prefix(prefix))
            .filter(|row| row.bases == 0)
            .filter(|row| self.sealed.contains(row.place.segment.get()))
            .filter(|row| self.is_usable(row.place))
            .min_by_key(|row| row.place)
    }

    /// Tells whether a place holds a chunk that can be used.
    pub(crate) fn is_usable(&self, place: Place) -> bool {
        !self.condemned.contains(place.segment.get()) && !self.quarantine.contains(place)
    }

    /// Returns every row of a segment's chunks, by a walk over all there is.
    pub(crate) fn rows_of(&self, number: SegmentNumber) -> impl Iterator<Item = RunRow> + '_ {
        let rows = self.runs.iter().flat_map(|run| run.sections().rows());
        rows.filter(move |row| row.place.segment == number)
    }

    /// Returns every segment that some run names, those that are gone included.
    pub(crate) fn segments_listed(&self) -> impl Iterator<Item = SegmentNumber> + '_ {
        self.runs
            .iter()
            .flat_map(|run| run.segments.iter().copied())
    }

    /// Checks every run from head to end.
    pub(crate) fn runs_are_sound(&self) -> bool {
        self.runs.iter().all(|run| run.verify().is_ok())
    }

    /// Returns how many chunks the index lists, duplicates included.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(|run| run.sections().len()).sum()
    }
}

/// The rows of segments' tables, on their way to a run of our own: in memory while they are few, then in temporary
/// files that have no name any more, so that many take no memory but the filter before them.
#[derive(Debug, Default)]
struct TableRows {
    rows: Vec<RunRow>,
    segments: Vec<SegmentNumber>,
    spooled: Vec<Run>,
    /// Whether a file could not be written.
    no_room: bool,
}

/// Rows kept in memory before they go to a file: 12 MiB of them with what it takes to sort and encode them.
const TABLE_ROWS_MAX: usize = 1 << 17;

impl TableRows {
    fn add(&mut self, environment: &Environment, table: &SegmentTable) {
        self.rows.extend(table.run_rows());
        self.segments.push(table.header.number);
        if self.rows.len() >= TABLE_ROWS_MAX && !self.no_room {
            self.spool(environment);
        }
    }

    /// Moves what is in memory to a file. Where nothing can be written, on a full or read-only disk, it stays: a store
    /// must be readable there, and checkable.
    fn spool(&mut self, environment: &Environment) {
        self.rows.sort_unstable();
        let written = spool_run(environment, self.rows.len(), &self.segments, || {
            self.rows.iter().copied()
        });
        match written {
            Ok(run) => {
                self.spooled.push(run);
                self.rows.clear();
                self.segments.clear();
            }
            Err(_) => self.no_room = true,
        }
    }

    fn finish(mut self, environment: &Environment) -> Vec<Run> {
        if self.spooled.is_empty() && self.segments.is_empty() {
            return Vec::new();
        }
        if self.spooled.is_empty() {
            return vec![Run::in_memory(self.rows, self.segments)];
        }
        if !self.segments.is_empty() {
            self.spool(environment);
        }
        // One run for all is looked through much faster.
        let all: Vec<&Run> = self.spooled.iter().collect();
        let segments: Vec<_> = all.iter().flat_map(|run| run.segments.clone()).collect();
        let sealed = segments.iter().map(|segment| segment.get()).collect();
        let rows_max = all.iter().map(|run| run.sections().len()).sum();
        let merged = spool_run(environment, rows_max, &segments, || {
            merged_rows(&all, &sealed)
        });
        let mut runs = merged.map_or(self.spooled, |run| vec![run]);
        if !self.segments.is_empty() {
            runs.push(Run::in_memory(self.rows, self.segments));
        }
        runs
    }
}

/// Writes sorted rows as a run into a file that loses its name at once.
fn spool_run<R: Iterator<Item = RunRow>>(
    environment: &Environment,
    rows_max: usize,
    segments: &[SegmentNumber],
    rows: impl Fn() -> R,
) -> Result<Run, StoreError> {
    let mut file = write_run(environment, rows_max, segments, rows)?;
    let mapped = file.map()?;
    Run::new(None, mapped).map_err(StoreError::corrupt(file.path()))
}

/// Writes sorted rows as a run into a temporary file.
fn write_run<'a, R: Iterator<Item = RunRow>>(
    environment: &'a Environment,
    rows_max: usize,
    segments: &[SegmentNumber],
    rows: impl Fn() -> R,
) -> Result<files::TemporaryFile<'a>, StoreError> {
    let mut builder = RunBuilder::new(rows_max as u64, segments.iter().copied());
    rows().for_each(|row| builder.push(&row));
    let mut file = files::TemporaryFile::create(environment)?;
    file.append(Buffer::from(builder.head()))?;
    file.append_rows(rows().map(|row| row.encode()))?;
    Ok(file)
}

/// Orders a chunk's places by which is the best to read it from.
pub(crate) fn preference(row: &RunRow) -> (bool, Reverse<Place>) {
    (row.bases > 0, Reverse(row.place))
}

fn condemned_set(state: &GcState) -> RoaringBitmap {
    state
        .condemned_segments
        .iter()
        .map(|segment| segment.get())
        .collect()
}

/// Opens every run; damaged ones are set aside, since their segments' tables can stand in for them.
fn open_runs(environment: &Environment) -> Result<(Vec<Run>, Vec<StoreError>), StoreError> {
    let (mut runs, mut damaged) = (Vec::new(), Vec::new());
    for entry in files::list(environment, paths::INDEX)? {
        if !entry.name.ends_with(".run") {
            continue;
        }
        match Run::open(
            environment,
            &paths::directory(paths::INDEX).join(&entry.name),
        ) {
            Ok(run) => runs.push(run),
            // One of a newer format is of no more use, and can be done without as well.
            Err(error) if error.is_unreadable() => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok((runs, damaged))
}

/// Publishes a run of rows in any order, and returns it mapped.
pub(crate) fn publish_run(
    environment: &Environment,
    mut rows: Vec<RunRow>,
    segments: &[SegmentNumber],
) -> Result<Run, StoreError> {
    rows.sort_unstable();
    rows.dedup();
    let path = new_run_path(environment)?;
    write_run(environment, rows.len(), segments, || rows.iter().copied())?
        .publish(&path, Existing::Refuse)?;
    match Run::open(environment, &path) {
        // Another writer has merged it into a larger one meanwhile. The rows are the same.
        Err(error) if error.is_not_found() => Ok(Run::in_memory(rows, segments.to_vec())),
        opened => opened,
    }
}

fn new_run_path(environment: &Environment) -> Result<StorePath, StoreError> {
    let directory = paths::directory(paths::INDEX);
    Ok(paths::run(
        &environment
            .random
            .id()
            .map_err(StoreError::io("name a file in", &directory))?,
    ))
}

/// Tidies the index: covers segments no run covers, and merges runs when there are many or some list removed segments.
/// Does nothing if somebody else is at it. The index is derived: whatever fails here can be done again.
pub(crate) fn tidy(session: &Session, rewrite_all: bool) -> Result<(), StoreError> {
    let environment = session.environment();
    let path = paths::index_lock();
    let lock = environment
        .storage
        .try_lock(&path, LockMode::Exclusive)
        .map_err(StoreError::io("lock", &path))?;
    let Some(_lock) = lock else { return Ok(()) };
    let index = Index::load(session)?;
    let stale = |run: &Run| {
        run.segments
            .iter()
            .any(|segment| !index.sealed.contains(segment.get()))
    };
    let mut victims: Vec<&Run> = if rewrite_all || index.has_gaps || index.runs.iter().any(stale) {
        index
            .runs
            .iter()
            .filter(|run| rewrite_all || run.path.is_none() || stale(run))
            .collect()
    } else {
        Vec::new()
    };
    if index.runs.len() - victims.len() + usize::from(!victims.is_empty()) > RUNS_MAX {
        victims = smallest_runs(&index.runs);
    }
    if victims.is_empty() {
        return Ok(());
    }
    if victims.iter().any(|run| run.verify().is_err()) {
        // Damaged rows must not be given a new checksum.
        return rebuild_under_lock(session);
    }
    merge(environment, &victims, &index.sealed)?;
    for path in victims.iter().filter_map(|run| run.path.as_ref()) {
        files::remove_if_present(environment, path)?;
    }
    files::sync_directory(environment, &paths::directory(paths::INDEX))
}

/// Merges some of a writer's own runs when they get many, unless somebody else is at the index: what a writer looks up
/// must not get slower with every run it publishes. Returns the runs that now list the same.
pub(crate) fn merge_own(environment: &Environment, runs: Vec<Run>) -> Result<Vec<Run>, StoreError> {
    if runs.len() <= RUNS_MAX {
        return Ok(runs);
    }
    let path = paths::index_lock();
    let lock = environment.storage.try_lock(&path, LockMode::Exclusive);
    let Some(_lock) = lock.map_err(StoreError::io("lock", &path))? else {
        return Ok(runs);
    };
    let victims = smallest_runs(&runs);
    if victims.iter().any(|run| run.verify().is_err()) {
        // Damaged rows must not be given a new checksum: whoever tidies next makes the index anew.
        return Ok(runs);
    }
    let segments = victims.iter().flat_map(|run| &run.segments);
    let sealed = segments.map(|segment| segment.get()).collect();
    let merged = merge(environment, &victims, &sealed)?;
    let merged = Run::open(environment, &merged)?;
    for path in victims.iter().filter_map(|run| run.path.as_ref()) {
        files::remove_if_present(environment, path)?;
    }
    files::sync_directory(environment, &paths::directory(paths::INDEX))?;
    // Not told by their paths: several may have none.
    let is_victim = |run: &&Run| victims.iter().any(|victim| std::ptr::eq(*victim, *run));
    let kept = runs.iter().filter(|run| !is_victim(run)).cloned();
    Ok(kept.chain([merged]).collect())
}

/// Chooses what to merge so that run sizes grow geometrically: from the smallest up, as long as the next is no more
/// than twice all before. Each row is then merged a logarithmic number of times.
fn smallest_runs(runs: &[Run]) -> Vec<&Run> {
    let mut by_size: Vec<_> = runs.iter().collect();
    by_size.sort_by_key(|run| run.sections().len());
    let mut total = 0;
    let chosen = by_size.iter().enumerate().take_while(|(position, run)| {
        let length = run.sections().len();
        let take = *position < RUNS_MAX / 2 || length <= total * 2;
        total += length;
        take
    });
    let count = chosen.count();
    by_size.truncate(count);
    by_size
}

/// Writes the rows of several runs as one, leaving out those of segments that are gone. Returns where it stands.
fn merge(
    environment: &Environment,
    runs: &[&Run],
    sealed: &RoaringBitmap,
) -> Result<StorePath, StoreError> {
    let mut segments: Vec<_> = runs
        .iter()
        .flat_map(|run| run.segments.iter().copied())
        .collect();
    segments.retain(|segment| sealed.contains(segment.get()));
    let rows_max = runs.iter().map(|run| run.sections().len()).sum();
    let file = write_run(environment, rows_max, &segments, || {
        merged_rows(runs, sealed)
    })?;
    let path = new_run_path(environment)?;
    file.publish(&path, Existing::Refuse)?;
    Ok(path)
}

/// Returns the rows of several runs in order, each once.
fn merged_rows<'a>(
    runs: &'a [&Run],
    sealed: &'a RoaringBitmap,
) -> impl Iterator<Item = RunRow> + 'a {
    let mut heads: Vec<_> = runs
        .iter()
        .map(|run| run.sections().rows().peekable())
        .collect();
    let mut last = None;
    std::iter::from_fn(move || {
        loop {
            let next = heads
                .iter_mut()
                .filter_map(|head| head.peek().copied())
                .min()?;
            heads.iter_mut().for_each(|head| _ = head.next_if_eq(&next));
            // A damaged run might not be sorted; its rows are then left to its segments' tables.
            if last.is_none_or(|last| last < next) && sealed.contains(next.place.segment.get()) {
                last = Some(next);
                return Some(next);
            }
        }
    })
}

/// Makes a new run from the segments' tables and removes all others.
pub(crate) fn rebuild(session: &Session) -> Result<(), StoreError> {
    let path = paths::index_lock();
    let storage = &session.environment().storage;
    let _lock = storage
        .lock(&path, LockMode::Exclusive)
        .map_err(StoreError::io("lock", &path))?;
    rebuild_under_lock(session)
}

fn rebuild_under_lock(session: &Session) -> Result<(), StoreError> {
    let environment = session.environment();
    let old: Vec<_> = files::list(environment, paths::INDEX)?;
    let index = Index::from_tables(session)?;
    merge(
        environment,
        &index.runs.iter().collect::<Vec<_>>(),
        &index.sealed,
    )?;
    sketches::remove_damaged(environment)?;
    for entry in old
        .iter()
        .filter(|entry| !paths::is_sketch_run(&entry.name))
    {
        match files::remove_if_present(
            environment,
            &paths::directory(paths::INDEX).join(&entry.name),
        ) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::IsADirectory => {}
            other => drop(other?),
        }
    }
    files::sync_directory(environment, &paths::directory(paths::INDEX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tegula_format::Slot;
    use tegula_io::MemoryStorage;

    fn environment() -> Environment {
        let environment = Environment::of_system(Arc::new(MemoryStorage::new()));
        for directory in paths::DIRECTORIES {
            let path = paths::directory(directory);
            environment.storage.create_directory(&path).unwrap();
        }
        environment
    }

    fn row(segment: u32, slot: u16) -> RunRow {
        RunRow {
            id: ChunkId::of(&[segment.to_le_bytes(), u32::from(slot).to_le_bytes()].concat()),
            place: Place {
                segment: SegmentNumber::new(segment),
                slot: Slot::new(slot),
            },
            offset: 4096 + u32::from(slot) * 100,
            stored_length: 10,
            bases: 0,
        }
    }

    #[test]
    fn a_run_whose_file_another_has_merged_away_is_kept_until_it_is_merged_itself() {
        let environment = environment();
        let run = |segment: u32, slots: u16| {
            let rows = (0..slots).map(|slot| row(segment, slot)).collect();
            let segments = vec![SegmentNumber::new(segment)];
            match segment % 5 {
                0 => Run::in_memory(rows, segments),
                _ => publish_run(&environment, rows, &segments).unwrap(),
            }
        };
        // One of those in memory is too long to be merged with the others.
        let mut runs: Vec<Run> = (1..9).map(|segment| run(segment, 3)).collect();
        runs.push(run(10, 1000));
        let runs = merge_own(&environment, runs).unwrap();
        assert!(runs.len() < 9, "nothing was merged");
        for (segment, slot) in (1..9).map(|segment| (segment, 2)).chain([(10, 999)]) {
            let wanted = row(segment, slot);
            let found: Vec<_> = runs.iter().flat_map(|run| run.find(&wanted.id)).collect();
            assert_eq!(found, [wanted], "of segment {segment}");
        }
    }

    #[test]
    fn the_runs_of_one_writer_stay_few_and_list_every_chunk_once() {
        let environment = environment();
        let mut runs = Vec::new();
        for segment in 1..=100 {
            let rows = (0..3).map(|slot| row(segment, slot)).collect();
            runs.push(publish_run(&environment, rows, &[SegmentNumber::new(segment)]).unwrap());
            runs = merge_own(&environment, runs).unwrap();
            assert!(
                runs.len() <= RUNS_MAX,
                "{} runs after {segment}",
                runs.len()
            );
            let files = files::list(&environment, paths::INDEX).unwrap();
            assert_eq!(files.len(), runs.len(), "what was merged is gone");
        }
        for segment in 1..=100 {
            let wanted = row(segment, 2);
            let found: Vec<_> = runs.iter().flat_map(|run| run.find(&wanted.id)).collect();
            assert_eq!(found, [wanted]);
        }
        let mut segments: Vec<_> = runs.iter().flat_map(|run| run.segments.clone()).collect();
        segments.sort_unstable();
        assert_eq!(
            segments,
            (1..=100).map(SegmentNumber::new).collect::<Vec<_>>()
        );
    }
}

//! Runs that find chunks by features of their content (SPEC 5.5). Advice only: whatever is wrong here, frames come out
//! larger and nothing else.

use crate::{Environment, Session, StoreError, files, paths};
use std::collections::HashMap;
use tegula_format::{
    Feature, IdPrefix, Sketch, SketchRow, SketchRun, SketchRunBuilder, SketchRunHeader,
};
use tegula_io::{Buffer, Existing, Lock, LockMode, Mapped, StorePath};

/// More runs than this are merged: those that are there by the next writer, those of one ingest by itself as it goes on.
const RUNS_MAX: usize = 8;

/// How many chunks of one run are asked about for one feature: one that many chunks have tells little.
const CHUNKS_PER_FEATURE: usize = 2;

/// One run, mapped.
#[derive(Debug, Clone)]
struct Mapping {
    path: StorePath,
    mapped: Mapped,
    header: SketchRunHeader,
}

impl Mapping {
    fn open(environment: &Environment, path: StorePath) -> Result<Self, StoreError> {
        let file = environment
            .storage
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mapped = file.map().map_err(StoreError::io("map", &path))?;
        let bytes = mapped.as_slice();
        let header = SketchRunHeader::decode(bytes, bytes.len() as u64)
            .map_err(StoreError::corrupt(&path))?;
        Ok(Self {
            path,
            mapped,
            header,
        })
    }

    fn run(&self) -> SketchRun<'_> {
        SketchRun::new(&self.header, self.mapped.as_slice())
            .expect("because open() checked the length")
    }
}

/// All runs there are.
#[derive(Debug, Default)]
pub(crate) struct SketchRuns {
    /// Those that were there.
    found: Vec<Mapping>,
    /// Those that were published since.
    own: Vec<Mapping>,
}

impl SketchRuns {
    /// Maps the runs that can be read. The others, and those merged away meanwhile, are done without.
    pub(crate) fn open(environment: &Environment) -> Result<Self, StoreError> {
        let mut runs = Vec::new();
        for entry in files::list(environment, paths::INDEX)? {
            if paths::is_sketch_run(&entry.name) {
                let path = paths::directory(paths::INDEX).join(&entry.name);
                runs.extend(Mapping::open(environment, path).ok());
            }
        }
        Ok(Self {
            found: runs,
            own: Vec::new(),
        })
    }

    /// Returns chunks that once had a feature.
    pub(crate) fn find(&self, feature: Feature) -> impl Iterator<Item = IdPrefix> + '_ {
        self.found
            .iter()
            .chain(&self.own)
            .flat_map(move |mapping| mapping.run().find(feature).take(CHUNKS_PER_FEATURE))
    }

    /// Publishes rows as one more run. Runs of our own are merged when they get many: what an ingest looks up must not get
    /// slower with every run it writes.
    pub(crate) fn publish(
        &mut self,
        environment: &Environment,
        mut rows: Vec<SketchRow>,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_unstable();
        rows.dedup();
        let path = write(environment, || rows.iter().copied())?;
        self.own.push(Mapping::open(environment, path)?);
        match self.own.len() > RUNS_MAX {
            true => self.merge_own(environment),
            false => Ok(()),
        }
    }

    /// Merges some of our own runs, unless somebody else is at the index. The index does not know yet what is in them, so
    /// nothing is left out.
    fn merge_own(&mut self, environment: &Environment) -> Result<(), StoreError> {
        let Some(_lock) = lock_index(environment)? else {
            return Ok(());
        };
        let count = choose(&mut self.own);
        let rest = self.own.split_off(count);
        let victims = std::mem::replace(&mut self.own, rest);
        let merged = merge_into_one(environment, &victims, |_| true)?;
        self.own.push(Mapping::open(environment, merged)?);
        Ok(())
    }
}

/// Locks the index against others who remove runs; `None` if somebody else has.
fn lock_index(environment: &Environment) -> Result<Option<Lock>, StoreError> {
    let path = paths::index_lock();
    let lock = environment.storage.try_lock(&path, LockMode::Exclusive);
    lock.map_err(StoreError::io("lock", &path))
}

/// Brings those to the front that are to be merged, and returns how many they are. Sizes grow geometrically: from the
/// smallest up, as long as the next is no more than twice all before.
fn choose(runs: &mut [Mapping]) -> usize {
    runs.sort_by_key(|mapping| mapping.run().len());
    let mut total = 0;
    let chosen = runs.iter().enumerate().take_while(|(position, mapping)| {
        let length = mapping.run().len();
        let take = *position < RUNS_MAX / 2 || length <= total * 2;
        total += length;
        take
    });
    chosen.count()
}

/// Writes the rows of some runs that are to be kept as one run, and removes these.
fn merge_into_one(
    environment: &Environment,
    victims: &[Mapping],
    kept: impl Fn(&SketchRow) -> bool,
) -> Result<StorePath, StoreError> {
    // Damaged rows must not be given a new checksum; they are no loss.
    let whole: Vec<_> = victims
        .iter()
        .filter(|mapping| mapping.run().verify().is_ok())
        .collect();
    let path = write(environment, || merged(&kept, &whole))?;
    for mapping in victims {
        files::remove_if_present(environment, &mapping.path)?;
    }
    files::sync_directory(environment, &paths::directory(paths::INDEX))?;
    Ok(path)
}

fn new_path(environment: &Environment) -> Result<StorePath, StoreError> {
    let directory = paths::directory(paths::INDEX);
    let random = environment.random.id();
    Ok(paths::sketch_run(
        &random.map_err(StoreError::io("name a file in", &directory))?,
    ))
}

/// The candidates for the bases of one chunk: those that share features with it.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// Each chunk with a bit for each feature of the sketch that it shares.
    chunks: HashMap<IdPrefix, u64>,
}

impl Votes {
    /// Notes that a chunk has the sketch's feature at `position`.
    pub(crate) fn add(&mut self, chunk: IdPrefix, position: usize) {
        *self.chunks.entry(chunk).or_default() |= 1 << position;
    }

    /// Chooses up to two bases: the chunk that shares the most, and the one that shares the most of what is left. The
    /// better one comes last, so that it is nearest to what is compressed.
    pub(crate) fn choose(
        self,
        sketch: &Sketch,
        mut usable: impl FnMut(IdPrefix) -> bool,
    ) -> Vec<IdPrefix> {
        let features = u32::try_from(sketch.features().len()).unwrap_or(u32::MAX);
        let mut chunks: Vec<_> = self.chunks.into_iter().collect();
        // Ties go to the lower id, so that a run can be replayed.
        chunks.sort_unstable_by_key(|(chunk, shared)| (!shared.count_ones(), *chunk));
        let enough =
            |shared: u64| shared.count_ones() >= SHARED_MIN.max(features / SHARE_OF_FEATURES);
        let mut good = chunks.iter().take_while(|(_, shared)| enough(*shared));
        let tried = good.by_ref().take(TRIED_MAX);
        let Some((best, covered)) = tried.into_iter().find(|(chunk, _)| usable(*chunk)).copied()
        else {
            return Vec::new();
        };
        let mut rest: Vec<_> = chunks
            .into_iter()
            .filter(|(chunk, _)| *chunk != best)
            .map(|(chunk, shared)| (chunk, (shared & !covered).count_ones()))
            .filter(|(_, more)| *more > 0)
            .collect();
        rest.sort_unstable_by_key(|(chunk, more)| (!more, *chunk));
        let mut rest = rest.into_iter().take(TRIED_MAX).map(|(chunk, _)| chunk);
        let second = rest.find(|chunk| usable(*chunk));
        second.into_iter().chain([best]).collect()
    }
}

/// A base shares at least this many features: one can be chance.
const SHARED_MIN: u32 = 2;

/// A base shares at least this fraction of a chunk's features. Less is not worth giving up a chunk that could itself be
/// others' base (decision 0011).
const SHARE_OF_FEATURES: u32 = 7;

/// How many candidates are looked up before the search is given up.
const TRIED_MAX: usize = 4;

/// Removes the runs that are damaged.
pub(crate) fn remove_damaged(environment: &Environment) -> Result<(), StoreError> {
    for (path, _) in damaged(environment)? {
        files::remove_if_present(environment, &path)?;
    }
    Ok(())
}

/// Checks every run, and returns those that cannot be used, and why.
pub(crate) fn damaged(
    environment: &Environment,
) -> Result<Vec<(StorePath, StoreError)>, StoreError> {
    let mut damaged = Vec::new();
    for entry in files::list(environment, paths::INDEX)? {
        if !paths::is_sketch_run(&entry.name) {
            continue;
        }
        let path = paths::directory(paths::INDEX).join(&entry.name);
        let verify = |mapping: Mapping| mapping.run().verify().map_err(StoreError::corrupt(&path));
        match Mapping::open(environment, path.clone()).and_then(verify) {
            Ok(()) => {}
            // Merged away since it was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_unreadable() => damaged.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(damaged)
}

/// Merges the runs if there are many, leaving out what the index does not know any more. Does nothing if somebody else
/// is at the index.
pub(crate) fn tidy(session: &Session) -> Result<(), StoreError> {
    let environment = session.environment();
    if SketchRuns::open(environment)?.found.len() <= RUNS_MAX {
        return Ok(());
    }
    let Some(_lock) = lock_index(environment)? else {
        return Ok(());
    };
    let mut victims = SketchRuns::open(environment)?.found;
    let count = choose(&mut victims);
    victims.truncate(count);
    // One that knows what was stored since the session began, by the caller's own ingest above all.
    let now = session.store().begin()?;
    let index = now.index()?;
    merge_into_one(environment, &victims, |row| {
        index.find_plain(row.chunk).is_some()
    })?;
    Ok(())
}

/// Publishes rows as a run; they are in order, and the same each time they are asked for.
fn write<R: Iterator<Item = SketchRow>>(
    environment: &Environment,
    rows: impl Fn() -> R,
) -> Result<StorePath, StoreError> {
    let mut builder = SketchRunBuilder::new();
    rows().for_each(|row| builder.push(&row));
    let mut file = files::TemporaryFile::create(environment)?;
    file.append(Buffer::from(builder.head()))?;
    file.append_rows(rows().map(|row| row.encode()))?;
    let path = new_path(environment)?;
    file.publish(&path, Existing::Refuse)?;
    Ok(path)
}

/// Returns the rows of several runs that are to be kept, in order, each once.
fn merged<'a>(
    kept: &'a impl Fn(&SketchRow) -> bool,
    mappings: &'a [&Mapping],
) -> impl Iterator<Item = SketchRow> + 'a {
    let mut heads: Vec<_> = mappings
        .iter()
        .map(|mapping| mapping.run().rows().peekable())
        .collect();
    std::iter::from_fn(move || {
        loop {
            let heads_now = heads.iter_mut().filter_map(|head| head.peek().copied());
            let next = heads_now.min()?;
            heads.iter_mut().for_each(|head| _ = head.next_if_eq(&next));
            if kept(&next) {
                return Some(next);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tegula_format::ChunkId;
    use tegula_io::MemoryStorage;

    #[test]
    fn the_runs_of_one_ingest_stay_few_and_keep_what_the_index_does_not_know_yet() {
        let environment = Environment::of_system(Arc::new(MemoryStorage::new()));
        for directory in paths::DIRECTORIES {
            let path = paths::directory(directory);
            environment.storage.create_directory(&path).unwrap();
        }
        let chunk = |number: u32| IdPrefix::of(&ChunkId::of(&number.to_le_bytes()));
        let mut runs = SketchRuns::open(&environment).unwrap();
        for number in 0..100 {
            let rows = (0..3).map(|of_it| SketchRow {
                feature: Feature::new(number * 3 + of_it),
                chunk: chunk(number),
            });
            runs.publish(&environment, rows.collect()).unwrap();
            let there = SketchRuns::open(&environment).unwrap().found.len();
            assert_eq!(there, runs.own.len(), "what was merged is gone");
            assert!(there <= RUNS_MAX, "{there} runs after {number}");
        }
        for number in 0..100 {
            let found: Vec<_> = runs.find(Feature::new(number * 3 + 1)).collect();
            assert_eq!(found, [chunk(number)]);
        }
    }
}

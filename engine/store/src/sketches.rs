//! Runs that find chunks by features of their content (SPEC 5.5). Advice only: whatever is wrong here, frames come out
//! larger and nothing else.

use crate::{Environment, Index, Session, StoreError, files, paths};
use std::collections::HashMap;
use tegula_format::{
    Feature, IdPrefix, SKETCH_ROW_BYTES, Sketch, SketchRow, SketchRun, SketchRunBuilder,
    SketchRunHeader, encode_sketch_run,
};
use tegula_io::{Buffer, Existing, LockMode, Mapped, StorePath};

/// More runs than this are merged by the next writer.
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
pub(crate) struct SketchRuns(Vec<Mapping>);

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
        Ok(Self(runs))
    }

    /// Returns chunks that once had a feature.
    pub(crate) fn find(&self, feature: Feature) -> impl Iterator<Item = IdPrefix> + '_ {
        self.0
            .iter()
            .flat_map(move |mapping| mapping.run().find(feature).take(CHUNKS_PER_FEATURE))
    }

    /// Publishes rows as one more run.
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
        let path = new_path(environment)?;
        files::publish(
            environment,
            &path,
            &encode_sketch_run(&rows),
            Existing::Refuse,
        )?;
        self.0.push(Mapping::open(environment, path)?);
        Ok(())
    }
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
    let runs = SketchRuns::open(environment)?;
    if runs.0.len() <= RUNS_MAX {
        return Ok(());
    }
    let path = paths::index_lock();
    let lock = environment.storage.try_lock(&path, LockMode::Exclusive);
    let Some(_lock) = lock.map_err(StoreError::io("lock", &path))? else {
        return Ok(());
    };
    let mut victims = SketchRuns::open(environment)?.0;
    // Sizes grow geometrically: from the smallest up, as long as the next is no more than twice all before.
    victims.sort_by_key(|mapping| mapping.run().len());
    let mut total = 0;
    let chosen = victims
        .iter()
        .enumerate()
        .take_while(|(position, mapping)| {
            let length = mapping.run().len();
            let take = *position < RUNS_MAX / 2 || length <= total * 2;
            total += length;
            take
        });
    let count = chosen.count();
    victims.truncate(count);
    // Damaged rows must not be given a new checksum; they are no loss.
    let (whole, _damaged): (Vec<_>, Vec<_>) = victims
        .iter()
        .partition(|mapping| mapping.run().verify().is_ok());
    merge(environment, session.index()?, &whole)?;
    for mapping in &victims {
        files::remove_if_present(environment, &mapping.path)?;
    }
    files::sync_directory(environment, &paths::directory(paths::INDEX))
}

fn merge(
    environment: &Environment,
    index: &Index,
    mappings: &[&Mapping],
) -> Result<(), StoreError> {
    let mut builder = SketchRunBuilder::new();
    merged(index, mappings).for_each(|row| builder.push(&row));
    let mut file = files::TemporaryFile::create(environment)?;
    file.append(Buffer::from(builder.head()))?;
    let mut batch = Buffer::with_capacity(1 << 20);
    for row in merged(index, mappings) {
        if batch.len() + SKETCH_ROW_BYTES > 1 << 20 {
            file.append(std::mem::replace(
                &mut batch,
                Buffer::with_capacity(1 << 20),
            ))?;
        }
        batch.as_vec_mut().extend_from_slice(&row.encode());
    }
    file.append(batch)?;
    file.publish(&new_path(environment)?, Existing::Refuse)
}

/// Returns the rows of several runs in order, each once, of chunks that can still be bases.
fn merged<'a>(index: &'a Index, mappings: &'a [&Mapping]) -> impl Iterator<Item = SketchRow> + 'a {
    let mut heads: Vec<_> = mappings
        .iter()
        .map(|mapping| mapping.run().rows().peekable())
        .collect();
    std::iter::from_fn(move || {
        loop {
            let heads_now = heads.iter_mut().filter_map(|head| head.peek().copied());
            let next = heads_now.min()?;
            heads.iter_mut().for_each(|head| _ = head.next_if_eq(&next));
            if index.find_plain(next.chunk).is_some() {
                return Some(next);
            }
        }
    })
}

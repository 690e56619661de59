//! Garbage collection, while others read and write (SPEC 9, 13).
//!
//! Marking tells what no image needs. It is *condemned*: from then on nobody who begins may come to need it, and nobody
//! who began before may publish an image that does without storing it again. It is *removed* when every session that
//! began before has ended. Nothing here depends on a clock: patience only decides how long this call waits before it
//! leaves the removal to the next.

mod again;
mod moving;
mod optimize;

pub use optimize::{Going, Optimization, OptimizeOptions};

use crate::mark::Marked;
use crate::segment::{SEGMENT_TARGET_BYTES, SegmentTable, list_sealed, read_ingest};
use crate::standing::{Chooser, chooser};
use crate::{Index, Session, Store, StoreError, files, index, layer, paths, recover, sketches};
use moving::Moving;
use std::collections::HashSet;
use std::time::Duration;
use tegula_format::{
    BASE_DEPTH_MAX, ChunkId, Corruption, GcState, ImageRecord, IngestId, LayerId, RunRow,
    SEGMENT_DATA_START, SEGMENT_TRAILER_BYTES, SegmentNumber, Structure,
};
use tegula_io::{Existing, LockMode};

/// How a collection is to go about it.
#[derive(Debug, Clone, Copy)]
pub struct CollectOptions {
    /// Segments with a smaller share of needed bytes are rewritten; 0 rewrites none, 1 every one with any garbage.
    pub min_live: f64,
    /// Only tells what would be freed.
    pub dry_run: bool,
    /// How long to wait for older sessions to end before leaving the removal to a later collection.
    pub patience: Duration,
    /// How long this thread may work on compressing better what it moves out of segments that are rewritten: chunks that
    /// resemble each other, over each other, at a higher level. When it is used up the rest is moved as it stands; zero
    /// moves all of it so.
    pub recompress: Duration,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self {
            min_live: 0.7,
            dry_run: false,
            patience: Duration::from_secs(30),
            recompress: Duration::from_secs(30),
        }
    }
}

/// What a collection did, or in a dry run would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collection {
    /// Bytes freed: files removed less segments written for survivors.
    pub freed_bytes: u64,
    /// Segments removed because nothing in them was needed.
    pub segments_removed: u64,
    /// Segments whose survivors were moved.
    pub segments_rewritten: u64,
    /// Chunks that were moved out of these and were compressed again for it. Unknown in a dry run, and so is what they save.
    pub recompressed_chunks: u64,
    /// Layers removed.
    pub layers_removed: u64,
    /// Files of crashed writers removed.
    pub abandoned_removed: u64,
    /// Bytes condemned that older sessions still hold back; the next collection frees them.
    pub pending_bytes: u64,
}

/// The directories in which crashed writers leave files.
const ABANDONED_IN: [&str; 3] = [paths::SEGMENTS, paths::TMP, paths::LOCKS];

/// What is to go.
#[derive(Debug, Default)]
struct Plan {
    dead: Vec<(SegmentNumber, u64)>,
    rewrite: Vec<(SegmentTable, u64)>,
    layers: Vec<(LayerId, u64)>,
    /// Bytes of survivors in the segments to rewrite, with what a table of contents says of them.
    survivor_bytes: u64,
}

impl Plan {
    fn segments(&self) -> impl Iterator<Item = (SegmentNumber, u64)> + '_ {
        let rewritten = self
            .rewrite
            .iter()
            .map(|(table, bytes)| (table.header.number, *bytes));
        self.dead.iter().copied().chain(rewritten)
    }

    fn bytes(&self) -> u64 {
        self.segments()
            .map(|(_, bytes)| bytes)
            .chain(self.layers.iter().map(|(_, bytes)| *bytes))
            .sum()
    }

    /// Returns the bytes of the segments that the survivors will fill.
    fn rewritten_bytes(&self) -> u64 {
        let segments = self.survivor_bytes.div_ceil(SEGMENT_TARGET_BYTES);
        let empty = SEGMENT_DATA_START + SEGMENT_TRAILER_BYTES as u64;
        self.survivor_bytes + segments * empty
    }

    fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.rewrite.is_empty() && self.layers.is_empty()
    }
}

impl Store {
    /// Frees what no image needs.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another collection runs. [`StoreError::Corrupt`], [`StoreError::LayerMissing`] if a
    /// record or layer cannot be read: what it needs is then not known, and nothing is condemned.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collection, StoreError> {
        let path = paths::gc_lock();
        let Some(_lock) = self.try_lock(&path, LockMode::Exclusive)? else {
            return Err(StoreError::Busy {
                what: "garbage collection",
            });
        };
        let mut done = Collection::default();
        // What an earlier collection condemned and could not remove goes first.
        if !options.dry_run && !self.remove_condemned(options.patience, &mut done)? {
            return Ok(done);
        }
        let session = self.begin()?;
        // In this order: a segment listed here was written by an ingest that is alive in the next line or has published
        // its image before the marking below, if it ever does.
        let sealed = list_sealed(self.environment())?;
        let layers = layer::list_layers(self.environment())?;
        let living = self.living_ingests()?;
        let marked = mark(&session)?;
        let mut plan = plan_segments(&session, &sealed, &living, &marked, options.min_live)?;
        plan.layers = plan_layers(&session, layers, &living, &marked)?;
        if options.dry_run {
            let (files, bytes) = self.abandoned()?;
            return Ok(Collection {
                freed_bytes: (plan.bytes() + bytes).saturating_sub(plan.rewritten_bytes()),
                abandoned_removed: files,
                segments_removed: plan.dead.len() as u64,
                segments_rewritten: plan.rewrite.len() as u64,
                layers_removed: plan.layers.len() as u64,
                ..done
            });
        }
        // Our own session is one of those that removal waits for.
        drop(session);
        // What is dead goes first: on a full disk that makes the room that moving survivors takes.
        let rewrite = std::mem::take(&mut plan.rewrite);
        if !plan.is_empty() {
            self.condemn(&plan, &marked)?;
            self.remove_condemned(options.patience, &mut done)?;
        }
        self.remove_abandoned(&mut done)?;
        if done.pending_bytes == 0 && !rewrite.is_empty() {
            self.rewrite(rewrite, &marked, options, &mut done)?;
        }
        let session = self.begin()?;
        index::tidy(&session, false)?;
        sketches::tidy(&session)?;
        Ok(done)
    }

    /// Moves the survivors of segments, then removes these. A segment with a damaged survivor stays as it is.
    fn rewrite(
        &self,
        tables: Vec<(SegmentTable, u64)>,
        marked: &Marked,
        options: &CollectOptions,
        done: &mut Collection,
    ) -> Result<(), StoreError> {
        let session = self.begin()?;
        let mut moving = Moving::begin(&session, marked, options.recompress)?;
        for tables in moving.groups(tables) {
            moving.take(tables)?;
        }
        let Some((plan, moved)) = moving.finish()? else {
            return Ok(());
        };
        self.condemn(&plan, marked)?;
        drop(session);
        let mut removed = Collection::default();
        self.remove_condemned(options.patience, &mut removed)?;
        done.segments_rewritten = removed.segments_removed;
        done.recompressed_chunks = moved.recompressed;
        done.pending_bytes = removed.pending_bytes;
        done.freed_bytes = (done.freed_bytes + removed.freed_bytes).saturating_sub(moved.bytes);
        Ok(())
    }

    /// Returns the ingests that are under way.
    fn living_ingests(&self) -> Result<HashSet<IngestId>, StoreError> {
        let environment = self.environment();
        let mut living = HashSet::new();
        for entry in files::list(environment, paths::LOCKS)? {
            let Some(id) = paths::parse_ingest_lock(&entry.name) else {
                continue;
            };
            let path = paths::ingest_lock(&id);
            let free = environment.storage.try_lock(&path, LockMode::Exclusive);
            if free.map_err(StoreError::io("lock", &path))?.is_none() {
                living.insert(id);
            }
        }
        Ok(living)
    }

    /// Announces what is to go. Images published since the marking are looked at first, and what they need is spared.
    fn condemn(&self, plan: &Plan, marked: &Marked) -> Result<(), StoreError> {
        let _lock = self.commit_lock()?;
        // A removal that its process did not live to sync could be undone by a power failure: not once what the image
        // needed is gone.
        files::sync_directory(self.environment(), &paths::directory(paths::IMAGES))?;
        // A copy that is kept may stand in a segment whose writer has not made its name durable yet.
        files::sync_directory(self.environment(), &paths::directory(paths::SEGMENTS))?;
        let session = self.begin()?;
        let mut segments: HashSet<_> = plan.segments().map(|(number, _)| number).collect();
        let mut layers: HashSet<_> = plan.layers.iter().map(|(id, _)| *id).collect();
        let records = session.images()?;
        let new: Vec<_> = records
            .into_iter()
            .filter(|record| !marked.records.contains(&record.id))
            .collect();
        spare(&session, &new, &mut segments, &mut layers)?;
        let mut state = session.state().clone();
        state.epoch = following(state.epoch)?;
        let sealed = list_sealed(self.environment())?;
        let highest = sealed.last().map_or(0, |(number, _)| number.get());
        state.segment_floor = state.segment_floor.max(highest);
        state.condemned_segments = sorted(segments);
        state.condemned_layers = sorted(layers);
        self.write_gc_state(&state)
    }

    pub(crate) fn write_gc_state(&self, state: &GcState) -> Result<(), StoreError> {
        // The epoch's lock is there before the epoch is: a store that cannot be written to can then still be read.
        let path = paths::epoch_lock(state.epoch);
        let lock = self.environment().storage.try_lock(&path, LockMode::Shared);
        drop(lock.map_err(StoreError::io("lock", &path))?);
        files::sync_directory(self.environment(), &paths::directory(paths::LOCKS))?;
        files::publish(
            self.environment(),
            &paths::gc_state(),
            &state.encode(),
            Existing::Replace,
        )
    }

    /// Removes what is condemned once every session from before has ended. Returns whether it could.
    fn remove_condemned(
        &self,
        patience: Duration,
        done: &mut Collection,
    ) -> Result<bool, StoreError> {
        let environment = self.environment();
        let mut state = self.read_gc_state()?;
        if state.condemned_segments.is_empty() && state.condemned_layers.is_empty() {
            return Ok(true);
        }
        // Whoever wrote it may not have lived to make its name durable: nothing goes before it is.
        self.write_gc_state(&state)?;
        let segments = state
            .condemned_segments
            .iter()
            .map(|number| paths::sealed_segment(*number));
        let layers = state.condemned_layers.iter().map(paths::layer);
        let doomed: Vec<_> = segments.chain(layers).collect();
        if !self.drain(state.epoch, patience)? {
            done.pending_bytes = doomed.iter().map(|path| self.file_bytes(path)).sum();
            return Ok(false);
        }
        for path in &doomed {
            let bytes = self.file_bytes(path);
            if files::remove_if_present(environment, path)? {
                done.freed_bytes += bytes;
                match paths::parse_layer(path.name()) {
                    Some(_) => done.layers_removed += 1,
                    None => done.segments_removed += 1,
                }
            }
        }
        files::sync_directory(environment, &paths::directory(paths::SEGMENTS))?;
        files::sync_directory(environment, &paths::directory(paths::LAYERS))?;
        // Only now that they are gone for good: a crash before repeats the removal.
        state.condemned_segments.clear();
        state.condemned_layers.clear();
        self.write_gc_state(&state)?;
        Ok(true)
    }

    fn file_bytes(&self, path: &tegula_io::StorePath) -> u64 {
        self.environment()
            .storage
            .open(path)
            .map_or(0, |file| file.bytes())
    }

    /// Waits until no session of an epoch before `epoch` is left; `false` if patience ends first.
    fn drain(&self, epoch: u64, patience: Duration) -> Result<bool, StoreError> {
        let environment = self.environment();
        let entries = files::list(environment, paths::LOCKS)?;
        let ended = entries
            .iter()
            .filter_map(|entry| paths::parse_epoch_lock(&entry.name))
            .filter(|e| *e < epoch);
        let deadline = environment.clock.elapsed().saturating_add(patience);
        for path in ended.map(paths::epoch_lock) {
            loop {
                let lock = environment.storage.try_lock(&path, LockMode::Exclusive);
                if lock.map_err(StoreError::io("lock", &path))?.is_some() {
                    break;
                }
                if environment.clock.elapsed() >= deadline {
                    return Ok(false);
                }
                environment.clock.sleep(Duration::from_millis(20));
            }
            // Nobody can begin in an epoch that is over, so the file has done its work.
            files::remove_if_present(environment, &path)?;
        }
        Ok(true)
    }

    /// Returns how many files of crashed writers there are, and their bytes.
    fn abandoned(&self) -> Result<(u64, u64), StoreError> {
        let mut sum = (0, 0);
        for directory in ABANDONED_IN {
            for file in recover::abandoned_in(self.environment(), directory)? {
                sum.0 += 1;
                sum.1 += file.bytes;
            }
        }
        Ok(sum)
    }

    fn remove_abandoned(&self, done: &mut Collection) -> Result<(), StoreError> {
        for directory in ABANDONED_IN {
            let abandoned = recover::abandoned_in(self.environment(), directory)?;
            for file in &abandoned {
                if files::remove_if_present(self.environment(), &file.path)? {
                    done.freed_bytes += file.bytes;
                    done.abandoned_removed += 1;
                }
            }
            if !abandoned.is_empty() {
                files::sync_directory(self.environment(), &paths::directory(directory))?;
            }
        }
        Ok(())
    }
}

/// Returns the epoch after this one. There are more than anybody can use up: the last is a damaged or hostile state's,
/// and after it removal would not know any more who began before.
fn following(epoch: u64) -> Result<u64, StoreError> {
    epoch.checked_add(1).ok_or_else(|| {
        StoreError::corrupt(&paths::gc_state())(Corruption::Field {
            what: Structure::GcState,
            field: "epoch",
            found: epoch,
            expected: "less than 2^64 - 1",
        })
    })
}

fn sorted<T: Ord>(set: HashSet<T>) -> Vec<T> {
    let mut list: Vec<_> = set.into_iter().collect();
    list.sort_unstable();
    list
}

/// Marks what all images need; fails if that cannot be known in full.
fn mark(session: &Session) -> Result<Marked, StoreError> {
    let index = session.sound_index()?;
    // A run that cannot be used was replaced by tables; a table that cannot be read hides chunks that may be needed.
    // Their segments are never candidates, so what they hide is safe.
    Marked::mark(session, index, &session.images()?)
}

fn plan_segments(
    session: &Session,
    sealed: &[(SegmentNumber, u64)],
    living: &HashSet<IngestId>,
    marked: &Marked,
    min_live: f64,
) -> Result<Plan, StoreError> {
    let index = session.sound_index()?;
    let mut plan = Plan::default();
    for (number, bytes) in sealed {
        if index
            .damaged_segments
            .iter()
            .any(|(damaged, _)| damaged == number)
        {
            continue;
        }
        let live = marked.places.count_in(*number);
        let rows = match SegmentTable::count_rows(session.environment(), *number) {
            Ok(rows) => u64::from(rows),
            // It cannot be proved garbage, so it stays.
            Err(error) if error.is_unreadable() => continue,
            Err(error) => return Err(error),
        };
        if (live == rows && rows > 0) || is_living(read_ingest(session, *number), living)? {
            continue;
        }
        let table = match SegmentTable::read(session, *number) {
            Ok(table) => table,
            Err(error) if error.is_unreadable() => continue,
            Err(error) => return Err(error),
        };
        if hides_missing(&table, marked) || !kept_copies_are_whole(session, &table, marked)? {
            continue;
        }
        let survivors = survivors(&table, marked);
        let live_bytes: u64 = survivors.map(|row| row.record_bytes() as u64).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share of a segment's bytes needs no more than 52 bits"
        )]
        let share = live_bytes as f64 / *bytes as f64;
        if live == 0 {
            plan.dead.push((*number, *bytes));
        } else if share < min_live {
            plan.survivor_bytes +=
                live_bytes + table.toc_bytes(|row| marked.places.contains(row.place));
            plan.rewrite.push((table, *bytes));
        }
    }
    Ok(plan)
}

/// The most layers condemned at once: the collection state is one small file. The next collection takes the rest.
const LAYERS_MAX: usize = 100_000;

fn plan_layers(
    session: &Session,
    layers: Vec<LayerId>,
    living: &HashSet<IngestId>,
    marked: &Marked,
) -> Result<Vec<(LayerId, u64)>, StoreError> {
    let mut planned = Vec::new();
    for id in layers.into_iter().filter(|id| !marked.layers.contains(id)) {
        match layer::Layer::open(session.environment(), &id) {
            Ok(layer) if !living.contains(&layer.summary().ingest) => {
                planned.push((id, layer.file_bytes()))
            }
            Ok(_) => {}
            // Damaged layers are for repair to judge; vanished ones are nobody's concern.
            Err(error) if error.is_unreadable() => {}
            Err(error) => return Err(error),
        }
        if planned.len() == LAYERS_MAX {
            break;
        }
    }
    Ok(planned)
}

/// Returns what is needed of a segment.
fn survivors<'a>(table: &'a SegmentTable, marked: &'a Marked) -> impl Iterator<Item = RunRow> + 'a {
    let rows = table.run_rows();
    rows.filter(|row| marked.places.contains(row.place))
}

fn is_living(
    ingest: Result<IngestId, StoreError>,
    living: &HashSet<IngestId>,
) -> Result<bool, StoreError> {
    match ingest {
        Ok(id) => Ok(living.contains(&id)),
        // A head that cannot be read names nobody: the segment stays.
        Err(error) if error.is_unreadable() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Tells whether a segment has a trace of a chunk that is needed and was found nowhere else: in quarantine, say.
fn hides_missing(table: &SegmentTable, marked: &Marked) -> bool {
    table
        .rows()
        .iter()
        .any(|row| marked.missing.contains(&row.id))
}

/// Checks, for every needed chunk that a segment has a second copy of, the copy that is to be kept.
fn kept_copies_are_whole(
    session: &Session,
    table: &SegmentTable,
    marked: &Marked,
) -> Result<bool, StoreError> {
    let index = session.sound_index()?;
    let mut kept = table
        .run_rows()
        .filter(|row| !marked.places.contains(row.place))
        .filter_map(|row| {
            let mut places = index.places(&row.id);
            places.find(|kept| marked.places.contains(kept.place))
        });
    Ok(kept.all(|row| session.read_chunk_at(&row).is_ok()))
}

/// Reads every survivor from where it stands now, before the old copy is given up.
fn read_back(
    store: &Store,
    plan: &Plan,
    moved: impl IntoIterator<Item = ChunkId>,
) -> Result<(), StoreError> {
    let session = store.begin()?;
    let old: HashSet<_> = plan.segments().map(|(number, _)| number).collect();
    let index = session.index()?;
    // Where it will be counted on: a record that is garbage may stand on what is gone.
    let staying = Chooser::among(&session, index, |row| {
        index.is_usable(row.place) && !old.contains(&row.place.segment)
    });
    for id in moved {
        let row = staying.choose(&id)?;
        session.read_chunk_at(&row.ok_or(StoreError::ChunkMissing { id })?)?;
    }
    Ok(())
}

/// Takes from the condemned whatever images published since the marking need.
fn spare(
    session: &Session,
    records: &[ImageRecord],
    segments: &mut HashSet<SegmentNumber>,
    layers: &mut HashSet<LayerId>,
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let index: &Index = session.sound_index()?;
    for record in records {
        let stack = crate::LayerStack::of_image(session, record)?;
        stack
            .layers()
            .iter()
            .for_each(|layer| _ = layers.remove(&layer.id()));
        for chunk in stack.chunks() {
            let (_, id) = chunk?;
            spare_chunk(session, index, &id, segments, 0)?;
        }
    }
    Ok(())
}

/// Takes from the condemned what a chunk needs: a segment that it stands in, unless it stands elsewhere too, and what it
/// stands on there.
fn spare_chunk(
    session: &Session,
    index: &Index,
    id: &ChunkId,
    segments: &mut HashSet<SegmentNumber>,
    depth: u32,
) -> Result<(), StoreError> {
    let stays = |row: &RunRow, segments: &HashSet<SegmentNumber>| {
        index.is_usable(row.place) && !segments.contains(&row.place.segment)
    };
    if depth > BASE_DEPTH_MAX {
        return Ok(());
    }
    let staying = Chooser::among(session, index, |row| stays(row, segments)).choose(id)?;
    if staying.is_some() {
        return Ok(());
    }
    // Nothing that stays holds it whole: what does, stays.
    let now = chooser(session, index);
    let rows = match now.choose(id)? {
        Some(row) => vec![row],
        None => now.places(id),
    };
    for row in rows {
        segments.remove(&row.place.segment);
        for base in session.bases_of(&row)?.ids() {
            spare_chunk(session, index, base, segments, depth + 1)?;
        }
    }
    Ok(())
}

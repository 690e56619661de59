//! What chunks stand on: the bases of their frames, as the segments' tables have them, and which of its places a chunk
//! is to be counted on (SPEC 4.2, 12.3).
//!
//! A record with bases is worth something only where these are. A base is there as long as some image needs it, be it
//! for a chunk that stands on it: so what a record stands on may go while the record, garbage itself, is still there.
//! Nobody may count on such a record, and whoever looks for a chunk to keep, or to do without storing it, asks here.

use crate::index::preference;
use crate::segment::SegmentTable;
use crate::session::Reach;
use crate::{CheckedRecord, Index, LiveSet, Session, StoreError, codec, parallel, paths};
use roaring::RoaringTreemap;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tegula_format::{BASE_DEPTH_MAX, Bases, ChunkId, Place, RunRow, SegmentNumber, Slot};
use tegula_io::sync::{Mutex, PoisonError};

/// What the chunks of some segments stand on, so that a table is not read anew for every chunk.
#[derive(Debug, Default)]
pub(crate) struct BaseTables(Mutex<KeptTables>);

#[derive(Debug, Default)]
struct KeptTables {
    tables: HashMap<SegmentNumber, Arc<SegmentBases>>,
    ids: usize,
}

/// How many base ids are kept: 8 MiB of them.
const KEPT_IDS_MAX: usize = 1 << 18;

/// What the chunks of one segment stand on.
#[derive(Debug, Default)]
struct SegmentBases {
    /// The slots of the chunks that have bases, ascending, each with where its ids begin.
    slots: Vec<(Slot, usize)>,
    ids: Vec<ChunkId>,
}

impl SegmentBases {
    fn of(table: &SegmentTable) -> Self {
        let mut all = Self::default();
        for (row, entry) in table.run_rows().zip(table.rows()) {
            if row.bases > 0 {
                all.slots.push((row.place.slot, all.ids.len()));
                all.ids.extend_from_slice(table.toc.bases_of(entry));
            }
        }
        all
    }

    fn get(&self, slot: Slot) -> Bases {
        let Ok(position) = self.slots.binary_search_by_key(&slot, |(slot, _)| *slot) else {
            return Bases::NONE;
        };
        let start = self.slots.get(position).map_or(0, |(_, first)| *first);
        let next = self.slots.get(position + 1);
        let end = next.map_or(self.ids.len(), |(_, first)| *first);
        let ids = self.ids.get(start..end).unwrap_or_default();
        Bases::new(ids).expect("because a row has at most two")
    }
}

impl Session {
    /// Returns what the chunk at a place stands on: by its segment's table, or, where that cannot be read, by the record
    /// itself.
    ///
    /// # Errors
    /// [`StoreError`] if neither can be read.
    pub fn bases_of(&self, row: &RunRow) -> Result<Bases, StoreError> {
        if row.bases == 0 {
            return Ok(Bases::NONE);
        }
        match self.segment_bases(row.place.segment) {
            Ok(table) => Ok(table.get(row.place.slot)),
            Err(error) if error.is_unreadable() => self.bases_by_record(row),
            Err(error) => Err(error),
        }
    }

    fn segment_bases(&self, number: SegmentNumber) -> Result<Arc<SegmentBases>, StoreError> {
        let lock = || self.bases.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = lock().tables.get(&number) {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(SegmentBases::of(&SegmentTable::read(self, number)?));
        let mut kept = lock();
        if kept.ids + table.ids.len() > KEPT_IDS_MAX {
            *kept = KeptTables::default();
        }
        kept.ids += table.ids.len();
        kept.tables.insert(number, Arc::clone(&table));
        Ok(table)
    }

    fn bases_by_record(&self, row: &RunRow) -> Result<Bases, StoreError> {
        let path = paths::sealed_segment(row.place.segment);
        let record = self.read_segment(row, row.record_bytes())?.wait();
        let record = record.map_err(StoreError::io("read", &path))?;
        let rules = self.store().config().chunk_rules();
        let record = CheckedRecord::check(&record, &row.id, &rules);
        let record = record.map_err(|damage| codec::damaged(row, damage))?;
        Ok(*record.bases())
    }
}

/// Chooses the places that chunks are counted on.
///
/// Of a chunk's places that are usable: one where it stands by itself, else one where all it stands on has such a place
/// in turn; of these the newest. Who asks the same index with the same condition gets the same place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chooser<'a, U> {
    session: &'a Session,
    index: &'a Index,
    usable: U,
}

/// Leaves out what is condemned.
pub(crate) fn chooser<'a>(
    session: &'a Session,
    index: &'a Index,
) -> Chooser<'a, impl Fn(&RunRow) -> bool + Copy + 'a> {
    Chooser::among(session, index, |row| index.is_usable(row.place))
}

impl<'a, U: Fn(&RunRow) -> bool> Chooser<'a, U> {
    /// Chooses among the places that are not in quarantine and that `usable` lets pass.
    pub(crate) fn among(session: &'a Session, index: &'a Index, usable: U) -> Self {
        Self {
            session,
            index,
            usable,
        }
    }

    /// Returns the usable places of a chunk, whole or not, the best first.
    pub(crate) fn places(&self, id: &ChunkId) -> Vec<RunRow> {
        let usable = |row: &RunRow| (self.usable)(row);
        let mut rows: Vec<_> = self.index.places(id).filter(usable).collect();
        rows.sort_unstable_by_key(preference);
        rows
    }

    /// Chooses a chunk's place; `None` if it stands nowhere, or nowhere with all it stands on.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be known what a record stands on.
    pub(crate) fn choose(&self, id: &ChunkId) -> Result<Option<RunRow>, StoreError> {
        self.choose_within(id, &mut Reach::default())
    }

    /// Tells whether a chunk can be counted on; what cannot be looked at cannot.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the storage fails.
    pub(crate) fn is_whole(&self, id: &ChunkId) -> Result<bool, StoreError> {
        match self.choose(id) {
            Ok(row) => Ok(row.is_some()),
            Err(error) if error.is_unreadable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn choose_within(&self, id: &ChunkId, reach: &mut Reach) -> Result<Option<RunRow>, StoreError> {
        for row in self.places(id) {
            if row.bases == 0 {
                return Ok(Some(row));
            }
            if reach.count() && self.stands(&row, reach)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn stands(&self, row: &RunRow, reach: &mut Reach) -> Result<bool, StoreError> {
        for base in self.session.bases_of(row)?.ids() {
            let chosen = reach.further(|reach| self.choose_within(base, reach));
            if chosen.transpose()?.flatten().is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a chunk's bases that keep its usable records from being decoded, each with the record that stands on it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the storage fails.
    pub(crate) fn lacking(&self, id: &ChunkId) -> Result<Vec<(RunRow, ChunkId)>, StoreError> {
        let mut lacking = Vec::new();
        for row in self.places(id) {
            let bases = match self.session.bases_of(&row) {
                Err(error) if error.is_unreadable() => continue,
                bases => bases?,
            };
            for base in bases.ids() {
                if !self.is_whole(base)? {
                    lacking.push((row, *base));
                }
            }
        }
        Ok(lacking)
    }

    /// Adds what a chunk needs: its place, and those of all it stands on. Where something of that is nowhere it is
    /// missing, and so is the chunk; the rest is needed all the same, since what is missing may be brought again.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub(crate) fn need(&self, id: &ChunkId, needs: &mut Needs) -> Result<(), StoreError> {
        self.need_within(id, needs, 0)
    }

    fn need_within(&self, id: &ChunkId, needs: &mut Needs, depth: u32) -> Result<(), StoreError> {
        let rows = match self.choose(id)? {
            Some(row) if needs.places.insert(row.place) => vec![row],
            None if needs.missing.insert(*id) => self.places(id),
            _ => return Ok(()),
        };
        for row in rows {
            for base in self.session.bases_of(&row)?.ids() {
                // Deeper down nobody reads.
                if depth < BASE_DEPTH_MAX {
                    self.need_within(base, needs, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

/// What chunks need.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) places: LiveSet,
    /// Chunks that are needed and are nowhere whole.
    pub(crate) missing: HashSet<ChunkId>,
}

/// Segments whose tables are read together by all cores.
const SEGMENTS_BATCH: usize = 8;

impl Needs {
    /// Adds chunks that have bases, by their places, with all they stand on.
    ///
    /// Nearly all bases stand by themselves: those of a whole batch are looked up in one walk over the index.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be known what a record stands on.
    pub(crate) fn add_framed(
        &mut self,
        session: &Session,
        index: &Index,
        framed: &RoaringTreemap,
    ) -> Result<(), StoreError> {
        let places: Vec<Place> = framed.iter().filter_map(Place::from_ordinal).collect();
        let segments: Vec<&[Place]> = places.chunk_by(|a, b| a.segment == b.segment).collect();
        for batch in segments.chunks(SEGMENTS_BATCH) {
            let rows = parallel::map(batch, 1, |places| framed_rows(session, index, places));
            let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
            let mut ids: Vec<ChunkId> = rows.iter().flat_map(|row| row.2.ids()).copied().collect();
            parallel::sort(&mut ids);
            ids.dedup();
            let found = index.lookup_sorted(&ids);
            let plain = |id: &ChunkId| {
                let position = ids.binary_search(id).ok()?;
                let row = found.get(position).copied().flatten()?;
                (row.bases == 0).then_some(row.place)
            };
            for (place, id, bases) in rows {
                let places: Option<Vec<Place>> = bases.ids().iter().map(plain).collect();
                match places {
                    Some(bases) => {
                        self.places.insert(place);
                        bases
                            .into_iter()
                            .for_each(|base| _ = self.places.insert(base));
                    }
                    None => chooser(session, index).need(&id, self)?,
                }
            }
        }
        Ok(())
    }
}

/// Returns the chunks at some places of one segment, with their bases.
fn framed_rows(
    session: &Session,
    index: &Index,
    places: &[Place],
) -> Result<Vec<(Place, ChunkId, Bases)>, StoreError> {
    let Some(number) = places.first().map(|place| place.segment) else {
        return Ok(Vec::new());
    };
    match SegmentTable::read(session, number) {
        Ok(table) => {
            let bases = SegmentBases::of(&table);
            let row = |place: &Place| {
                let row = table.rows().get(usize::from(place.slot.get()))?;
                Some((*place, row.id, bases.get(place.slot)))
            };
            Ok(places.iter().filter_map(row).collect())
        }
        Err(error) if error.is_unreadable() => {
            // The index still knows where the records are.
            let listed = index.rows_of(number);
            let wanted = listed.filter(|row| places.binary_search(&row.place).is_ok());
            let row = |row: RunRow| Ok((row.place, row.id, session.bases_of(&row)?));
            wanted.map(row).collect()
        }
        Err(error) => Err(error),
    }
}

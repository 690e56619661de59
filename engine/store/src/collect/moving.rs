//! Moving the survivors of segments that are to go: as they stand, or, as long as the time for it lasts, better compressed.

use super::again::{Again, Budget, Effort};
use super::{OptimizeOptions, Plan, read_back, survivors};
use crate::mark::Marked;
use crate::segment::{SegmentTable, list_sealed};
use crate::{Ingest, Session, StoreError, codec};
use std::time::Duration;
use tegula_format::{ChunkId, SegmentNumber};

/// About how many chunks are compared with each other: 1 GiB of 64 KiB blocks. They are all read before the time is looked at
/// again.
const GROUP_CHUNKS: u64 = 1 << 14;

/// What was moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Bytes of the new segments.
    pub(super) bytes: u64,
    /// Chunks whose records are other than they were.
    pub(super) recompressed: u64,
}

/// Survivors on their way. Dropped before [`Self::finish`] it has moved nothing that counts.
pub(super) struct Moving<'a> {
    session: &'a Session,
    marked: &'a Marked,
    sealed: Vec<(SegmentNumber, u64)>,
    effort: Effort<'a>,
    ingest: Ingest<'a>,
    /// The segments whose survivors were all whole.
    done: Plan,
    ids: Vec<ChunkId>,
    recompressed: u64,
}

impl<'a> Moving<'a> {
    pub(super) fn begin(
        session: &'a Session,
        marked: &'a Marked,
        time: Duration,
    ) -> Result<Self, StoreError> {
        let environment = session.environment();
        Ok(Self {
            session,
            marked,
            sealed: list_sealed(environment)?,
            effort: Effort {
                level: OptimizeOptions::default().level,
                // Nobody waits for this: the other cores are for those who do something else.
                inline: true,
                budget: Budget::new(&*environment.clock, Some(time)),
                going: &|_| true,
            },
            ingest: Ingest::begin(session)?,
            done: Plan::default(),
            ids: Vec::new(),
            recompressed: 0,
        })
    }

    /// Cuts the segments into groups that are moved together.
    pub(super) fn groups(&self, tables: Vec<(SegmentTable, u64)>) -> Vec<Plan> {
        let (mut groups, mut chunks) = (Vec::<Plan>::new(), 0);
        for (table, bytes) in tables {
            let count = self.marked.places.count_in(table.header.number);
            chunks += count;
            match groups.last_mut() {
                Some(group) if chunks <= GROUP_CHUNKS => group.rewrite.push((table, bytes)),
                _ => {
                    chunks = count;
                    let rewrite = vec![(table, bytes)];
                    groups.push(Plan {
                        rewrite,
                        ..Plan::default()
                    });
                }
            }
        }
        groups
    }

    /// Stores the survivors of some segments once more.
    pub(super) fn take(&mut self, mut group: Plan) -> Result<(), StoreError> {
        match self.effort.budget.is_left() {
            true => self.compress(&mut group)?,
            false => self.copy(&mut group)?,
        }
        self.done.rewrite.append(&mut group.rewrite);
        Ok(())
    }

    fn compress(&mut self, group: &mut Plan) -> Result<(), StoreError> {
        let (session, effort) = (self.session, &self.effort);
        let again = Again::plan(session, &self.sealed, group, self.marked, effort)?;
        let again = again.expect("because it is never told to stop");
        again.encode(effort, 1, |stored, _| {
            self.recompressed += u64::from(stored.anew);
            self.ingest.store(&stored.chunk)
        })?;
        self.ids.extend(again.ids());
        // The others' are known already.
        again.publish_sketches(|row| row.bases > 0);
        Ok(())
    }

    /// Copies records as they stand, in their order. They are checked from header to hash before.
    fn copy(&mut self, group: &mut Plan) -> Result<(), StoreError> {
        let (session, marked) = (self.session, self.marked);
        let is_whole = |table: &SegmentTable| {
            survivors(table, marked).all(|row| session.read_chunk_at(&row).is_ok())
        };
        group.rewrite.retain(|(table, _)| is_whole(table));
        for (table, _) in &group.rewrite {
            for row in survivors(table, marked) {
                self.ingest.store(&codec::stored(session, &row)?)?;
                self.ids.push(row.id);
            }
        }
        Ok(())
    }

    /// Makes what was moved durable and reads it back from where it stands now. Returns what can be condemned then;
    /// `None` if that is nothing.
    pub(super) fn finish(self) -> Result<Option<(Plan, Moved)>, StoreError> {
        if self.done.is_empty() {
            return Ok(None);
        }
        self.ingest.seal_all()?;
        read_back(self.session.store(), &self.done, self.ids)?;
        let moved = Moved {
            bytes: self.ingest.totals().stored_bytes,
            recompressed: self.recompressed,
        };
        Ok(Some((self.done, moved)))
    }
}

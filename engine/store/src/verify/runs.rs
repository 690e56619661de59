//! Verification of the index runs: each by itself, and against the tables of the segments it names.

use super::{Finding, Verification, chain, path_of};
use crate::segment::SegmentTable;
use crate::{Index, paths};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tegula_format::{ChunkId, SegmentNumber};
use tegula_io::StorePath;

/// What is learned of the runs while the segments are gone through, table by table.
///
/// A run says what a table says if it has each of the table's rows and as many of that segment as the table. So no row
/// needs to be kept: a number a segment is.
#[derive(Debug)]
pub(super) struct RunCheck<'a> {
    index: &'a Index,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// How many rows each readable table has.
    rows: HashMap<SegmentNumber, usize>,
    /// For each run, by its position, a chunk that a table has and the run has not, or elsewhere.
    missing: HashMap<usize, ChunkId>,
}

impl<'a> RunCheck<'a> {
    pub(super) fn new(index: &'a Index) -> Self {
        let seen = Mutex::default();
        Self { index, seen }
    }

    /// Looks up every row of a table in the runs that name its segment.
    pub(super) fn compare(&self, table: &SegmentTable) {
        let number = table.header.number;
        let missing = |position: usize| {
            let run = self.index.runs.get(position)?;
            let named = run.path.is_some() && run.segments.binary_search(&number).is_ok();
            let lacks = |id: &ChunkId, row| !run.sections().find(id).any(|found| found == row);
            let mut rows = table.run_rows().filter(|_| named);
            rows.find(|row| lacks(&row.id, *row)).map(|row| row.id)
        };
        let missing: Vec<_> = (0..self.index.runs.len())
            .filter_map(|position| Some((position, missing(position)?)))
            .collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.rows.insert(number, table.rows().len());
        seen.missing.extend(missing);
    }

    /// Adds what is wrong with the runs. Returns whether the index says of every chunk what the tables say.
    pub(super) fn finish(&mut self, result: &mut Verification) -> bool {
        let seen = self.seen.get_mut().unwrap_or_else(PoisonError::into_inner);
        let before = result.findings.len();
        for error in &self.index.damaged_runs {
            let path = path_of(error).unwrap_or_else(|| paths::directory(paths::INDEX));
            result.findings.push(derived(&path, chain(error)));
        }
        for (position, run) in self.index.runs.iter().enumerate() {
            let Some(path) = &run.path else { continue };
            let wrong = match (run.verify(), seen.missing.get(&position)) {
                (Err(error), _) => Some(chain(&error)),
                (Ok(()), Some(id)) => {
                    Some(format!("its row for chunk {id} is not that of the segment"))
                }
                (Ok(()), None) => {
                    let mut rows: HashMap<SegmentNumber, usize> = HashMap::new();
                    for row in run.sections().rows() {
                        *rows.entry(row.place.segment).or_default() += 1;
                    }
                    let counted = |segment| rows.get(segment).copied().unwrap_or_default();
                    let differs = run.segments.iter().find(|segment| {
                        seen.rows
                            .get(segment)
                            .is_some_and(|expected| *expected != counted(segment))
                    });
                    differs.map(|segment| {
                        format!("it does not list exactly the chunks of segment {segment}")
                    })
                }
            };
            result
                .findings
                .extend(wrong.map(|message| derived(path, message)));
        }
        result.damage.index = result.findings.len() > before;
        !result.damage.index
    }
}

fn derived(path: &StorePath, message: String) -> Finding {
    Finding {
        path: path.to_string(),
        offset: None,
        chunk: None,
        images: Vec::new(),
        message,
        derived: true,
    }
}

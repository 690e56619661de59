//! A stream that is promised before it is made: its length and its tag are known before the first byte, and it can be
//! begun anywhere without making what stands before (SPEC 15.5, records hashed by name).
//!
//! The same tag always stands for the same bytes, however often and by whomever the stream is made: it covers the head,
//! where each record stands in which segment of whose writing, and every byte of those that are compressed anew.

use super::create::{DeltaReport, Pace, for_each_record};
use super::plan::{Plan, Recompress};
use crate::{DeltaError, EngineError, OpenImage, Task, Workers};
use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use tegula_format::{
    BlockIndex, DELTA_TRAILER_BYTES, DeltaTrailer, HashedRecords, Hex, IngestId,
    RECORD_HEADER_BYTES, SegmentNumber,
};
use tegula_store::Session;

const TAG_CONTEXT: &str = "tegula 2026-11-25 delta stream tag v1";

/// Bytes of the table of ids that are written at once.
const PIECE_BYTES: usize = 1 << 20;

/// What a stream's bytes are, as an HTTP entity tag says it: streams of the same tag have the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamTag([u8; 32]);

impl fmt::Display for StreamTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

/// A stream that was promised and can be made, all of it or from anywhere on.
///
/// Memory: what a plan takes (its tables, 8 bytes for each record), and while it writes a few MiB, however slow
/// the taker is.
#[derive(Debug)]
pub struct DeltaStream<'a> {
    plan: Plan<'a>,
    workers: Workers,
    /// The length of each record, in the order of the stream.
    lengths: Vec<u32>,
    report: DeltaReport,
    trailer: [u8; DELTA_TRAILER_BYTES],
    tag: StreamTag,
}

impl<'a> DeltaStream<'a> {
    /// Plans the stream that turns the base into the image, or one that holds all of the image. Reads no chunk but those
    /// that are compressed anew.
    pub(crate) fn new(
        workers: Workers,
        session: &'a Session,
        (base, image): (Option<&OpenImage<'_>>, &OpenImage<'_>),
        task: Task<'_>,
    ) -> Result<Self, EngineError> {
        let recompress = Recompress::IfSmall;
        let plan = Plan::new(session, base, image, recompress, HashedRecords::ByName)?;
        let mut anew = records_anew(&plan, workers, task)?.into_iter();
        let mut tag = TagHasher::begin(&plan);
        let mut hashed = blake3::Hasher::new();
        hashed.update(&plan.head);
        hashed.update(plan.tables.ids.as_slice());
        let mut lengths = Vec::with_capacity(plan.order.len());
        for position in &plan.order {
            let id = plan.id(*position);
            let length = match plan.anew.contains(BlockIndex::new(*position)) {
                true => {
                    let made = anew.next().expect("because each of them was made");
                    tag.made(&made);
                    made.length
                }
                false => tag.stored(session, session.locate(&id)?)?,
            };
            HashedRecords::take_name(&mut hashed, &id, length);
            lengths.push(length);
        }
        let record_bytes = lengths.iter().map(|length| u64::from(*length)).sum();
        let trailer = DeltaTrailer::seal(lengths.len() as u64, record_bytes, &mut hashed).encode();
        Ok(Self {
            report: DeltaReport::of(&plan, record_bytes),
            plan,
            workers,
            lengths,
            trailer,
            tag: tag.finish(),
        })
    }

    /// Returns what the stream holds.
    pub fn report(&self) -> &DeltaReport {
        &self.report
    }

    /// Returns its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.report.bytes
    }

    /// Returns what its bytes are known by.
    pub fn tag(&self) -> StreamTag {
        self.tag
    }

    /// Writes some of the stream, cut at its end; reads nothing of what stands outside. Each chunk is verified
    /// before a byte of its record is written. The calling thread alone waits for `out`.
    ///
    /// # Errors
    /// [`EngineError::WriteTarget`] if `out` takes no more; [`DeltaError::NotAsPromised`] if a record was damaged
    /// since, and [`EngineError::Store`]: what was written until then is right.
    pub fn write(
        &self,
        range: Range<u64>,
        out: &mut (dyn Write + Send),
        task: Task<'_>,
    ) -> Result<(), EngineError> {
        let mut window = Window {
            range: range.start..range.end.min(self.bytes()),
            at: 0,
            out,
        };
        window.part(&self.plan.head)?;
        for piece in self.plan.tables.ids.as_slice().chunks(PIECE_BYTES) {
            window.part(piece)?;
        }
        self.write_records(&mut window, task)?;
        window.part(&self.trailer)?;
        window.out.flush().map_err(crate::get::output_error)
    }

    fn write_records(&self, window: &mut Window<'_>, task: Task<'_>) -> Result<(), EngineError> {
        let (mut first, mut left) = (0, self.lengths.as_slice());
        while let Some((length, rest)) = left.split_first()
            && window.at + u64::from(*length) <= window.range.start
        {
            window.at += u64::from(*length);
            (first, left) = (first + 1, rest);
        }
        let mut end = window.at;
        let wanted = left.iter().take_while(|length| {
            let wanted = end < window.range.end;
            end += u64::from(**length);
            wanted
        });
        let wanted = wanted.count();
        let order = self.plan.order.iter().copied().skip(first).take(wanted);
        let mut promised = order.clone().zip(left);
        let records = (order, wanted as u64);
        let (plan, workers) = (&self.plan, self.workers);
        for_each_record(plan, workers, Pace::PATIENT, records, task, |record| {
            let (position, length) = promised.next().expect("because each was planned");
            if record.len() as u64 != u64::from(*length) {
                let id = plan.id(position);
                return Err(DeltaError::NotAsPromised { id }.into());
            }
            window.part(record)
        })?;
        let behind = self.report.record_bytes + plan.head_bytes();
        window.at = behind;
        Ok(())
    }
}

/// The part of a stream that is wanted, and how far the stream is.
struct Window<'a> {
    range: Range<u64>,
    at: u64,
    out: &'a mut (dyn Write + Send),
}

impl Window<'_> {
    /// Writes what is wanted of the stream's next bytes.
    fn part(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        let here = |offset: u64| {
            let inside = offset.saturating_sub(self.at).min(bytes.len() as u64);
            usize::try_from(inside).expect("because it is within a slice")
        };
        let wanted = bytes.get(here(self.range.start)..here(self.range.end));
        let wanted = wanted.unwrap_or_default();
        self.at += bytes.len() as u64;
        match wanted.is_empty() {
            true => Ok(()),
            false => self.out.write_all(wanted).map_err(crate::get::output_error),
        }
    }
}

/// A record that is not taken as it is stored.
#[derive(Debug, Clone, Copy)]
struct Made {
    length: u32,
    hash: [u8; 32],
}

/// Makes the records that are compressed anew, to know what they will be.
fn records_anew(
    plan: &Plan<'_>,
    workers: Workers,
    task: Task<'_>,
) -> Result<Vec<Made>, EngineError> {
    let order = plan.order.iter().copied();
    let anew = order.filter(|position| plan.anew.contains(BlockIndex::new(*position)));
    let mut made = Vec::new();
    let wanted = (anew, plan.anew.len());
    for_each_record(plan, workers, Pace::PATIENT, wanted, task, |record| {
        made.push(Made {
            length: u32::try_from(record.len()).expect("because records are short"),
            hash: *blake3::hash(record).as_bytes(),
        });
        Ok(())
    })?;
    Ok(made)
}

/// Gathers what makes a stream's bytes what they are.
struct TagHasher {
    hasher: blake3::Hasher,
    writers: HashMap<SegmentNumber, IngestId>,
}

impl TagHasher {
    fn begin(plan: &Plan<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(TAG_CONTEXT);
        hasher.update(plan.session.store().config().id.as_bytes());
        // Both digests are in it, and the hashes of the sets and of the ids.
        hasher.update(&plan.head);
        Self {
            hasher,
            writers: HashMap::new(),
        }
    }

    fn made(&mut self, made: &Made) {
        self.hasher.update(&[1]);
        self.hasher.update(&made.hash);
    }

    /// Takes in a record that is taken as it is stored; returns its length.
    fn stored(
        &mut self,
        session: &Session,
        row: tegula_format::RunRow,
    ) -> Result<u32, EngineError> {
        let segment = row.place.segment;
        let writer = match self.writers.get(&segment) {
            Some(writer) => *writer,
            None => {
                let writer = session.writer_of(segment)?;
                self.writers.insert(segment, writer);
                writer
            }
        };
        self.hasher.update(&[0]);
        self.hasher.update(writer.as_bytes());
        for number in [segment.get(), row.offset, row.stored_length] {
            self.hasher.update(&number.to_le_bytes());
        }
        let header = u32::try_from(RECORD_HEADER_BYTES).expect("because it is 52");
        Ok(header + row.stored_length)
    }

    fn finish(self) -> StreamTag {
        StreamTag(*self.hasher.finalize().as_bytes())
    }
}

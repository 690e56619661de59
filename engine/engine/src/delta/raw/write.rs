//! The writing: zeros, carried chunks, chunks that moved. Every step can be done again.

use super::Work;
use super::journal::Journal;
use crate::EngineError;
use crate::delta::stream::StreamRecord;
use tegula_format::ChunkId;

/// Bytes written before the disk is synced and a mark is set.
const MARK_BYTES: u64 = 16 << 20;

/// Bytes of records in a window of the pipeline.
const WINDOW_BYTES: usize = 16 << 20;

/// Chunks of the base in a window.
const WINDOW_CHUNKS: usize = 256;

impl Work<'_> {
    /// Turns the base into the target, from the last mark on. Returns the bytes written, and those zeroed. All of it
    /// is durable then.
    pub(super) fn write(&self, journal: &Journal) -> Result<(u64, u64), EngineError> {
        self.disk
            .set_bytes(self.base_size().max(self.target_size()))?;
        let zeroed = self.write_zeros()?;
        let mut marks = Marks {
            work: self,
            journal,
            done: journal.done(),
            written: 0,
            unmarked: 0,
        };
        self.write_records(&mut marks, journal)?;
        self.write_references(&mut marks, journal)?;
        let written = marks.written;
        self.disk.set_bytes(self.target_size())?;
        self.disk.sync()?;
        Ok((written, zeroed))
    }

    /// Zeroes what the stream says, and what lies past the base's end and is not set. That of a file that grew is a hole
    /// already; a device may hold anything there.
    fn write_zeros(&self) -> Result<u64, EngineError> {
        let (header, log2) = (self.file.header(), self.file.header().block_size.log2());
        let size = self.target_size().min(self.base_size());
        let mut zeroed = 0;
        for run in self.file.zero().runs() {
            self.task.check()?;
            let (start, end) = (run.start << log2, (run.end << log2).min(self.target_size()));
            // Of a block in which the base ends, or did before, all is zeroed that the target has.
            self.disk.zero(start, end)?;
            zeroed += end - start;
        }
        if self.disk.is_block_device() && self.target_size() > size {
            let mut gaps = tegula_format::BlockSet::new();
            gaps.insert_range(size >> log2..header.target_blocks());
            gaps.subtract(self.file.data());
            for run in gaps.runs() {
                self.task.check()?;
                let start = (run.start << log2).max(size);
                self.disk
                    .zero(start, (run.end << log2).min(self.target_size()))?;
            }
        }
        Ok(zeroed)
    }

    /// Writes every chunk that the stream carries into the blocks that hold it.
    fn write_records(&self, marks: &mut Marks<'_>, journal: &Journal) -> Result<(), EngineError> {
        let mut records = self.file.records();
        let mut to_skip = marks.done;
        self.workers.pipeline(
            || {
                self.task.check()?;
                let (mut window, mut bytes) = (Vec::new(), 0);
                while bytes < WINDOW_BYTES {
                    let Some(record) = records.next_record()? else {
                        break;
                    };
                    if to_skip > 0 {
                        to_skip -= 1;
                        continue;
                    }
                    bytes += record.bytes.len();
                    (self.task.progress)(record.offset, Some(self.file.bytes()));
                    window.push(record);
                }
                Ok((!window.is_empty()).then_some(window))
            },
            |record: StreamRecord| self.write_record(&record, journal),
            |results| marks.take(results),
        )
    }

    fn write_record(&self, record: &StreamRecord, journal: &Journal) -> Result<u64, EngineError> {
        if self.sorted.positions(&record.id()).is_empty() {
            // Others build on it, no block holds it.
            return Ok(0);
        }
        let carried = &self.needs.carried;
        let chunk = carried.decode(self.file, record, &|base| journal.chunk(self, base))?;
        self.write_chunk(&record.id(), &chunk)
    }

    /// Writes every chunk that the base has elsewhere into the blocks that hold it now.
    fn write_references(
        &self,
        marks: &mut Marks<'_>,
        journal: &Journal,
    ) -> Result<(), EngineError> {
        let first = marks.done.saturating_sub(self.file.trailer().records);
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let mut references = self.needs.references.iter().skip(first);
        self.workers.pipeline(
            || {
                self.task.check()?;
                let window: Vec<_> = references.by_ref().take(WINDOW_CHUNKS).collect();
                Ok((!window.is_empty()).then_some(window))
            },
            |id| self.write_chunk(id, &journal.chunk(self, id)?),
            |results| marks.take(results),
        )
    }

    fn write_chunk(&self, id: &ChunkId, chunk: &[u8]) -> Result<u64, EngineError> {
        let block_size = self.file.header().block_size;
        let mut written = 0;
        for position in self.sorted.positions(id) {
            let block = self
                .file
                .data()
                .nth(*position)
                .expect("because the set has as many blocks as the table ids");
            let size = self.target_size();
            written += self.disk.write_block(block, block_size, size, chunk)?;
        }
        Ok(written)
    }
}

/// How far the writing is.
struct Marks<'a> {
    work: &'a Work<'a>,
    journal: &'a Journal,
    done: u64,
    written: u64,
    /// Bytes written since the last mark.
    unmarked: u64,
}

impl Marks<'_> {
    fn take(&mut self, results: Vec<Result<u64, EngineError>>) -> Result<(), EngineError> {
        for written in results {
            let written = written?;
            self.done += 1;
            self.written += written;
            self.unmarked += written;
        }
        if self.unmarked >= MARK_BYTES {
            // What the mark says was written before this sync.
            self.work.disk.sync()?;
            self.journal.mark(self.done)?;
            self.unmarked = 0;
        }
        Ok(())
    }
}

//! Where a stream goes: counted and hashed on its way.

use crate::EngineError;
use crate::get::check_destination;
use std::io::{self, Write};
use std::path::Path;
use tegula_format::{DELTA_TRAILER_BYTES, DeltaTrailer};
use tegula_io::{Existing, TargetFile};

/// Bytes gathered before they are written.
const BATCH_BYTES: usize = 1 << 20;

/// Writes a stream's parts in order.
pub(super) struct DeltaSink<'a> {
    out: &'a mut (dyn Write + Send),
    name: &'a str,
    hasher: blake3::Hasher,
    bytes: u64,
    records: u64,
    record_bytes: u64,
}

impl<'a> DeltaSink<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send), name: &'a str) -> Self {
        Self {
            out,
            name,
            hasher: blake3::Hasher::new(),
            bytes: 0,
            records: 0,
            record_bytes: 0,
        }
    }

    /// Writes a part that stands before the records.
    pub(super) fn part(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.hasher.update(bytes);
        self.write(bytes)
    }

    /// Writes a whole record.
    pub(super) fn record(&mut self, record: &[u8]) -> Result<(), EngineError> {
        self.records += 1;
        self.record_bytes += record.len() as u64;
        self.part(record)
    }

    /// Writes the trailer. Returns the length of the stream.
    pub(super) fn finish(mut self) -> Result<(DeltaTrailer, u64), EngineError> {
        let trailer = DeltaTrailer::seal(self.records, self.record_bytes, &mut self.hasher);
        self.write(&trailer.encode())?;
        let name = self.name;
        self.out.flush().map_err(write_error(name))?;
        Ok((trailer, self.bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(write_error(self.name))
    }
}

fn write_error(name: &str) -> impl FnOnce(io::Error) -> EngineError {
    let name = name.to_owned();
    move |source| EngineError::WriteTarget { name, source }
}

/// Returns the length of a stream whose head (header, sets and ids) and records have these lengths.
pub(super) fn stream_bytes(head_bytes: u64, record_bytes: u64) -> u64 {
    head_bytes + record_bytes + DELTA_TRAILER_BYTES as u64
}

/// A new file that is written from its beginning to its end, and appears under its name when it is complete and durable.
#[derive(Debug)]
pub(super) struct NewFile {
    target: TargetFile,
    offset: u64,
    batch: Vec<u8>,
}

impl NewFile {
    /// Creates it beside its destination; if something stands there already, only `force` takes its place.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self, EngineError> {
        check_destination(path, force)?;
        Ok(Self {
            target: TargetFile::create_beside(path)?,
            offset: 0,
            batch: Vec::with_capacity(BATCH_BYTES),
        })
    }

    /// Makes it durable and gives it its name.
    pub(super) fn publish(mut self, path: &Path, force: bool) -> Result<(), EngineError> {
        let failed = |source| EngineError::WriteTarget {
            name: path.display().to_string(),
            source,
        };
        self.flush().map_err(failed)?;
        let existing = match force {
            true => Existing::Replace,
            false => Existing::Refuse,
        };
        self.target
            .publish(existing)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => EngineError::DestinationExists {
                    path: path.to_owned(),
                },
                _ => failed(source),
            })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.batch.len() + bytes.len() > BATCH_BYTES {
            self.flush()?;
        }
        self.batch.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.write_at(&self.batch, self.offset)?;
        self.offset += self.batch.len() as u64;
        self.batch.clear();
        Ok(())
    }
}

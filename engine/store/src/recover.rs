//! What crashed writers left behind (SPEC 4.5, 12).

use crate::{CheckedRecord, ChunkDamage, Encoded, Ingest, Session, StoreError, files, paths};
use tegula_format::{Hex, RecordHeader, SEGMENT_DATA_START, SegmentHeader};
use tegula_io::{Buffer, Lock, LockMode, StorePath};

/// The longest abandoned segment that is looked into. A writer seals well before.
const ABANDONED_BYTES_MAX: u64 = 128 << 20;

/// A file whose writer is gone. While this is held nobody else takes it for abandoned.
#[derive(Debug)]
pub(crate) struct Abandoned {
    pub(crate) path: StorePath,
    pub(crate) bytes: u64,
    _lock: Lock,
}

impl Ingest<'_> {
    /// Takes over the whole chunks of abandoned segments, so that repeating an interrupted put need not bring them
    /// again. They are copied, never sealed in place: after a failed sync the page cache can show bytes that the disk
    /// does not have. Returns how many chunks were taken over.
    ///
    /// # Errors
    /// [`StoreError::Io`] if reading or writing fails.
    pub fn recover_abandoned(&self) -> Result<u64, StoreError> {
        let environment = self.session().environment();
        let mut recovered = 0;
        for abandoned in abandoned_files(self.session(), paths::SEGMENTS)? {
            recovered += self.copy_records(&abandoned)?;
            self.seal_all()?;
            files::remove_if_present(environment, &abandoned.path)?;
            files::sync_directory(environment, &paths::directory(paths::SEGMENTS))?;
        }
        Ok(recovered)
    }

    /// Copies records until the first that is not whole: what stands behind a torn record is not to be trusted.
    fn copy_records(&self, abandoned: &Abandoned) -> Result<u64, StoreError> {
        let path = &abandoned.path;
        let file = self
            .session()
            .environment()
            .storage
            .open(path)
            .map_err(StoreError::io("open", path))?;
        let config = self.session().store().config();
        let length =
            usize::try_from(file.bytes().min(ABANDONED_BYTES_MAX)).expect("because it is limited");
        let bytes = file
            .read_at(0, length)
            .wait()
            .map_err(StoreError::io("read", path))?;
        let ours = SegmentHeader::decode(&bytes).is_ok_and(|header| {
            header.store == config.id && header.block_size == config.block_size
        });
        if !ours {
            return Ok(0);
        }
        let mut recovered = 0;
        let mut offset = usize::try_from(SEGMENT_DATA_START).expect("because a head is short");
        while let Some(chunk) = bytes
            .get(offset..)
            .and_then(|rest| whole_record(self.session(), rest).ok())
        {
            offset += chunk.record.len();
            if !self.has_or_claim(&chunk.id) {
                self.store(&chunk)?;
                recovered += 1;
            }
        }
        Ok(recovered)
    }
}

/// Reads the record at the start of `bytes`, all of it, hash included.
pub(crate) fn whole_record(session: &Session, bytes: &[u8]) -> Result<Encoded, ChunkDamage> {
    let rules = session.store().config().chunk_rules();
    let header = RecordHeader::decode(bytes, &rules)?;
    let record = bytes
        .get(..header.record_bytes())
        .ok_or(ChunkDamage::PastEnd)?;
    let mut block = Buffer::zeroed(session.block_size().as_usize());
    let checked = CheckedRecord::check(record, &header.id, &rules)?;
    checked.decode(&[], &mut block)?;
    Ok(Encoded {
        id: header.id,
        record: Buffer::copied(record),
        codec: header.codec,
        stored_length: header.stored_length,
        bases: *checked.bases(),
    })
}

/// Returns the files in a directory that were being written when their writer ended: unsealed segments, temporary
/// files, the liveness locks of ingests.
pub(crate) fn abandoned_files(
    session: &Session,
    directory: &str,
) -> Result<Vec<Abandoned>, StoreError> {
    abandoned_in(session.environment(), directory)
}

/// As [`abandoned_files`], for who has no session any more.
pub(crate) fn abandoned_in(
    environment: &crate::Environment,
    directory: &str,
) -> Result<Vec<Abandoned>, StoreError> {
    let mut abandoned = Vec::new();
    for entry in files::list(environment, directory)? {
        let unfinished = match directory {
            paths::SEGMENTS => matches!(
                paths::parse_segment(&entry.name),
                Some(paths::SegmentFile::Open(_))
            ),
            paths::LOCKS => paths::parse_ingest_lock(&entry.name).is_some(),
            _ => Hex::parse::<16>(&entry.name).is_some(),
        };
        let path = paths::directory(directory).join(&entry.name);
        if !unfinished {
            continue;
        }
        let lock = environment
            .storage
            .try_lock(&path, LockMode::Exclusive)
            .map_err(StoreError::io("lock", &path))?;
        if let Some(lock) = lock {
            abandoned.push(Abandoned {
                path,
                bytes: entry.bytes,
                _lock: lock,
            });
        }
    }
    Ok(abandoned)
}

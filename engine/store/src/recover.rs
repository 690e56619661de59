//! What crashed writers left behind (SPEC 4.5, 12).

use crate::session::Reach;
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
        for with_bases in [false, true] {
            // What stands on others may stand on some that were just taken over: a new session sees them.
            let session = self.session().store().begin()?;
            let mut offset = usize::try_from(SEGMENT_DATA_START).expect("because a head is short");
            let mut passed_over = false;
            while let Some(record) = bytes
                .get(offset..)
                .and_then(|rest| FoundRecord::at_start_of(&session, rest).ok())
            {
                offset += record.bytes.len();
                if record.has_bases() != with_bases {
                    passed_over = true;
                    continue;
                }
                let Ok(block) = record.decode(&session) else {
                    match with_bases {
                        // Without what it stands on it is of no use.
                        true => continue,
                        false => break,
                    }
                };
                if !self.has_or_claim(&record.header.id) {
                    self.store(&record.by_itself(self, &block))?;
                    recovered += 1;
                }
            }
            if !passed_over {
                break;
            }
            self.seal_all()?;
        }
        Ok(recovered)
    }
}

/// A record that was found outside a sealed segment's table, right down to its checksum.
#[derive(Debug)]
pub(crate) struct FoundRecord<'a> {
    pub(crate) header: RecordHeader,
    pub(crate) bytes: &'a [u8],
    checked: CheckedRecord<'a>,
}

impl<'a> FoundRecord<'a> {
    /// Reads the record at the start of `bytes`, without decoding it.
    pub(crate) fn at_start_of(session: &Session, bytes: &'a [u8]) -> Result<Self, ChunkDamage> {
        let rules = session.store().config().chunk_rules();
        let header = RecordHeader::decode(bytes, &rules)?;
        let record = bytes.get(..header.record_bytes());
        let record = record.ok_or(ChunkDamage::PastEnd)?;
        let checked = CheckedRecord::check(record, &header.id, &rules)?;
        Ok(Self {
            header,
            bytes: record,
            checked,
        })
    }

    /// Tells whether its frame has other chunks as its prefix.
    pub(crate) fn has_bases(&self) -> bool {
        !self.checked.bases().is_empty()
    }

    /// Decodes it, hash included.
    pub(crate) fn decode(&self, session: &Session) -> Result<Buffer, ChunkDamage> {
        let mut block = Buffer::zeroed(session.block_size().as_usize());
        session.decode_checked(&self.checked, &mut block, &mut Reach::default())?;
        Ok(block)
    }

    /// Returns it as it is.
    pub(crate) fn as_it_is(&self) -> Encoded {
        Encoded {
            id: self.header.id,
            record: Buffer::copied(self.bytes),
            codec: self.header.codec,
            stored_length: self.header.stored_length,
            bases: *self.checked.bases(),
        }
    }

    /// Returns it such that it needs no other chunk: whether what it stands on will stay, its writer might have known.
    pub(crate) fn by_itself(&self, ingest: &Ingest<'_>, block: &[u8]) -> Encoded {
        match self.has_bases() {
            false => self.as_it_is(),
            true => ingest.compress(self.header.id, block),
        }
    }
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

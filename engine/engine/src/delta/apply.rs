//! Making an image of a stream, in a store that has its base.

use super::DeltaError;
use super::carried::Carried;
use super::confined::check_confined;
use super::stream::{DeltaFile, StreamRecord, ids_in};
use crate::put::refuse_taken;
use crate::{EngineError, OpenImage, Task, Workers};
use std::fmt;
use std::io::Read;
use std::path::Path;
use tegula_format::{Bases, ChunkId, DeltaEnd, ImageName, ImageRecord, ParentReference};
use tegula_store::{Encoded, IdTable, Ingest, LayerStack, NewImage, Session, StoreError};

/// Bytes of records in a window of the pipeline.
const WINDOW_BYTES: usize = 16 << 20;

/// Where a stream comes from.
pub enum DeltaSource<'a> {
    /// A file.
    File(&'a Path),
    /// Bytes that come once, in order, until they end.
    Stream(&'a mut (dyn Read + Send)),
}

impl fmt::Debug for DeltaSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Which image a stream may start from, and what it may take for granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeltaBase {
    /// Any in the store that has the digest which the stream names; and any chunk of the store will do.
    #[default]
    ByDigest,
    /// This one, whose digest must be that which the stream names, or none if the stream is to hold all of its image. A chunk
    /// that the stream does not carry must be this image's: for streams of people who may not have everything.
    Only(Option<ImageName>),
}

/// What to apply.
#[derive(Debug)]
pub struct DeltaRequest<'a> {
    /// The stream.
    pub source: DeltaSource<'a>,
    /// The new image's name.
    pub name: ImageName,
    /// Whether it may take the place of an image of that name.
    pub replace: bool,
    /// What it may start from.
    pub base: DeltaBase,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaApplied {
    /// The image.
    pub record: ImageRecord,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Chunks that the stream carried.
    pub records: u64,
    /// Those of them that were not in the store.
    pub new_chunks: u64,
    /// Their bytes before compression.
    pub new_bytes: u64,
    /// Bytes of the segments they went into.
    pub stored_new_bytes: u64,
}

/// Makes an image of a stream. Nothing is published before every chunk and the digest of the whole are verified.
pub(crate) fn apply(
    session: &Session,
    workers: Workers,
    request: DeltaRequest<'_>,
    task: Task<'_>,
) -> Result<DeltaApplied, EngineError> {
    let DeltaRequest {
        source,
        name,
        replace,
        base: allowed,
    } = request;
    if !replace {
        refuse_taken(session, &name)?;
    }
    let file = source.into_file(session, task)?;
    check_block_size(session, &file)?;
    let base = match &allowed {
        DeltaBase::ByDigest => find_base(session, &file)?,
        DeltaBase::Only(base) => the_base(session, &file, base.as_ref())?,
    };
    let base = base
        .as_ref()
        .map(|base| OpenImage::open(session, &base.name))
        .transpose()?;
    if allowed != DeltaBase::ByDigest {
        check_confined(session, &file, base.as_ref(), task)?;
    }
    let ingest = Ingest::begin(session)?;
    store_records(&ingest, workers, &file, task)?;
    let ids = take_ids(&ingest, &file)?;
    task.check()?;
    let stack = base.as_ref().map(OpenImage::stack);
    let expected = file.header().target.digest;
    let image = NewImage {
        name,
        replace,
        virtual_size: file.header().target.virtual_size,
        parent: base.as_ref().map(|base| ParentReference {
            name: base.record().name.clone(),
            digest: base.record().digest,
        }),
        base: stack,
        data: file.data().clone(),
        zero: zeroed(stack, &file),
    };
    let (record, totals) = ingest
        .finish_as(expected, image, ids)
        .map_err(|error| match error {
            StoreError::OtherImage { expected, found } => DeltaError::OtherTarget {
                name: file.name().to_owned(),
                expected,
                found,
            }
            .into(),
            error => EngineError::from(error),
        })?;
    Ok(DeltaApplied {
        record,
        bytes: file.bytes(),
        records: file.trailer().records,
        new_chunks: totals.new_chunks,
        new_bytes: totals.new_bytes,
        stored_new_bytes: totals.stored_bytes,
    })
}

/// Returns the blocks that the new layer zeroes: those of the stream at which the base has something to hide.
fn zeroed(base: Option<&LayerStack>, file: &DeltaFile<'_>) -> tegula_format::BlockSet {
    let mut zero = base.map(LayerStack::data).unwrap_or_default();
    zero.intersect_with(file.zero());
    zero
}

fn check_block_size(session: &Session, file: &DeltaFile<'_>) -> Result<(), DeltaError> {
    let (found, expected) = (file.header().block_size, session.block_size());
    match found == expected {
        true => Ok(()),
        false => Err(DeltaError::OtherBlockSize {
            name: file.name().to_owned(),
            found,
            expected,
        }),
    }
}

/// Finds the image that the stream starts from. Of several with that content, the first by name.
fn find_base(session: &Session, file: &DeltaFile<'_>) -> Result<Option<ImageRecord>, EngineError> {
    let Some(wanted) = file.header().base else {
        return Ok(None);
    };
    let found = session
        .images()?
        .into_iter()
        .find(|image| image.digest == wanted.digest && image.virtual_size == wanted.virtual_size);
    match found {
        Some(found) => Ok(Some(found)),
        None => Err(DeltaError::BaseMissing {
            name: file.name().to_owned(),
            base: wanted,
        }
        .into()),
    }
}

/// Returns the image that a stream is to start from, if it does.
fn the_base(
    session: &Session,
    file: &DeltaFile<'_>,
    base: Option<&ImageName>,
) -> Result<Option<ImageRecord>, EngineError> {
    let base = base.map(|base| session.image(base)).transpose()?;
    let end = base.as_ref().map(|base| DeltaEnd {
        virtual_size: base.virtual_size,
        digest: base.digest,
    });
    match (end, file.header().base) {
        (expected, found) if expected == found => Ok(base),
        (expected, found) => Err(DeltaError::OtherBase {
            name: file.name().to_owned(),
            expected: expected.map(|end| end.digest),
            found: found.map(|end| end.digest),
        }
        .into()),
    }
}

/// Verifies every record of the stream and stores the chunks that the store does not have.
fn store_records(
    ingest: &Ingest<'_>,
    workers: Workers,
    file: &DeltaFile<'_>,
    task: Task<'_>,
) -> Result<(), EngineError> {
    let carried = Carried::of(file, task)?;
    let storing = Storing {
        ingest,
        file,
        carried,
    };
    let mut records = file.records();
    workers.pipeline(
        || {
            task.check()?;
            let (mut window, mut bytes) = (Vec::new(), 0);
            while bytes < WINDOW_BYTES {
                let Some(record) = records.next_record()? else {
                    break;
                };
                bytes += record.bytes.len();
                (task.progress)(record.offset, Some(file.bytes()));
                window.push(record);
            }
            Ok((!window.is_empty()).then_some(window))
        },
        |record: StreamRecord| storing.chunk(record),
        |results| {
            for result in results {
                if let Some(chunk) = result? {
                    ingest.store(&chunk)?;
                }
            }
            Ok(())
        },
    )
}

/// What becomes of a stream's records in the store.
struct Storing<'a, 'i> {
    ingest: &'a Ingest<'i>,
    file: &'a DeltaFile<'a>,
    carried: Carried,
}

impl Storing<'_, '_> {
    /// Verifies a record's chunk; returns what is to be stored, if the store does not have it.
    fn chunk(&self, record: StreamRecord) -> Result<Option<Encoded>, EngineError> {
        let session = self.ingest.session();
        let block = self.carried.decode(self.file, &record, &|base| {
            session.read_chunk(base).map_err(|error| match error {
                StoreError::ChunkMissing { id } => self.not_carried(id).into(),
                error => error.into(),
            })
        })?;
        let id = record.id();
        if self.ingest.has_or_claim(&id) {
            return Ok(None);
        }
        let bases = record
            .header
            .bases(&record.bytes)
            .map_err(self.file.damaged(record.offset))?;
        match bases.is_empty() || self.may_stand_on(&bases)? {
            true => Ok(Some(Encoded {
                id,
                codec: record.header.codec,
                stored_length: record.header.stored_length,
                bases,
                record: record.bytes,
            })),
            false => Ok(Some(self.ingest.compress(id, &block))),
        }
    }

    /// Tells whether a chunk may be stored on these: each must stand by itself in this store.
    fn may_stand_on(&self, bases: &Bases) -> Result<bool, EngineError> {
        let session = self.ingest.session();
        if !session.store().config().prefix_frames {
            return Ok(false);
        }
        let index = session.index()?;
        let plain = |base: &ChunkId| match index.lookup(base) {
            Some(row) => row.bases == 0,
            // Stored by us, before this one.
            None => self.carried.is_plain(base),
        };
        Ok(bases.ids().iter().all(plain))
    }

    fn not_carried(&self, id: ChunkId) -> DeltaError {
        let name = self.file.name().to_owned();
        DeltaError::ChunkNotCarried { name, id }
    }
}

/// Takes over the table of ids; every chunk it names must be in the store by now.
fn take_ids<'a>(
    ingest: &Ingest<'a>,
    file: &DeltaFile<'_>,
) -> Result<tegula_store::Ids<'a>, EngineError> {
    let mut table = IdTable::begin(ingest.session());
    let mut failed = None;
    file.ids(|piece| {
        for id in ids_in(piece) {
            if failed.is_none() && !ingest.has_or_claim(&id) {
                let name = file.name().to_owned();
                return Err(DeltaError::ChunkNotCarried { name, id });
            }
            if failed.is_none() {
                failed = table.push(&id).err();
            }
        }
        Ok(())
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(table.finish()?),
    }
}

//! The blocks in which one image differs from another, each with its new chunk.

use crate::{EngineError, OpenImage};
use tegula_format::{BlockIndex, BlockSet, ChunkId};
use tegula_store::{IdTable, Ids, Session};

/// What turns the base into the image, as a stream holds it.
#[derive(Debug)]
pub(super) struct Tables<'a> {
    /// The blocks that hold another chunk.
    pub(super) data: BlockSet,
    /// The blocks that read as zeros, where the base has a chunk.
    pub(super) zero: BlockSet,
    /// The chunk of each block of `data`, in block order.
    pub(super) ids: Ids<'a>,
}

/// Compares two images, or takes all of one if there is no base. Reads no chunk.
pub(super) fn tables<'a>(
    session: &'a Session,
    base: Option<&OpenImage<'_>>,
    image: &OpenImage<'_>,
) -> Result<Tables<'a>, EngineError> {
    let (mut data, mut zero) = (BlockSet::new(), BlockSet::new());
    let mut ids = IdTable::begin(session);
    let mut take = |block: BlockIndex, chunk: Option<ChunkId>| match chunk {
        Some(id) => {
            data.push(block);
            ids.push(&id)
        }
        None => {
            zero.push(block);
            Ok(())
        }
    };
    match base {
        Some(base) => crate::diff::walk(base, image, |block, chunk| Ok(take(block, chunk)?))?,
        None => {
            for chunk in image.stack().chunks() {
                let (block, id) = chunk?;
                take(block, Some(id))?;
            }
        }
    }
    let ids = ids.finish()?;
    Ok(Tables { data, zero, ids })
}

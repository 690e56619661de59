//! The blocks in which one image differs from another, each with its new chunk.

use crate::{EngineError, OpenImage};
use tegula_format::BlockSet;
use tegula_store::{Difference, IdTable, Ids, Session};

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
    let stack = image.stack();
    let (data, zero) = match base {
        Some(base) => {
            let Difference { data, zero } = stack.difference(base.stack())?;
            (data, zero)
        }
        None => (stack.data(), BlockSet::new()),
    };
    let mut ids = IdTable::begin(session);
    for row in stack.chunks_of(&data) {
        ids.push(&row?.1)?;
    }
    let ids = ids.finish()?;
    Ok(Tables { data, zero, ids })
}

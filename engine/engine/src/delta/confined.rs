//! Whether a stream makes do with its base: for whoever takes streams from people who may not have all that is in the store.
//!
//! A store keeps each chunk once, whoever's it is. A stream that named a chunk which it neither carries nor has from its
//! base would get it out of somebody else's image, or learn that it is there.

use super::DeltaError;
use super::carried::Carried;
use super::sorted::SortedIds;
use super::stream::DeltaFile;
use crate::{EngineError, OpenImage, Task};
use std::collections::HashSet;
use tegula_format::{BlockIndex, BlockSet, ChunkId};
use tegula_store::{Session, Spool};

/// Refuses a stream that needs a chunk which it does not carry and the base does not have.
///
/// # Errors
/// [`DeltaError::ChunkNotCarried`], whether the store has the chunk or not.
pub(super) fn check_confined(
    session: &Session,
    file: &DeltaFile<'_>,
    base: Option<&OpenImage<'_>>,
    task: Task<'_>,
) -> Result<(), EngineError> {
    let mut needed = needed(session, file, task)?;
    if let Some(base) = base.filter(|_| !needed.is_empty()) {
        for chunk in base.stack().chunks() {
            let (_, id) = chunk?;
            needed.remove(&id);
        }
    }
    match needed.into_iter().min() {
        None => Ok(()),
        Some(id) => {
            let name = file.name().to_owned();
            Err(DeltaError::ChunkNotCarried { name, id }.into())
        }
    }
}

/// Returns the chunks that the stream needs of its base.
fn needed(
    session: &Session,
    file: &DeltaFile<'_>,
    task: Task<'_>,
) -> Result<HashSet<ChunkId>, EngineError> {
    let mut spool = Spool::new(session);
    let mut unspooled = None;
    file.ids(|piece| {
        if unspooled.is_none() {
            unspooled = spool.append(piece).err();
        }
        Ok(())
    })?;
    unspooled.map_or(Ok(()), Err)?;
    let ids = spool.finish()?;
    let sorted = SortedIds::new(ids.as_slice());
    let mut missing: BlockSet = sorted.first_positions().map(BlockIndex::new).collect();
    file.heads(|head| {
        if let Some(first) = sorted.positions(&head.id).first() {
            missing.remove_range(u64::from(*first)..u64::from(*first) + 1);
        }
        task.check()
    })?;
    let carried = Carried::of(file, task)?;
    let named = missing.iter().map(|position| sorted.id(position.get()));
    Ok(named.chain(carried.outside().copied()).collect())
}

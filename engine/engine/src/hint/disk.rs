//! A disk with a hint: what was not changed is said to be the parent's.

use crate::{BlockSource, ChangedBlocks, Content, EngineError, SourceExtent};
use std::io;

/// A disk that has everything but what was changed from its parent.
#[derive(Debug)]
pub(crate) struct HintedDisk<'a> {
    pub(crate) disk: &'a dyn BlockSource,
    pub(crate) changed: &'a ChangedBlocks,
}

impl BlockSource for HintedDisk<'_> {
    fn name(&self) -> &str {
        self.disk.name()
    }

    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_at(buffer, offset)
    }

    fn next_extent(&self, from: u64) -> io::Result<Option<SourceExtent>> {
        let inherited = |range| SourceExtent {
            range,
            content: Content::Inherited,
        };
        let end = self.bytes();
        if from >= end {
            return Ok(None);
        }
        let changed = match self.changed.next_extent(from) {
            Some(changed) if changed.start <= from => changed,
            Some(changed) => return Ok(Some(inherited(from..changed.start))),
            None => return Ok(Some(inherited(from..end))),
        };
        // In what was changed the disk's own holes are zeros.
        let own = self.disk.next_extent(from)?;
        if let Some(mut own) = own.filter(|own| own.range.start < changed.end) {
            own.range.end = own.range.end.min(changed.end);
            return Ok(Some(own));
        }
        match changed.end < end {
            true => self.next_extent(changed.end),
            false => Ok(None),
        }
    }

    fn check_unchanged(&self) -> Result<(), EngineError> {
        self.disk.check_unchanged()
    }
}

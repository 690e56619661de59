//! What a simulated disk counts.

use crate::StorePath;
use crate::sim::fault::Call;
use std::collections::BTreeMap;

/// How often a simulated disk was asked for what, successfully or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Files opened to read.
    pub opens: u64,
    /// Reads of a range.
    pub reads: u64,
    /// Bytes read by them.
    pub bytes_read: u64,
    /// Files mapped into memory.
    pub maps: u64,
    /// Files created.
    pub creates: u64,
    /// Appends.
    pub appends: u64,
    /// Bytes appended by them.
    pub bytes_appended: u64,
    /// Files synced.
    pub syncs: u64,
    /// Directories synced.
    pub directory_syncs: u64,
    /// Names changed or removed, directories created or listed, locks asked for.
    pub others: u64,
}

impl Stats {
    pub(super) fn count(&mut self, call: Call) {
        let counter = match call {
            Call::Open => &mut self.opens,
            Call::Read => &mut self.reads,
            Call::Map => &mut self.maps,
            Call::Create => &mut self.creates,
            Call::Append => &mut self.appends,
            Call::Sync => &mut self.syncs,
            Call::SyncDirectory => &mut self.directory_syncs,
            Call::Rename | Call::Remove | Call::List | Call::CreateDirectory | Call::Lock => {
                &mut self.others
            }
        };
        *counter += 1;
    }
}

/// What is open or held on a simulated disk. All zero means that nothing leaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handles {
    /// Files open to read.
    pub readers: usize,
    /// Files being written.
    pub writers: usize,
    /// Files mapped into memory.
    pub maps: usize,
    /// Locks held, apart from those of files being written.
    pub locks: usize,
}

/// What was asked for at which path.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths(BTreeMap<StorePath, (u64, u64)>);

impl Paths {
    pub(super) fn count(&mut self, call: Call, path: &StorePath) {
        let (opens, reads) = match call {
            Call::Open => (1, 0),
            Call::Read | Call::Map => (0, 1),
            _ => return,
        };
        let counted = self.0.entry(path.clone()).or_default();
        counted.0 += opens;
        counted.1 += reads;
    }

    /// Returns how often files of such paths were opened, and how often read or mapped.
    pub(super) fn below(&self, prefix: &str) -> (u64, u64) {
        let below = self
            .0
            .iter()
            .filter(|(path, _)| path.as_str().starts_with(prefix));
        below.fold((0, 0), |sum, (_, counted)| {
            (sum.0 + counted.0, sum.1 + counted.1)
        })
    }
}

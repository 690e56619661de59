//! What of a simulated disk is durable, and what a crash may leave of the rest.
//!
//! Names: a directory's changes wait until it is synced. A crash keeps any of those waiting and loses any, with two
//! limits that journals keep too: a rename is one step, and of changes to the same name a later one survives only if
//! the earlier did. A rename waits for the sync of the *new* name's directory.
//!
//! Bytes: a write waits until its file is synced. A crash keeps it, loses it or tears it, each for itself; where bytes are
//! lost the file may be shorter or hold zeros or garbage.

use crate::StorePath;
use crate::tree::{FileId, Item};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Asks for a number below the given one. 0 loses as much as can be lost, the highest keeps as much as can be kept.
pub(super) type Choice<'a> = &'a mut dyn FnMut(usize) -> usize;

/// A change of names that waits for its directory's sync.
#[derive(Debug, Clone)]
struct Change {
    kind: ChangeKind,
    /// A sync that should have made it durable failed. Later syncs do not, unless a newer change stands on it.
    failed: bool,
}

#[derive(Debug, Clone)]
enum ChangeKind {
    Add(StorePath, Item),
    Remove(StorePath),
    Rename(StorePath, StorePath, FileId),
}

impl ChangeKind {
    fn touched(&self) -> impl Iterator<Item = &StorePath> {
        let (first, second) = match self {
            Self::Add(path, _) | Self::Remove(path) => (path, None),
            Self::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    /// Returns the directory whose sync makes it durable.
    fn directory(&self) -> StorePath {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Rename(_, path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<StorePath, Item>) {
        match self {
            Self::Add(path, item) => {
                names.insert(path.clone(), *item);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), Item::File(*id));
            }
        }
    }
}

/// What of a file is not durable.
#[derive(Debug, Clone, Default)]
struct Unsynced {
    /// The length that is durable.
    bytes: usize,
    writes: Vec<Write>,
}

#[derive(Debug, Clone)]
struct Write {
    range: Range<usize>,
    /// A failed sync gave it up: it is lost, though the cache shows it until the crash.
    dropped: bool,
}

/// The durable state of a disk and what waits to become so.
#[derive(Debug, Clone, Default)]
pub(super) struct Platter {
    names: BTreeMap<StorePath, Item>,
    waiting: Vec<Change>,
    unsynced: BTreeMap<FileId, Unsynced>,
}

impl Platter {
    /// Returns a disk on which exactly these names are durable, and all bytes are.
    pub(super) fn durable(names: BTreeMap<StorePath, Item>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    pub(super) fn added(&mut self, path: &StorePath, item: Item) {
        self.wait(ChangeKind::Add(path.clone(), item));
    }

    pub(super) fn removed(&mut self, path: &StorePath) {
        self.wait(ChangeKind::Remove(path.clone()));
    }

    pub(super) fn renamed(&mut self, from: &StorePath, to: &StorePath, id: FileId) {
        self.wait(ChangeKind::Rename(from.clone(), to.clone(), id));
    }

    fn wait(&mut self, kind: ChangeKind) {
        let failed = false;
        self.waiting.push(Change { kind, failed });
    }

    pub(super) fn written(&mut self, id: FileId, range: Range<usize>) {
        let unsynced = self.unsynced.entry(id).or_default();
        if !range.is_empty() {
            let dropped = false;
            unsynced.writes.push(Write { range, dropped });
        }
    }

    /// Makes durable what a file was changed to behind its keeper's back.
    pub(super) fn altered(&mut self, id: FileId, bytes: usize) {
        let writes = Vec::new();
        self.unsynced.insert(id, Unsynced { bytes, writes });
    }

    /// Makes a file's bytes durable. After a failed sync there is no other: the file's handle refuses.
    pub(super) fn sync(&mut self, id: FileId, bytes: usize) {
        let unsynced = self.unsynced.entry(id).or_default();
        unsynced.bytes = bytes;
        unsynced.writes.clear();
    }

    /// Drops the bytes that a failed sync should have made durable.
    pub(super) fn fail_sync(&mut self, id: FileId) {
        let unsynced = self.unsynced.entry(id).or_default();
        for write in &mut unsynced.writes {
            write.dropped = true;
        }
    }

    /// Makes a directory's names durable, and what they stand on.
    pub(super) fn sync_directory(&mut self, directory: &StorePath) {
        // Backwards: a change is needed by its directory, or by a later change to one of its names.
        let mut names_needed = BTreeSet::new();
        let mut needed = vec![false; self.waiting.len()];
        for (change, needed) in self.waiting.iter().zip(&mut needed).rev() {
            let own = !change.failed && change.kind.directory() == *directory;
            if own
                || change
                    .kind
                    .touched()
                    .any(|path| names_needed.contains(path))
            {
                *needed = true;
                names_needed.extend(change.kind.touched().cloned());
            }
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter().zip(needed);
        for (change, needed) in waiting {
            if needed {
                change.kind.apply(&mut self.names);
            } else {
                self.waiting.push(change);
            }
        }
    }

    /// Gives up the names that a failed sync should have made durable: what becomes of them, only a crash shows.
    pub(super) fn fail_sync_directory(&mut self, directory: &StorePath) {
        for change in &mut self.waiting {
            change.failed |= change.kind.directory() == *directory;
        }
    }

    /// Returns the files that some crash could bring back.
    pub(super) fn files(&self) -> BTreeSet<FileId> {
        let waiting = self.waiting.iter().filter_map(|change| match change.kind {
            ChangeKind::Add(_, Item::File(id)) | ChangeKind::Rename(_, _, id) => Some(id),
            _ => None,
        });
        let durable = self.names.values().filter_map(|item| match item {
            Item::File(id) => Some(*id),
            Item::Directory => None,
        });
        durable.chain(waiting).collect()
    }

    /// Forgets files that nothing can bring back.
    pub(super) fn forget(&mut self, files: &[FileId]) {
        for id in files {
            self.unsynced.remove(id);
        }
    }

    /// Chooses the names a crash leaves.
    pub(super) fn names_after_crash(&self, choice: Choice<'_>) -> BTreeMap<StorePath, Item> {
        let mut names = self.names.clone();
        let mut lost = BTreeSet::new();
        for change in &self.waiting {
            let stands_on_lost = change.kind.touched().any(|path| lost.contains(path));
            if stands_on_lost || choice(2) == 0 {
                lost.extend(change.kind.touched());
            } else {
                change.kind.apply(&mut names);
            }
        }
        // A name below a directory that is lost is lost with it. A directory sorts before what is in it.
        let mut reachable = BTreeMap::new();
        for (path, item) in names {
            let parent = path.parent();
            if parent == StorePath::root() || reachable.get(&parent) == Some(&Item::Directory) {
                reachable.insert(path, item);
            }
        }
        reachable
    }

    /// Chooses the bytes a crash leaves of a file that the cache shows like this.
    pub(super) fn bytes_after_crash(
        &self,
        id: FileId,
        cached: &[u8],
        choice: Choice<'_>,
    ) -> Vec<u8> {
        let mut bytes = cached.to_vec();
        let Some(unsynced) = self.unsynced.get(&id) else {
            return bytes;
        };
        let mut length = unsynced.bytes;
        let mut lost: Vec<Range<usize>> = Vec::new();
        for write in &unsynced.writes {
            let Range { start, end } = write.range;
            let kept = match write.dropped {
                true => start..start,
                false => survivor(write.range.clone(), choice),
            };
            if !kept.is_empty() {
                length = length.max(kept.end);
            }
            lost.extend([start..kept.start, kept.end..end]);
        }
        // The length may be durable without the bytes.
        if length < bytes.len() && choice(2) == 1 {
            length = bytes.len();
        }
        bytes.truncate(length);
        lost.retain(|range| range.start < range.end.min(length));
        if !lost.is_empty() {
            let garbage = choice(2) == 1;
            for range in lost {
                let range = range.start..range.end.min(length);
                let place = bytes.get_mut(range.clone()).unwrap_or_default();
                for (at, byte) in range.zip(place) {
                    *byte = if garbage { garbage_at(at) } else { 0 };
                }
            }
        }
        bytes
    }
}

/// Chooses what survives of a write: nothing, its head, its tail, or all of it.
fn survivor(range: Range<usize>, choice: Choice<'_>) -> Range<usize> {
    let Range { start, end } = range;
    let cuts_of = |sector: usize| (start / sector + 1)..end.div_ceil(sector);
    let sectors: Vec<usize> = [512, 4096]
        .into_iter()
        .filter(|sector| !cuts_of(*sector).is_empty())
        .collect();
    // A write within one sector is written whole or not at all.
    let fates = if sectors.is_empty() { 2 } else { 3 };
    match choice(fates) {
        0 => start..start,
        fate if fate + 1 == fates => start..end,
        _ => {
            let sector = sectors.get(choice(sectors.len())).copied().unwrap_or(512);
            let cuts = cuts_of(sector);
            let cut = (cuts.start + choice(cuts.len())) * sector;
            match choice(2) {
                0 => start..cut,
                _ => cut..end,
            }
        }
    }
}

/// Returns what a sector may hold that was never written: bytes of something else.
pub(super) fn garbage_at(at: usize) -> u8 {
    let [byte, ..] = (at as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(8)
        .to_le_bytes();
    byte | 1
}

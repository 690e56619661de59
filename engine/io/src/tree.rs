//! An imagined file system: names, contents and locks as plain values, without any synchronization of its own.
//!
//! What [`crate::MemoryStorage`] and [`crate::SimDisk`] have in common. It behaves as the kernel does: a file is not
//! its name, so that it can be renamed or removed while it is open or locked.

use crate::files::past_the_end;
use crate::{Buffer, Entry, Existing, LockMode, StorePath};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// A file apart from its name: an inode's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(u64);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    Directory,
    File(FileId),
}

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Arc<Vec<u8>>,
    named: bool,
    shared: usize,
    exclusive: bool,
}

/// Names, contents and locks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    names: BTreeMap<StorePath, Item>,
    files: BTreeMap<FileId, File>,
    created: u64,
}

impl Tree {
    /// Returns a tree of these names and contents, with nothing locked.
    pub(crate) fn of(
        names: BTreeMap<StorePath, Item>,
        contents: BTreeMap<FileId, Vec<u8>>,
    ) -> Self {
        let created = contents.last_key_value().map_or(0, |(id, _)| id.0 + 1);
        let files = contents.into_iter().map(|(id, bytes)| {
            let file = File {
                bytes: Arc::new(bytes),
                named: true,
                ..File::default()
            };
            (id, file)
        });
        Self {
            names,
            files: files.collect(),
            created,
        }
    }

    /// Lets go of all locks: who held them is no more.
    pub(crate) fn unlock_all(&mut self) {
        for file in self.files.values_mut() {
            (file.shared, file.exclusive) = (0, false);
        }
    }

    /// Tells whether a file has a name.
    pub(crate) fn has_name(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|file| file.named)
    }

    #[cfg(test)]
    pub(crate) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Returns what a name stands for.
    pub(crate) fn item(&self, path: &StorePath) -> Option<Item> {
        match path.as_str() {
            "" => Some(Item::Directory),
            _ => self.names.get(path).copied(),
        }
    }

    /// Returns the file of a name.
    pub(crate) fn file(&self, path: &StorePath) -> io::Result<FileId> {
        match self.item(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Item::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            Some(Item::File(id)) => Ok(id),
        }
    }

    /// Returns the bytes a file has now; what is appended later does not show in them.
    pub(crate) fn bytes(&self, id: FileId) -> Arc<Vec<u8>> {
        let file = self.files.get(&id);
        file.map(|file| Arc::clone(&file.bytes)).unwrap_or_default()
    }

    /// Gives access to a file's bytes. Whoever read them before keeps what they were.
    pub(crate) fn bytes_mut(&mut self, id: FileId) -> &mut Vec<u8> {
        let file = self.files.entry(id).or_default();
        Arc::make_mut(&mut file.bytes)
    }

    /// Creates a file.
    pub(crate) fn create(&mut self, path: &StorePath) -> io::Result<FileId> {
        let id = FileId(self.created);
        self.add(path, Item::File(id))?;
        self.created += 1;
        let file = File {
            named: true,
            ..File::default()
        };
        self.files.insert(id, file);
        Ok(id)
    }

    /// Creates a directory.
    pub(crate) fn create_directory(&mut self, path: &StorePath) -> io::Result<()> {
        self.add(path, Item::Directory)
    }

    fn add(&mut self, path: &StorePath, item: Item) -> io::Result<()> {
        self.check_directory(&path.parent())?;
        if self.item(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.names.insert(path.clone(), item);
        Ok(())
    }

    /// Fails unless a name stands for a directory.
    pub(crate) fn check_directory(&self, path: &StorePath) -> io::Result<()> {
        match self.item(path) {
            Some(Item::Directory) => Ok(()),
            Some(Item::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives a file another name; returns the file that lost its name by it.
    pub(crate) fn rename(
        &mut self,
        from: &StorePath,
        to: &StorePath,
        existing: Existing,
    ) -> io::Result<Option<FileId>> {
        let id = self.file(from)?;
        self.check_directory(&to.parent())?;
        let replaced = match (self.item(to), existing) {
            (None, _) => None,
            (Some(_), Existing::Refuse) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Item::Directory), Existing::Replace) => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            (Some(Item::File(old)), Existing::Replace) => Some(old),
        };
        self.names.remove(from);
        self.names.insert(to.clone(), Item::File(id));
        let replaced = replaced.filter(|old| *old != id);
        if let Some(old) = replaced {
            self.unname(old);
        }
        Ok(replaced)
    }

    /// Removes a file's name; returns the file.
    pub(crate) fn remove(&mut self, path: &StorePath) -> io::Result<FileId> {
        let id = self.file(path)?;
        self.names.remove(path);
        self.unname(id);
        Ok(id)
    }

    fn unname(&mut self, id: FileId) {
        if let Some(file) = self.files.get_mut(&id) {
            file.named = false;
        }
    }

    /// Lists a directory.
    pub(crate) fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.check_directory(directory)?;
        let inside = self.names.iter().filter_map(|(path, item)| {
            let name = match directory.as_str() {
                "" => path.as_str(),
                directory => path.as_str().strip_prefix(directory)?.strip_prefix('/')?,
            };
            (!name.contains('/')).then_some((name, item))
        });
        let entries = inside.map(|(name, item)| Entry {
            name: name.to_owned(),
            bytes: match item {
                Item::Directory => 0,
                Item::File(id) => self.bytes(*id).len() as u64,
            },
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort();
        Ok(entries)
    }

    /// Returns the file to lock by this name, and whether it had to be created.
    pub(crate) fn file_to_lock(&mut self, path: &StorePath) -> io::Result<(FileId, bool)> {
        match self.file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create(path).map(|id| (id, true))
            }
            found => found.map(|id| (id, false)),
        }
    }

    /// Takes a lock if it is to be had.
    pub(crate) fn try_lock(&mut self, id: FileId, mode: LockMode) -> bool {
        let file = self.files.entry(id).or_default();
        let free = match mode {
            LockMode::Shared => !file.exclusive,
            LockMode::Exclusive => !file.exclusive && file.shared == 0,
        };
        if free {
            match mode {
                LockMode::Shared => file.shared += 1,
                LockMode::Exclusive => file.exclusive = true,
            }
        }
        free
    }

    /// Lets go of a lock.
    pub(crate) fn unlock(&mut self, id: FileId, mode: LockMode) {
        if let Some(file) = self.files.get_mut(&id) {
            match mode {
                LockMode::Shared => file.shared = file.shared.saturating_sub(1),
                LockMode::Exclusive => file.exclusive = false,
            }
        }
    }

    /// Frees a file that has no name any more, unless somebody holds a lock on it: then it goes with the lock.
    pub(crate) fn forget(&mut self, id: FileId) {
        let gone = |file: &File| !file.named && !file.exclusive && file.shared == 0;
        if self.files.get(&id).is_some_and(gone) {
            self.files.remove(&id);
        }
    }
}

/// Reads a range of bytes held in memory.
pub(crate) fn read_range(bytes: &[u8], offset: u64, length: usize) -> io::Result<Buffer> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(length)?));
    let found = range.and_then(|range| bytes.get(range));
    found
        .map(Buffer::copied)
        .ok_or_else(|| past_the_end(offset, length, bytes.len() as u64))
}

/// Shared bytes as a map shows them.
pub(crate) struct Shown(pub(crate) Arc<Vec<u8>>);

impl AsRef<[u8]> for Shown {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_is_forgotten_with_its_last_lock() {
        let mut tree = Tree::default();
        let name = StorePath::new("a");
        let id = tree.create(&name).unwrap();
        tree.bytes_mut(id).push(1);
        assert!(tree.try_lock(id, LockMode::Shared));
        tree.forget(id);
        assert_eq!(tree.remove(&name).unwrap(), id);
        tree.forget(id);
        assert_eq!(*tree.bytes(id), [1], "a locked file was forgotten");
        tree.unlock(id, LockMode::Shared);
        tree.forget(id);
        assert!(tree.files.is_empty());
    }
}

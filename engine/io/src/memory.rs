//! A store in memory: for tests and for stores that need not outlive the process.

use crate::storage::Room;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::tree::{FileId, Shown, Tree, read_range};
use crate::{
    Backend, Buffer, Entry, Existing, Lock, LockMode, Mapped, NewFile, Pending, Storage, StorePath,
    StoredFile,
};
use std::fmt;
use std::io;

/// A store's files in memory. A clone is the same storage.
#[derive(Clone)]
pub struct MemoryStorage(Arc<Shared>);

struct Shared {
    tree: Mutex<Tree>,
    /// Signalled whenever a lock is let go or a name changes.
    released: Condvar,
}

impl MemoryStorage {
    /// Returns an empty storage.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            tree: Mutex::new(Tree::default()),
            released: Condvar::new(),
        }))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, id: FileId, mode: LockMode) -> Held {
        Held {
            storage: self.clone(),
            id,
            mode,
        }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the tree: that would take the lock, which the caller may hold.
        f.write_str("MemoryStorage")
    }
}

/// A lock, given back when dropped.
#[derive(Debug)]
struct Held {
    storage: MemoryStorage,
    id: FileId,
    mode: LockMode,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut tree = self.storage.tree();
        tree.unlock(self.id, self.mode);
        tree.forget(self.id);
        drop(tree);
        self.storage.0.released.notify_all();
    }
}

impl Storage for MemoryStorage {
    fn open(&self, path: &StorePath) -> io::Result<std::sync::Arc<dyn StoredFile>> {
        let tree = self.tree();
        let bytes = tree.bytes(tree.file(path)?);
        let storage = self.clone();
        Ok(std::sync::Arc::new(FinishedFile { storage, bytes }))
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        let mut tree = self.tree();
        let id = tree.create(path)?;
        assert!(
            tree.try_lock(id, LockMode::Exclusive),
            "a file nobody knows yet is not locked"
        );
        let held = self.held(id, LockMode::Exclusive);
        Ok(Box::new(GrowingFile {
            held,
            bytes: 0,
            room: Room::default(),
        }))
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        let mut tree = self.tree();
        if let Some(replaced) = tree.rename(from, to, existing)? {
            tree.forget(replaced);
        }
        Ok(())
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        let mut tree = self.tree();
        let id = tree.remove(path)?;
        tree.forget(id);
        Ok(())
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.tree().list(directory)
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.tree().create_directory(path)
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        self.tree().check_directory(directory)
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        let mut tree = self.tree();
        let (id, _) = tree.file_to_lock(path)?;
        let locked = tree.try_lock(id, mode);
        Ok(locked.then(|| Lock::new(self.held(id, mode))))
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        let mut tree = self.tree();
        loop {
            // By name anew each time: the file may have been renamed or removed meanwhile.
            let (id, _) = tree.file_to_lock(path)?;
            if tree.try_lock(id, mode) {
                return Ok(Lock::new(self.held(id, mode)));
            }
            tree = self
                .0
                .released
                .wait(tree)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn backend(&self) -> Backend {
        Backend::Memory
    }
}

#[derive(Debug)]
struct FinishedFile {
    storage: MemoryStorage,
    bytes: std::sync::Arc<Vec<u8>>,
}

impl StoredFile for FinishedFile {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> Pending<Buffer> {
        // For shuttle only: a read of real files is a point where others may run.
        drop(self.storage.tree());
        Pending::ready(read_range(&self.bytes, offset, length))
    }

    fn map(&self) -> io::Result<Mapped> {
        drop(self.storage.tree());
        Ok(Mapped::new(Shown(std::sync::Arc::clone(&self.bytes))))
    }
}

#[derive(Debug)]
struct GrowingFile {
    held: Held,
    bytes: u64,
    room: Room,
}

impl NewFile for GrowingFile {
    fn append(&mut self, bytes: Buffer) -> io::Result<()> {
        self.held
            .storage
            .tree()
            .bytes_mut(self.held.id)
            .extend_from_slice(&bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) {
        self.bytes = self.room.reserve(self.bytes, bytes);
        let mut tree = self.held.storage.tree();
        tree.bytes_mut(self.held.id).resize(bytes, 0);
    }

    fn fill(&mut self, bytes: Buffer) -> io::Result<()> {
        self.room.take(&bytes)?;
        let mut tree = self.held.storage.tree();
        let room = tree.bytes_mut(self.held.id).get_mut(..bytes.len());
        room.expect("because it was reserved")
            .copy_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(self.held.storage.tree());
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

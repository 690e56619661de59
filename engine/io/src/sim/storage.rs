//! The storage face of the simulated disk, and its handles.

use super::fault::{Call, Fault};
use super::stats::Handles;
use super::{SimDisk, State, crashed};
use crate::files::EarlierFailure;
use crate::storage::Room;
use crate::tree::{FileId, Item, Shown, read_range};
use crate::{
    Backend, Buffer, Entry, Existing, Lock, LockMode, Mapped, NewFile, Pending, Storage, StorePath,
    StoredFile,
};
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};

impl Storage for SimDisk {
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>> {
        self.call(Call::Open, path, |state| {
            let id = state.tree.file(path)?;
            let bytes = state.tree.bytes(id);
            Ok(Arc::new(FinishedFile {
                id,
                path: path.clone(),
                bytes,
                counted: self.counted(state, |handles| &mut handles.readers),
            }) as Arc<dyn StoredFile>)
        })
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        self.call(Call::Create, path, |state| {
            let id = state.tree.create(path)?;
            state.platter.added(path, Item::File(id));
            let lock = self.held(state, id, LockMode::Exclusive);
            Ok(Box::new(GrowingFile {
                path: path.clone(),
                bytes: 0,
                room: Room::default(),
                failed: None,
                counted: self.counted(state, |handles| &mut handles.writers),
                lock: lock.expect("because nobody else knows the file yet"),
            }) as Box<dyn NewFile>)
        })
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        self.call(Call::Rename, to, |state| {
            let id = state.tree.file(from)?;
            state.tree.rename(from, to, existing)?;
            state.platter.renamed(from, to, id);
            Ok(())
        })
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        self.call(Call::Remove, path, |state| {
            state.tree.remove(path)?;
            state.platter.removed(path);
            Ok(())
        })
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.call(Call::List, directory, |state| state.tree.list(directory))
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.call(Call::CreateDirectory, path, |state| {
            state.tree.create_directory(path)?;
            state.platter.added(path, Item::Directory);
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        let sync = |state: &mut State| {
            state.tree.check_directory(directory)?;
            let before = state.platter.files();
            state.platter.sync_directory(directory);
            state.forget(before);
            Ok(())
        };
        self.call_or(Call::SyncDirectory, directory, sync, |state, fault| {
            state.platter.fail_sync_directory(directory);
            Err(fault.to_error())
        })
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        self.call(Call::Lock, path, |state| self.lock_now(state, path, mode))
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        let locked = self.call(Call::Lock, path, |state| self.lock_now(state, path, mode))?;
        if let Some(lock) = locked {
            return Ok(lock);
        }
        let mut state = self.state();
        loop {
            if state.crashed {
                return Err(crashed());
            }
            // By name anew each time: the file may have been renamed or removed meanwhile.
            if let Some(lock) = self.lock_now(&mut state, path, mode)? {
                return Ok(lock);
            }
            let changed = self.0.changed.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn backend(&self) -> Backend {
        Backend::Simulated
    }
}

impl SimDisk {
    fn lock_now(
        &self,
        state: &mut State,
        path: &StorePath,
        mode: LockMode,
    ) -> io::Result<Option<Lock>> {
        let (id, created) = state.tree.file_to_lock(path)?;
        if created {
            state.platter.added(path, Item::File(id));
        }
        let held = self.held(state, id, mode);
        Ok(held.map(|held| Lock::new((held, self.counted(state, |handles| &mut handles.locks)))))
    }

    fn held(&self, state: &mut State, id: FileId, mode: LockMode) -> Option<Held> {
        let locked = state.tree.try_lock(id, mode);
        // Not `then_some`: a `Held` made in vain would unlock, and wait for the state for it.
        locked.then(|| Held {
            disk: self.clone(),
            id,
            mode,
        })
    }

    fn counted(&self, state: &mut State, which: Which) -> Counted {
        *which(&mut state.handles) += 1;
        let disk = self.clone();
        Counted { disk, which }
    }
}

/// A lock, given back when dropped.
#[derive(Debug)]
struct Held {
    disk: SimDisk,
    id: FileId,
    mode: LockMode,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.tree.unlock(self.id, self.mode);
        state.forget([self.id]);
        drop(state);
        self.disk.0.changed.notify_all();
    }
}

/// One of the counters of [`Handles`].
type Which = fn(&mut Handles) -> &mut usize;

/// A handle as far as it is counted.
struct Counted {
    disk: SimDisk,
    which: Which,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *(self.which)(&mut self.disk.state().handles) -= 1;
    }
}

#[derive(Debug)]
struct FinishedFile {
    id: FileId,
    path: StorePath,
    bytes: Arc<Vec<u8>>,
    counted: Counted,
}

impl FinishedFile {
    fn disk(&self) -> &SimDisk {
        &self.counted.disk
    }
}

impl StoredFile for FinishedFile {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> Pending<Buffer> {
        Pending::ready(self.disk().call(Call::Read, &self.path, |state| {
            state.check_readable(self.id, offset..offset.saturating_add(length as u64))?;
            let read = read_range(&self.bytes, offset, length)?;
            state.stats.bytes_read += read.len() as u64;
            Ok(read)
        }))
    }

    fn map(&self) -> io::Result<Mapped> {
        self.disk().call(Call::Map, &self.path, |state| {
            state.check_readable(self.id, 0..self.bytes())?;
            let counted = self.disk().counted(state, |handles| &mut handles.maps);
            Ok(Mapped::new(Map {
                bytes: Shown(Arc::clone(&self.bytes)),
                _counted: counted,
            }))
        })
    }
}

struct Map {
    bytes: Shown,
    _counted: Counted,
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[derive(Debug)]
struct GrowingFile {
    path: StorePath,
    bytes: u64,
    room: Room,
    failed: Option<EarlierFailure>,
    counted: Counted,
    lock: Held,
}

impl GrowingFile {
    fn disk(&self) -> &SimDisk {
        &self.counted.disk
    }

    fn attempt(&mut self, step: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.to_error());
        }
        let done = step(self);
        self.failed = done.as_ref().err().map(EarlierFailure::of);
        done
    }

    /// Writes bytes at an offset: what may go wrong with that is chosen by the disk.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = |this: &Self, state: &mut State, bytes: &[u8]| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let range = start..start + bytes.len();
            let content = state.tree.bytes_mut(this.lock.id);
            content.resize(content.len().max(range.end), 0);
            let place = content.get_mut(range.clone());
            place
                .expect("because it was just made as long")
                .copy_from_slice(bytes);
            state.platter.written(this.lock.id, range);
            state.stats.bytes_appended += bytes.len() as u64;
            Ok(())
        };
        self.attempt(|this| {
            let whole = |state: &mut State| write(this, state, bytes);
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            this.disk().call_or(
                Call::Append,
                &this.path,
                whole,
                |state, fault| match fault {
                    Fault::LostWrite => write(this, state, &vec![0; bytes.len()]),
                    Fault::ShortWrite => {
                        write(this, state, half)?;
                        Err(fault.to_error())
                    }
                    _ => Err(fault.to_error()),
                },
            )
        })
    }
}

impl NewFile for GrowingFile {
    fn append(&mut self, bytes: Buffer) -> io::Result<()> {
        self.write(self.bytes, &bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) {
        self.bytes = self.room.reserve(self.bytes, bytes);
    }

    fn fill(&mut self, bytes: Buffer) -> io::Result<()> {
        self.room.take(&bytes)?;
        self.write(0, &bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|_| Ok(()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.attempt(|this| {
            let id = this.lock.id;
            let sync = |state: &mut State| {
                let length = state.tree.bytes(id).len();
                state.platter.sync(id, length);
                Ok(())
            };
            this.disk()
                .call_or(Call::Sync, &this.path, sync, |state, fault| {
                    state.platter.fail_sync(id);
                    Err(fault.to_error())
                })
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

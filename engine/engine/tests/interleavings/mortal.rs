//! A storage as one process has it that does not live for ever.

use shuttle::rand::Rng;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tegula_io::{
    Backend, Buffer, Entry, Existing, Lock, LockMode, NewFile, Storage, StorePath, StoredFile,
};

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Lives,
    /// One storage call fails.
    Stumbles,
    /// That call and all later ones fail, those that would tidy up as well: as when it is killed there.
    Dies,
}

/// The storage of others, which fails for this process alone, at a call that the scheduler draws.
#[derive(Debug)]
pub(crate) struct Mortal {
    storage: Arc<dyn Storage>,
    life: Arc<Life>,
}

#[derive(Debug)]
struct Life {
    fate: Fate,
    at: u64,
    calls: AtomicU64,
}

impl Life {
    fn step(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let strikes = match self.fate {
            Fate::Lives => false,
            Fate::Stumbles => call == self.at,
            Fate::Dies => call >= self.at,
        };
        match strikes {
            true => Err(io::Error::other("this process has no more calls")),
            false => Ok(()),
        }
    }
}

impl Mortal {
    /// Gives a process its storage; whatever fate it has strikes within its first `calls` calls.
    pub(crate) fn new(storage: Arc<dyn Storage>, fate: Fate, calls: u64) -> Self {
        let at = match fate {
            Fate::Lives => 0,
            Fate::Stumbles | Fate::Dies => shuttle::rand::thread_rng().gen_range(0..calls),
        };
        let calls = AtomicU64::new(0);
        Self {
            storage,
            life: Arc::new(Life { fate, at, calls }),
        }
    }
}

impl Storage for Mortal {
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>> {
        self.life.step()?;
        self.storage.open(path)
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        self.life.step()?;
        Ok(Box::new(MortalFile {
            file: self.storage.create(path)?,
            life: Arc::clone(&self.life),
        }))
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        self.life.step()?;
        self.storage.rename(from, to, existing)
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        self.life.step()?;
        self.storage.remove(path)
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.life.step()?;
        self.storage.list(directory)
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.life.step()?;
        self.storage.create_directory(path)
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        self.life.step()?;
        self.storage.sync_directory(directory)
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        self.life.step()?;
        self.storage.try_lock(path, mode)
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        self.life.step()?;
        self.storage.lock(path, mode)
    }

    fn backend(&self) -> Backend {
        self.storage.backend()
    }
}

#[derive(Debug)]
struct MortalFile {
    file: Box<dyn NewFile>,
    life: Arc<Life>,
}

impl NewFile for MortalFile {
    fn append(&mut self, bytes: Buffer) -> io::Result<()> {
        self.life.step()?;
        self.file.append(bytes)
    }

    fn reserve(&mut self, bytes: usize) {
        self.file.reserve(bytes);
    }

    fn fill(&mut self, bytes: Buffer) -> io::Result<()> {
        self.life.step()?;
        self.file.fill(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.life.step()?;
        self.file.flush()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.life.step()?;
        self.file.sync()
    }

    fn bytes(&self) -> u64 {
        self.file.bytes()
    }
}

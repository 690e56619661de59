//! A storage as a process has it that waits for another at a call of its own.
//!
//! Schedules alone reach a rare interleaving rarely: where one process stands between two certain calls while another goes
//! from one certain call to the next. Here the history says where they meet, and the schedule decides all else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tegula_io::{
    Backend, Entry, Existing, Lock, LockMode, NewFile, Storage, StorePath, StoredFile,
};

/// A call that can be waited at, and for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Somebody is about to take a lock.
    Lock,
    /// Somebody is about to create a file.
    Create,
    /// Somebody is about to remove a file.
    Remove,
}

/// That a process has come to a certain call. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reached(Arc<AtomicBool>);

impl Reached {
    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// At the first call of a kind on a path that begins in a certain way: what is told to others, and for what they are
/// waited.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) call: Call,
    pub(crate) path: &'static str,
    pub(crate) tells: Reached,
    pub(crate) waits_for: Option<Reached>,
}

/// The storage of others, at some calls of which this process stops.
#[derive(Debug)]
pub(crate) struct Meeting {
    storage: Arc<dyn Storage>,
    stops: Vec<Stop>,
}

impl Meeting {
    /// Gives a process its storage.
    pub(crate) fn new(storage: Arc<dyn Storage>, stops: Vec<Stop>) -> Self {
        Self { storage, stops }
    }

    fn come_to(&self, call: Call, path: &StorePath) {
        let here = |stop: &&Stop| stop.call == call && path.as_str().starts_with(stop.path);
        for stop in self.stops.iter().filter(here) {
            stop.tells.0.store(true, Ordering::Relaxed);
            while stop.waits_for.as_ref().is_some_and(|other| !other.is_so()) {
                shuttle::thread::yield_now();
            }
        }
    }
}

impl Storage for Meeting {
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>> {
        self.storage.open(path)
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        self.come_to(Call::Create, path);
        self.storage.create(path)
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        self.storage.rename(from, to, existing)
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        self.come_to(Call::Remove, path);
        self.storage.remove(path)
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.storage.list(directory)
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.storage.create_directory(path)
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        self.storage.sync_directory(directory)
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        self.come_to(Call::Lock, path);
        self.storage.try_lock(path, mode)
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        self.come_to(Call::Lock, path);
        self.storage.lock(path, mode)
    }

    fn backend(&self) -> Backend {
        self.storage.backend()
    }
}

//! Files through io_uring: [`Storage`] whose reads, appends and data syncs are carried out by a ring.
//!
//! Names, locks and maps are [`FileStorage`]'s. One ring and one thread serve the whole process. No type of tokio-uring
//! shows outside this module: replacing the crate is this module's work alone.

mod hook;
mod probe;
mod ring;

pub use hook::{CompletionHook, Operation};
pub use probe::probe;

use crate::files::{EarlierFailure, FinishedFile};
use crate::storage::Room;
use crate::{
    Backend, Buffer, Entry, Existing, FileStorage, Lock, LockMode, Mapped, NewFile, Pending,
    Storage, StorePath, StoredFile,
};
use ring::{Ring, RingFile};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Waits until every operation asked of the process's ring so far is over, so that the kernel has none of our buffers.
/// What other threads ask meanwhile is carried out after.
///
/// # Errors
/// Whatever the system says if there is no ring.
pub fn drain() -> io::Result<()> {
    Ring::shared()?.drain()
}

/// Appends of one file that may be under way. Bounds what a fast producer holds in memory.
const APPENDS_UNDER_WAY: usize = 8;

/// Appended bytes that the device is told to begin with at once. A segment has several of these, so that its sync has only
/// the last to wait for.
const WRITE_OUT_BYTES: u64 = 8 << 20;

/// A store's files in a directory, through io_uring.
#[derive(Debug)]
pub struct UringStorage {
    files: FileStorage,
    ring: Arc<Ring>,
    hook: Option<Arc<dyn CompletionHook>>,
}

impl UringStorage {
    /// Opens the directory a store lives in. Ask [`probe`] first whether io_uring works here.
    ///
    /// # Errors
    /// As for [`FileStorage::open`]; or whatever the system says if it has no ring for us.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            files: FileStorage::open(root)?,
            ring: Ring::shared()?,
            hook: None,
        })
    }

    /// Opens it with a hook that sees, and may change, the result of every operation of this storage.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn with_hook(root: &Path, hook: Arc<dyn CompletionHook>) -> io::Result<Self> {
        let storage = Self::open(root)?;
        Ok(Self {
            hook: Some(hook),
            ..storage
        })
    }

    fn through_the_ring(&self, file: Arc<File>) -> RingFile {
        RingFile {
            ring: Arc::clone(&self.ring),
            file,
            hook: self.hook.clone(),
        }
    }
}

impl Storage for UringStorage {
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>> {
        let finished = self.files.open_file(path)?;
        let file = self.through_the_ring(finished.file());
        Ok(Arc::new(RingFinishedFile { finished, file }))
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        let file = self.files.create_file(path)?;
        Ok(Box::new(RingGrowingFile::new(
            self.through_the_ring(Arc::new(file)),
        )))
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        self.files.rename(from, to, existing)
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        self.files.remove(path)
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.files.list(directory)
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.files.create_directory(path)
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        self.files.sync_directory(directory)
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        self.files.try_lock(path, mode)
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        self.files.lock(path, mode)
    }

    fn backend(&self) -> Backend {
        Backend::IoUring
    }
}

#[derive(Debug)]
struct RingFinishedFile {
    finished: FinishedFile,
    file: RingFile,
}

impl StoredFile for RingFinishedFile {
    fn bytes(&self) -> u64 {
        self.finished.bytes()
    }

    fn read_at(&self, offset: u64, length: usize) -> Pending<Buffer> {
        match self.finished.check_within(offset, length) {
            Ok(()) if length == 0 => Pending::ready(Ok(Buffer::default())),
            Ok(()) => self.file.read(offset, length),
            Err(error) => Pending::ready(Err(error)),
        }
    }

    fn map(&self) -> io::Result<Mapped> {
        self.finished.map()
    }
}

#[derive(Debug)]
struct RingGrowingFile {
    file: RingFile,
    bytes: u64,
    room: Room,
    /// Appends under way, oldest first, each with where it ends.
    appends: VecDeque<(u64, Pending<()>)>,
    /// Where the last append ends that is known to be over.
    written: u64,
    /// How far the device was told to begin.
    written_out: u64,
    failed: Option<EarlierFailure>,
}

impl RingGrowingFile {
    fn new(file: RingFile) -> Self {
        Self {
            file,
            bytes: 0,
            room: Room::default(),
            appends: VecDeque::new(),
            written: 0,
            written_out: 0,
            failed: None,
        }
    }

    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.to_error());
        }
        let done = step(self);
        self.failed = done.as_ref().err().map(EarlierFailure::of);
        done
    }

    /// Begins a write, when not too many are under way.
    fn write(&mut self, offset: u64, bytes: Buffer) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.wait_for_appends(APPENDS_UNDER_WAY - 1)?;
        let end = offset + bytes.len() as u64;
        let append = self.file.write(offset, bytes);
        self.appends.push_back((end, append));
        self.write_out();
        Ok(())
    }

    /// Lets the device begin with what was appended, when that is enough.
    fn write_out(&mut self) {
        let length = self.written.saturating_sub(self.written_out);
        if let (true, Ok(length)) = (length >= WRITE_OUT_BYTES, u32::try_from(length)) {
            let begun = self.file.write_out(self.written_out, length);
            self.appends.push_back((self.written, begun));
            self.written_out = self.written;
        }
    }

    /// Waits until at most so many appends are under way.
    fn wait_for_appends(&mut self, left: usize) -> io::Result<()> {
        while self.appends.len() > left {
            if let Some((end, oldest)) = self.appends.pop_front() {
                oldest.wait()?;
                self.written = self.written.max(end);
            }
        }
        Ok(())
    }
}

impl NewFile for RingGrowingFile {
    fn append(&mut self, bytes: Buffer) -> io::Result<()> {
        self.attempt(|this| {
            let length = bytes.len() as u64;
            this.write(this.bytes, bytes)?;
            this.bytes += length;
            Ok(())
        })
    }

    fn reserve(&mut self, bytes: usize) {
        self.bytes = self.room.reserve(self.bytes, bytes);
    }

    fn fill(&mut self, bytes: Buffer) -> io::Result<()> {
        self.attempt(|this| {
            this.room.take(&bytes)?;
            this.write(0, bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|this| this.wait_for_appends(0))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.attempt(|this| {
            this.wait_for_appends(0)?;
            this.file.sync().wait()
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for RingGrowingFile {
    fn drop(&mut self) {
        // The lock is let go with the file: nobody shall take it for abandoned while it still grows.
        for (_, append) in self.appends.drain(..) {
            let _ = append.wait();
        }
    }
}

#[cfg(test)]
mod tests;

//! What a store needs of the place it lives in.

use crate::{Buffer, Pending};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// A file's or directory's place inside a store: relative, with `/` between its parts, never `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(String);

impl StorePath {
    /// Names the store's own directory.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// Names a file or directory.
    ///
    /// # Panics
    /// If a part of the path is empty, `.` or `..`: names from outside are checked before they come here.
    pub fn new(path: impl Into<String>) -> Self {
        let path = path.into();
        assert!(
            path.split('/').all(|part| !matches!(part, "" | "." | "..")),
            "not a store path: {path:?}"
        );
        Self(path)
    }

    /// Names something in this directory.
    pub fn join(&self, name: &str) -> Self {
        match self.0.as_str() {
            "" => Self::new(name),
            directory => Self::new(format!("{directory}/{name}")),
        }
    }

    /// Returns the directory this stands in; the root's is the root.
    pub fn parent(&self) -> Self {
        Self(
            self.0
                .rsplit_once('/')
                .map_or(String::new(), |(directory, _)| directory.to_owned()),
        )
    }

    /// Returns the last part.
    pub fn name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.0.as_str(), |(_, name)| name)
    }

    /// Returns the whole path; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({:?})", self.0)
    }
}

/// Which implementation of [`Storage`] is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Files through pread and pwrite.
    Blocking,
    /// Files through io_uring.
    IoUring,
    /// Memory.
    Memory,
    /// The simulated disk.
    Simulated,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length in bytes; 0 for a directory.
    pub bytes: u64,
}

/// What a rename does if the new name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fails with `AlreadyExists` and changes nothing.
    Refuse,
    /// Replaces it in one step: any reader finds the old file or the new one.
    Replace,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held lock. It is let go when this is dropped, and by the system when the process ends, however it ends.
pub struct Lock(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Send + Sync>);

impl Lock {
    /// Wraps whatever lets go of the lock when dropped.
    pub fn new(holder: impl Send + Sync + 'static) -> Self {
        Self(Box::new(holder))
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// The files of one store.
///
/// Nothing is durable before it is synced: a file's bytes by [`NewFile::sync`], its name (after creation, rename or
/// removal) by [`Storage::sync_directory`] of the directory that holds it. Each byte of a file is written once, and none
/// after it was renamed to its final name; that is what makes [`StoredFile::map`] sound.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Opens a finished file to read.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>>;

    /// Creates a file to append to, and holds an exclusive lock on it until the handle is dropped, so that others can
    /// tell an unfinished file from an abandoned one with [`Self::try_lock`].
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>>;

    /// Gives a file another name, within this storage, in one step.
    ///
    /// # Errors
    /// `NotFound`, or `AlreadyExists` with [`Existing::Refuse`].
    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()>;

    /// Removes a file's name. Whoever has it open or mapped keeps it.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn remove(&self, path: &StorePath) -> io::Result<()>;

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>>;

    /// Creates a directory; its parent must exist.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken.
    fn create_directory(&self, path: &StorePath) -> io::Result<()>;

    /// Makes durable which names a directory holds.
    ///
    /// # Errors
    /// Whatever the device says. A failed sync is final: what it covered must not be believed durable later.
    fn sync_directory(&self, directory: &StorePath) -> io::Result<()>;

    /// Takes a lock on a file without waiting; `None` if others hold it. Creates the file if it is absent and that is
    /// allowed. A file that is being written ([`Self::create`]) counts as locked exclusively.
    ///
    /// # Errors
    /// Whatever opening the file says.
    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>>;

    /// Takes a lock on a file, waiting for others to let go.
    ///
    /// # Errors
    /// As for [`Self::try_lock`].
    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock>;

    /// Tells which implementation this is.
    fn backend(&self) -> Backend;
}

/// A finished file.
pub trait StoredFile: fmt::Debug + Send + Sync {
    /// Returns its length in bytes, as of opening.
    fn bytes(&self) -> u64;

    /// Reads exactly `length` bytes at `offset`. Where the implementation can, the read goes on while the caller does
    /// something else; otherwise it is done when this returns.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, length: usize) -> Pending<Buffer>;

    /// Maps the whole file into memory.
    ///
    /// # Errors
    /// Whatever the system says.
    fn map(&self) -> io::Result<Mapped>;
}

/// A file being written. Dropping it without renaming it leaves an abandoned file, which garbage collection takes.
pub trait NewFile: fmt::Debug + Send {
    /// Appends a buffer. The write may still be under way when this returns; its error then comes from a later call.
    ///
    /// # Errors
    /// Whatever went wrong with this or an earlier append. After an error every later call fails.
    fn append(&mut self, bytes: Buffer) -> io::Result<()>;

    /// Leaves room at the start of a file that is still empty, for a head that says what comes after it. Until
    /// [`Self::fill`] it reads as zeros.
    ///
    /// # Panics
    /// If the file is not empty.
    fn reserve(&mut self, bytes: usize);

    /// Writes what room was left for at the start: all of it, and once. Goes on like [`Self::append`].
    ///
    /// # Errors
    /// As for [`Self::append`]; `InvalidInput` if it is not as long as the room.
    fn fill(&mut self, bytes: Buffer) -> io::Result<()>;

    /// Waits for all appends, so that whoever opens the file sees their bytes. Makes nothing durable.
    ///
    /// # Errors
    /// As for [`Self::append`].
    fn flush(&mut self) -> io::Result<()>;

    /// Waits for all appends and makes the bytes durable.
    ///
    /// # Errors
    /// As for [`Self::append`]. A failed sync is never tried again: the second could succeed with the bytes lost.
    fn sync(&mut self) -> io::Result<()>;

    /// Returns how long the file is: what was reserved and what was appended.
    fn bytes(&self) -> u64;
}

/// The room at the start of a file being written.
#[derive(Debug, Default)]
pub(crate) struct Room(usize);

impl Room {
    /// Leaves room in a file of `length` bytes; returns how long it then is.
    pub(crate) fn reserve(&mut self, length: u64, bytes: usize) -> u64 {
        assert_eq!(length, 0, "room is left at the start of an empty file");
        self.0 = bytes;
        bytes as u64
    }

    /// Takes the room for these bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() != self.0 {
            let text = format!("{} bytes for a room of {}", bytes.len(), self.0);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        self.0 = 0;
        Ok(())
    }
}

/// The bytes of a finished file in memory.
#[derive(Clone)]
pub struct Mapped(Arc<dyn Bytes>);

/// An owner of bytes that are in memory, or come there when they are looked at.
pub(crate) trait Bytes: Send + Sync {
    /// Returns them.
    fn as_slice(&self) -> &[u8];

    /// Brings a range into memory; fails where looking at it would end the process.
    fn bring(&self, range: Range<usize>) -> io::Result<()>;
}

/// Bytes that are in memory from the beginning.
struct InMemory<T>(T);

impl<T: AsRef<[u8]> + Send + Sync> Bytes for InMemory<T> {
    fn as_slice(&self) -> &[u8] {
        self.0.as_ref()
    }

    fn bring(&self, _: Range<usize>) -> io::Result<()> {
        Ok(())
    }
}

impl Mapped {
    /// Wraps an owner of bytes.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(InMemory(bytes)))
    }

    pub(crate) fn of(bytes: impl Bytes + 'static) -> Self {
        Self(Arc::new(bytes))
    }

    /// Returns the bytes. Looking at those of a disk that cannot be read ends the process with SIGBUS: to be told of
    /// that by an error, see [`Self::check_readable`].
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Brings a range of the bytes into memory, as far as there is such a range, to learn whether the disk can read it.
    /// Kernels before 5.14 cannot tell; nothing is then done.
    ///
    /// # Errors
    /// EIO if some of it cannot be read.
    pub fn check_readable(&self, range: Range<usize>) -> io::Result<()> {
        let end = range.end.min(self.as_slice().len());
        match range.start < end {
            true => self.0.bring(range.start..end),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} bytes)", self.as_slice().len())
    }
}

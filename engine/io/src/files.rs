//! Blocking files: [`Storage`] by pread, pwrite, fdatasync, rename and flock.
//!
//! The only memory maps of the project are made here.

use crate::directory::Directory;
use crate::storage::{Bytes, Room};
use crate::{
    Backend, Buffer, Entry, Existing, Lock, LockMode, Mapped, NewFile, Pending, Storage, StorePath,
    StoredFile,
};
use memmap2::{Advice, Mmap, MmapOptions};
use rustix::io::Errno;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A store's files in a directory, through blocking calls.
#[derive(Debug)]
pub struct FileStorage {
    root: Directory,
}

impl FileStorage {
    /// Opens the directory a store lives in.
    ///
    /// # Errors
    /// `NotFound` if there is none, `NotADirectory` if it is something else.
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: Directory::open(root)?,
        })
    }

    /// Returns the path it was opened by.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn open_file(&self, path: &StorePath) -> io::Result<FinishedFile> {
        FinishedFile::new(self.root.read(place_of(path))?)
    }

    /// Creates a file and locks it before anybody else can believe it abandoned.
    pub(crate) fn create_file(&self, path: &StorePath) -> io::Result<File> {
        loop {
            let file = self.root.create(place_of(path))?;
            lock_file(&file, LockMode::Exclusive)?;
            // Between creation and lock a collector may have taken the file for abandoned and removed it.
            if self.root.names(place_of(path), &file)? {
                return Ok(file);
            }
        }
    }
}

impl FileStorage {
    /// Locks the file that has this name when it is locked.
    fn lock_by_name(
        &self,
        path: &StorePath,
        lock: impl Fn(&File) -> io::Result<bool>,
    ) -> io::Result<Option<Lock>> {
        loop {
            let file = self.root.open_or_create(place_of(path))?;
            if !lock(&file)? {
                return Ok(None);
            }
            // A lock on a file that lost its name meanwhile excludes nobody.
            if self.root.names(place_of(path), &file)? {
                return Ok(Some(Lock::new(file)));
            }
        }
    }
}

/// Returns the path as the directory's descriptor understands it.
fn place_of(path: &StorePath) -> &Path {
    Path::new(match path.as_str() {
        "" => ".",
        path => path,
    })
}

impl Storage for FileStorage {
    fn open(&self, path: &StorePath) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(self.open_file(path)?))
    }

    fn create(&self, path: &StorePath) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(GrowingFile {
            file: self.create_file(path)?,
            bytes: 0,
            room: Room::default(),
            failed: None,
        }))
    }

    fn rename(&self, from: &StorePath, to: &StorePath, existing: Existing) -> io::Result<()> {
        self.root.rename(place_of(from), place_of(to), existing)
    }

    fn remove(&self, path: &StorePath) -> io::Result<()> {
        self.root.remove(place_of(path))
    }

    fn list(&self, directory: &StorePath) -> io::Result<Vec<Entry>> {
        self.root.list(place_of(directory))
    }

    fn create_directory(&self, path: &StorePath) -> io::Result<()> {
        self.root.create_directory(place_of(path))
    }

    fn sync_directory(&self, directory: &StorePath) -> io::Result<()> {
        self.root.sync(place_of(directory))
    }

    fn try_lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Option<Lock>> {
        self.lock_by_name(path, |file| try_lock_file(file, mode))
    }

    fn lock(&self, path: &StorePath, mode: LockMode) -> io::Result<Lock> {
        let locked = self.lock_by_name(path, |file| lock_file(file, mode).map(|()| true))?;
        Ok(locked.expect("because waiting ends with the lock"))
    }

    fn backend(&self) -> Backend {
        Backend::Blocking
    }
}

fn lock_file(file: &File, mode: LockMode) -> io::Result<()> {
    loop {
        let locked = match mode {
            LockMode::Shared => file.lock_shared(),
            LockMode::Exclusive => file.lock(),
        };
        match locked {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            locked => return locked,
        }
    }
}

fn try_lock_file(file: &File, mode: LockMode) -> io::Result<bool> {
    loop {
        let locked = match mode {
            LockMode::Shared => file.try_lock_shared(),
            LockMode::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// A finished file and its length as of opening.
#[derive(Debug)]
pub(crate) struct FinishedFile {
    file: Arc<File>,
    bytes: u64,
}

impl FinishedFile {
    fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Self {
            file: Arc::new(file),
            bytes: metadata.len(),
        })
    }

    #[cfg(feature = "io-uring")]
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Fails if a read would go past the end: before any memory is taken for it.
    pub(crate) fn check_within(&self, offset: u64, length: usize) -> io::Result<()> {
        let end = u64::try_from(length)
            .ok()
            .and_then(|length| offset.checked_add(length));
        match end {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(past_the_end(offset, length, self.bytes)),
        }
    }
}

/// The error of a read past a file's end.
pub(crate) fn past_the_end(offset: u64, length: usize, bytes: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{length} bytes at {offset} wanted of a file of {bytes} bytes"),
    )
}

impl StoredFile for FinishedFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, length: usize) -> Pending<Buffer> {
        let read = self
            .check_within(offset, length)
            .and_then(|()| read_buffer(&self.file, offset, length));
        Pending::ready(read)
    }

    fn map(&self) -> io::Result<Mapped> {
        let length = usize::try_from(self.bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if length == 0 {
            // The kernel refuses to map nothing.
            return Ok(Mapped::new([]));
        }
        Ok(Mapped::of(FileMap(map_file(&self.file, length)?)))
    }
}

/// A mapped file.
struct FileMap(Mmap);

impl Bytes for FileMap {
    fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn bring(&self, range: Range<usize>) -> io::Result<()> {
        let brought = self
            .0
            .advise_range(Advice::PopulateRead, range.start, range.len());
        match brought.map_err(|error| (error.raw_os_error().map(Errno::from_raw_os_error), error)) {
            Ok(()) => Ok(()),
            // The kernel does not know this advice.
            Err((Some(Errno::INVAL), _)) => Ok(()),
            // What would have been SIGBUS.
            Err((Some(Errno::FAULT), _)) => Err(Errno::IO.into()),
            Err((_, error)) => Err(error),
        }
    }
}

/// Maps a finished file.
fn map_file(file: &File, length: usize) -> io::Result<Mmap> {
    // SAFETY: the bytes must neither change nor go away while they are mapped. Each byte of a store's file is written
    // once, and it is opened to read only after it was renamed to its final name; from then on this crate has no
    // call that would write to them or cut them, and removal takes the name but leaves the inode to whoever has it
    // open. Other processes keep the same rule because they, too, come here through `Storage`: the store's owner sees
    // to it that nobody else writes below its directory.
    unsafe { MmapOptions::new().len(length).map(file) }
}

/// Maps a file that has no name and that the caller gives away.
pub(crate) fn map_scratch(file: File, bytes: u64) -> io::Result<Mapped> {
    let length = usize::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the bytes must neither change nor go away while they are mapped. The file has no name, so nobody else can
    // open it, and its only handle is dropped here: there is nobody left to write to it or cut it.
    let map = unsafe { MmapOptions::new().len(length).map(&file)? };
    Ok(Mapped::of(FileMap(map)))
}

/// Reads exactly `length` bytes into memory that is not cleared first.
pub(crate) fn read_buffer(file: impl AsFd, offset: u64, length: usize) -> io::Result<Buffer> {
    let mut buffer = Buffer::with_capacity(length);
    let bytes = buffer.as_vec_mut();
    while bytes.len() < length {
        let missing = length - bytes.len();
        let at = offset + bytes.len() as u64;
        let space = bytes.spare_capacity_mut();
        let space = space
            .get_mut(..missing)
            .expect("because the capacity was asked for");
        let read = match rustix::io::pread(&file, space, at) {
            Ok((read, _)) => read.len(),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let filled = bytes.len() + read;
        // SAFETY: pread filled `read` more bytes, all of them within `space`, which is within the capacity.
        unsafe { bytes.set_len(filled) };
    }
    Ok(buffer)
}

/// The first error of a file being written; every later call fails with it, because nobody can say what the file holds.
#[derive(Debug, Clone)]
pub(crate) struct EarlierFailure {
    kind: io::ErrorKind,
    text: String,
}

impl EarlierFailure {
    pub(crate) fn of(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            text: error.to_string(),
        }
    }

    pub(crate) fn to_error(&self) -> io::Error {
        let text = format!("an earlier write to this file failed: {}", self.text);
        io::Error::new(self.kind, text)
    }
}

#[derive(Debug)]
struct GrowingFile {
    file: File,
    bytes: u64,
    room: Room,
    failed: Option<EarlierFailure>,
}

impl GrowingFile {
    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.to_error());
        }
        let done = step(self);
        self.failed = done.as_ref().err().map(EarlierFailure::of);
        done
    }
}

impl NewFile for GrowingFile {
    fn append(&mut self, bytes: Buffer) -> io::Result<()> {
        self.attempt(|this| this.file.write_all_at(&bytes, this.bytes))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) {
        self.bytes = self.room.reserve(self.bytes, bytes);
    }

    fn fill(&mut self, bytes: Buffer) -> io::Result<()> {
        self.attempt(|this| {
            this.room.take(&bytes)?;
            this.file.write_all_at(&bytes, 0)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|_| Ok(()))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.attempt(|this| Ok(rustix::fs::fdatasync(&this.file)?))
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_write_every_later_call_fails_and_says_so() {
        let place = tempfile::NamedTempFile::new().unwrap();
        // Not open for writing: every write fails.
        let mut file = GrowingFile {
            file: File::open(place.path()).unwrap(),
            bytes: 0,
            room: Room::default(),
            failed: None,
        };
        let first = file.append(Buffer::copied(b"x")).unwrap_err();
        assert_eq!(first.raw_os_error(), Some(Errno::BADF.raw_os_error()));
        for later in [file.append(Buffer::default()), file.sync()] {
            let error = later.unwrap_err();
            assert!(error.to_string().contains("an earlier write"), "{error}");
            assert_eq!(error.kind(), first.kind());
        }
        assert_eq!(file.bytes(), 0);
    }

    #[test]
    fn what_a_map_cannot_read_is_an_error_and_no_signal() {
        let place = tempfile::NamedTempFile::new().unwrap();
        place.as_file().set_len(3 << 16).unwrap();
        let map = FinishedFile::new(File::open(place.path()).unwrap())
            .unwrap()
            .map()
            .unwrap();
        map.check_readable(0..usize::MAX).unwrap();
        // Looking past the end that a file has by now is what looking at a bad sector is: SIGBUS.
        place.as_file().set_len(1 << 16).unwrap();
        map.check_readable(5..1 << 16).unwrap();
        map.check_readable(1 << 20..1 << 21).unwrap();
        match map.check_readable(0..2 << 16) {
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error())),
            // A kernel before 5.14.
            Ok(()) => assert_eq!(
                map_file(&File::open("/proc/self/exe").unwrap(), 4096)
                    .unwrap()
                    .advise(Advice::PopulateRead)
                    .unwrap_err()
                    .raw_os_error(),
                Some(Errno::INVAL.raw_os_error())
            ),
        }
    }

    #[test]
    fn a_collector_never_takes_a_file_from_whoever_creates_it() {
        let place = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(place.path()).unwrap();
        let name = StorePath::new("new");
        std::thread::scope(|scope| {
            let creator = scope.spawn(|| {
                let mut created = 0;
                while created < 100 {
                    match storage.create_file(&name) {
                        Ok(file) => {
                            std::thread::yield_now();
                            assert!(storage.root.names(place_of(&name), &file).unwrap());
                            created += 1;
                        }
                        // The collector's own lock created it.
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::AlreadyExists),
                    }
                }
            });
            while !creator.is_finished() {
                // As garbage collection does: what is there and can be locked is abandoned.
                if storage.list(&StorePath::root()).unwrap().is_empty() {
                    continue;
                }
                if let Some(lock) = storage.try_lock(&name, LockMode::Exclusive).unwrap() {
                    storage.remove(&name).unwrap();
                    drop(lock);
                }
            }
            creator.join().unwrap();
        });
    }

    #[test]
    fn a_lock_is_to_be_had_where_nothing_may_be_written() {
        // Forbidden even to the superuser, whom permissions do not stop elsewhere.
        let Ok(storage) = FileStorage::open(Path::new("/sys/kernel")) else {
            return;
        };
        let name = StorePath::new("uevent_seqnum");
        let shared = storage.try_lock(&name, LockMode::Shared).unwrap();
        assert!(shared.is_some());
        let exclusive = storage.try_lock(&name, LockMode::Exclusive).unwrap();
        assert!(exclusive.is_none());
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened_as_one() {
        let place = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(place.path()).unwrap();
        let socket = place.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(storage.open(&StorePath::new("socket")).is_err());
        // Nobody writes into it: opening it must not wait for that.
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let fifo = place.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        let error = storage.open(&StorePath::new("fifo")).unwrap_err();
        assert!(crate::is_bad_medium(&error), "{error:?}");
        let lock = storage.try_lock(&StorePath::new("fifo"), LockMode::Exclusive);
        assert!(lock.is_ok_and(|lock| lock.is_some()));
        let missing = FileStorage::open(&place.path().join("absent")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(FileStorage::open(&socket).is_err());
    }
}

//! A file beside a disk that says how far a change of the disk is: written in order, cut, and removed at the end.

use crate::directory::Directory;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A log that nobody else has open this way. Symbolic links are not followed.
#[derive(Debug)]
pub struct LogFile {
    directory: Directory,
    name: PathBuf,
    file: File,
    end: AtomicU64,
}

impl LogFile {
    /// Opens a log, or creates an empty one, for this process alone.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it; whatever else the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let name = path.file_name().map(PathBuf::from);
        let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = Directory::open(parent)?;
        loop {
            let file = directory.open_or_create_private(&name)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no regular file"));
            }
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
                locked => locked?,
            }
            // Whoever had it may have removed it between our opening and our locking.
            if directory.names(&name, &file)? {
                directory.sync(Path::new("."))?;
                let end = AtomicU64::new(file.metadata()?.len());
                return Ok(Self {
                    directory,
                    name,
                    file,
                    end,
                });
            }
        }
    }

    /// Returns its length.
    pub fn bytes(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Adds bytes at the end, one caller at a time; they are durable after [`Self::sync`].
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let end = self.bytes();
        self.file.write_all_at(bytes, end)?;
        self.end.store(end + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Cuts it to this length.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.end.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Makes all of it durable.
    ///
    /// # Errors
    /// Whatever the device says; what was to become durable must not be believed to be.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.file)?)
    }

    /// Removes it, durably.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn remove(self) -> io::Result<()> {
        self.directory.remove(&self.name)?;
        self.directory.sync(Path::new("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_for_one_at_a_time_and_goes_when_it_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let log = LogFile::open(&path).unwrap();
        let busy = LogFile::open(&path).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::WouldBlock);
        log.append(b"one, two").unwrap();
        log.truncate(3).unwrap();
        log.append(b"!").unwrap();
        log.sync().unwrap();
        drop(log);
        let log = LogFile::open(&path).unwrap();
        let mut found = [0; 4];
        log.read_at(&mut found, 0).unwrap();
        assert_eq!((&found, log.bytes()), (b"one!", 4));
        log.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_symbolic_link_is_no_log() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(LogFile::open(&path).is_err());
        assert!(!place.path().join("elsewhere").exists());
    }
}

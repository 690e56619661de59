//! Where a disk comes from: a regular file or a block device, read as it is.

use crate::disk_file::{DiskFile, FileKind};
use rustix::fs::{Advice, OFlags};
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a path cannot be read as a disk.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Something that cannot be read at any offset.
    #[error("{} is {kind}, neither a regular file nor a block device", path.display())]
    NotADisk {
        /// Where it stands.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// A file that has bytes and says that it has none, as those of /proc do.
    #[error("{} says that it has no bytes, and has some", path.display())]
    NoLength {
        /// Where it stands.
        path: PathBuf,
    },
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Where it stands.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A disk as raw bytes. Threads may share it.
#[derive(Debug)]
pub struct RawSource {
    disk: DiskFile,
    bytes: u64,
}

/// What tells that a source was changed: two stamps differ if it was, as far as the file system tells.
///
/// Of a block device only the length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    bytes: u64,
    file: Option<FileStamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl RawSource {
    /// Opens a regular file or block device; symbolic links are followed.
    ///
    /// # Errors
    /// [`SourceError::NotADisk`] for anything else that stands there; it is not even opened. [`SourceError::NoLength`] for
    /// what does not say how long it is.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Open {
            path: path.to_owned(),
            source,
        };
        let refused = |kind| SourceError::NotADisk {
            path: path.to_owned(),
            kind,
        };
        // Looked at before it is opened: opening a device can have effects.
        let kind = FileKind::of(&std::fs::metadata(path).map_err(failed)?);
        if !kind.can_be_a_disk() {
            return Err(refused(kind));
        }
        // Looked at again afterwards; should a FIFO have come in between, O_NONBLOCK keeps us from waiting for a writer.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)
            .map_err(failed)?;
        let disk = DiskFile::new(file).map_err(failed)?.map_err(refused)?;
        rustix::fs::fcntl_setfl(disk.file(), OFlags::empty())
            .map_err(|error| failed(error.into()))?;
        let bytes = disk.bytes().map_err(failed)?;
        let mut first = [0];
        if bytes == 0
            && rustix::io::pread(disk.file(), &mut first, 0)
                .map_err(|error| failed(error.into()))?
                > 0
        {
            return Err(SourceError::NoLength {
                path: path.to_owned(),
            });
        }
        // A hint; a file system that ignores it costs speed only.
        let _ = rustix::fs::fadvise(disk.file(), 0, None, Advice::Sequential);
        Ok(Self { disk, bytes })
    }

    /// Returns its length in bytes, as of opening.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.disk.is_block_device()
    }

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before: whatever was read by then is in the buffer and means nothing.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_at(buffer, offset)
    }

    /// Returns the next range at or after `from` that may hold something else than zeros; `None` if there is none
    /// before the end. Where holes are not known, all is data.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.next_data(from, self.bytes)
    }

    /// Tells what the source looks like now: compare before and after reading to detect that it was changed meanwhile.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn stamp(&self) -> io::Result<Stamp> {
        let bytes = self.disk.bytes()?;
        if self.disk.is_block_device() {
            return Ok(Stamp { bytes, file: None });
        }
        let metadata = self.disk.file().metadata()?;
        let file = FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        Ok(Stamp {
            bytes,
            file: Some(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_does_not_say_how_long_it_is_is_refused() {
        let opened = RawSource::open(Path::new("/proc/version"));
        assert!(
            matches!(opened, Err(SourceError::NoLength { .. })),
            "{opened:?}"
        );
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(RawSource::open(empty.path()).unwrap().bytes(), 0);
    }

    #[test]
    fn what_is_not_a_disk_is_refused_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let socket = place.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let cases = [
            (place.path(), FileKind::Directory),
            (fifo.as_path(), FileKind::Fifo),
            (socket.as_path(), FileKind::Socket),
            (Path::new("/dev/null"), FileKind::CharacterDevice),
        ];
        for (path, expected) in cases {
            match RawSource::open(path) {
                Err(SourceError::NotADisk { kind, .. }) => assert_eq!(kind, expected),
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        let text = RawSource::open(&fifo).unwrap_err().to_string();
        assert!(text.contains("fifo is a FIFO"), "{text}");
        match RawSource::open(&place.path().join("absent")) {
            Err(SourceError::Open { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::NotFound);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_are_read_exactly_and_not_past_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(b"abcdef", 0).unwrap();
        let source = RawSource::open(file.path()).unwrap();
        assert_eq!(source.bytes(), 6);
        let mut buffer = [0; 3];
        source.read_at(&mut buffer, 2).unwrap();
        assert_eq!(&buffer, b"cde");
        let error = source.read_at(&mut buffer, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_stamp_tells_that_the_source_was_changed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(b"abcdef", 0).unwrap();
        let source = RawSource::open(file.path()).unwrap();
        let before = source.stamp().unwrap();
        assert_eq!(before, source.stamp().unwrap());
        // The file system's clock may be coarse; it is not as coarse as this.
        for _ in 0..100 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            file.as_file().write_all_at(b"X", 1).unwrap();
            if source.stamp().unwrap() != before {
                return;
            }
        }
        panic!("half a second of writing went unseen");
    }
}

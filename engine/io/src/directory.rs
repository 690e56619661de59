//! An open directory and what is done to the names below it.
//!
//! Everything is relative to the directory's descriptor, so that neither a later `chdir` nor a renamed ancestor changes
//! what is meant, and the last part of a name is never followed if it is a symbolic link.

use crate::{Entry, Existing};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Every descriptor is closed on exec, none follows a symbolic link, and none waits for somebody at the other end, as a
/// FIFO that was put where a file should be would have it. Regular files know nothing of the last.
const ALWAYS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK);

/// The umask takes away what the operator does not want to give.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o777);

/// A directory that is held open.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: OwnedFd,
    /// For messages only.
    path: PathBuf,
}

impl Directory {
    /// Opens a directory; the path itself may be a symbolic link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(Self {
            descriptor,
            path: path.to_owned(),
        })
    }

    /// Returns the path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file to read.
    pub(crate) fn read(&self, name: &Path) -> io::Result<File> {
        self.open_at(name, OFlags::RDONLY)
    }

    /// Creates a file; fails if the name is taken, whatever holds it.
    pub(crate) fn create(&self, name: &Path) -> io::Result<File> {
        self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    /// Opens a file to lock it, and creates it if need be; where nothing may be written, opens it to read.
    pub(crate) fn open_or_create(&self, name: &Path) -> io::Result<File> {
        let opened = self.open_at(name, OFlags::RDWR | OFlags::CREATE);
        match opened.as_ref().map_err(Errno::from_io_error) {
            Err(Some(Errno::ROFS | Errno::ACCESS)) => match self.read(name) {
                // That it is not there is not what is wrong: it cannot be made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => opened,
                read => read,
            },
            _ => opened,
        }
    }

    /// Opens a file to read and write, and creates it, for its owner alone, if it is absent.
    pub(crate) fn open_or_create_private(&self, name: &Path) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | ALWAYS;
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = retry_on_intr(|| rustix::fs::openat(&self.descriptor, name, flags, mode))?;
        Ok(File::from(opened))
    }

    fn open_at(&self, name: &Path, flags: OFlags) -> io::Result<File> {
        let opened = retry_on_intr(|| {
            rustix::fs::openat(&self.descriptor, name, flags | ALWAYS, FILE_MODE)
        })?;
        Ok(File::from(opened))
    }

    /// Tells whether a name stands for this very file.
    pub(crate) fn names(&self, name: &Path, file: impl AsFd) -> io::Result<bool> {
        let held = rustix::fs::fstat(file)?;
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Renames a file in one step.
    pub(crate) fn rename(&self, from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
        let at = &self.descriptor;
        match existing {
            Existing::Replace => rustix::fs::renameat(at, from, at, to)?,
            Existing::Refuse => {
                match rustix::fs::renameat_with(at, from, at, to, RenameFlags::NOREPLACE) {
                    // Not every file system knows the flag.
                    Err(Errno::INVAL | Errno::NOSYS) => self.link_and_unlink(from, to)?,
                    renamed => renamed?,
                }
            }
        }
        Ok(())
    }

    /// Renames where the kernel cannot refuse a taken name. The new name appears in one step or not at all; a crash
    /// between the two steps leaves both names.
    fn link_and_unlink(&self, from: &Path, to: &Path) -> rustix::io::Result<()> {
        let at = &self.descriptor;
        rustix::fs::linkat(at, from, at, to, AtFlags::empty())?;
        rustix::fs::unlinkat(at, from, AtFlags::empty())
    }

    /// Removes a file's name.
    pub(crate) fn remove(&self, name: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(
            &self.descriptor,
            name,
            AtFlags::empty(),
        )?)
    }

    /// Creates a directory.
    pub(crate) fn create_directory(&self, name: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.descriptor, name, DIRECTORY_MODE)?)
    }

    /// Makes durable which names a directory holds.
    pub(crate) fn sync(&self, name: &Path) -> io::Result<()> {
        let directory = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        // Not tried again on EINTR: whether an interrupted sync may be believed later, nobody says.
        Ok(rustix::fs::fsync(directory)?)
    }

    /// Lists a directory, sorted by name. Names that are not UTF-8 are none of ours and left out.
    pub(crate) fn list(&self, name: &Path) -> io::Result<Vec<Entry>> {
        let directory = self.open_at(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if matches!(name, "." | "..") {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Removed or renamed since its name was read.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => 0,
                _ => u64::try_from(stat.st_size).unwrap_or(0),
            };
            entries.push(Entry {
                name: name.to_owned(),
                bytes,
            });
        }
        entries.sort();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renaming_by_link_refuses_a_taken_name_and_leaves_only_the_new_one() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        for name in ["a", "b"] {
            drop(directory.create(name.as_ref()).unwrap());
        }
        assert_eq!(
            directory.link_and_unlink("a".as_ref(), "b".as_ref()),
            Err(Errno::EXIST)
        );
        directory
            .link_and_unlink("a".as_ref(), "c".as_ref())
            .unwrap();
        let names: Vec<_> = directory.list(".".as_ref()).unwrap();
        let names: Vec<&str> = names.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        drop(directory.create("file".as_ref()).unwrap());
        std::os::unix::fs::symlink("file", place.path().join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", place.path().join("dangling")).unwrap();

        for name in ["link", "dangling"] {
            let name = Path::new(name);
            assert!(directory.read(name).is_err());
            assert!(directory.open_or_create(name).is_err());
            assert_eq!(
                directory.create(name).unwrap_err().kind(),
                io::ErrorKind::AlreadyExists
            );
        }
        assert!(!place.path().join("nowhere").exists());
    }
}

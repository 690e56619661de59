//! Where a restored disk goes: a new file that appears when it is whole, or a disk overwritten in place.

use crate::directory::Directory;
use crate::disk_file::{DiskFile, FileKind};
use crate::{Existing, OsRandom, Random};
use rustix::fs::OFlags;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a path cannot take a disk.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Something that cannot hold a disk stands there, or something that must be opened in place and not replaced.
    #[error("{} is {kind}: it cannot take a disk this way", path.display())]
    NotADisk {
        /// Where it stands.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// A path without a last part, such as `new/`.
    #[error("{} does not name a file", path.display())]
    NoName {
        /// What was given.
        path: PathBuf,
    },
    /// A mounted or otherwise used block device.
    #[error("{} is in use", path.display())]
    InUse {
        /// Where it stands.
        path: PathBuf,
    },
    /// It cannot be opened or created.
    #[error("cannot write {}", path.display())]
    Open {
        /// Where it stands.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A file or block device that a disk is written to. Threads may share it.
#[derive(Debug)]
pub struct TargetFile {
    disk: DiskFile,
    unpublished: Option<Unpublished>,
}

/// A temporary file beside its destination; removed when dropped.
#[derive(Debug)]
struct Unpublished {
    directory: Directory,
    name: OsString,
    destination: OsString,
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // Nobody to tell; what stays says by its name what it is.
        let _ = self.directory.remove(Path::new(&self.name));
    }
}

impl TargetFile {
    /// Creates a temporary file, `.<name>.tegula-<random>`, beside the destination. It becomes the destination by
    /// [`Self::publish`] and is removed if dropped before. A symbolic link at the destination will be replaced, not
    /// followed.
    ///
    /// # Errors
    /// [`TargetError::NotADisk`] if something else than a regular file stands at the destination.
    pub fn create_beside(destination: &Path) -> Result<Self, TargetError> {
        let path = || destination.to_owned();
        let failed = |source| TargetError::Open {
            path: path(),
            source,
        };
        // What ends in a slash, or in a dot behind one, means a directory: no name is left out without a word.
        let whole = destination.as_os_str().as_bytes();
        let name = destination
            .file_name()
            .filter(|name| whole.ends_with(name.as_bytes()));
        match std::fs::metadata(destination).map(|metadata| FileKind::of(&metadata)) {
            Ok(FileKind::Regular) => {}
            Ok(kind) => return Err(TargetError::NotADisk { path: path(), kind }),
            // A dangling link counts as absent too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let name = name.ok_or_else(|| TargetError::NoName { path: path() })?;
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = Directory::open(parent).map_err(failed)?;
        let (temporary, file) = create_temporary(&directory, name).map_err(failed)?;
        let unpublished = Unpublished {
            directory,
            name: temporary,
            destination: name.to_owned(),
        };
        let disk = DiskFile::new(file).map_err(failed)?;
        Ok(Self {
            disk: disk.map_err(|kind| TargetError::NotADisk { path: path(), kind })?,
            unpublished: Some(unpublished),
        })
    }

    /// Opens an existing regular file or block device to overwrite it; symbolic links are followed.
    ///
    /// # Errors
    /// [`TargetError::NotADisk`] for anything else that stands there, [`TargetError::InUse`] for a device that is
    /// mounted or otherwise held.
    pub fn open_in_place(destination: &Path) -> Result<Self, TargetError> {
        let path = || destination.to_owned();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ResourceBusy => TargetError::InUse { path: path() },
            _ => TargetError::Open {
                path: path(),
                source,
            },
        };
        let refused = |kind| TargetError::NotADisk { path: path(), kind };
        // Looked at before and after it is opened, for the reasons `RawSource::open` has.
        let kind = FileKind::of(&std::fs::metadata(destination).map_err(failed)?);
        let flags = match kind {
            FileKind::Regular => OFlags::NONBLOCK,
            // Without O_CREAT, O_EXCL asks that nobody has the device mounted.
            FileKind::BlockDevice => OFlags::NONBLOCK | OFlags::EXCL,
            kind => return Err(refused(kind)),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed())
            .open(destination)
            .map_err(failed)?;
        let disk = DiskFile::new(file).map_err(failed)?.map_err(refused)?;
        rustix::fs::fcntl_setfl(disk.file(), OFlags::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(Self {
            disk,
            unpublished: None,
        })
    }

    /// Returns its length in bytes, as of now.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn bytes(&self) -> io::Result<u64> {
        self.disk.bytes()
    }

    /// Tells whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.disk.is_block_device()
    }

    /// Returns what tells this disk from every other one that is there now: the numbers of its file system and its file,
    /// or, of a block device, of the device.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.disk.file().metadata()?;
        Ok(match self.is_block_device() {
            true => (0, metadata.rdev()),
            false => (metadata.dev(), metadata.ino()),
        })
    }

    /// Makes a regular file this long; new bytes are a hole.
    ///
    /// # Errors
    /// `Unsupported` for a block device.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        if self.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a block device has the length it has",
            ));
        }
        self.disk.file().set_len(bytes)
    }

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// Whatever the system says. Part of the bytes may have been written.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write_at(bytes, offset)
    }

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if it ends before.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_at(buffer, offset)
    }

    /// Returns the next range at or after `from` that may hold something else than zeros; `None` if there is none
    /// before the end. Where holes are not known, all is data.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.disk.next_data(from, self.disk.bytes()?)
    }

    /// Makes a range read as zeros: as a hole where that is possible, else by writing.
    ///
    /// # Errors
    /// `InvalidInput` for a range past the end: the length never changes by this.
    pub fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| self.disk.bytes().is_ok_and(|bytes| end > bytes)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length} bytes at {offset} are past the end"),
            ));
        }
        self.disk.zero_range(offset, length)
    }

    /// Makes all bytes durable. After an error nothing written before may be believed durable.
    ///
    /// # Errors
    /// Whatever the device says.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    /// Makes the bytes durable and gives the file its destination's name, in one step, durably. A disk opened in place
    /// has its name: it is only synced.
    ///
    /// # Errors
    /// `AlreadyExists` with [`Existing::Refuse`] if the name was taken. After an error before the renaming the
    /// temporary file is removed and the destination is as it was; if only the directory's sync failed, the destination
    /// is there but may not survive a crash.
    pub fn publish(mut self, existing: Existing) -> io::Result<()> {
        self.sync()?;
        let Some(unpublished) = self.unpublished.take() else {
            return Ok(());
        };
        let (from, to) = (
            Path::new(&unpublished.name),
            Path::new(&unpublished.destination),
        );
        unpublished.directory.rename(from, to, existing)?;
        // Dropping `unpublished` removes the temporary name, which is gone: nobody else has a name like it.
        unpublished.directory.sync(Path::new("."))
    }
}

/// Creates a file of a name nobody else has.
fn create_temporary(directory: &Directory, name: &OsStr) -> io::Result<(OsString, File)> {
    // File systems allow names of 255 bytes; the rest is ours.
    let shown = name.as_bytes();
    let shown = OsStr::from_bytes(shown.get(..200).unwrap_or(shown));
    loop {
        let random = u128::from_le_bytes(OsRandom.id()?) >> 64;
        let mut temporary = OsString::from(".");
        temporary.push(shown);
        temporary.push(format!(".tegula-{random:016x}"));
        match directory.create(Path::new(&temporary)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (temporary, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(place: &Path) -> Vec<String> {
        let entries = Directory::open(place)
            .unwrap()
            .list(Path::new("."))
            .unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    fn content(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_target_appears_whole_when_published_and_leaves_nothing_when_dropped() {
        let place = tempfile::tempdir().unwrap();
        let destination = place.path().join("disk.raw");

        let dropped = TargetFile::create_beside(&destination).unwrap();
        dropped.write_at(b"half", 0).unwrap();
        let temporary = names(place.path());
        assert!(
            temporary[0].starts_with(".disk.raw.tegula-"),
            "{temporary:?}"
        );
        drop(dropped);
        assert_eq!(names(place.path()), [""; 0]);

        let target = TargetFile::create_beside(&destination).unwrap();
        target.set_len(4).unwrap();
        target.write_at(b"wh", 0).unwrap();
        target.write_at(b"at", 2).unwrap();
        assert!(!destination.exists());
        target.publish(Existing::Refuse).unwrap();
        assert_eq!(content(&destination), b"what");
        assert_eq!(names(place.path()), ["disk.raw"]);
    }

    #[test]
    fn an_existing_destination_is_kept_or_replaced_as_asked() {
        let place = tempfile::tempdir().unwrap();
        let destination = place.path().join("disk.raw");
        let publish = |bytes: &[u8], existing| {
            let target = TargetFile::create_beside(&destination).unwrap();
            target.write_at(bytes, 0).unwrap();
            target.publish(existing)
        };
        publish(b"first", Existing::Refuse).unwrap();
        let error = publish(b"second", Existing::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(content(&destination), b"first");
        publish(b"third", Existing::Replace).unwrap();
        assert_eq!(content(&destination), b"third");
        assert_eq!(names(place.path()), ["disk.raw"]);
    }

    #[test]
    fn a_target_in_place_is_overwritten_where_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = TargetFile::open_in_place(file.path()).unwrap();
        target.set_len(6).unwrap();
        target.write_at(b"abc", 3).unwrap();
        target.zero_range(4, 1).unwrap();
        assert_eq!(
            target.zero_range(4, 3).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        let mut found = [1; 6];
        target.read_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"\0\0\0a\0c");
        assert_eq!(target.bytes().unwrap(), 6);
        target.publish(Existing::Refuse).unwrap();
        assert_eq!(content(file.path()), b"\0\0\0a\0c");
    }

    #[test]
    fn what_cannot_hold_a_disk_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let cases = [
            (place.path(), FileKind::Directory),
            (fifo.as_path(), FileKind::Fifo),
            (Path::new("/dev/null"), FileKind::CharacterDevice),
        ];
        for (path, expected) in cases {
            for open in [TargetFile::create_beside, TargetFile::open_in_place] {
                match open(path) {
                    Err(TargetError::NotADisk { kind, .. }) => assert_eq!(kind, expected),
                    other => panic!("{}: {other:?}", path.display()),
                }
            }
        }
        for end in ["new/", "new/.", "new//"] {
            assert!(matches!(
                TargetFile::create_beside(&place.path().join(end)),
                Err(TargetError::NoName { .. })
            ));
        }
        assert_eq!(names(place.path()), ["fifo"]);
    }

    #[test]
    fn a_long_name_leaves_room_for_the_temporary_one() {
        let place = tempfile::tempdir().unwrap();
        let destination = place.path().join("d".repeat(255));
        let target = TargetFile::create_beside(&destination).unwrap();
        target.publish(Existing::Refuse).unwrap();
        assert!(destination.exists());
    }
}

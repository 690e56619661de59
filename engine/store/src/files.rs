//! Whole small files: read at once, written so that a reader finds all of one or nothing.

use crate::{Environment, StoreError, paths};
use std::io::{self, ErrorKind};
use tegula_io::{Buffer, Existing, Mapped, NewFile, StorePath};

/// The largest file that is read into memory at once; larger ones are mapped.
const WHOLE_FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads a whole small file.
pub(crate) fn read_whole(
    environment: &Environment,
    path: &StorePath,
) -> Result<Buffer, StoreError> {
    let file = environment
        .storage
        .open(path)
        .map_err(StoreError::io("open", path))?;
    if file.bytes() > WHOLE_FILE_BYTES_MAX {
        let text = format!("{} bytes are too many for such a file", file.bytes());
        let source = io::Error::new(ErrorKind::FileTooLarge, text);
        return Err(StoreError::Io {
            action: "read",
            path: path.clone(),
            source,
        });
    }
    let length = usize::try_from(file.bytes()).expect("because the length was just limited");
    file.read_at(0, length)
        .wait()
        .map_err(StoreError::io("read", path))
}

/// Reads a whole small file, or `None` if there is none.
pub(crate) fn read_if_present(
    environment: &Environment,
    path: &StorePath,
) -> Result<Option<Buffer>, StoreError> {
    match read_whole(environment, path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much of a table of rows is handed to the storage at once.
const ROWS_PIECE_BYTES: usize = 1 << 20;

/// A file in the temporary directory. Unless it is published it is taken away again; whoever is killed before leaves
/// it to garbage collection.
#[derive(Debug)]
pub(crate) struct TemporaryFile<'a> {
    environment: &'a Environment,
    path: StorePath,
    file: Option<Box<dyn NewFile>>,
}

impl<'a> TemporaryFile<'a> {
    pub(crate) fn create(environment: &'a Environment) -> Result<Self, StoreError> {
        let directory = paths::directory(paths::TMP);
        let random = environment
            .random
            .id()
            .map_err(StoreError::io("name a file in", &directory))?;
        let path = paths::tmp(&random);
        let file = with_directory(environment, &directory, || {
            environment.storage.create(&path)
        })
        .map_err(StoreError::io("create", &path))?;
        Ok(Self {
            environment,
            path,
            file: Some(file),
        })
    }

    pub(crate) fn append(&mut self, bytes: Buffer) -> Result<(), StoreError> {
        let file = self
            .file
            .as_mut()
            .expect("because only publish() and drop() take it");
        file.append(bytes)
            .map_err(StoreError::io("write", &self.path))
    }

    /// Leaves room at the start of the file, which is still empty, for [`Self::fill`].
    pub(crate) fn reserve(&mut self, bytes: usize) {
        let file = self.file.as_mut();
        file.expect("because only publish() and drop() take it")
            .reserve(bytes);
    }

    /// Writes what room was left for.
    pub(crate) fn fill(&mut self, bytes: Buffer) -> Result<(), StoreError> {
        let file = self.file.as_mut();
        file.expect("because only publish() and drop() take it")
            .fill(bytes)
            .map_err(StoreError::io("write", &self.path))
    }

    /// Returns where it stands until it is published.
    pub(crate) fn path(&self) -> &StorePath {
        &self.path
    }

    /// Maps what was appended so far; it is not synced.
    pub(crate) fn map(&mut self) -> Result<Mapped, StoreError> {
        let file = self
            .file
            .as_mut()
            .expect("because only publish() and drop() take it");
        file.flush().map_err(StoreError::io("write", &self.path))?;
        let opened = self
            .environment
            .storage
            .open(&self.path)
            .map_err(StoreError::io("open", &self.path))?;
        opened.map().map_err(StoreError::io("map", &self.path))
    }

    /// Appends rows of one length in pieces of about [`ROWS_PIECE_BYTES`].
    pub(crate) fn append_rows<const BYTES: usize>(
        &mut self,
        rows: impl Iterator<Item = [u8; BYTES]>,
    ) -> Result<(), StoreError> {
        let mut piece = Buffer::with_capacity(ROWS_PIECE_BYTES);
        for row in rows {
            if piece.len() + BYTES > ROWS_PIECE_BYTES {
                let next = Buffer::with_capacity(ROWS_PIECE_BYTES);
                self.append(std::mem::replace(&mut piece, next))?;
            }
            piece.as_vec_mut().extend_from_slice(&row);
        }
        self.append(piece)
    }

    /// Makes the content durable, then the name: synced, renamed, directory synced.
    pub(crate) fn publish(mut self, to: &StorePath, existing: Existing) -> Result<(), StoreError> {
        let mut file = self
            .file
            .take()
            .expect("because only publish() and drop() take it");
        let storage = &self.environment.storage;
        let done = file
            .sync()
            .map_err(StoreError::io("sync", &self.path))
            .and_then(|()| {
                with_directory(self.environment, &to.parent(), || {
                    storage.rename(&self.path, to, existing)
                })
                .map_err(StoreError::io("publish", to))
            });
        if done.is_err() {
            // The lock goes with the handle, so the name goes first.
            drop(storage.remove(&self.path));
        }
        done?;
        drop(file);
        sync_directory(self.environment, &to.parent())
    }
}

/// A durable file that waits under no name that counts, to be put back in another's place by a mere rename.
#[derive(Debug)]
pub(crate) struct Spare<'a>(TemporaryFile<'a>);

impl<'a> Spare<'a> {
    /// Writes the file and makes its bytes durable.
    pub(crate) fn prepare(environment: &'a Environment, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut temporary = TemporaryFile::create(environment)?;
        temporary.append(Buffer::copied(bytes))?;
        let file = temporary
            .file
            .as_mut()
            .expect("because only publish() and drop() take it");
        file.sync()
            .map_err(StoreError::io("sync", &temporary.path))?;
        Ok(Self(temporary))
    }

    /// Gives the file the name, in place of whatever has it. Whether that lasts, a failed sync before leaves open.
    pub(crate) fn put_back(mut self, to: &StorePath) -> Result<(), StoreError> {
        let TemporaryFile {
            environment,
            ref path,
            ..
        } = self.0;
        environment
            .storage
            .rename(path, to, Existing::Replace)
            .map_err(StoreError::io("put back", to))?;
        self.0.file = None;
        drop(sync_directory(environment, &to.parent()));
        Ok(())
    }
}

impl Drop for TemporaryFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If this fails the file is abandoned, and collection takes it.
            drop(self.environment.storage.remove(&self.path));
        }
    }
}

/// Writes a whole file and makes it durable under its name.
pub(crate) fn publish(
    environment: &Environment,
    path: &StorePath,
    bytes: &[u8],
    existing: Existing,
) -> Result<(), StoreError> {
    let mut file = TemporaryFile::create(environment)?;
    file.append(Buffer::copied(bytes))?;
    file.publish(path, existing)
}

/// Removes a file if it is there; the removal is durable after [`sync_directory`].
pub(crate) fn remove_if_present(
    environment: &Environment,
    path: &StorePath,
) -> Result<bool, StoreError> {
    match environment.storage.remove(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// The action in the error of a failed [`sync_directory`].
pub(crate) const SYNC_DIRECTORY: &str = "sync directory";

pub(crate) fn sync_directory(
    environment: &Environment,
    path: &StorePath,
) -> Result<(), StoreError> {
    environment
        .storage
        .sync_directory(path)
        .map_err(StoreError::io(SYNC_DIRECTORY, path))
}

/// Lists one of the store's directories. One that holds nothing which could not be made again counts as empty if it is
/// missing: somebody tidied up, or a copy left out what was empty.
pub(crate) fn list(
    environment: &Environment,
    name: &str,
) -> Result<Vec<tegula_io::Entry>, StoreError> {
    let path = paths::directory(name);
    match environment.storage.list(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match is_dispensable(&path) {
            true => Ok(Vec::new()),
            false => Err(StoreError::DirectoryMissing { path }),
        },
        listed => listed.map_err(StoreError::io("list", &path)),
    }
}

/// Tells whether a directory may be missing.
fn is_dispensable(path: &StorePath) -> bool {
    [paths::INDEX, paths::QUARANTINE, paths::TMP, paths::LOCKS].contains(&path.as_str())
}

/// Does something in a directory; if that is missing and may be, it is made, and the thing tried once more.
pub(crate) fn with_directory<T>(
    environment: &Environment,
    directory: &StorePath,
    act: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    match act() {
        Err(error) if error.kind() == ErrorKind::NotFound && is_dispensable(directory) => {
            make_directory(environment, directory)?;
            act()
        }
        done => done,
    }
}

/// Makes a directory of the store unless it is there, durably.
pub(crate) fn make_directory(environment: &Environment, path: &StorePath) -> io::Result<()> {
    match environment.storage.create_directory(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| environment.storage.sync_directory(&StorePath::root())),
    }
}

//! What a pull has so far: a small file beside the disk that also keeps two pulls from the same place.
//!
//! It says what the bytes are that were fetched. It is written before the first of them, so bytes are never taken for
//! those of something else; whether they are whole and right is found out by looking at them.

use super::{PullError, Pulled};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is fetched, as the server named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entity {
    /// From where.
    pub(super) url: String,
    /// The strong entity tag, if the server gave one.
    pub(super) tag: Option<String>,
    /// Its length.
    pub(super) total: u64,
}

/// What is to come of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Expected {
    /// The image's length.
    pub(super) size: Option<u64>,
    /// The image's digest, in hexadecimal form.
    pub(super) digest: Option<String>,
    /// The base's digest.
    pub(super) base_digest: Option<String>,
    /// The base image's id.
    pub(super) base_image: Option<String>,
}

/// A new disk that is whole and synced, and only has to get its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The file, whatever name it has.
    pub(super) file: Stamp,
    /// What is to be told of it.
    pub(super) pulled: Pulled,
}

/// What tells a file that nobody has written to since from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    written_s: i64,
    written_ns: i64,
}

impl Stamp {
    /// The stamp of a file, if there is one of that name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            written_s: metadata.mtime(),
            written_ns: metadata.mtime_nsec(),
        })
    }
}

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// What the command was asked for: another request begins anew.
    pub(super) request: String,
    pub(super) expected: Expected,
    pub(super) entity: Option<Entity>,
    /// Whether a delta was fetched to its end.
    pub(super) complete: bool,
    /// What was made of it.
    pub(super) made: Option<Made>,
}

/// The file, held by this process alone.
#[derive(Debug)]
pub(super) struct State {
    path: PathBuf,
    file: File,
    pub(super) saved: Saved,
    /// Whether nothing was there of the same request.
    pub(super) fresh: bool,
}

impl State {
    /// Opens it, or creates it; what it says of another request is forgotten.
    ///
    /// # Errors
    /// [`PullError::Busy`] if another process has it; [`PullError::File`].
    pub(super) fn open(path: PathBuf, request: String) -> Result<Self, PullError> {
        loop {
            let mut file = open_private(&path).map_err(PullError::file("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(PullError::Busy { path }),
                Err(TryLockError::Error(source)) => {
                    return Err(PullError::file("lock", &path)(source));
                }
            }
            // Whoever had it may have removed it between our opening and our locking.
            if !is_at(&file, &path) {
                continue;
            }
            let mut text = String::new();
            let read = (&mut file).take(1 << 20).read_to_string(&mut text);
            let saved: Option<Saved> = read.ok().and_then(|_| serde_json::from_str(&text).ok());
            let saved = saved.filter(|saved| saved.request == request);
            let fresh = saved.is_none();
            let saved = saved.unwrap_or_else(|| Saved {
                request,
                ..Saved::default()
            });
            return Ok(Self {
                path,
                file,
                saved,
                fresh,
            });
        }
    }

    /// Writes it down, durably.
    pub(super) fn save(&mut self) -> Result<(), PullError> {
        let text = serde_json::to_string(&self.saved).expect("because it is a plain struct");
        let file = &mut self.file;
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(text.as_bytes()))
            .and_then(|()| file.sync_data())
            .map_err(PullError::file("write", &self.path))
    }

    /// Removes it: there is nothing to go on with.
    pub(super) fn remove(self) -> Result<(), PullError> {
        std::fs::remove_file(&self.path).map_err(PullError::file("remove", &self.path))
    }
}

/// Opens a file for reading and writing, or creates it for its owner alone. Symbolic links are not followed.
pub(super) fn open_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow())
        .open(path)
}

/// Returns the flag under which a symbolic link is not opened.
pub(super) fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}

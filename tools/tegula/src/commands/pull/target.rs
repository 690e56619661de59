//! Where a pulled image goes, and what stands beside it until it is there.

use super::base::{self, Copied};
use super::image::Image;
use super::state::{Made, Stamp, State, no_follow};
use super::{PullError, Pulled};
use crate::progress::Progress;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A disk to be made or patched.
#[derive(Debug)]
pub(super) struct Target {
    disk: PathBuf,
    base: Option<PathBuf>,
    /// Whether base and disk are the same.
    in_place: bool,
    device: bool,
    work_directory: PathBuf,
}

impl Target {
    /// Looks at what there is.
    ///
    /// # Errors
    /// [`PullError::File`] if there is no such base; [`PullError::Device`] if it is a device and there is no place for the
    /// files of the pull.
    pub(super) fn of(
        disk: &Path,
        base: Option<&Path>,
        work_directory: Option<&Path>,
    ) -> Result<Self, PullError> {
        let found = match std::fs::metadata(disk) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(PullError::file("look at", disk)(error)),
        };
        let device = found
            .as_ref()
            .is_some_and(|found| found.file_type().is_block_device());
        let name = disk.file_name();
        let usable = name.is_some() && found.as_ref().is_none_or(|found| found.is_file() || device);
        if !usable {
            let source = io::Error::other("it is no regular file and no block device");
            return Err(PullError::file("write", disk)(source));
        }
        let in_place = match base {
            None => false,
            Some(base) => {
                let there = std::fs::metadata(base).map_err(PullError::file("open", base))?;
                let same = |found: &std::fs::Metadata| match device {
                    true => there.file_type().is_block_device() && found.rdev() == there.rdev(),
                    false => (found.dev(), found.ino()) == (there.dev(), there.ino()),
                };
                found.as_ref().is_some_and(same)
            }
        };
        let beside = match disk.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let work_directory = match (work_directory, device) {
            (Some(directory), _) => directory,
            (None, false) => beside,
            (None, true) => {
                let reason = "nothing durable can be kept beside it: --work-dir names a directory";
                let path = disk.to_owned();
                return Err(PullError::Device { path, reason });
            }
        };
        Ok(Self {
            disk: disk.to_owned(),
            base: base.map(Path::to_owned),
            in_place,
            device,
            work_directory: work_directory.to_owned(),
        })
    }

    fn beside(&self, directory: &Path, ending: &str) -> PathBuf {
        let mut name = OsString::from(self.disk.file_name().unwrap_or_default());
        name.push(ending);
        directory.join(name)
    }

    /// Returns where it is written down how far the pull is.
    pub(super) fn state_path(&self) -> PathBuf {
        self.beside(&self.work_directory, ".tegula-pull")
    }

    /// Returns where a delta is gathered.
    pub(super) fn delta_path(&self) -> PathBuf {
        self.beside(&self.work_directory, ".tegula-delta")
    }

    /// Returns where a new disk is made. It is where the disk will be, to get its name in one step.
    pub(super) fn part_path(&self) -> PathBuf {
        let directory = self.disk.parent().unwrap_or(Path::new(""));
        self.beside(directory, ".tegula-part")
    }

    /// Returns where the journal of the patching is.
    pub(super) fn journal_path(&self) -> PathBuf {
        self.beside(&self.work_directory, ".tegula-journal")
    }

    /// Returns the file or device that a delta is applied to.
    pub(super) fn patched_path(&self) -> PathBuf {
        match self.in_place {
            true => self.disk.clone(),
            false => self.part_path(),
        }
    }

    /// Refuses to take a place that is taken.
    pub(super) fn check_room_for_new(&self, force: bool) -> Result<(), PullError> {
        let taken = !self.in_place && !self.device && self.disk.symlink_metadata().is_ok();
        match taken && !force {
            true => Err(PullError::Exists {
                path: self.disk.clone(),
            }),
            false => Ok(()),
        }
    }

    /// Refuses a device that no delta can be applied to.
    pub(super) fn check_delta(&self) -> Result<(), PullError> {
        match self.device && !self.in_place {
            true => Err(PullError::Device {
                path: self.disk.clone(),
                reason: "it can only be patched: --base must name it too, and it must hold that image",
            }),
            false => Ok(()),
        }
    }

    /// Refuses a device for a whole image.
    pub(super) fn check_whole(&self) -> Result<(), PullError> {
        match self.device {
            true => Err(PullError::Device {
                path: self.disk.clone(),
                reason: "the service knows no increments to patch it with",
            }),
            false => Ok(()),
        }
    }

    /// Refuses a base file of another length than the image it is said to hold: before anything is fetched. Whether it
    /// holds the image is found out later, by its digest.
    pub(super) fn check_base_length(&self, held: &Image, wanted: &Image) -> Result<(), PullError> {
        let Some((base, expected)) = self.base.as_ref().zip(held.size) else {
            return Ok(());
        };
        let metadata = std::fs::metadata(base).map_err(PullError::file("look at", base))?;
        // In place it may have become the wanted one, in part or as a whole.
        let begun =
            self.in_place && (self.journal_path().exists() || wanted.size == Some(metadata.len()));
        match metadata.is_file() && metadata.len() != expected && !begun {
            true => Err(PullError::BaseLength {
                base: base.clone(),
                image: held.id.clone(),
                expected,
                found: metadata.len(),
            }),
            false => Ok(()),
        }
    }

    /// Prepares what a delta is applied to: nothing in place, else a copy of the base or an empty file. One that was
    /// patched in part is left as it is.
    pub(super) fn prepare(&self, progress: &Progress) -> Result<Option<Copied>, PullError> {
        let patched_before = self
            .journal_path()
            .metadata()
            .is_ok_and(|found| found.len() > 0);
        if self.in_place || (patched_before && self.part_path().exists()) {
            return Ok(None);
        }
        if patched_before {
            self.remove_if_there(&self.journal_path())?;
        }
        let path = self.part_path();
        let part = open_new(&path)?;
        part.set_len(0).map_err(PullError::file("empty", &path))?;
        let Some(base) = &self.base else {
            return Ok(None);
        };
        let file = File::open(base).map_err(PullError::file("open", base))?;
        let progress = |done, total| progress.update(done, Some(total));
        base::copy((&file, base), (&part, &path), progress).map(Some)
    }

    /// Throws away what was made of a copy, so that it is made anew. What is patched in place is no copy.
    pub(super) fn discard_part(&self) -> Result<(), PullError> {
        if self.in_place {
            return Ok(());
        }
        self.remove_if_there(&self.part_path())?;
        self.remove_if_there(&self.journal_path())
    }

    /// Tells whether what is patched is the only copy of the base.
    pub(super) fn is_in_place(&self) -> bool {
        self.in_place
    }

    pub(super) fn remove_delta(&self) -> Result<(), PullError> {
        self.remove_if_there(&self.delta_path())
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), PullError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PullError::file("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether a file that was made is still there, under either of its names.
    pub(super) fn has(&self, made: &Stamp) -> bool {
        let names = [self.part_path(), self.disk.clone()];
        names.iter().any(|path| Stamp::of(path) == Some(*made))
    }

    /// Gives the new disk its name, and takes away what stands beside it. That it is whole is written down before, and
    /// forgotten last: in between the same command only has this left to do.
    pub(super) fn finish(&self, mut state: State, pulled: &Pulled) -> Result<(), PullError> {
        let path = self.part_path();
        if let Some(file) = Stamp::of(&path).filter(|_| !self.in_place) {
            let part = File::open(&path).map_err(PullError::file("open", &path))?;
            part.sync_all().map_err(PullError::file("sync", &path))?;
            let pulled = pulled.clone();
            state.saved.made = Some(Made { file, pulled });
            state.save()?;
        }
        self.remove_delta()?;
        if state.saved.made.is_some() {
            self.name_part()?;
        }
        state.remove()
    }

    /// Gives the new disk its name, durably, if it does not have it yet.
    fn name_part(&self) -> Result<(), PullError> {
        let path = self.part_path();
        if path.exists() {
            std::fs::rename(&path, &self.disk).map_err(PullError::file("rename", &path))?;
        }
        let directory = self.disk.parent();
        let directory = directory.filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(PullError::file("sync", directory))
    }
}

/// Opens the file that becomes the disk, or creates it. Symbolic links are not followed.
pub(super) fn open_new(path: &Path) -> Result<File, PullError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(no_follow())
        .open(path)
        .map_err(PullError::file("open", path))
}

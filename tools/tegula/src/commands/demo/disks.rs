//! Making the disks, changing one, and comparing two byte for byte.

use super::DemoError;
use super::files::{Selection, SourceFile};
use super::tools::Tools;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The length of the disks.
pub(crate) const DISK_MEBIBYTES: u64 = 512;

/// Of the documentation on the first disk, one file in so many is removed from the changed one.
const REMOVED_ONE_IN: usize = 6;

/// So many programs get other bytes where they are.
const PATCHED_FILES: usize = 12;

/// Bytes compared at once.
const PIECE_BYTES: u64 = 1 << 20;

/// What was changed.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) written: usize,
    pub(crate) removed: usize,
    pub(crate) patched: usize,
    /// Whether the blocks of removed files were given back.
    pub(crate) trimmed: bool,
}

/// Makes disks out of the machine's files.
#[derive(Debug)]
pub(crate) struct Workshop<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) place: &'a Path,
    pub(crate) interrupted: &'a AtomicBool,
}

impl Workshop<'_> {
    /// Makes a disk that holds the selection's first files.
    pub(crate) fn make(&self, disk: &Path, selection: &Selection) -> Result<(), DemoError> {
        if selection.first.is_empty() {
            return Err(DemoError::NoFiles);
        }
        let content = self.place.join("content");
        for file in &selection.first {
            self.check()?;
            copy_below(&content, &file.path)?;
        }
        self.tools.make_disk(disk, &content, DISK_MEBIBYTES)?;
        self.check()?;
        fs::remove_dir_all(&content).map_err(DemoError::at("remove", &content))
    }

    /// Changes a disk as a machine changes its own: writes new files, removes some, patches some.
    pub(crate) fn change(&self, disk: &Path, selection: &Selection) -> Result<Changes, DemoError> {
        let documents = selection
            .first
            .iter()
            .filter(|file| is_below(file, "/usr/share/doc"));
        let removed: Vec<_> = documents.step_by(REMOVED_ONE_IN).collect();
        let programs = selection
            .first
            .iter()
            .filter(|file| is_below(file, "/usr/bin"));
        let patched: Vec<_> = programs
            .filter(|file| file.bytes > 64 << 10)
            .take(PATCHED_FILES)
            .collect();
        let mut script = String::from("mkdir /opt\nmkdir /opt/new\n");
        for (number, file) in selection.later.iter().enumerate() {
            script.push_str(&format!(
                "write {} /opt/new/{number}\n",
                file.path.display()
            ));
        }
        for file in &removed {
            script.push_str(&format!("rm {}\n", file.path.display()));
        }
        for file in &patched {
            let path = file.path.display();
            script.push_str(&format!("zap_block -f {path} -o 512 -l 1024 -p 84 3\n"));
        }
        let path = self.place.join("changes");
        let mut file = File::create(&path).map_err(DemoError::at("create", &path))?;
        file.write_all(script.as_bytes())
            .map_err(DemoError::at("write", &path))?;
        self.tools.change_disk(disk, &path)?;
        self.check()?;
        let trimmed = self.tools.trim_disk(disk)?;
        self.check()?;
        Ok(Changes {
            written: selection.later.len(),
            removed: removed.len(),
            patched: patched.len(),
            trimmed,
        })
    }

    /// Makes sure that two disks hold the same bytes.
    pub(crate) fn compare(&self, restored: &Path, original: &Path) -> Result<(), DemoError> {
        let file = File::open(restored).map_err(DemoError::at("open", restored))?;
        self.compare_bytes(file, restored, original)
    }

    /// Makes sure that a stream has the bytes of a disk.
    pub(crate) fn compare_stream(
        &self,
        stream: impl Read,
        original: &Path,
    ) -> Result<(), DemoError> {
        self.compare_bytes(stream, Path::new("what was downloaded"), original)
    }

    fn compare_bytes(
        &self,
        mut restored: impl Read,
        name: &Path,
        original: &Path,
    ) -> Result<(), DemoError> {
        let mut file = File::open(original).map_err(DemoError::at("open", original))?;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut offset = 0;
        loop {
            self.check()?;
            for (stream, piece, path) in [
                (&mut restored as &mut dyn Read, &mut left, name),
                (&mut file, &mut right, original),
            ] {
                piece.clear();
                let read = stream.take(PIECE_BYTES).read_to_end(piece);
                read.map_err(DemoError::at("read", path))?;
            }
            if left != right {
                let same = left.iter().zip(&right);
                let same = same.take_while(|(left, right)| left == right).count();
                return Err(DemoError::Differs {
                    restored: name.to_owned(),
                    original: original.to_owned(),
                    offset: offset + same as u64,
                });
            }
            if left.is_empty() {
                return Ok(());
            }
            offset += left.len() as u64;
        }
    }

    pub(crate) fn check(&self) -> Result<(), DemoError> {
        match self.interrupted.load(Ordering::SeqCst) {
            true => Err(DemoError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Returns the bytes of a file that take up room.
pub(crate) fn allocated_bytes(path: &Path) -> Result<u64, DemoError> {
    let metadata = fs::metadata(path).map_err(DemoError::at("look at", path))?;
    Ok(metadata.blocks() * 512)
}

fn is_below(file: &SourceFile, place: &str) -> bool {
    file.path.starts_with(place)
}

/// Copies a file to the same path below another root.
fn copy_below(root: &Path, file: &Path) -> Result<(), DemoError> {
    let relative = file.strip_prefix("/").unwrap_or(file);
    let copy: PathBuf = root.join(relative);
    let directory = copy.parent().unwrap_or(root);
    fs::DirBuilder::new()
        .recursive(true)
        .create(directory)
        .map_err(DemoError::at("create", directory))?;
    fs::copy(file, &copy)
        .map(drop)
        .map_err(DemoError::at("copy to", &copy))
}

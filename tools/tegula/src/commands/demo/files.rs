//! Which files of the machine go onto the disks: always the same ones, and never more than fits.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

/// Where files are taken from, and how many bytes at most go onto the first disk.
const PLACES: [(&str, u64); 3] = [
    ("/usr/share/doc", 20 << 20),
    ("/usr/bin", 48 << 20),
    ("/usr/lib", 72 << 20),
];

/// How many bytes, of the files that come after, are put onto the changed disk.
const LATER_BYTES: u64 = 10 << 20;

/// Files larger than this would be most of a disk.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Files of a place at most: thousands of small ones take longer than they are worth.
const PLACE_FILES_MAX: usize = 3000;

/// A file of the machine.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The files of the demonstration.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// What the first disk holds.
    pub(crate) first: Vec<SourceFile>,
    /// What the changed disk holds besides.
    pub(crate) later: Vec<SourceFile>,
}

impl Selection {
    /// Walks the machine's files in a fixed order until there are enough.
    pub(crate) fn of_machine() -> Self {
        let mut selection = Self::default();
        let mut later_bytes = 0;
        for (place, budget) in PLACES {
            let (mut bytes, mut files) = (0, 0);
            for file in Walk::new(Path::new(place)) {
                if bytes + file.bytes <= budget && files < PLACE_FILES_MAX {
                    bytes += file.bytes;
                    files += 1;
                    selection.first.push(file);
                } else if later_bytes + file.bytes <= LATER_BYTES {
                    later_bytes += file.bytes;
                    selection.later.push(file);
                } else {
                    break;
                }
            }
        }
        selection
    }
}

/// The regular files below a directory that can be read, directory by directory, by name.
#[derive(Debug)]
struct Walk {
    files: VecDeque<SourceFile>,
    directories: VecDeque<PathBuf>,
}

impl Walk {
    fn new(root: &Path) -> Self {
        Self {
            files: VecDeque::new(),
            directories: VecDeque::from([root.to_owned()]),
        }
    }

    fn enter(&mut self, directory: &Path) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if metadata.is_dir() {
                self.directories.push_back(path);
            } else if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX && is_usable(&path) {
                let bytes = metadata.len();
                self.files.push_back(SourceFile { path, bytes });
            }
        }
    }
}

/// debugfs splits its commands at spaces and quotes: names that would need care are left out.
fn is_usable(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    path.to_str().is_some_and(|text| text.chars().all(plain)) && fs::File::open(path).is_ok()
}

impl Iterator for Walk {
    type Item = SourceFile;

    fn next(&mut self) -> Option<SourceFile> {
        while self.files.is_empty() {
            let directory = self.directories.pop_front()?;
            self.enter(&directory);
        }
        self.files.pop_front()
    }
}

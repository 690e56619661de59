//! Bytes that are gathered outside of a store, to be read again: in memory while they are few, else in a file that has no
//! name, so that nothing is left of it whatever happens.

use crate::Mapped;
use crate::files::map_scratch;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes kept in memory before they go to a file.
const TAIL_BYTES_MAX: usize = 16 << 20;

/// Takes bytes in order.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    tail: Vec<u8>,
    file: Option<File>,
    written: u64,
}

impl Scratch {
    /// Begins with nothing. A file, should there be need of one, stands in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            tail: Vec::new(),
            file: None,
            written: 0,
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.tail.len() + bytes.len() > TAIL_BYTES_MAX {
            self.spill()?;
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(unnamed(&self.directory)?),
        };
        file.write_all(&self.tail)?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// Returns all bytes in one piece: mapped, if they went to a file.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn finish(mut self) -> io::Result<Mapped> {
        if self.file.is_some() {
            self.spill()?;
        }
        match self.file {
            None => Ok(Mapped::new(self.tail)),
            Some(file) => map_scratch(file, self.written),
        }
    }
}

/// Creates a file without a name.
fn unnamed(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(directory, flags, mode) {
        Ok(file) => Ok(File::from(file)),
        // Not every file system can; a name that is taken away at once does as well.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => named_for_a_moment(directory),
        Err(error) => Err(error.into()),
    }
}

fn named_for_a_moment(directory: &Path) -> io::Result<File> {
    use crate::directory::Directory;
    use crate::{OsRandom, Random};
    let directory = Directory::open(directory)?;
    let name = format!(
        ".tegula-scratch-{:032x}",
        u128::from_le_bytes(OsRandom.id()?)
    );
    let file = directory.create(name.as_ref())?;
    directory.remove(name.as_ref())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_gathered_reads_back_and_leaves_no_file() {
        let place = tempfile::tempdir().unwrap();
        for pieces in [0, 1, 40] {
            let mut scratch = Scratch::new(place.path());
            for piece in 0..pieces {
                scratch.append(&vec![piece; 1 << 20]).unwrap();
            }
            let mapped = scratch.finish().unwrap();
            let found = mapped.as_slice();
            assert_eq!(found.len(), usize::from(pieces) << 20);
            let right = |(at, byte): (usize, &u8)| usize::from(*byte) == at >> 20;
            assert!(found.iter().enumerate().all(right));
            assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        }
        assert!(named_for_a_moment(place.path()).is_ok());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}

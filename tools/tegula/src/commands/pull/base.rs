//! A copy of the base: shared with it where the file system can, with its holes otherwise.

use super::PullError;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// How the base came to be where it is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Copied {
    /// The two files share their blocks until one of them is written.
    Shared,
    /// Its data were copied; holes stayed holes.
    Copied,
}

/// Makes an empty file hold what the base holds.
///
/// # Errors
/// [`PullError::File`].
pub(super) fn copy(
    (base, base_path): (&File, &Path),
    (to, to_path): (&File, &Path),
    mut progress: impl FnMut(u64, u64),
) -> Result<Copied, PullError> {
    if ioctl_ficlone(to, base).is_ok() {
        return Ok(Copied::Shared);
    }
    let read_failed = |source| PullError::file("read", base_path)(source);
    let write_failed = |source| PullError::file("write", to_path)(source);
    // A device's length is where its end is.
    let length = seek(base, SeekFrom::End(0)).map_err(|errno| read_failed(errno.into()))?;
    to.set_len(length).map_err(write_failed)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut next = 0;
    while let Some((start, end)) = data_after(base, next, length).map_err(read_failed)? {
        next = start;
        while next < end {
            let wanted = usize::try_from(end - next)
                .unwrap_or(usize::MAX)
                .min(PIECE_BYTES);
            let piece = piece.get_mut(..wanted).expect("because it is no longer");
            base.read_exact_at(piece, next).map_err(read_failed)?;
            if piece.iter().any(|byte| *byte != 0) {
                to.write_all_at(piece, next).map_err(write_failed)?;
            }
            next += wanted as u64;
            progress(next, length);
        }
    }
    Ok(Copied::Copied)
}

/// Returns the next range that may hold something else than zeros.
fn data_after(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if from >= length {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // Not every file knows its holes.
        Err(_) => return Ok(Some((from, length))),
    };
    let end = seek(file, SeekFrom::Hole(start)).unwrap_or(length);
    Ok((start < length).then_some((start, end.min(length))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_bytes_and_no_more_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        let base = super::super::state::open_private(&a).unwrap();
        base.write_all_at(&[7; 5000], 3 << 20).unwrap();
        base.write_all_at(&[9; 10], 9 << 20).unwrap();
        base.set_len((12 << 20) + 5).unwrap();
        let to = super::super::state::open_private(&b).unwrap();
        copy((&base, &a), (&to, &b), |_, _| {}).unwrap();
        assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap());
        let blocks = |file: &File| file.metadata().unwrap().blocks();
        assert!(blocks(&to) <= blocks(&base) + 8, "holes were filled");
    }
}

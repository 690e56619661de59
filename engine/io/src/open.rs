//! The choice between io_uring and blocking files.

use crate::{FileStorage, Storage};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Which implementation a store's files should go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendPreference {
    /// io_uring if it is to be had, else blocking files.
    #[default]
    Auto,
    /// Blocking files.
    Blocking,
    /// io_uring or nothing.
    IoUring,
}

/// Opens the directory a store lives in. With the storage comes a notice to be shown once, if the preference could not
/// be followed to the letter.
///
/// # Errors
/// `NotFound` if there is no such directory; `Unsupported` if io_uring is asked for and not to be had.
pub fn open_storage(
    root: &Path,
    preference: BackendPreference,
) -> io::Result<(Arc<dyn Storage>, Option<String>)> {
    let blocking = || -> io::Result<Arc<dyn Storage>> { Ok(Arc::new(FileStorage::open(root)?)) };
    let unavailable = |reason: &io::Error| format!("io_uring is not available ({reason})");
    match preference {
        BackendPreference::Blocking => Ok((blocking()?, None)),
        BackendPreference::Auto => match ring() {
            Ok(()) => Ok((through_the_ring(root)?, None)),
            Err(reason) => {
                let notice = format!("{}; using blocking files", unavailable(&reason));
                Ok((blocking()?, Some(notice)))
            }
        },
        BackendPreference::IoUring => match ring() {
            Ok(()) => Ok((through_the_ring(root)?, None)),
            Err(reason) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                unavailable(&reason),
            )),
        },
    }
}

#[cfg(feature = "io-uring")]
fn ring() -> io::Result<()> {
    crate::uring::probe()
}

#[cfg(feature = "io-uring")]
fn through_the_ring(root: &Path) -> io::Result<Arc<dyn Storage>> {
    Ok(Arc::new(crate::UringStorage::open(root)?))
}

#[cfg(not(feature = "io-uring"))]
fn ring() -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "left out of this build",
    ))
}

#[cfg(not(feature = "io-uring"))]
fn through_the_ring(_root: &Path) -> io::Result<Arc<dyn Storage>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;

    #[test]
    fn the_preferred_backend_is_opened_or_it_is_said_why_not() {
        let place = tempfile::tempdir().unwrap();
        let open = |preference| open_storage(place.path(), preference);

        let (blocking, notice) = open(BackendPreference::Blocking).unwrap();
        assert_eq!((blocking.backend(), notice), (Backend::Blocking, None));

        let (any, notice) = open(BackendPreference::Auto).unwrap();
        match (ring(), open(BackendPreference::IoUring)) {
            (Ok(()), asked) => {
                assert_eq!((any.backend(), notice), (Backend::IoUring, None));
                assert_eq!(asked.unwrap().0.backend(), Backend::IoUring);
            }
            (Err(reason), asked) => {
                assert_eq!(any.backend(), Backend::Blocking);
                let expected =
                    format!("io_uring is not available ({reason}); using blocking files");
                assert_eq!(notice.unwrap(), expected);
                assert_eq!(asked.unwrap_err().kind(), io::ErrorKind::Unsupported);
            }
        }
    }

    #[test]
    fn a_place_that_is_not_there_is_not_found_whatever_the_preference() {
        let place = tempfile::tempdir().unwrap();
        for preference in [BackendPreference::Auto, BackendPreference::Blocking] {
            let error = open_storage(&place.path().join("absent"), preference).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}

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

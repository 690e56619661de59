//! Directories of the server's own.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes the directory that a file is to be in, and those above, for the server's user alone. Those that exist stay as they
/// are.
///
/// # Errors
/// Those of the file system.
pub(crate) fn make_above(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        _ => Ok(()),
    }
}

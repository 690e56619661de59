//! The administrator's token of a server that was not told who its callers are: made at the first start, kept in a file.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tegula_identity::{NewToken, Secret, TokenHash};

use crate::config::ConfigError;
use crate::directory;

/// Bits of a mode that let others read or write.
const OF_OTHERS: u32 = 0o077;
/// A token has at least so many characters: one that a person made up has fewer.
const CHARACTERS_MIN: usize = 32;
const CHARACTERS_MAX: usize = 1024;

const KEY: &str = "identity.admin_token.file";

/// The token, and where it is.
#[derive(Debug)]
pub(crate) struct AdminToken {
    token: Secret,
    path: PathBuf,
    made: bool,
}

impl AdminToken {
    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(self.token.reveal())
    }

    pub(crate) fn reveal(&self) -> &str {
        self.token.reveal()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was made just now, so that nobody knows it yet.
    pub(crate) fn was_made(&self) -> bool {
        self.made
    }
}

/// The token in the file, or a new one if there is no file.
///
/// # Errors
/// [`ConfigError::Value`] if the file is not one of a token, others may read it, or it cannot be read or made.
pub(crate) fn find_or_make(path: &Path) -> Result<AdminToken, ConfigError> {
    match find(path)? {
        Some(token) => Ok(token),
        None => make(path),
    }
}

/// The token in the file, if there is one.
///
/// # Errors
/// As [`find_or_make`].
pub(crate) fn find(path: &Path) -> Result<Option<AdminToken>, ConfigError> {
    let refuse = |text: String| ConfigError::value(KEY, format!("{}: {text}", path.display()));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mode = metadata.permissions().mode();
    if !metadata.is_file() {
        return Err(refuse("it is no file".to_owned()));
    }
    if mode & OF_OTHERS != 0 {
        return Err(refuse(format!(
            "others may read or change it (mode {:04o}): expected 0600",
            mode & 0o7777
        )));
    }
    let fits = metadata.len() <= CHARACTERS_MAX as u64;
    let text = if fits {
        std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?
    } else {
        String::new()
    };
    let token = text.trim();
    if token.len() < CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let expected =
            format!("expected one of {CHARACTERS_MIN} to {CHARACTERS_MAX} visible characters");
        return Err(refuse(format!(
            "there is no token in it: {expected}; remove it to have one made"
        )));
    }
    Ok(Some(AdminToken {
        token: Secret::new(token),
        path: path.to_owned(),
        made: false,
    }))
}

fn make(path: &Path) -> Result<AdminToken, ConfigError> {
    let refuse = |error: std::io::Error| {
        ConfigError::value(KEY, format!("cannot make {}: {error}", path.display()))
    };
    let token = NewToken::generate()
        .ok_or_else(|| ConfigError::value(KEY, "the system gives no randomness to make one of"))?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    directory::make_above(path).map_err(refuse)?;
    // Made whole under another name, readable by its owner alone, and put in place only if nothing is there.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(refuse)?;
    writeln!(file, "{}", token.reveal())
        .and_then(|()| file.as_file().sync_all())
        .map_err(refuse)?;
    file.persist_noclobber(path)
        .map_err(|error| refuse(error.error))?;
    std::fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(refuse)?;
    Ok(AdminToken {
        token: Secret::new(token.reveal()),
        path: path.to_owned(),
        made: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_that_was_made_is_found_and_nobody_else_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/admin-token");
        let made = find_or_make(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let found = find_or_make(&path).unwrap();
        assert_eq!((found.hash(), found.was_made()), (made.hash(), false));
        assert!(!format!("{found:?}").contains(found.reveal()));
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_token_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin-token");
        let good = "x".repeat(64);
        for (content, mode, expected) in [
            (good.as_str(), 0o640, "mode 0640"),
            (&good, 0o604, "mode 0604"),
            ("", 0o600, "no token"),
            ("secret\n", 0o600, "no token"),
            (&"x".repeat(2000), 0o600, "no token"),
            (&format!("{good} {good}"), 0o600, "no token"),
        ] {
            std::fs::write(&path, content).unwrap();
            set_mode(&path, mode);
            let error = find_or_make(&path).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains(&path.display().to_string()),
                "{error}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert!(find_or_make(directory.path()).is_err(), "a directory");
    }
}

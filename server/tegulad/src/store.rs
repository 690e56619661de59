//! The section `store`: the engine that keeps the images' bytes.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tegula_engine::{
    BackendPreference, Engine, EngineError, InitOptions, ZSTD_LEVEL_MAX, ZSTD_LEVEL_MIN,
};

use crate::config::{Backend, Config, ConfigError};
use crate::directory;

/// A store is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The configuration makes no sense, or the store's directory cannot be made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine says so.
    #[error("the store of `store.path`, {path}")]
    Engine {
        path: String,
        #[source]
        source: EngineError,
    },
}

/// Keeps other servers off the store, as long as it stands. What a crash left is made good at a start: that must not be what
/// another server is about to do.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
}

/// Claims the store for this process, by a lock on a file beside it. The system lets go of it with the process, however that
/// ends.
///
/// # Errors
/// [`ConfigError::Value`] if another process has it, or the file cannot be made.
pub(crate) fn claim(config: &Config) -> Result<Claim, ConfigError> {
    let mut path = config.store.path.clone().into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let refuse =
        |text: String| ConfigError::value("store.path", format!("{}: {text}", path.display()));
    directory::make_above(&path).map_err(|error| refuse(error.to_string()))?;
    let lock = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| refuse(error.to_string()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { _lock: lock }),
        Err(TryLockError::WouldBlock) => {
            Err(refuse("another tegulad serves this store".to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(refuse(error.to_string())),
    }
}

/// Opens the store, which is made if its directory is not there or empty.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn open(config: &Config) -> Result<Engine, StoreError> {
    check(config)?;
    let path = &config.store.path;
    let backend = match config.store.backend {
        Backend::Auto => BackendPreference::Auto,
        Backend::IoUring => BackendPreference::IoUring,
        Backend::Blocking => BackendPreference::Blocking,
    };
    let failed = |source| StoreError::Engine {
        path: path.display().to_string(),
        source,
    };
    let (engine, remark) = if is_empty(path)? {
        let options = InitOptions {
            zstd_level: config.store.zstd_level,
            ..InitOptions::default()
        };
        let made = Engine::init(path, backend, options).map_err(failed)?;
        tracing::info!(path = %path.display(), "a store was made");
        made
    } else {
        Engine::open(path, backend).map_err(failed)?
    };
    if let Some(remark) = remark {
        tracing::warn!("{remark}");
    }
    Ok(engine)
}

/// Whether the settings make sense.
///
/// # Errors
/// [`ConfigError::Value`].
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let level = config.store.zstd_level;
    if !(ZSTD_LEVEL_MIN..=ZSTD_LEVEL_MAX).contains(&level) {
        let text = format!("expected {ZSTD_LEVEL_MIN} to {ZSTD_LEVEL_MAX}, found {level}");
        return Err(ConfigError::value("store.zstd_level", text));
    }
    let id = &config.store.id;
    // Ids stand in a list with commas, in a header.
    if id.is_empty()
        || !id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err(ConfigError::value(
            "store.id",
            format!("expected letters, digits, `-`, `_` and `.`, found `{id}`"),
        ));
    }
    Ok(())
}

/// Whether nothing is there yet; makes the directories above.
fn is_empty(path: &Path) -> Result<bool, ConfigError> {
    let refuse = |error: std::io::Error| {
        ConfigError::value("store.path", format!("{}: {error}", path.display()))
    };
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            directory::make_above(path).map_err(refuse)?;
            Ok(true)
        }
        Err(error) => Err(refuse(error)),
    }
}

//! The section `store`: the engine that keeps the images' bytes.

use std::path::Path;

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

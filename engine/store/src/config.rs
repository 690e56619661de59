//! The configuration's two files: the one that makes a directory a store, and its copy (SPEC 3).

use crate::{Environment, Session, StoreError, files, paths};
use tegula_format::{Corruption, StoreConfig, Structure};
use tegula_io::{Existing, StorePath};

/// Reads what the store was made with. The copy is not looked at: a store that has nothing else is to be repaired.
///
/// # Errors
/// [`StoreError::NotAStore`] where nothing is a store's; [`StoreError::Corrupt`] where the file was lost.
pub(crate) fn read(environment: &Environment) -> Result<StoreConfig, StoreError> {
    let path = paths::config();
    let bytes = match files::read_if_present(environment, &path)? {
        Some(bytes) => bytes,
        // Something was stored here: the file was there once.
        None if holds_something(environment) => Default::default(),
        None => return Err(StoreError::NotAStore),
    };
    StoreConfig::decode(&bytes).map_err(StoreError::corrupt(&path))
}

/// Tells whether there is a file of segments, layers or images: more than an interrupted attempt to make a store leaves.
pub(crate) fn holds_something(environment: &Environment) -> bool {
    let directories = [paths::SEGMENTS, paths::LAYERS, paths::IMAGES];
    directories.iter().any(|name| {
        let entries = environment.storage.list(&paths::directory(name));
        let mut entries = entries.unwrap_or_default().into_iter();
        entries.any(|entry| paths::is_name_in(name, &entry.name))
    })
}

/// Makes a directory a store. The copy first: once the other file is there, it is a whole store.
pub(crate) fn publish(environment: &Environment, config: &StoreConfig) -> Result<(), StoreError> {
    // What stands in the copy's place is left from an attempt that came no further.
    publish_copy(environment, config)?;
    let path = paths::config();
    files::publish(environment, &path, &config.encode(), Existing::Refuse)
}

pub(crate) fn publish_copy(
    environment: &Environment,
    config: &StoreConfig,
) -> Result<(), StoreError> {
    let path = paths::config_copy();
    files::publish(environment, &path, &config.encode(), Existing::Replace)
}

/// Reads the copy; `None` if there is none.
pub(crate) fn read_copy(environment: &Environment) -> Result<Option<StoreConfig>, StoreError> {
    let path = paths::config_copy();
    let bytes = files::read_if_present(environment, &path)?;
    let copy = bytes.map(|bytes| StoreConfig::decode(&bytes));
    copy.transpose().map_err(StoreError::corrupt(&path))
}

/// How the copy stands to the file itself.
#[derive(Debug)]
pub(crate) enum CopyState {
    /// It says the same.
    Sound,
    /// There is none, as in a store that was made without one.
    Absent,
    /// It is lost, cannot be read or says something else.
    Damaged(StorePath, StoreError),
}

impl Session {
    /// Looks at the configuration's copy.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the storage fails.
    pub(crate) fn check_config_copy(&self) -> Result<CopyState, StoreError> {
        let (path, config) = (paths::config_copy(), self.store().config());
        let damaged = |error| CopyState::Damaged(path.clone(), error);
        Ok(match read_copy(self.environment()) {
            Ok(Some(copy)) if copy == *config => CopyState::Sound,
            Ok(Some(copy)) => damaged(StoreError::corrupt(&path)(other_than(config, &copy))),
            Ok(None) if config.has_copy => {
                let lost = StoreConfig::decode(&[]).expect_err("because that is no configuration");
                damaged(StoreError::corrupt(&path)(lost))
            }
            Ok(None) => CopyState::Absent,
            Err(error) if error.is_unreadable() => damaged(error),
            Err(error) => return Err(error),
        })
    }
}

/// Returns in what a copy differs.
fn other_than(config: &StoreConfig, copy: &StoreConfig) -> Corruption {
    let number = |found: i64| found.cast_unsigned();
    let [first, ..] = *copy.id.as_bytes();
    let fields = [
        ("id", u64::from(first), copy.id == config.id),
        (
            "block_size_log2",
            u64::from(copy.block_size.log2()),
            copy.block_size == config.block_size,
        ),
        (
            "zstd_level",
            number(copy.zstd_level.into()),
            copy.zstd_level == config.zstd_level,
        ),
        (
            "created_at_us",
            number(copy.created_at_us),
            copy.created_at_us == config.created_at_us,
        ),
    ];
    let differs = fields.into_iter().find(|(_, _, same)| !same);
    let (field, found) = differs.map_or(("features", 0), |(field, found, _)| (field, found));
    Corruption::Field {
        what: Structure::StoreConfig,
        field,
        found,
        expected: "as in tegula.store",
    }
}

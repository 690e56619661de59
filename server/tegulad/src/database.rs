//! The section `database`, and `tegulad db`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use tegula_catalog::content::Content;
use tegula_catalog::db::{self, Catalog, CatalogError};
use tegula_catalog::service::{self, OwnStoreError};

use crate::cli::DatabaseCommand;
use crate::config::{Config, ConfigError};
use crate::directory;
use crate::store::{self, StoreError};

/// A database is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Its directory cannot be made.
    #[error(transparent)]
    Directory(#[from] ConfigError),
    /// It says so itself.
    #[error("the database of `database.url`")]
    Catalog(#[from] CatalogError),
    /// The store of the configuration is not to be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database cannot have it.
    #[error("`store.path` and `database.url`")]
    OwnStore(#[from] OwnStoreError),
    /// Nobody reads what is printed.
    #[error("cannot print")]
    Output(#[from] io::Error),
}

/// Looks at the URL; connects to nothing.
///
/// # Errors
/// [`ConfigError`] if it names no database.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    db::check_url(config.database.url.reveal())
        .map_err(|error| ConfigError::value("database.url", error.to_string()))
}

/// Opens the database, its schema brought up to this program's if the configuration lets.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) fn open(config: &Config) -> Result<Arc<dyn Catalog>, DatabaseError> {
    let url = config.database.url.reveal();
    if config.database.upgrade {
        make_directory(url)?;
        let version = db::upgrade(url)?;
        if version.found != version.program {
            tracing::info!(
                from = version.found,
                to = version.program,
                "the database's schema was brought up"
            );
        }
    } else {
        check_there(url)?;
    }
    Ok(db::open(url)?)
}

/// Does what `tegulad db` was asked for.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) fn run(command: &DatabaseCommand, config: &Config) -> Result<(), DatabaseError> {
    check(config)?;
    let url = config.database.url.reveal();
    let mut output = io::stdout().lock();
    match command {
        DatabaseCommand::Upgrade => {
            make_directory(url)?;
            let version = db::upgrade(url)?;
            if version.found == version.program {
                writeln!(
                    output,
                    "the schema is version {}: nothing to do",
                    version.found
                )?;
            } else {
                writeln!(
                    output,
                    "the schema was version {} and is version {} now",
                    version.found, version.program
                )?;
            }
        }
        DatabaseCommand::Version => {
            check_there(url)?;
            let version = db::version(url)?;
            writeln!(
                output,
                "the schema is version {}, this program needs {}",
                version.found, version.program
            )?;
        }
        DatabaseCommand::Check => {
            check_there(url)?;
            let images = db::check(url)?;
            writeln!(output, "the database is sound: {images} images")?;
        }
        DatabaseCommand::ForgetStore => {
            check_there(url)?;
            match db::open(url)?.forget_store()? {
                Some(store) => writeln!(
                    output,
                    "the store {store} is forgotten: the next start takes the store it opens"
                )?,
                None => writeln!(output, "no store was noted: nothing to do")?,
            }
        }
        DatabaseCommand::TakeStore => {
            check_there(url)?;
            let _claim = store::claim(config)?;
            let content = Content::new(store::open(config)?);
            let store = service::take_store(&*db::open(url)?, &content)?;
            writeln!(
                output,
                "the store {store} is noted: images whose bytes are not in it have none until they come back"
            )?;
        }
    }
    Ok(output.flush()?)
}

/// The file of a database that is one.
fn file(url: &str) -> Option<&Path> {
    let path = url.strip_prefix("sqlite:")?;
    Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

/// Refuses to look for what nobody has made yet.
fn check_there(url: &str) -> Result<(), ConfigError> {
    match file(url).filter(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => {
            let path = path.display();
            let text = format!("there is no database in {path} yet: `tegulad db upgrade` makes it");
            Err(ConfigError::value("database.url", text))
        }
    }
}

/// The directory of a database in a file.
fn make_directory(url: &str) -> Result<(), ConfigError> {
    let Some(path) = file(url) else {
        return Ok(());
    };
    directory::make_above(path).map_err(|error| {
        ConfigError::value(
            "database.url",
            format!("cannot make the directory of {}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_not_there_yet_is_no_failure_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.sqlite", directory.path().display());
        let text = format!("[database]\nurl = \"{url}\"");
        let config: Config = toml::from_str(&text).unwrap();
        for command in [DatabaseCommand::Version, DatabaseCommand::Check] {
            let error = run(&command, &config).unwrap_err().to_string();
            assert!(error.contains("tegulad db upgrade"), "{error}");
        }
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        run(&DatabaseCommand::Upgrade, &config).unwrap();
        run(&DatabaseCommand::Check, &config).unwrap();
    }
}

//! The section `database`, and `tegulad db`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use tegula_catalog::db::{self, Catalog, CatalogError};

use crate::cli::DatabaseCommand;
use crate::config::{Config, ConfigError};
use crate::directory;

/// A database is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Its directory cannot be made.
    #[error(transparent)]
    Directory(#[from] ConfigError),
    /// It says so itself.
    #[error("the database of `database.url`")]
    Catalog(#[from] CatalogError),
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
    }
    Ok(db::open(url)?)
}

/// Does what `tegulad db` was asked for.
///
/// # Errors
/// [`DatabaseError`].
pub(crate) fn run(command: &DatabaseCommand, config: &Config) -> Result<(), DatabaseError> {
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
            let version = db::version(url)?;
            writeln!(
                output,
                "the schema is version {}, this program needs {}",
                version.found, version.program
            )?;
        }
        DatabaseCommand::Check => {
            let images = db::check(url)?;
            writeln!(output, "the database is sound: {images} images")?;
        }
    }
    Ok(output.flush()?)
}

/// The directory of a database in a file.
fn make_directory(url: &str) -> Result<(), ConfigError> {
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Ok(());
    };
    let path = Path::new(path.strip_prefix("//").unwrap_or(path));
    directory::make_above(path).map_err(|error| {
        ConfigError::value(
            "database.url",
            format!("cannot make the directory of {}: {error}", path.display()),
        )
    })
}

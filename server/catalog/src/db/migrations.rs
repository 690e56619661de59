//! The numbered steps that a database is brought up by, and the table that remembers which were taken.

use super::CatalogError;

/// One step: a number and what it does, in the language of each database.
#[derive(Debug)]
pub(super) struct Migration {
    /// Its number, from 1 on without gaps.
    pub(super) version: u32,
    /// Its name, for the table.
    pub(super) name: &'static str,
    /// The statements for SQLite.
    pub(super) sqlite: &'static str,
    /// The statements for PostgreSQL.
    pub(super) postgres: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            sqlite: include_str!(concat!("../../migrations/", $name, ".sqlite.sql")),
            postgres: include_str!(concat!("../../migrations/", $name, ".postgres.sql")),
        }
    };
}

/// All steps. One that was released is never changed: databases have taken it.
pub(super) const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_images"),
    migration!(2, "0002_without_hash"),
    migration!(3, "0003_store"),
    migration!(4, "0004_orders"),
];

/// The table of the steps that were taken.
pub(super) const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (\
    version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL)";
/// The last step that was taken.
pub(super) const VERSION: &str =
    "SELECT CAST(coalesce(max(version), 0) AS BIGINT) FROM schema_version";

/// The version this program needs.
pub(super) fn current() -> u32 {
    MIGRATIONS.last().map_or(0, |last| last.version)
}

/// The steps that a database of that version lacks.
///
/// # Errors
/// [`CatalogError::Schema`] if it is newer than this program.
pub(super) fn missing(
    version: u32,
) -> Result<impl Iterator<Item = &'static Migration>, CatalogError> {
    if version > current() {
        return Err(newer(version));
    }
    Ok(MIGRATIONS
        .iter()
        .filter(move |migration| migration.version > version))
}

/// Refuses a database that is not of this program's version.
///
/// # Errors
/// [`CatalogError::Schema`].
pub(super) fn expect_current(version: u32) -> Result<(), CatalogError> {
    let current = current();
    match version.cmp(&current) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(CatalogError::Schema(format!(
            "the database's schema is version {version}, this program needs {current}: run `tegulad db upgrade`"
        ))),
        std::cmp::Ordering::Greater => Err(newer(version)),
    }
}

fn newer(version: u32) -> CatalogError {
    CatalogError::Schema(format!(
        "the database's schema is version {version}, newer than this program's {}: run a newer program",
        current()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_gaps_and_named_by_their_numbers() {
        for (index, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, index);
            assert!(migration.name.starts_with(&format!("{index:04}_")));
        }
    }
}

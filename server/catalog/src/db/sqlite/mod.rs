//! The catalog in a file: SQLite, in the process.
//!
//! One connection writes, a few read beside it (WAL: readers see the last commit before they began and wait for nobody). A
//! commit returns when the log is synced (`synchronous=FULL`). Other processes may open the same file: whoever finds it locked
//! waits for [`BUSY`].

mod session;

use super::migrations;
use super::session::{Backend, Session};
use super::{CatalogError, SchemaVersion};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use session::SqliteSession;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(30);
/// How many connections read.
const READERS: usize = 4;
/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 256;
/// What marks a file as ours (SQLite's `application_id`): "TGLC".
const APPLICATION: i32 = 0x5447_4c43;

/// The connections to one file.
pub(super) struct Sqlite {
    path: PathBuf,
    writer: Mutex<Connection>,
    /// Those that nobody uses. A database in memory has none: it is read through the writer.
    readers: Option<Readers>,
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens a file that exists, whatever its schema.
    pub(super) fn open(path: &Path) -> Result<Self, CatalogError> {
        let writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let idle = (0..READERS)
            .map(|_| connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE))
            .collect::<Result<Vec<_>, _>>()?;
        for reader in &idle {
            reader
                .pragma_update(None, "query_only", true)
                .map_err(failed)?;
        }
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Some(Readers {
                idle: Mutex::new(idle),
                returned: Condvar::new(),
            }),
        })
    }

    /// A new database in memory, with the current schema.
    pub(super) fn in_memory() -> Result<Self, CatalogError> {
        let mut writer = Connection::open_in_memory().map_err(failed)?;
        set_up(&writer)?;
        upgrade_connection(&mut writer)?;
        Ok(Self {
            path: PathBuf::from(":memory:"),
            writer: Mutex::new(writer),
            readers: None,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A thread that panicked left a transaction that rolled back when it was dropped.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T>(
        connection: &mut Connection,
        behavior: TransactionBehavior,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let transaction = connection
            .transaction_with_behavior(behavior)
            .map_err(failed)?;
        // Dropped without a commit, the transaction rolls back.
        let result = work(&mut SqliteSession::new(&transaction))?;
        transaction.commit().map_err(failed)?;
        Ok(result)
    }
}

impl Backend for Sqlite {
    fn read<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        match &self.readers {
            Some(readers) => {
                let mut reader = Reader::take(readers);
                Self::run(reader.connection()?, TransactionBehavior::Deferred, work)
            }
            None => Self::run(&mut self.writer(), TransactionBehavior::Deferred, work),
        }
    }

    fn write<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        Self::run(&mut self.writer(), TransactionBehavior::Immediate, work)
    }

    fn version(&self) -> Result<u32, CatalogError> {
        version_of(&self.writer())
    }
}

/// A reader that was taken from the others and goes back to them, whatever happens meanwhile.
struct Reader<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl<'a> Reader<'a> {
    fn take(readers: &'a Readers) -> Self {
        let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = idle.pop() {
                return Self {
                    readers,
                    connection: Some(connection),
                };
            }
            idle = readers
                .returned
                .wait(idle)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, CatalogError> {
        self.connection
            .as_mut()
            .ok_or_else(|| CatalogError::Database("the reader was given back".into()))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut idle = self
            .readers
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
        drop(idle);
        self.readers.returned.notify_one();
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, CatalogError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| CatalogError::Database(format!("{}: {error}", path.display()).into()))?;
    set_up(&connection)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> Result<(), CatalogError> {
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the values of parameters, as a LIMIT's: else each new value prepares the statement once more.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(failed)?;
    for (pragma, value) in [
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("cache_size", "-8192"),
        ("journal_size_limit", "67108864"),
    ] {
        connection
            .pragma_update(None, pragma, value)
            .map_err(failed)?;
    }
    Ok(())
}

/// Turns the write-ahead log on, which stays on in the file.
fn use_wal(connection: &Connection) -> Result<(), CatalogError> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode == "wal" {
        return Ok(());
    }
    Err(CatalogError::Database(
        format!("the file has journal mode `{mode}`, and cannot have `wal` where it is").into(),
    ))
}

/// Brings a file up to this program's schema, making it if it is not there.
pub(super) fn upgrade(path: &Path) -> Result<SchemaVersion, CatalogError> {
    let create = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = connect(path, create)?;
    // Before anything is changed: it may be somebody else's.
    version_of(&connection)?;
    use_wal(&connection)?;
    upgrade_connection(&mut connection)
}

fn upgrade_connection(connection: &mut Connection) -> Result<SchemaVersion, CatalogError> {
    let found = version_of(connection)?;
    for _ in migrations::missing(found)? {
        // Another process may be at it as well: which step comes next is asked inside of the step's transaction.
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let version = version_of(&transaction)?;
        if let Some(next) = migrations::missing(version)?.next() {
            transaction
                .execute_batch(migrations::VERSION_TABLE)
                .map_err(failed)?;
            transaction.execute_batch(next.sqlite).map_err(failed)?;
            transaction
                .execute(
                    "INSERT INTO schema_version (version, name) VALUES (?1, ?2)",
                    (next.version, next.name),
                )
                .map_err(failed)?;
            transaction
                .pragma_update(None, "application_id", APPLICATION)
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
    }
    Ok(SchemaVersion {
        found,
        program: migrations::current(),
    })
}

/// The version of a file's schema; 0 if it is empty.
pub(super) fn version(path: &Path) -> Result<u32, CatalogError> {
    version_of(&connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
}

/// The last migration; 0 in an empty database.
///
/// # Errors
/// [`CatalogError::Schema`] if the database is another program's.
fn version_of(connection: &Connection) -> Result<u32, CatalogError> {
    let one = |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0));
    let application = one("PRAGMA application_id").map_err(failed)?;
    let tables = one("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    if application == 0 && tables == 0 {
        return Ok(0);
    }
    if application != i64::from(APPLICATION) {
        return Err(CatalogError::Schema(format!(
            "the file is the database of another program: application id {application:#x}, expected {APPLICATION:#x}"
        )));
    }
    let version = one(migrations::VERSION).map_err(failed)?;
    u32::try_from(version)
        .map_err(|_| CatalogError::Schema(format!("the schema's version is {version}")))
}

/// Looks through the whole file: SQLite's own check of pages, indexes and constraints.
pub(super) fn check_integrity(path: &Path) -> Result<(), CatalogError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    for (pragma, fine) in [("integrity_check", Some("ok")), ("foreign_key_check", None)] {
        let mut statement = connection
            .prepare(&format!("PRAGMA {pragma}"))
            .map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let found: String = row.get(0).map_err(failed)?;
            if Some(found.as_str()) != fine {
                return Err(CatalogError::Damaged {
                    place: path.display().to_string(),
                    found,
                    expected: "a database without damage",
                });
            }
        }
    }
    Ok(())
}

/// The file that a URL without its scheme names.
///
/// # Errors
/// [`CatalogError::Url`] if it names none.
pub(super) fn path(rest: &str) -> Result<&Path, CatalogError> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.starts_with(':') {
        return Err(CatalogError::Url(format!(
            "`sqlite:{rest}` names no file: expected `sqlite:` and a path"
        )));
    }
    Ok(Path::new(path))
}

fn failed(error: rusqlite::Error) -> CatalogError {
    CatalogError::Database(error.into())
}

#[cfg(test)]
mod tests;

//! The catalog on a server: PostgreSQL 15 or newer.
//!
//! A transaction takes a connection of the pool (or opens one) and gives it back. Reads see one snapshot; writes lock the row of
//! the image they are about first, so that what they read of it stays true (READ COMMITTED is enough for that), and are run
//! again if the server says that they met another. A commit returns when the server has synced it: connections of a server
//! that is set up otherwise ask for `synchronous_commit`.
//!
//! The pool must reach the server itself: prepared statements do not survive a proxy that changes servers between
//! transactions.

mod pool;
mod session;
mod tls;
mod url;

use super::migrations;
use super::session::{Backend, Session};
use super::{CatalogError, SchemaVersion};
use ::postgres::IsolationLevel;
use ::postgres::error::SqlState;
use pool::{Connection, Pool};
use session::PostgresSession;
use std::time::Duration;
pub(super) use url::Server;

/// How often a transaction is run when others get in its way, or its connection is lost: more often than there are
/// connections, which may all have been lost at once.
const TRIES: u32 = 20;
/// The key of the lock that one migration at a time holds: "tegulaDB".
const MIGRATION_LOCK: i64 = 0x7465_6775_6c61_4442;

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Postgres {
    pool: Pool,
}

impl Postgres {
    /// Connects to a server, whatever the schema of its database.
    pub(super) fn open(server: Server) -> Result<Self, CatalogError> {
        let pool = Pool::new(server);
        // Says now, not at the first request, that it does not work.
        drop(pool.take()?);
        Ok(Self { pool })
    }

    /// Runs the work on a connection of the pool, in a transaction made by `begin`.
    fn run<T>(
        &self,
        kind: Kind,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut connection = self.pool.take()?;
            let Failure { error, undone } = match kind.transaction(&mut connection, &work) {
                Ok(result) => return Ok(result),
                Err(failure) => failure,
            };
            let lost = matches!(error, CatalogError::Unavailable(_)) || connection.is_closed();
            if tried == TRIES || !(undone && lost || may_be_tried_again(&error)) {
                if lost {
                    connection.discard();
                }
                return Err(error);
            }
            if lost {
                // The server was restarted, say, or somebody ended its process: with another connection it may go on.
                connection.discard();
            } else {
                drop(connection);
                std::thread::sleep(Duration::from_millis(u64::from(tried)));
            }
        }
    }
}

impl Backend for Postgres {
    fn read<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        self.run(Kind::Read, work)
    }

    fn write<T>(
        &self,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        self.run(Kind::Write, work)
    }

    fn version(&self) -> Result<u32, CatalogError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut connection = self.pool.take()?;
            match version_of(&mut connection) {
                Err(CatalogError::Unavailable(_)) if tried < TRIES => connection.discard(),
                answer => return answer,
            }
        }
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Write,
}

/// A transaction failed.
struct Failure {
    error: CatalogError,
    /// Whether it is certain that it has changed nothing, even if its connection was lost.
    undone: bool,
}

impl Failure {
    const fn undone(error: CatalogError) -> Self {
        Self {
            error,
            undone: true,
        }
    }
}

impl Kind {
    fn transaction<T>(
        self,
        connection: &mut Connection,
        work: impl Fn(&mut dyn Session) -> Result<T, CatalogError>,
    ) -> Result<T, Failure> {
        let Connection {
            client, statements, ..
        } = connection;
        let begin = client.build_transaction();
        let begin = match self {
            Self::Read => begin
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true),
            Self::Write => begin.isolation_level(IsolationLevel::ReadCommitted),
        };
        let transaction = begin
            .start()
            .map_err(|error| Failure::undone(failed(error)))?;
        let mut session = PostgresSession::new(transaction, statements);
        // Dropped without a commit, the transaction rolls back.
        let result = work(&mut session).map_err(Failure::undone)?;
        session.commit().map_err(|error| Failure {
            error: failed(error),
            undone: matches!(self, Self::Read),
        })?;
        Ok(result)
    }
}

/// Whether the server gave up because of others, and promises that nothing happened.
fn may_be_tried_again(error: &CatalogError) -> bool {
    code_of(error).is_some_and(|code| {
        [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
    })
}

/// Brings a database up to this program's schema.
pub(super) fn upgrade(server: Server) -> Result<SchemaVersion, CatalogError> {
    let pool = Pool::new(server);
    let mut connection = pool.take()?;
    // Another process may be at it as well: it waits here, or we do. The lock ends with the connection.
    connection
        .client
        .execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK])
        .map_err(failed)?;
    let found = version_of(&mut connection)?;
    for step in migrations::missing(found)? {
        let number = i32::try_from(step.version)
            .map_err(|_| CatalogError::Schema(format!("there is no version {}", step.version)))?;
        let mut transaction = connection.client.transaction().map_err(failed)?;
        transaction
            .batch_execute(migrations::VERSION_TABLE)
            .and_then(|()| transaction.batch_execute(step.postgres))
            .and_then(|()| {
                transaction.execute(
                    "INSERT INTO schema_version (version, name) VALUES ($1, $2)",
                    &[&number, &step.name],
                )
            })
            .and_then(|_| transaction.commit())
            .map_err(failed)?;
    }
    Ok(SchemaVersion {
        found,
        program: migrations::current(),
    })
}

/// The version of a database's schema; 0 if it is empty.
pub(super) fn version(server: Server) -> Result<u32, CatalogError> {
    version_of(&mut *Pool::new(server).take()?)
}

fn version_of(connection: &mut Connection) -> Result<u32, CatalogError> {
    let tables =
        "SELECT to_regclass('schema_version') IS NOT NULL, to_regclass('images') IS NOT NULL";
    let row = connection.client.query_one(tables, &[]).map_err(failed)?;
    let (ours, images): (bool, bool) = (
        row.try_get(0).map_err(failed)?,
        row.try_get(1).map_err(failed)?,
    );
    match (ours, images) {
        (false, false) => return Ok(0),
        (false, true) => {
            return Err(CatalogError::Schema(
                "the database has a table `images` of another program: expected an empty database, or one of ours"
                    .to_owned(),
            ));
        }
        (true, _) => (),
    }
    let row = connection
        .client
        .query_one(migrations::VERSION, &[])
        .map_err(failed)?;
    let version: i64 = row.try_get(0).map_err(failed)?;
    u32::try_from(version)
        .map_err(|_| CatalogError::Schema(format!("the schema's version is {version}")))
}

fn failed(error: ::postgres::Error) -> CatalogError {
    if is_lost(&error) {
        CatalogError::Unavailable(error.into())
    } else {
        CatalogError::Database(error.into())
    }
}

/// Whether the connection is gone: closed, broken, or ended by the server, which says so in its last words.
fn is_lost(error: &::postgres::Error) -> bool {
    let broken = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
    let ended = error.code().is_some_and(|code| {
        code.code().starts_with("08")
            || [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
            ]
            .contains(code)
    });
    error.is_closed() || broken || ended
}

/// Whether the server has no room for another connection.
fn is_full(error: &CatalogError) -> bool {
    code_of(error) == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// What the server says is wrong, if it was the server that said so.
fn code_of(error: &CatalogError) -> Option<&SqlState> {
    let (CatalogError::Database(cause) | CatalogError::Unavailable(cause)) = error else {
        return None;
    };
    cause.downcast_ref::<::postgres::Error>()?.code()
}

#[cfg(test)]
mod tests;

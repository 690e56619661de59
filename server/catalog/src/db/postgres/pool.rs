//! A pool of connections: as many as are used at once, up to a limit, or up to what the server has room for.

use super::url::Server;
use super::{failed, is_full};
use crate::db::CatalogError;
use ::postgres::{Client, Statement};
use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many connections there are at most.
const CONNECTIONS: usize = 16;
/// After how many times that one was taken while the server had no room for more it is asked again for another.
const TAKEN_BEFORE_MORE: u32 = 100;
/// How long a call waits for one.
const PATIENCE: Duration = Duration::from_secs(30);
/// The oldest server that is spoken to, as it numbers itself.
const OLDEST: i32 = 150_000;

/// A connection and what was prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) statements: HashMap<String, Statement>,
}

/// The connections to one server.
pub(super) struct Pool {
    server: Server,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Connection>,
    /// Those that are idle and those that are taken.
    open: usize,
    /// How many there may be: fewer than usual while the server has no room for more.
    limit: usize,
    /// How often an idle one was taken since that was last changed.
    taken: u32,
}

impl State {
    const fn new() -> Self {
        Self {
            idle: Vec::new(),
            open: 0,
            limit: CONNECTIONS,
            taken: 0,
        }
    }

    fn take_idle(&mut self) -> Option<Connection> {
        let connection = self.idle.pop()?;
        self.taken += 1;
        if self.limit < CONNECTIONS && self.taken >= TAKEN_BEFORE_MORE {
            self.limit_to(self.limit + 1);
        }
        Some(connection)
    }

    const fn limit_to(&mut self, limit: usize) {
        self.limit = limit;
        self.taken = 0;
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            state: Mutex::new(State::new()),
            returned: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that nobody uses, or a new one; waits for one if there are as many as there may be.
    pub(super) fn take(&self) -> Result<Taken<'_>, CatalogError> {
        let wait = |state: &mut State| state.idle.is_empty() && state.open >= state.limit;
        loop {
            let (mut state, _) = self
                .returned
                .wait_timeout_while(self.state(), PATIENCE, wait)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = state.take_idle() {
                return Ok(Taken {
                    pool: self,
                    connection: Some(connection),
                });
            }
            if state.open >= state.limit {
                let limit = state.limit;
                return Err(CatalogError::Unavailable(
                    format!("all {limit} connections were in use for {PATIENCE:?}").into(),
                ));
            }
            state.open += 1;
            drop(state);
            // Counted before it is there: should it not come to be, the count is put right by the drop.
            let mut taken = Taken {
                pool: self,
                connection: None,
            };
            match connect(&self.server) {
                Ok(connection) => {
                    taken.connection = Some(connection);
                    return Ok(taken);
                }
                Err(error) => {
                    drop(taken);
                    if !is_full(&error) || !self.make_do() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Makes do with the connections there are, since the server has no room for more; false if there are none.
    fn make_do(&self) -> bool {
        let mut state = self.state();
        let open = state.open;
        state.limit_to(open.max(1));
        open > 0
    }
}

#[cfg(all(test, feature = "test-postgres"))]
impl Pool {
    /// The processes of the server that serve the idle connections.
    pub(super) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for connection in &mut self.state().idle {
            let row = connection.client.query_one("SELECT pg_backend_pid()", &[]);
            pids.push(row.expect("because it is connected").get(0));
        }
        pids
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A client ends its runtime when it is dropped, and that panics on a thread that runs another one's tasks.
        let idle = std::mem::take(&mut self.state().idle);
        if !idle.is_empty() {
            let ended = std::thread::spawn(move || drop(idle)).join();
            debug_assert!(ended.is_ok(), "closing connections panicked");
        }
    }
}

/// A connection that is given back when this is dropped.
pub(super) struct Taken<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Taken<'_> {
    /// Does not give it back: the server has done with it.
    pub(super) fn discard(mut self) {
        self.connection = None;
    }

    /// Whether it is of no more use.
    pub(super) fn is_closed(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(|connection| connection.client.is_closed())
    }
}

impl Deref for Taken<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("because a connection that was taken is there until it is dropped")
    }
}

impl DerefMut for Taken<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("because a connection that was taken is there until it is dropped")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let closed = self.is_closed();
        let connection = self.connection.take();
        let mut state = self.pool.state();
        if closed || std::thread::panicking() {
            state.open -= 1;
        } else {
            state.idle.extend(connection);
        }
        drop(state);
        self.pool.returned.notify_one();
    }
}

fn connect(server: &Server) -> Result<Connection, CatalogError> {
    let mut client = server.connect()?;
    let settings = "SELECT current_setting('server_version_num')::int4, current_setting('server_encoding'), \
        current_setting('synchronous_commit')";
    let row = client.query_one(settings, &[]).map_err(failed)?;
    let version: i32 = row.try_get(0).map_err(failed)?;
    let encoding: String = row.try_get(1).map_err(failed)?;
    let commit: String = row.try_get(2).map_err(failed)?;
    if version < OLDEST {
        let major = version / 10_000;
        return Err(CatalogError::Schema(format!(
            "the server is PostgreSQL {major}, expected 15 or newer"
        )));
    }
    if encoding != "UTF8" {
        return Err(CatalogError::Schema(format!(
            "the database's encoding is {encoding}, expected UTF8"
        )));
    }
    if commit == "off" {
        // What was answered with success must outlive a crash. The stricter settings are left as they are.
        client
            .batch_execute("SET synchronous_commit TO on")
            .map_err(failed)?;
    }
    Ok(Connection {
        client,
        statements: HashMap::new(),
    })
}

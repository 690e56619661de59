//! The suite of the catalog's databases, on PostgreSQL: on the server that `TEGULA_TEST_POSTGRES` names, in databases of
//! their own which each test makes and drops. `cargo test -p tegula-catalog --features test-postgres`; `tools/test` starts a
//! server for it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[macro_use]
mod suite;

use postgres::{Client, NoTls};
use std::sync::atomic::{AtomicU32, Ordering};
use suite::World;
use tegula_catalog::db;

/// A database that is dropped with it.
struct Dropped {
    server: String,
    name: String,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let mut client = Client::connect(&self.server, NoTls).unwrap();
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        client.batch_execute(&drop).unwrap();
    }
}

fn empty() -> (String, Dropped) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = std::env::var("TEGULA_TEST_POSTGRES").expect(
        "TEGULA_TEST_POSTGRES is the URL of a database on a server where databases may be made",
    );
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("tegula_test_{}_{number}", std::process::id());
    let mut client = Client::connect(&server, NoTls).unwrap();
    client
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .unwrap();
    // The database's name is the path of the URL: what is between the host and the options.
    let (base, options) = server.split_once('?').unwrap_or((&server, ""));
    let (scheme, rest) = base.split_once("://").unwrap();
    let host = rest.split('/').next().unwrap();
    let url = format!("{scheme}://{host}/{name}?{options}");
    (url, Dropped { server, name })
}

fn world() -> World {
    let (url, dropped) = empty();
    assert_eq!(db::upgrade(&url).unwrap().found, 0);
    World {
        catalog: db::open(&url).unwrap(),
        url,
        _guard: Box::new(dropped),
    }
}

conformance!(world);

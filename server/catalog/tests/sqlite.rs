//! The suite of the catalog's databases, on SQLite.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[macro_use]
mod suite;

use suite::World;
use tegula_catalog::db;

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("catalog.db").display());
    assert_eq!(db::upgrade(&url).unwrap().found, 0);
    World {
        catalog: db::open(&url).unwrap(),
        url,
        _guard: Box::new(directory),
    }
}

conformance!(world);

//! What a page of a listing costs among so many images: neither their number nor how deep the page is should matter.
//!
//! One image is made by the service; the others are copies of its rows, put into the database while no server runs, a second
//! apart and in the visibilities that an administrator's listing is made of, with names in an order of their own.

use super::process::{Server, database};
use super::{create, milliseconds};
use anyhow::Context;
use rusqlite::{Connection, params};
use std::path::Path;
use tegula_io::{Clock, SystemClock};

/// The images that the others are compared with.
pub(super) const FEW: u64 = 1000;

/// By how much the cost of a page may grow: indexes are a level or two deeper, and less of them is in caches.
pub(super) const GROWTH_MAX: f64 = 1.5;

/// Images of a page.
const PAGE: u64 = 25;

/// Orders: what they are called, how the API is asked for them and how the database is.
const ORDERS: [(&str, &str, &str); 2] = [
    (
        "newest first",
        "created_at:desc",
        "created_at DESC, id DESC",
    ),
    ("by name", "name:asc", "coalesce(name, ''), created_at, id"),
];

/// What is put into a table of what hangs on images, for all those but the first: what that one has.
const HANGING: [&str; 2] = [
    "INSERT INTO image_tags SELECT images.key, tag FROM images, image_tags WHERE image = ?1 AND images.key <> ?1",
    "INSERT INTO image_properties SELECT images.key, image_properties.name, value FROM images, image_properties \
     WHERE image = ?1 AND images.key <> ?1",
];

/// What a page costs.
#[derive(Debug)]
pub(super) struct Cost {
    /// Which page in which order.
    pub(super) what: String,
    /// Milliseconds of a request: the middle one of all.
    pub(super) wall_ms: f64,
    /// CPU milliseconds of the server for a request.
    pub(super) cpu_ms: f64,
}

/// A page, and what must come of it.
struct Page {
    what: String,
    path: String,
    ids: Vec<String>,
}

/// Costs of the first, a middle and the last page in each order, each asked for a sixth of so many times.
pub(super) fn measure(directory: &Path, images: u64, requests: u32) -> anyhow::Result<Vec<Cost>> {
    anyhow::ensure!(images >= FEW, "{images} images: at least {FEW} are wanted");
    let directory = directory.join(images.to_string());
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    make_one(&directory)?;
    let pages = fill(&database(&directory), images)?;
    let server = Server::start(&directory)?;
    pages
        .into_iter()
        .map(|page| cost(&server, page, (requests / 6).max(1)))
        .collect()
}

/// Makes the database, with one image in it.
fn make_one(directory: &Path) -> anyhow::Result<()> {
    let server = Server::start(directory)?;
    create(&mut server.connect()?, 0).map(drop)
}

/// Brings a database of one image to so many, in one transaction. Returns the pages to ask for.
fn fill(path: &Path, images: u64) -> anyhow::Result<Vec<Page>> {
    let begin = SystemClock.elapsed();
    let mut connection = Connection::open(path).with_context(|| path.display().to_string())?;
    let transaction = connection.transaction()?;
    let first: i64 = transaction.query_row("SELECT key FROM images", [], |row| row.get(0))?;
    let names: Vec<String> = transaction
        .prepare("SELECT name FROM pragma_table_info('images') WHERE name <> 'key'")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let values: Vec<&str> = names
        .iter()
        .map(|name| match name.as_str() {
            "id" | "id_lower" => "printf('0a000000-0000-4000-8000-%012x', n)",
            // An odd factor below a prime: every name once, none beside the one that was made before or after it.
            "name" => "printf('image %010d', n * 7919 % 1000003)",
            "visibility" => {
                "CASE n % 4 WHEN 0 THEN 'public' WHEN 1 THEN 'private' ELSE 'shared' END"
            }
            "created_at" | "updated_at" => "created_at + n * 1000000",
            other => other,
        })
        .collect();
    let copy = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < ?2) \
         INSERT INTO images ({}) SELECT {} FROM numbers CROSS JOIN images WHERE key = ?1",
        names.join(", "),
        values.join(", ")
    );
    transaction.execute(&copy, params![first, i64::try_from(images)?])?;
    for statement in HANGING {
        transaction.execute(statement, [first])?;
    }
    let mut pages = Vec::new();
    for (order, sort, columns) in ORDERS {
        let depths = [
            ("first page", 0),
            ("a page in the middle", images / 2),
            ("last page", images - PAGE),
        ];
        for (which, depth) in depths {
            // With the image before it, after which it begins.
            let before = u64::from(depth > 0);
            let mut ids: Vec<String> = transaction
                .prepare(&format!(
                    "SELECT id FROM images ORDER BY {columns} LIMIT ?1 OFFSET ?2"
                ))?
                .query_map(
                    [
                        i64::try_from(PAGE + before)?,
                        i64::try_from(depth - before)?,
                    ],
                    |row| row.get(0),
                )?
                .collect::<Result<_, _>>()?;
            let mut path = format!("/v2/images?limit={PAGE}&sort={sort}");
            if before > 0 {
                path.push_str("&marker=");
                path.push_str(&ids.remove(0));
            }
            pages.push(Page {
                what: format!("list {PAGE} {order}, {which}"),
                path,
                ids,
            });
        }
    }
    transaction.commit()?;
    let seconds = (SystemClock.elapsed() - begin).as_secs_f64();
    eprintln!("{images} images put into the database in {seconds:.1} s");
    Ok(pages)
}

/// Asks for a page again and again, after it was seen to be the right one.
fn cost(server: &Server, page: Page, requests: u32) -> anyhow::Result<Cost> {
    let mut connection = server.connect()?;
    let answer = connection.call("GET", &page.path, None, &[])?;
    let listed: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let ids = listed.get("images").and_then(serde_json::Value::as_array);
    let ids = ids.with_context(|| format!("GET {} answered {listed}", page.path))?;
    let ids = ids
        .iter()
        .map(|image| image.get("id").and_then(serde_json::Value::as_str));
    anyhow::ensure!(
        ids.eq(page.ids.iter().map(|id| Some(id.as_str()))),
        "GET {} gave other images than the database has there",
        page.path
    );
    let cpu = server.cpu_seconds()?;
    let mut times = Vec::new();
    for _ in 0..requests {
        let begin = SystemClock.elapsed();
        super::expect_ok(&mut connection, &page.path)?;
        times.push(milliseconds(SystemClock.elapsed() - begin));
    }
    let cpu = server.cpu_seconds()? - cpu;
    Ok(Cost {
        what: page.what,
        wall_ms: super::percentile(&mut times, 50),
        cpu_ms: cpu * 1000.0 / f64::from(requests),
    })
}

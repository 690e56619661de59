use super::*;
use crate::db::session::Dialect;
use crate::db::{self, CatalogError, plans, statements};
use rusqlite::StatementStatus;
use std::collections::BTreeSet;

fn file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("catalog.db").display());
    (directory, url)
}

fn complaint<T: std::fmt::Debug>(result: Result<T, CatalogError>) -> String {
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
    format!("{error}: {source}")
}

#[test]
fn a_commit_is_synced_and_foreign_keys_hold_on_every_connection() {
    let (_directory, url) = file();
    db::upgrade(&url).unwrap();
    let sqlite = Sqlite::open(path(url.strip_prefix("sqlite:").unwrap()).unwrap()).unwrap();
    let mut connections = vec![sqlite.writer.into_inner().unwrap()];
    connections.extend(sqlite.readers.unwrap().idle.into_inner().unwrap());
    assert_eq!(connections.len(), 1 + READERS);
    for connection in connections {
        let pragma = |name: &str| {
            let text = |row: &rusqlite::Row<'_>| row.get::<_, rusqlite::types::Value>(0);
            let value = connection.pragma_query_value(None, name, text);
            format!("{:?}", value.unwrap())
        };
        assert_eq!(pragma("synchronous"), "Integer(2)"); // FULL
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma("foreign_keys"), "Integer(1)");
    }
}

#[test]
fn a_file_is_made_once_and_then_left_as_it_is() {
    let (_directory, url) = file();
    assert!(complaint(db::open(&url)).contains("unable to open"));
    let versions = [db::upgrade(&url), db::upgrade(&url), db::version(&url)];
    let found = versions.map(|version| version.unwrap().found);
    assert_eq!(found, [0, migrations::current(), migrations::current()]);
    assert_eq!(db::check(&url).unwrap(), 0);
}

#[test]
fn a_database_of_another_version_or_program_is_refused_and_left_alone() {
    let (directory, url) = file();
    let path = directory.path().join("catalog.db");
    let run = |statement: &str| {
        Connection::open(&path)
            .unwrap()
            .execute_batch(statement)
            .unwrap()
    };

    run("VACUUM"); // an empty database
    assert!(complaint(db::open(&url)).contains("`tegulad db upgrade`"));
    db::upgrade(&url).unwrap();
    run("INSERT INTO schema_version VALUES (99, 'later')");
    for complaint in [
        complaint(db::open(&url)),
        complaint(db::upgrade(&url)),
        complaint(db::check(&url)),
    ] {
        assert!(complaint.contains("version 99, newer than"), "{complaint}");
    }

    std::fs::remove_file(&path).unwrap();
    run("CREATE TABLE mine (x); PRAGMA application_id = 7");
    let before = std::fs::read(&path).unwrap();
    for complaint in [complaint(db::open(&url)), complaint(db::upgrade(&url))] {
        assert!(complaint.contains("another program"), "{complaint}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::write(
        &path,
        "no database at all, but long enough to be read as one".repeat(20),
    )
    .unwrap();
    assert!(complaint(db::open(&url)).contains("not a database"));
}

#[test]
fn images_without_hash_come_from_their_index() {
    let sqlite = Sqlite::in_memory().unwrap();
    let connection = sqlite.writer();
    let rest = statements::WITHOUT_HASH;
    let explain = format!("EXPLAIN QUERY PLAN SELECT id FROM images WHERE {rest}");
    let mut statement = connection.prepare(&explain).unwrap();
    let lines = statement.query_map([], |row| row.get::<_, String>(3));
    let plan: Vec<String> = lines.unwrap().collect::<Result<_, _>>().unwrap();
    assert!(
        plan.len() == 1 && plan[0].contains("images_without_hash"),
        "{plan:?}"
    );
}

#[test]
fn a_listing_is_prepared_once_whatever_the_values() {
    let sqlite = Sqlite::in_memory().unwrap();
    let connection = sqlite.writer();
    let mut session = session::SqliteSession::new(&connection);
    for (name, mut query) in plans::listings() {
        query.marker = None;
        let mut texts = BTreeSet::new();
        for limit in [25, 1, 1000] {
            query.limit = limit;
            let (text, parameters) = plans::page(&mut session, &query);
            session.query(&text, &parameters).unwrap();
            texts.insert(text);
        }
        assert_eq!(texts.len(), 1, "{name}");
        for text in texts {
            let statement = connection.prepare_cached(&text).unwrap();
            assert!(statement.get_status(StatementStatus::Run) >= 3, "{name}");
            let again = statement.get_status(StatementStatus::RePrepare);
            assert_eq!(again, 0, "{name}: {text}");
        }
    }
}

#[test]
fn images_of_keys_are_looked_up_without_a_table_of_the_keys() {
    let sqlite = Sqlite::in_memory().unwrap();
    let connection = sqlite.writer();
    for (table, column) in [
        ("images", "key"),
        ("image_tags", "image"),
        ("image_properties", "image"),
        ("image_locations", "image"),
    ] {
        let from = Dialect::Sqlite.of_keys(table, column);
        let explain = format!("EXPLAIN QUERY PLAN SELECT {table}.* FROM {from}");
        let mut statement = connection.prepare(&explain).unwrap();
        let lines = statement.query_map(["[1, 2]"], |row| row.get::<_, String>(3));
        let plan: Vec<String> = lines.unwrap().collect::<Result<_, _>>().unwrap();
        assert!(
            plan.len() == 2
                && plan[0].starts_with("SCAN wanted VIRTUAL TABLE")
                && plan[1].starts_with(&format!("SEARCH {table} USING"))
                && plan[1].contains("PRIMARY KEY"),
            "{plan:?}"
        );
    }
}

#[test]
fn each_older_schema_is_brought_up_with_what_is_in_it() {
    for (taken, steps) in (1..).zip(1..migrations::MIGRATIONS.len()) {
        let (directory, url) = file();
        let path = directory.path().join("catalog.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "application_id", APPLICATION)
            .unwrap();
        connection.execute_batch(migrations::VERSION_TABLE).unwrap();
        for step in &migrations::MIGRATIONS[..steps] {
            connection.execute_batch(step.sqlite).unwrap();
            let applied = (step.version, step.name);
            let note = "INSERT INTO schema_version VALUES (?1, ?2)";
            connection.execute(note, applied).unwrap();
        }
        connection.execute_batch(IMAGE).unwrap();
        drop(connection);
        assert!(complaint(db::open(&url)).contains("`tegulad db upgrade`"));
        assert_eq!(db::upgrade(&url).unwrap().found, taken);
        assert_eq!(db::check(&url).unwrap(), 1);
    }
}

/// An image of the first schema.
const IMAGE: &str = "INSERT INTO images (id, id_lower, version, status, live, visibility, protected, hidden, \
        min_ram, min_disk, created_at, updated_at) \
     VALUES ('0a000000-0000-4000-8000-000000000001', '0a000000-0000-4000-8000-000000000001', 1, 'queued', 1, \
        'public', 0, 0, 0, 0, 0, 0)";

#[test]
fn damage_is_found() {
    let (directory, url) = file();
    let path = directory.path().join("catalog.db");
    db::upgrade(&url).unwrap();
    let run = |statement: &str| {
        Connection::open(&path)
            .unwrap()
            .execute_batch(statement)
            .unwrap()
    };
    run("PRAGMA foreign_keys = OFF; INSERT INTO image_tags VALUES (5, 'of no image')");
    assert!(complaint(db::check(&url)).contains("image_tags"));
    run("DELETE FROM image_tags");
    run(
        "INSERT INTO images SELECT 1, 'x', 'x', 1, 'queued', 1, 'public', 0, 0, \
         NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0",
    );
    let complaint = complaint(db::check(&url));
    assert!(
        complaint.contains("holds `x` where an image's id was expected, in images.id"),
        "{complaint}"
    );
}

#[test]
fn urls_name_files_or_are_refused_without_repeating_what_may_be_secret() {
    for (url, expected) in [
        ("sqlite:a/b", "a/b"),
        ("sqlite:/a", "/a"),
        ("sqlite:///a", "/a"),
    ] {
        assert_eq!(
            path(url.strip_prefix("sqlite:").unwrap()).unwrap(),
            Path::new(expected)
        );
    }
    for url in ["sqlite:", "sqlite://", "sqlite::memory:"] {
        assert!(matches!(db::open(url), Err(CatalogError::Url(_))), "{url}");
    }
    let complaint = complaint(db::open("mysql://root:secret@host/db"));
    assert!(complaint.contains("`mysql:`") && !complaint.contains("secret"));
}

#[test]
fn a_listing_costs_its_page_however_deep_and_however_many_images_others_have() {
    let sqlite = Sqlite::in_memory().unwrap();
    sqlite
        .write(|session| {
            plans::fill(session);
            Ok(())
        })
        .unwrap();
    for (name, query) in plans::listings() {
        plans::assert_few_statements(&sqlite, &name, &query);
        let plan = plans::explained(&sqlite, "EXPLAIN QUERY PLAN", &query);
        for line in &plan {
            let scan = line.starts_with("SCAN") && !line.starts_with("SCAN scan");
            assert!(
                !scan && !line.contains("TEMP B-TREE"),
                "{name}: {line}\n{plan:#?}"
            );
        }
        let (text, parameters) = sqlite
            .read(|session| Ok(plans::page(session, &query)))
            .unwrap();
        let connection = sqlite.writer();
        let mut statement = connection.prepare(&text).unwrap();
        for (index, value) in (1..).zip(&parameters) {
            statement.raw_bind_parameter(index, value).unwrap();
        }
        let mut found = 0;
        let mut rows = statement.raw_query();
        while rows.next().unwrap().is_some() {
            found += 1;
        }
        drop(rows);
        let steps = statement.get_status(rusqlite::StatementStatus::VmStep);
        let scanned = statement.get_status(rusqlite::StatementStatus::FullscanStep);
        println!("{name}: {found} rows, {steps} steps");
        assert_eq!(scanned, 0, "{name}");
        // A row takes some twenty steps, and each of the scans may have a page of them.
        assert!(
            found > 0 && steps < 4_000,
            "{name}: {found} rows, {steps} steps"
        );
    }
}

use super::*;
use crate::db::{self, CatalogError};

#[test]
fn urls_say_how_to_connect_or_are_refused() {
    for url in [
        "postgresql://",
        "postgres://user:secret@host:5433/database?connect_timeout=3",
        "postgresql:///database?host=/run/postgresql",
        "postgresql://user@%2Frun%2Fpostgresql/database?sslmode=disable",
    ] {
        Server::parse(url).unwrap();
    }
    let complaint = |url| match Server::parse(url) {
        Err(CatalogError::Url(complaint)) => complaint,
        other => panic!("{url}: {other:?}"),
    };
    assert!(complaint("postgresql://h/d?sslmode=prefer").contains("`prefer`, expected `disable`"));
    assert!(complaint("postgresql://h/d?sslrootcert=/x").contains("sslmode is not"));
    assert!(
        complaint("postgresql://h/d?sslmode=require&sslrootcert=/nowhere").contains("/nowhere")
    );
    assert!(complaint("postgresql://h/d?speed=high").contains("speed"));
    assert!(!complaint("postgresql://u:secret@h:port/d").contains("secret"));
    // What is encoded is the same as what is not; what contradicts itself is not taken for one of the two.
    assert!(complaint("postgresql://h/d?ssl%6Dode=prefer").contains("`prefer`, expected"));
    assert!(complaint("postgresql://h/d?sslmode=require%20").contains("`require `, expected"));
    assert!(
        complaint("postgresql://h/d?sslmode=require&sslrootcert=%2Fno%20where")
            .contains("sslrootcert /no where:")
    );
    assert!(complaint("postgresql://h/d?sslmode=require&sslmode=disable").contains("twice"));
    assert!(complaint("postgresql://h/d?sslmode=%zz").contains("percent-encoded"));
    // The question mark of a password begins no options.
    let complaint = complaint("postgresql://u:a?b&sslmode=secret@h:port/d");
    assert!(!complaint.contains("secret"), "{complaint}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_when_it_is_opened() {
    // No port 1 in a directory that is empty.
    let directory = tempfile::tempdir().unwrap();
    let url = format!(
        "postgresql:///x?user=u&port=1&host={}",
        directory.path().display()
    );
    let error = db::open(&url).unwrap_err();
    assert!(matches!(error, CatalogError::Unavailable(_)), "{error:?}");
}

/// Those that need a server: the one that `TEGULA_TEST_POSTGRES` names, as the suite in `tests/postgres.rs`, but each in a
/// schema of its own.
#[cfg(feature = "test-postgres")]
mod with_a_server {
    use crate::db::postgres::{Postgres, Server};
    use crate::db::session::Backend;
    use crate::db::{self, CatalogError, plans};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn in_a_schema(name: &str, test: impl FnOnce(&Postgres) + std::panic::UnwindSafe) {
        let url = std::env::var("TEGULA_TEST_POSTGRES").expect("TEGULA_TEST_POSTGRES is a URL");
        let schema = format!("tegula_{name}_{}", std::process::id());
        let mut client = ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap();
        client
            .batch_execute(&format!("CREATE SCHEMA {schema}"))
            .unwrap();
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}options=-c%20search_path%3D{schema}");
        let result = std::panic::catch_unwind(|| {
            db::upgrade(&url).unwrap();
            test(&Postgres::open(Server::parse(&url).unwrap()).unwrap());
        });
        client
            .batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
            .unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn a_listing_costs_its_page_however_deep_and_however_many_images_others_have() {
        in_a_schema("plans", |postgres| {
            let filled = postgres.write(|session| {
                plans::fill(session);
                Ok(())
            });
            filled.unwrap();
            let mut connection = postgres.pool.take().unwrap();
            connection.client.batch_execute("VACUUM ANALYZE").unwrap();
            drop(connection);
            for (name, query) in plans::listings() {
                let explain = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF)";
                let plan = plans::explained(postgres, explain, &query).join("\n");
                assert!(!plan.contains("Seq Scan"), "{name}: {plan}");
                // A few images of one name, or of one second, may be sorted.
                assert!(
                    by_another_key(&query) || !plan.contains("Sort"),
                    "{name}: {plan}"
                );
                let touched = pages(&plan);
                println!("{name}: {touched} pages");
                // A row takes up to four pages, and each of the scans may have a page of them.
                assert!(touched < 400, "{name}: {plan}");
                plans::assert_few_statements(postgres, &name, &query);
            }
        });
    }

    fn by_another_key(query: &tegula_domain::query::ImageQuery) -> bool {
        use tegula_domain::query::SortKey;
        let by_time = query.sort.first().map(|(key, _)| *key) == Some(SortKey::CreatedAt);
        !query.filters.is_empty() || !by_time
    }

    /// How many pages the whole plan touched: the first line of its kind is the outermost node's.
    fn pages(plan: &str) -> u64 {
        let line = plan
            .lines()
            .find(|line| line.contains("Buffers: shared"))
            .unwrap();
        let counts = line
            .split([' ', '='])
            .filter_map(|word| word.parse::<u64>().ok());
        counts.sum()
    }

    #[test]
    fn transactions_that_block_each_other_are_run_again() {
        in_a_schema("deadlock", |postgres| {
            let (barrier, runs) = (Barrier::new(2), AtomicU32::new(0));
            let lock = |keys: [i64; 2]| {
                postgres.write(|session| {
                    let first = runs.fetch_add(1, Ordering::SeqCst) < 2;
                    for key in keys {
                        let statement = "UPDATE counters SET n = n + 1 WHERE key = $1";
                        session.execute(statement, &[key.into()])?;
                        if first && key == keys[0] {
                            barrier.wait();
                        }
                    }
                    Ok(())
                })
            };
            let table = "CREATE TABLE counters AS SELECT CAST(key AS BIGINT), CAST(0 AS BIGINT) AS n \
                FROM generate_series(1, 2) AS key";
            postgres
                .write(|session| session.execute(table, &[]))
                .unwrap();
            std::thread::scope(|scope| {
                let other = scope.spawn(|| lock([2, 1]));
                lock([1, 2]).unwrap();
                other.join().unwrap().unwrap();
            });
            assert!(runs.into_inner() >= 3, "nothing was run again");
            let sum = "SELECT CAST(sum(n) AS BIGINT) FROM counters";
            let mut rows = postgres.read(|session| session.query(sum, &[])).unwrap();
            assert_eq!(rows[0].integer("sum").unwrap(), 4);
        });
    }

    #[test]
    fn connections_that_the_server_closed_are_opened_again() {
        in_a_schema("closed", |postgres| {
            let count = "SELECT count(*) FROM images";
            for _ in 0..3 {
                std::thread::scope(|scope| {
                    for _ in 0..30 {
                        scope.spawn(|| postgres.read(|session| session.query(count, &[])).unwrap());
                    }
                });
                let url = std::env::var("TEGULA_TEST_POSTGRES").unwrap();
                let mut client = ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap();
                // Only those of this test: the others' are in other schemas.
                let pids = postgres.pool.pids();
                assert!(!pids.is_empty());
                for pid in pids {
                    client
                        .execute("SELECT pg_terminate_backend($1, 5000)", &[&pid])
                        .unwrap();
                }
                postgres.read(|session| session.query(count, &[])).unwrap();
            }
        });
    }

    /// A connection of its own, to tell the server what to do with others.
    fn operator() -> ::postgres::Client {
        let url = std::env::var("TEGULA_TEST_POSTGRES").unwrap();
        ::postgres::Client::connect(&url, ::postgres::NoTls).unwrap()
    }

    #[test]
    fn a_transaction_whose_connection_is_lost_before_it_commits_is_run_again() {
        in_a_schema("lost", |postgres| {
            let table = "CREATE TABLE counted AS SELECT CAST(0 AS BIGINT) AS n";
            postgres
                .write(|session| session.execute(table, &[]))
                .unwrap();
            let runs = AtomicU32::new(0);
            let end_first = |session: &mut dyn crate::db::session::Session| {
                let pid = "SELECT CAST(pg_backend_pid() AS BIGINT)";
                let pid = session.query(pid, &[])?.remove(0).integer("pid")?;
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    let pid = i32::try_from(pid).unwrap();
                    let end = "SELECT pg_terminate_backend($1, 5000)";
                    operator().execute(end, &[&pid]).unwrap();
                }
                Ok(())
            };
            let written = postgres.write(|session| {
                session.execute("UPDATE counted SET n = n + 1", &[])?;
                end_first(session)?;
                session.execute("UPDATE counted SET n = n + 1", &[])
            });
            assert_eq!((written.unwrap(), runs.swap(0, Ordering::SeqCst)), (1, 2));
            let read = postgres.read(|session| {
                end_first(session)?;
                let mut rows = session.query("SELECT n FROM counted", &[])?;
                rows.remove(0).integer("n")
            });
            assert_eq!((read.unwrap(), runs.into_inner()), (2, 2));
        });
    }

    #[test]
    fn a_server_without_room_is_asked_for_no_more_connections_than_it_gives() {
        let role = format!("tegula_few_{}", std::process::id());
        let create = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 3");
        operator().batch_execute(&create).unwrap();
        let url = std::env::var("TEGULA_TEST_POSTGRES").unwrap();
        let url = url.replacen("tegula@", &format!("{role}@"), 1);
        let postgres = Postgres::open(Server::parse(&url).unwrap()).unwrap();
        let read = || {
            let slow = "SELECT CAST(1 AS BIGINT) FROM pg_sleep(0.002)";
            postgres.read(|session| session.query(slow, &[]).map(|rows| rows.len()))
        };
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(read().unwrap(), 1)));
            }
        });
        assert!(postgres.pool.pids().len() <= 3);
        // When there is room again, it is used.
        let more = format!("ALTER ROLE {role} CONNECTION LIMIT -1");
        operator().batch_execute(&more).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| (0..40).for_each(|_| assert_eq!(read().unwrap(), 1)));
            }
        });
        assert!(postgres.pool.pids().len() > 3);
        drop(postgres);
        operator()
            .batch_execute(&format!("DROP ROLE {role}"))
            .unwrap();
    }

    #[test]
    fn a_database_of_another_version_or_program_is_refused() {
        in_a_schema("versions", |postgres| {
            let run = |statement: &str| {
                let mut connection = postgres.pool.take().unwrap();
                connection.client.batch_execute(statement).unwrap();
            };
            run("INSERT INTO schema_version VALUES (99, 'later')");
            let newer = db::migrations::expect_current(postgres.version().unwrap());
            assert!(
                matches!(newer, Err(CatalogError::Schema(text)) if text.contains("version 99, newer"))
            );
            run("DROP TABLE schema_version");
            assert!(
                matches!(postgres.version(), Err(CatalogError::Schema(text)) if text.contains("another program"))
            );
        });
    }
}

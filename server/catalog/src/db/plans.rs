//! What a listing costs: which indexes it goes through, and how much of them, among many images of others.
//!
//! Counted, not timed: the steps of SQLite's machine, the pages and rows of PostgreSQL.

use super::CatalogError;
use super::listing::{self, marker, order, statement};
use super::session::{Backend, Dialect, Row, Session, Value};
use tegula_domain::query::{Asked, Direction, Filter, ImageQuery, ListScope, SortKey, TextColumn};
use tegula_domain::{ImageId, MemberStatus, Visibility};

/// How many images there are. Of ten: one is public, one `p1`'s (every other one shared, else private), two are others'
/// community images, one is shared with `p1` by others, five are others' private ones.
pub(super) const IMAGES: i64 = 100_000;

/// Fills an empty database. Image `n` was made in second `n / 2`; `n` is its id's end.
pub(super) fn fill(session: &mut dyn Session) {
    let hex = match session.dialect() {
        Dialect::Sqlite => "printf('%012x', n)",
        Dialect::Postgres => "lpad(to_hex(n), 12, '0')",
    };
    let id = format!("'0a000000-0000-4000-8000-' || {hex}");
    let images = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < $1) \
         INSERT INTO images (id, id_lower, version, status, live, visibility, protected, hidden, owner, name, \
             min_ram, min_disk, size, created_at, updated_at, disk_format, container_format) \
         SELECT {id}, {id}, 1, CASE WHEN n % 13 = 0 THEN 'queued' ELSE 'active' END, TRUE, \
             CASE WHEN n % 10 = 0 THEN 'public' WHEN n % 10 IN (2, 3) THEN 'community' \
                  WHEN n % 10 = 4 OR n % 20 = 1 THEN 'shared' ELSE 'private' END, \
             FALSE, FALSE, CASE WHEN n % 10 = 1 THEN 'p1' ELSE 'other-' || (n % 997) END, 'image-' || (n % 991), \
             0, 0, n, n / 2 * 1000000, n * 7919 % 100003 * 1000000, \
             CASE WHEN n % 3 = 0 THEN 'raw' WHEN n % 3 = 1 THEN 'qcow2' END, CASE WHEN n % 7 > 0 THEN 'bare' END \
         FROM numbers"
    );
    session.execute(&images, &[IMAGES.into()]).unwrap();
    let members = "INSERT INTO image_members \
            (image, project, status, created_at, updated_at, image_created_at, image_id) \
         SELECT key, 'p1', 'accepted', 0, 0, created_at, id FROM images WHERE size % 10 = 4";
    session.execute(members, &[]).unwrap();
}

/// The id of an image.
pub(super) fn id(number: i64) -> ImageId {
    ImageId::parse(&format!("0a000000-0000-4000-8000-{number:012x}")).unwrap()
}

/// The keys that listings by have indexes for: none is the default order, by time.
const KEYS: [Option<SortKey>; 3] = [None, Some(SortKey::Name), Some(SortKey::UpdatedAt)];

/// The listings that must not cost more than their page: every scope, in the orders that have indexes, both directions, from
/// the beginning and from deep in; and images of one name.
pub(super) fn listings() -> Vec<(String, ImageQuery)> {
    let only = |visibility| Asked::Only(visibility);
    let scopes = [
        ("a project's", Asked::Usual, false),
        ("all for a project", Asked::All, false),
        ("a project's shared", only(Visibility::Shared), false),
        ("a project's private", only(Visibility::Private), false),
        ("public", only(Visibility::Public), false),
        ("community", only(Visibility::Community), false),
        ("an administrator's", Asked::Usual, true),
        ("all for an administrator", Asked::All, true),
        (
            "shared for an administrator",
            only(Visibility::Shared),
            true,
        ),
    ];
    let mut listings = Vec::new();
    for (name, visibility, admin) in scopes {
        // Memberships are ordered by time alone: those of a project are gone through for other orders.
        let shares = !admin
            && matches!(
                visibility,
                Asked::Usual | Asked::All | Asked::Only(Visibility::Shared)
            );
        for direction in [Direction::Descending, Direction::Ascending] {
            for key in KEYS {
                if key.is_some() && shares {
                    continue;
                }
                for deep in [None, Some(IMAGES / 2), Some(IMAGES * 9 / 10)] {
                    listings.push((
                        format!("{name} images by {key:?}, {direction:?}, after {deep:?}"),
                        listing(visibility, admin, key, direction, deep),
                    ));
                }
            }
        }
        if shares {
            continue;
        }
        let mut named = listing(visibility, admin, None, Direction::Descending, None);
        let names = vec!["image-7".to_owned()];
        named.filters.push(Filter::Text(TextColumn::Name, names));
        listings.push((format!("{name} images of one name"), named));
    }
    listings
}

fn listing(
    visibility: Asked,
    admin: bool,
    key: Option<SortKey>,
    direction: Direction,
    deep: Option<i64>,
) -> ImageQuery {
    let mut sort = vec![(SortKey::CreatedAt, direction), (SortKey::Id, direction)];
    if let Some(key) = key {
        sort.insert(0, (key, direction));
    }
    ImageQuery {
        scope: ListScope {
            visibility,
            project: Some("p1".to_owned()),
            admin,
            member_status: Some(MemberStatus::Accepted),
            hidden: false,
        },
        filters: Vec::new(),
        sort,
        marker: deep.map(id),
        limit: 25,
    }
}

/// The statement that finds the page, and its parameters.
pub(super) fn page(session: &mut dyn Session, query: &ImageQuery) -> (String, Vec<Value>) {
    let order = order(&query.sort);
    let marker = query
        .marker
        .as_ref()
        .map(|id| marker(session, id, &query.scope, &order).unwrap());
    statement(
        session.dialect(),
        (query, query.limit),
        &order,
        marker.as_deref(),
    )
}

/// What one session says of a statement.
pub(super) fn explained<B: Backend>(backend: &B, explain: &str, query: &ImageQuery) -> Vec<String> {
    backend
        .read(|session| {
            let (statement, parameters) = page(session, query);
            let rows = session.query(&format!("{explain} {statement}"), &parameters)?;
            // The last column of both databases' plans is the text.
            let texts = rows.into_iter().filter_map(|row| match row.rest().pop() {
                Some(Value::Text(text)) => Some(text),
                _ => None,
            });
            Ok(texts.collect())
        })
        .unwrap()
}

/// A transaction whose statements are counted.
struct Counted<'a> {
    session: &'a mut dyn Session,
    statements: u32,
}

impl Session for Counted<'_> {
    fn query(&mut self, statement: &str, parameters: &[Value]) -> Result<Vec<Row>, CatalogError> {
        self.statements += 1;
        self.session.query(statement, parameters)
    }

    fn execute(&mut self, statement: &str, parameters: &[Value]) -> Result<u64, CatalogError> {
        self.statements += 1;
        self.session.execute(statement, parameters)
    }

    fn dialect(&self) -> Dialect {
        self.session.dialect()
    }
}

/// Holds that a page takes three statements, however long it is, and three more to find its marker and look whether it is
/// shown.
pub(super) fn assert_few_statements<B: Backend>(backend: &B, name: &str, query: &ImageQuery) {
    for limit in [1, 25, 1000] {
        let query = ImageQuery {
            limit,
            ..query.clone()
        };
        let (found, statements) = backend
            .read(|session| {
                let mut counted = Counted {
                    session,
                    statements: 0,
                };
                let found = listing::page(&mut counted, &query, &|_| true)?;
                Ok((found.len(), counted.statements))
            })
            .unwrap();
        assert!(found > 0, "{name}");
        let expected = if query.marker.is_some() { 6 } else { 3 };
        assert_eq!(statements, expected, "{name}: {found} of {limit} images");
    }
}

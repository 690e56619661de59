//! The catalog as statements: what both databases have in common, which is all but the connections.

use super::listing;
use super::rows::{self, Keyed};
use super::session::{Backend, Row, Session, Value};
use super::{Catalog, CatalogError, ProjectUsage, migrations};
use tegula_domain::query::ImageQuery;
use tegula_domain::{Image, ImageId, ImageStatus, Member, MemberStatus, Timestamp};

/// A database that keeps the catalog.
#[derive(Debug)]
pub(super) struct Database<B>(pub(super) B);

impl<B: Backend> Catalog for Database<B> {
    fn insert(&self, image: &Image) -> Result<(), CatalogError> {
        self.0.write(|session| rows::insert(session, image))
    }

    fn image(&self, id: &ImageId) -> Result<Option<Image>, CatalogError> {
        let found = self.0.read(|session| rows::find(session, id, false))?;
        Ok(found.map(|keyed| keyed.image))
    }

    fn save(&self, image: &Image) -> Result<u64, CatalogError> {
        self.0.write(|session| save(session, image))
    }

    fn save_within(&self, image: &Image, project_bytes: u64) -> Result<u64, CatalogError> {
        self.0.write(|session| {
            let Some(owner) = &image.owner else {
                return save(session, image);
            };
            if let Some(lock) = session.dialect().lock_project() {
                session.execute(lock, &[owner.into()])?;
            }
            let version = save(session, image)?;
            if usage(session, owner)?.bytes > project_bytes {
                return Err(CatalogError::Limit {
                    what: "bytes of a project's images",
                    limit: project_bytes,
                });
            }
            Ok(version)
        })
    }

    fn list(
        &self,
        query: &ImageQuery,
        shown: &dyn Fn(&Image) -> bool,
    ) -> Result<Vec<Image>, CatalogError> {
        self.0.read(|session| listing::page(session, query, shown))
    }

    fn in_status(&self, statuses: &[ImageStatus]) -> Result<Vec<Image>, CatalogError> {
        let names: Vec<Value> = statuses
            .iter()
            .filter(|status| **status != ImageStatus::Deleted)
            .map(|status| status.as_str().into())
            .collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
        let rest = format!("status IN ({}) ORDER BY created_at, id", places.join(", "));
        let found = self
            .0
            .read(|session| rows::select(session, &rest, &names))?;
        Ok(found.into_iter().map(|keyed| keyed.image).collect())
    }

    fn without_hash(&self) -> Result<Vec<ImageId>, CatalogError> {
        self.select_ids(WITHOUT_HASH)
    }

    fn ids(&self) -> Result<Vec<ImageId>, CatalogError> {
        self.select_ids("live ORDER BY key")
    }

    fn members(&self, image: &ImageId) -> Result<Vec<Member>, CatalogError> {
        self.0.read(|session| {
            let statement = format!("{MEMBER} ORDER BY member.created_at, member.project");
            let found = session.query(&statement, &of_image(image))?;
            found.into_iter().map(|row| member(row, image)).collect()
        })
    }

    fn member(&self, image: &ImageId, project: &str) -> Result<Option<Member>, CatalogError> {
        self.0.read(|session| find_member(session, image, project))
    }

    fn insert_member(
        &self,
        image: &ImageId,
        member: &Member,
        limit: u64,
    ) -> Result<(), CatalogError> {
        self.0.write(|session| {
            // The lock keeps two callers from passing the limit together.
            let Keyed { key, image: found } = rows::find(session, image, true)?
                .ok_or_else(|| CatalogError::NoImage(image.clone()))?;
            if find_member(session, image, &member.project)?.is_some() {
                return Err(CatalogError::MemberTaken {
                    image: image.clone(),
                    project: member.project.clone(),
                });
            }
            let statement = "SELECT count(*) FROM image_members WHERE image = $1";
            let count: u64 =
                one(session.query(statement, &[key.into()])?).unsigned("the number of members")?;
            if count >= limit {
                let what = "members";
                return Err(CatalogError::Limit { what, limit });
            }
            let statement = "INSERT INTO image_members \
                (image, project, status, created_at, updated_at, image_created_at, image_id) \
                VALUES ($1, $2, $3, $4, $5, $6, $7)";
            let values = [
                key.into(),
                (&member.project).into(),
                member.status.as_str().into(),
                member.created_at.as_micros().into(),
                member.updated_at.as_micros().into(),
                found.created_at.as_micros().into(),
                found.id.as_str().into(),
            ];
            session.execute(statement, &values).map(drop)
        })
    }

    fn set_member(
        &self,
        image: &ImageId,
        project: &str,
        status: MemberStatus,
        now: Timestamp,
    ) -> Result<Member, CatalogError> {
        self.change_member(image, project, |session, key| {
            let statement = "UPDATE image_members SET status = $1, updated_at = $2 \
                WHERE image = $3 AND project = $4";
            let values = [
                status.as_str().into(),
                now.as_micros().into(),
                key.into(),
                project.into(),
            ];
            session.execute(statement, &values).map(drop)
        })
        .map(|member| Member {
            status,
            updated_at: now,
            ..member
        })
    }

    fn remove_member(&self, image: &ImageId, project: &str) -> Result<(), CatalogError> {
        self.change_member(image, project, |session, key| {
            let statement = "DELETE FROM image_members WHERE image = $1 AND project = $2";
            session
                .execute(statement, &[key.into(), project.into()])
                .map(drop)
        })
        .map(drop)
    }

    fn usage(&self, project: &str) -> Result<ProjectUsage, CatalogError> {
        self.0.read(|session| usage(session, project))
    }

    fn store(&self) -> Result<Option<String>, CatalogError> {
        self.0.read(noted_store)
    }

    fn note_store(&self, store: &str) -> Result<String, CatalogError> {
        self.0.write(|session| {
            let statement = "INSERT INTO catalog_store (place, id) VALUES (1, $1) ON CONFLICT (place) DO NOTHING";
            session.execute(statement, &[store.into()])?;
            Ok(noted_store(session)?.unwrap_or_else(|| store.to_owned()))
        })
    }

    fn forget_store(&self) -> Result<Option<String>, CatalogError> {
        self.0.write(|session| {
            let noted = noted_store(session)?;
            session.execute("DELETE FROM catalog_store", &[])?;
            Ok(noted)
        })
    }

    fn check(&self) -> Result<(), CatalogError> {
        migrations::expect_current(self.0.version()?)
    }
}

impl<B: Backend> Database<B> {
    /// The ids of the images that a condition selects; it follows the word WHERE.
    fn select_ids(&self, rest: &str) -> Result<Vec<ImageId>, CatalogError> {
        let statement = format!("SELECT id FROM images WHERE {rest}");
        let found = self.0.read(|session| session.query(&statement, &[]))?;
        found
            .into_iter()
            .map(|mut row| rows::image_id(&mut row, "images.id"))
            .collect()
    }

    /// Changes a membership, and returns what it was before.
    fn change_member(
        &self,
        image: &ImageId,
        project: &str,
        change: impl Fn(&mut dyn Session, i64) -> Result<(), CatalogError>,
    ) -> Result<Member, CatalogError> {
        let none = || CatalogError::NoMember {
            image: image.clone(),
            project: project.to_owned(),
        };
        self.0.write(|session| {
            let key = rows::find(session, image, true)?.ok_or_else(none)?.key;
            let before = find_member(session, image, project)?.ok_or_else(none)?;
            change(session, key)?;
            Ok(before)
        })
    }
}

fn save(session: &mut dyn Session, image: &Image) -> Result<u64, CatalogError> {
    let stale = || CatalogError::Stale(image.id.clone());
    let before = rows::find(session, &image.id, true)?.ok_or_else(stale)?;
    if before.image.version != image.version {
        return Err(stale());
    }
    let mut after = image.clone();
    after.version += 1;
    after.created_at = before.image.created_at;
    rows::update(session, &before, &after)?;
    Ok(after.version)
}

fn usage(session: &mut dyn Session, project: &str) -> Result<ProjectUsage, CatalogError> {
    // An image without a size, or without a location, uses no bytes.
    let statement = "SELECT count(*), \
        CAST(coalesce(sum(size * (SELECT count(*) FROM image_locations WHERE image = images.key)), 0) AS BIGINT), \
        CAST(coalesce(sum(CASE WHEN status IN ('saving', 'uploading', 'importing') THEN 1 ELSE 0 END), 0) AS BIGINT) \
        FROM images WHERE live AND owner = $1";
    let mut row = one(session.query(statement, &[project.into()])?);
    let place = "what a project's images amount to";
    Ok(ProjectUsage {
        images: row.unsigned(place)?,
        bytes: row.unsigned(place)?,
        uploading: row.unsigned(place)?,
    })
}

/// Selects the images that have bytes and no hash.
pub(super) const WITHOUT_HASH: &str = "coalesce(status, '') IN ('active', 'deactivated') AND hash_value IS NULL ORDER BY created_at, id";

/// The members of the image whose id is the first two parameters.
const MEMBER: &str = "SELECT member.project, member.status, member.created_at, member.updated_at \
    FROM images JOIN image_members AS member ON member.image = images.key \
    WHERE images.id_lower = $1 AND images.id = $2 AND images.live";

fn of_image(image: &ImageId) -> [Value; 2] {
    [Value::Text(image.lower_case()), image.as_str().into()]
}

fn find_member(
    session: &mut dyn Session,
    image: &ImageId,
    project: &str,
) -> Result<Option<Member>, CatalogError> {
    if project.contains('\0') {
        return Ok(None); // no such project can be a member
    }
    let statement = format!("{MEMBER} AND member.project = $3");
    let [lower, id] = of_image(image);
    let found = session.query(&statement, &[lower, id, project.into()])?;
    let found = found.into_iter().next();
    found.map(|row| member(row, image)).transpose()
}

fn member(mut row: Row, image: &ImageId) -> Result<Member, CatalogError> {
    let place = format!("image_members of {image}");
    Ok(Member {
        project: row.text(&place)?,
        status: row.named(&place, MemberStatus::from_name, "a member's status")?,
        created_at: Timestamp::from_micros(row.integer(&place)?),
        updated_at: Timestamp::from_micros(row.integer(&place)?),
    })
}

/// The identity of the store that was noted.
fn noted_store(session: &mut dyn Session) -> Result<Option<String>, CatalogError> {
    let rows = session.query("SELECT id FROM catalog_store", &[])?;
    let row = rows.into_iter().next();
    row.map(|mut row| row.text("the noted store")).transpose()
}

/// The only row of a statement that gives one whatever the tables hold.
fn one(rows: Vec<Row>) -> Row {
    rows.into_iter()
        .next()
        .unwrap_or_else(|| Row::new(Vec::new()))
}

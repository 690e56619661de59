//! The database behind the catalog: one trait, two implementations (SQLite and PostgreSQL), one suite that both pass.
//!
//! Every call is one transaction, durable when it returns. What two callers do at the same time is settled by
//! compare-and-set: an image is saved over the [`Image::version`] that was loaded, or not at all.

mod listing;
mod migrations;
#[cfg(test)]
mod plans;
mod postgres;
mod rows;
mod session;
mod sqlite;
mod statements;

use statements::Database;
use std::fmt;
use std::sync::Arc;
use tegula_domain::query::ImageQuery;
use tegula_domain::{Image, ImageId, ImageStatus, Member, MemberStatus, Timestamp};

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The id is, or once was, an image's.
    #[error("the id {0} is taken")]
    IdTaken(ImageId),
    /// Somebody else saved or deleted the image in the meantime: load it again and decide anew.
    #[error("image {0} was changed by somebody else")]
    Stale(ImageId),
    /// There is no such image, or it was deleted.
    #[error("there is no image {0}")]
    NoImage(ImageId),
    /// The project is a member of the image already.
    #[error("project {project} is a member of image {image} already")]
    MemberTaken {
        /// The image.
        image: ImageId,
        /// The project.
        project: String,
    },
    /// The project is no member of the image.
    #[error("project {project} is no member of image {image}")]
    NoMember {
        /// The image.
        image: ImageId,
        /// The project.
        project: String,
    },
    /// The marker of a listing is no image, or none that the caller could have been shown.
    #[error("no image {0} to continue a listing after")]
    NoMarker(ImageId),
    /// A limit would be passed; the transaction did nothing.
    #[error("the limit of {limit} {what} is reached")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// A number is larger than a database keeps.
    #[error("the {what} is {value}, and at most {} is kept", i64::MAX)]
    TooLarge {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// A text holds a character that not every database keeps.
    #[error("{0:?} has a NUL character, which cannot be kept")]
    NulCharacter(String),
    /// The text names no database.
    #[error("{0}")]
    Url(String),
    /// The database is of another version, or is not ours.
    #[error("{0}")]
    Schema(String),
    /// What the database holds is not what we wrote.
    #[error("the database holds {found} where {expected} was expected, in {place}")]
    Damaged {
        /// Table, row and column.
        place: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// The database cannot be reached at present, or went away in the middle.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database refused, or failed.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What one project's images amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Images that are not deleted.
    pub images: u64,
    /// The sum of their sizes, counted once for each location.
    pub bytes: u64,
    /// Images whose bytes are arriving (saving, uploading, importing).
    pub uploading: u64,
}

/// What keeps the catalog. Methods block; each is one transaction.
pub trait Catalog: fmt::Debug + Send + Sync {
    /// Adds an image with its tags, properties and locations. The id must never have been used.
    ///
    /// # Errors
    /// [`CatalogError::IdTaken`].
    fn insert(&self, image: &Image) -> Result<(), CatalogError>;

    /// The image of that id, whole; none if there is none or it is deleted. Ids are compared as they are written.
    ///
    /// # Errors
    /// Those of the database.
    fn image(&self, id: &ImageId) -> Result<Option<Image>, CatalogError>;

    /// Saves the image, tags, properties and locations included, if it still is of the version given by [`Image::version`];
    /// the saved one has the next version, which is returned. An image whose status is deleted disappears from every other
    /// call, and its id stays taken.
    ///
    /// # Errors
    /// [`CatalogError::Stale`] if it was saved or deleted since.
    fn save(&self, image: &Image) -> Result<u64, CatalogError>;

    /// Saves the image, if its owner's images do not amount to more than so many bytes then. Nobody who asks for the same can
    /// pass the limit together with others: one after the other is looked at.
    ///
    /// # Errors
    /// [`CatalogError::Limit`], and those of [`Self::save`].
    fn save_within(&self, image: &Image, project_bytes: u64) -> Result<u64, CatalogError>;

    /// One page of the images that `shown` is true of; the others are as if they were not there, as a marker too. The page is
    /// full unless nothing follows it, however many are passed over for it.
    ///
    /// # Errors
    /// [`CatalogError::NoMarker`] if the marker is no image that this caller could have listed with some query.
    fn list(
        &self,
        query: &ImageQuery,
        shown: &dyn Fn(&Image) -> bool,
    ) -> Result<Vec<Image>, CatalogError>;

    /// Images in one of these states, oldest first: for a start after a crash and for work in the background.
    ///
    /// # Errors
    /// Those of the database.
    fn in_status(&self, statuses: &[ImageStatus]) -> Result<Vec<Image>, CatalogError>;

    /// The ids of active and deactivated images without a hash, oldest first: those whose bytes nobody has read through yet.
    ///
    /// # Errors
    /// Those of the database.
    fn without_hash(&self) -> Result<Vec<ImageId>, CatalogError>;

    /// The ids of all images that are not deleted.
    ///
    /// # Errors
    /// Those of the database.
    fn ids(&self) -> Result<Vec<ImageId>, CatalogError>;

    /// The projects the image is shared with, oldest first.
    ///
    /// # Errors
    /// Those of the database.
    fn members(&self, image: &ImageId) -> Result<Vec<Member>, CatalogError>;

    /// That project's membership, if it is a member.
    ///
    /// # Errors
    /// Those of the database.
    fn member(&self, image: &ImageId, project: &str) -> Result<Option<Member>, CatalogError>;

    /// Shares the image with a project, if it does not have `limit` members already.
    ///
    /// # Errors
    /// [`CatalogError::MemberTaken`], [`CatalogError::Limit`], [`CatalogError::NoImage`].
    fn insert_member(
        &self,
        image: &ImageId,
        member: &Member,
        limit: u64,
    ) -> Result<(), CatalogError>;

    /// Notes what the project says of the image; returns the membership.
    ///
    /// # Errors
    /// [`CatalogError::NoMember`].
    fn set_member(
        &self,
        image: &ImageId,
        project: &str,
        status: MemberStatus,
        now: Timestamp,
    ) -> Result<Member, CatalogError>;

    /// Ends a membership.
    ///
    /// # Errors
    /// [`CatalogError::NoMember`].
    fn remove_member(&self, image: &ImageId, project: &str) -> Result<(), CatalogError>;

    /// What the project's images amount to.
    ///
    /// # Errors
    /// Those of the database.
    fn usage(&self, project: &str) -> Result<ProjectUsage, CatalogError>;

    /// The identity of the store that keeps the images' bytes, if one was noted.
    ///
    /// # Errors
    /// Those of the database.
    fn store(&self) -> Result<Option<String>, CatalogError>;

    /// Notes the identity of the store that keeps the images' bytes, unless one was noted before; returns the noted one.
    ///
    /// # Errors
    /// Those of the database.
    fn note_store(&self, store: &str) -> Result<String, CatalogError>;

    /// Forgets which store keeps the images' bytes, for who moved them to another; returns the one that was noted.
    ///
    /// # Errors
    /// Those of the database.
    fn forget_store(&self) -> Result<Option<String>, CatalogError>;

    /// Whether the database answers and its schema is this program's.
    ///
    /// # Errors
    /// [`CatalogError::Schema`], [`CatalogError::Unavailable`], [`CatalogError::Database`].
    fn check(&self) -> Result<(), CatalogError>;
}

/// Opens a database that has this program's schema: `sqlite:PATH`, or `postgresql://[USER[:PASSWORD]@][HOST][:PORT][/DATABASE]`
/// with libpq's options. TLS is used if the options say `sslmode=require` or `verify-full`, and then the certificate is checked.
///
/// # Errors
/// [`CatalogError::Url`], [`CatalogError::Schema`] if it must be brought up first ([`upgrade`]), [`CatalogError::Unavailable`],
/// [`CatalogError::Database`].
pub fn open(url: &str) -> Result<Arc<dyn Catalog>, CatalogError> {
    let catalog: Arc<dyn Catalog> = match Kind::of(url)? {
        Kind::Sqlite(path) => Arc::new(Database(sqlite::Sqlite::open(path)?)),
        Kind::Postgres(server) => Arc::new(Database(postgres::Postgres::open(*server)?)),
    };
    catalog.check()?;
    Ok(catalog)
}

/// Whether a text names a database that can be opened; connects to nothing.
///
/// # Errors
/// [`CatalogError::Url`].
pub fn check_url(url: &str) -> Result<(), CatalogError> {
    Kind::of(url).map(|_| ())
}

/// A new, empty catalog in memory, gone when it is dropped: for tests.
///
/// # Errors
/// [`CatalogError::Database`].
pub fn open_in_memory() -> Result<Arc<dyn Catalog>, CatalogError> {
    Ok(Arc::new(Database(sqlite::Sqlite::in_memory()?)))
}

/// The version of a database's schema, and the one that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The number of the last migration the database went through; 0 if it is empty.
    pub found: u32,
    /// The number of the last one this program knows.
    pub program: u32,
}

/// Brings a database up to this program's schema, one migration a transaction, and returns what it found. A SQLite file that
/// is not there is made.
///
/// # Errors
/// [`CatalogError::Schema`] if the schema is newer than this program, or another program's.
pub fn upgrade(url: &str) -> Result<SchemaVersion, CatalogError> {
    match Kind::of(url)? {
        Kind::Sqlite(path) => sqlite::upgrade(path),
        Kind::Postgres(server) => postgres::upgrade(*server),
    }
}

/// The version of a database's schema.
///
/// # Errors
/// [`CatalogError::Schema`] if it is another program's.
pub fn version(url: &str) -> Result<SchemaVersion, CatalogError> {
    let found = match Kind::of(url)? {
        Kind::Sqlite(path) => sqlite::version(path)?,
        Kind::Postgres(server) => postgres::version(*server)?,
    };
    Ok(SchemaVersion {
        found,
        program: migrations::current(),
    })
}

/// Looks through a whole database: its schema is this program's, its pages and indexes are sound, and every image and
/// membership can be read. Returns the number of images.
///
/// # Errors
/// [`CatalogError::Schema`], [`CatalogError::Damaged`].
pub fn check(url: &str) -> Result<u64, CatalogError> {
    // PostgreSQL checks its pages itself, as its administrator sets it up.
    if let Kind::Sqlite(path) = Kind::of(url)? {
        sqlite::check_integrity(path)?;
    }
    let catalog = open(url)?;
    let mut images = 0;
    for id in catalog.ids()? {
        catalog.image(&id)?;
        catalog.members(&id)?;
        images += 1;
    }
    Ok(images)
}

/// What a database's URL names.
enum Kind<'a> {
    /// A file.
    Sqlite(&'a std::path::Path),
    /// A database of a server.
    Postgres(Box<postgres::Server>),
}

impl<'a> Kind<'a> {
    fn of(url: &'a str) -> Result<Self, CatalogError> {
        if let Some(rest) = url.strip_prefix("sqlite:") {
            return sqlite::path(rest).map(Self::Sqlite);
        }
        if url.starts_with("postgresql://") || url.starts_with("postgres://") {
            let server = postgres::Server::parse(url)?;
            return Ok(Self::Postgres(Box::new(server)));
        }
        // What follows the scheme may hold a password.
        let scheme = url.split(':').next().unwrap_or_default();
        Err(CatalogError::Url(format!(
            "a database's URL begins with `{scheme}:`, expected `sqlite:` or `postgresql://`"
        )))
    }
}

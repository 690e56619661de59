//! Images as rows: the columns of the table `images`, and what hangs on an image in tables of its own.

use super::CatalogError;
use super::session::{Row, Session, Value, damaged};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use tegula_domain::{
    ContentHash, Image, ImageId, ImageStatus, Lineage, Location, Timestamp, Visibility,
};

/// The columns of an image, in the order of [`columns`] and [`decode`], after its key.
pub(super) const COLUMNS: [&str; 25] = [
    "id",
    "id_lower",
    "version",
    "status",
    "live",
    "visibility",
    "protected",
    "hidden",
    "owner",
    "name",
    "disk_format",
    "container_format",
    "min_ram",
    "min_disk",
    "size",
    "virtual_size",
    "checksum",
    "hash_algorithm",
    "hash_value",
    "parent",
    "delta_bytes",
    "chain_depth",
    "tree_hash",
    "created_at",
    "updated_at",
];

/// An image and the key that the tables know it by.
#[derive(Debug)]
pub(super) struct Keyed {
    /// The key.
    pub(super) key: i64,
    /// The image.
    pub(super) image: Image,
}

/// The values of the columns of an image.
///
/// # Errors
/// [`CatalogError::TooLarge`].
pub(super) fn columns(image: &Image) -> Result<[Value; 25], CatalogError> {
    let text = |text: &Option<String>| Value::optional(text.as_ref());
    let number = |number: Option<u64>, what| {
        number.map_or(Ok(Value::Null), |number| Value::unsigned(number, what))
    };
    let hash = image.hash.as_ref();
    Ok([
        image.id.as_str().into(),
        Value::Text(image.id.lower_case()),
        Value::unsigned(image.version, "version")?,
        image.status.as_str().into(),
        (image.status != ImageStatus::Deleted).into(),
        image.visibility.as_str().into(),
        image.protected.into(),
        image.hidden.into(),
        text(&image.owner),
        text(&image.name),
        text(&image.disk_format),
        text(&image.container_format),
        image.min_ram.into(),
        image.min_disk.into(),
        number(image.size, "size")?,
        number(image.virtual_size, "virtual size")?,
        text(&image.checksum),
        Value::optional(hash.map(|hash| &hash.algorithm)),
        Value::optional(hash.map(|hash| &hash.value)),
        Value::optional(image.lineage.parent.as_ref().map(ImageId::as_str)),
        number(image.lineage.delta_bytes, "delta")?,
        Value::optional(image.lineage.chain_depth),
        text(&image.lineage.tree_hash),
        image.created_at.as_micros().into(),
        image.updated_at.as_micros().into(),
    ])
}

/// The image of a row of the key and [`COLUMNS`], without what hangs on it.
fn decode(mut row: Row) -> Result<Keyed, CatalogError> {
    let key = row.integer("images.key")?;
    let id = image_id(&mut row, format_args!("images.id of row {key}"))?;
    let place = |column: &'static str| Place { column, id: &id };
    row.text(place("id_lower"))?;
    let version = row.unsigned(place("version"))?;
    let status = row.named(place("status"), ImageStatus::from_name, "a status")?;
    row.flag(place("live"))?;
    let visibility = row.named(place("visibility"), Visibility::from_name, "a visibility")?;
    let protected = row.flag(place("protected"))?;
    let hidden = row.flag(place("hidden"))?;
    let owner = row.optional_text(place("owner"))?;
    let name = row.optional_text(place("name"))?;
    let disk_format = row.optional_text(place("disk_format"))?;
    let container_format = row.optional_text(place("container_format"))?;
    let min_ram = row.unsigned(place("min_ram"))?;
    let min_disk = row.unsigned(place("min_disk"))?;
    let size = row.optional_unsigned(place("size"))?;
    let virtual_size = row.optional_unsigned(place("virtual_size"))?;
    let checksum = row.optional_text(place("checksum"))?;
    let algorithm = row.optional_text(place("hash_algorithm"))?;
    let value = row.optional_text(place("hash_value"))?;
    let parent = row
        .optional_text(place("parent"))?
        .map(|text| parse_id(text, place("parent")))
        .transpose()?;
    let lineage = Lineage {
        parent,
        delta_bytes: row.optional_unsigned(place("delta_bytes"))?,
        chain_depth: row.optional_unsigned(place("chain_depth"))?,
        tree_hash: row.optional_text(place("tree_hash"))?,
    };
    let hash = match (algorithm, value) {
        (Some(algorithm), Some(value)) => Some(ContentHash { algorithm, value }),
        (None, None) => None,
        (found, _) => {
            let found = Value::optional(found.as_ref());
            let expected = "both the algorithm and the value of a hash, or neither";
            return Err(damaged(place("hash_algorithm"), &found, expected));
        }
    };
    let created_at = Timestamp::from_micros(row.integer(place("created_at"))?);
    let updated_at = Timestamp::from_micros(row.integer(place("updated_at"))?);
    let image = Image {
        id,
        name,
        status,
        visibility,
        protected,
        hidden,
        checksum,
        hash,
        owner,
        size,
        virtual_size,
        disk_format,
        container_format,
        min_ram,
        min_disk,
        tags: std::collections::BTreeSet::new(),
        properties: BTreeMap::new(),
        locations: Vec::new(),
        lineage,
        created_at,
        updated_at,
        version,
    };
    Ok(Keyed { key, image })
}

/// A column of an image.
#[derive(Clone, Copy)]
struct Place<'a> {
    column: &'static str,
    id: &'a ImageId,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "images.{} of {}", self.column, self.id)
    }
}

/// The id in the next column.
pub(super) fn image_id(row: &mut Row, place: impl fmt::Display) -> Result<ImageId, CatalogError> {
    let text = row.text(&place)?;
    parse_id(text, place)
}

fn parse_id(text: String, place: impl fmt::Display) -> Result<ImageId, CatalogError> {
    ImageId::parse(&text).map_err(|_| damaged(place, &Value::Text(text), "an image's id"))
}

/// The images that a condition on the table `images` selects, in that order, whole. `rest` follows the word WHERE.
pub(super) fn select(
    session: &mut dyn Session,
    rest: &str,
    parameters: &[Value],
) -> Result<Vec<Keyed>, CatalogError> {
    select_from(session, &format!("images WHERE {rest}"), parameters)
}

/// The images of these keys, in any order, whole.
pub(super) fn of_keys(
    session: &mut dyn Session,
    keys: Vec<i64>,
) -> Result<Vec<Keyed>, CatalogError> {
    let from = session.dialect().of_keys("images", "key");
    select_from(session, &from, &[Value::Integers(keys)])
}

/// `from` follows the word FROM.
fn select_from(
    session: &mut dyn Session,
    from: &str,
    parameters: &[Value],
) -> Result<Vec<Keyed>, CatalogError> {
    let columns = COLUMNS.join(", images.");
    let statement = format!("SELECT images.key, images.{columns} FROM {from}");
    let mut images = session
        .query(&statement, parameters)?
        .into_iter()
        .map(decode)
        .collect::<Result<Vec<_>, _>>()?;
    for page in images.chunks_mut(KEYS_MAX) {
        hang_on(session, page)?;
    }
    Ok(images)
}

/// The image of that id, if there is one and it is not deleted; `lock` keeps others from changing it meanwhile.
pub(super) fn find(
    session: &mut dyn Session,
    id: &ImageId,
    lock: bool,
) -> Result<Option<Keyed>, CatalogError> {
    let lock = if lock {
        session.dialect().for_update()
    } else {
        ""
    };
    let rest = format!("id_lower = $1 AND id = $2 AND live{lock}");
    let found = select(
        session,
        &rest,
        &[Value::Text(id.lower_case()), id.as_str().into()],
    )?;
    Ok(found.into_iter().next())
}

/// How many keys one statement asks for.
const KEYS_MAX: usize = 1024;

/// Fetches the tags, properties and locations of images, with one statement.
fn hang_on(session: &mut dyn Session, images: &mut [Keyed]) -> Result<(), CatalogError> {
    if images.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = images.iter().map(|keyed| keyed.key).collect();
    let of_keys = |table| session.dialect().of_keys(table, "image");
    let statement = format!(
        "SELECT image, -2 AS position, tag AS first, '' AS second FROM {} \
         UNION ALL SELECT image, -1, name, image_properties.value FROM {} \
         UNION ALL SELECT image, position, url, metadata FROM {}",
        of_keys("image_tags"),
        of_keys("image_properties"),
        of_keys("image_locations"),
    );
    let mut by_key: HashMap<i64, (&mut Image, BTreeMap<i64, Location>)> = images
        .iter_mut()
        .map(|keyed| (keyed.key, (&mut keyed.image, BTreeMap::new())))
        .collect();
    for mut row in session.query(&statement, &[Value::Integers(keys)])? {
        let key = row.integer("what hangs on an image")?;
        let Some((image, locations)) = by_key.get_mut(&key) else {
            continue;
        };
        let place = "what hangs on an image";
        let position = row.integer(place)?;
        let first = row.text(place)?;
        let second = row.text(place)?;
        match position {
            -2 => drop(image.tags.insert(first)),
            -1 => drop(image.properties.insert(first, second)),
            _ => {
                let metadata = serde_json::from_str(&second).map_err(|_| {
                    let place = format_args!("image_locations.metadata of {}", image.id);
                    damaged(place, &Value::Text(second), "a JSON object of strings")
                })?;
                locations.insert(
                    position,
                    Location {
                        url: first,
                        metadata,
                    },
                );
            }
        }
    }
    for (image, locations) in by_key.into_values() {
        image.locations = locations.into_values().collect();
    }
    Ok(())
}

/// Adds an image.
pub(super) fn insert(session: &mut dyn Session, image: &Image) -> Result<(), CatalogError> {
    let values = columns(image)?;
    let names = COLUMNS.join(", ");
    let places: Vec<String> = (1..=COLUMNS.len()).map(|n| format!("${n}")).collect();
    let statement = format!(
        "INSERT INTO images ({names}) VALUES ({}) ON CONFLICT DO NOTHING RETURNING key",
        places.join(", ")
    );
    let inserted = session.query(&statement, &values)?.into_iter().next();
    let Some(mut row) = inserted else {
        return Err(CatalogError::IdTaken(image.id.clone()));
    };
    let key = row.integer("images.key")?;
    let nothing = Hanging::default();
    write_differences(session, key, &nothing, &Hanging::of(image)?)
}

/// Writes what is different between two states of an image: the one in the database, locked, and the one it is to have.
pub(super) fn update(
    session: &mut dyn Session,
    from: &Keyed,
    to: &Image,
) -> Result<(), CatalogError> {
    let mut statement = String::from("UPDATE images SET ");
    let mut parameters = Vec::new();
    let changes = COLUMNS
        .into_iter()
        .zip(columns(&from.image)?)
        .zip(columns(to)?);
    for ((name, from), to) in changes {
        if from != to {
            parameters.push(to);
            let comma = if parameters.len() == 1 { "" } else { ", " };
            let number = parameters.len();
            write!(statement, "{comma}{name} = ${number}")
                .expect("because a string takes all that is written");
        }
    }
    parameters.push(from.key.into());
    let number = parameters.len();
    write!(statement, " WHERE key = ${number}")
        .expect("because a string takes all that is written");
    let changed = session.execute(&statement, &parameters)?;
    if changed != 1 {
        return Err(CatalogError::Stale(to.id.clone()));
    }
    let hanging = if to.status == ImageStatus::Deleted {
        // Nothing shows them any more; the row stays, so that the id is taken.
        session.execute(
            "DELETE FROM image_members WHERE image = $1",
            &[from.key.into()],
        )?;
        Hanging::default()
    } else {
        Hanging::of(to)?
    };
    write_differences(session, from.key, &Hanging::of(&from.image)?, &hanging)
}

/// What hangs on an image, as rows of the three tables: what a row is found by, and the rest of it.
#[derive(Debug, Default)]
struct Hanging {
    tags: BTreeMap<Value, Vec<Value>>,
    properties: BTreeMap<Value, Vec<Value>>,
    locations: BTreeMap<Value, Vec<Value>>,
}

impl Hanging {
    fn of(image: &Image) -> Result<Self, CatalogError> {
        let mut locations = BTreeMap::new();
        for (position, location) in (0_i64..).zip(&image.locations) {
            let metadata = serde_json::to_string(&location.metadata)
                .map_err(|error| CatalogError::Database(error.into()))?;
            let rest = vec![(&location.url).into(), Value::Text(metadata)];
            locations.insert(position.into(), rest);
        }
        Ok(Self {
            tags: image
                .tags
                .iter()
                .map(|tag| (tag.into(), Vec::new()))
                .collect(),
            properties: image
                .properties
                .iter()
                .map(|(name, value)| (name.into(), vec![value.into()]))
                .collect(),
            locations,
        })
    }
}

/// The statements of one of the three tables: one that deletes a row, one that adds or changes one.
struct Table {
    delete: &'static str,
    put: &'static str,
}

const TAGS: Table = Table {
    delete: "DELETE FROM image_tags WHERE image = $1 AND tag = $2",
    put: "INSERT INTO image_tags (image, tag) VALUES ($1, $2)",
};
const PROPERTIES: Table = Table {
    delete: "DELETE FROM image_properties WHERE image = $1 AND name = $2",
    put: "INSERT INTO image_properties (image, name, value) VALUES ($1, $2, $3) \
          ON CONFLICT (image, name) DO UPDATE SET value = excluded.value",
};
const LOCATIONS: Table = Table {
    delete: "DELETE FROM image_locations WHERE image = $1 AND position = $2",
    put: "INSERT INTO image_locations (image, position, url, metadata) VALUES ($1, $2, $3, $4) \
          ON CONFLICT (image, position) DO UPDATE SET url = excluded.url, metadata = excluded.metadata",
};

fn write_differences(
    session: &mut dyn Session,
    key: i64,
    from: &Hanging,
    to: &Hanging,
) -> Result<(), CatalogError> {
    for (table, from, to) in [
        (TAGS, &from.tags, &to.tags),
        (PROPERTIES, &from.properties, &to.properties),
        (LOCATIONS, &from.locations, &to.locations),
    ] {
        for found_by in from.keys().filter(|found_by| !to.contains_key(found_by)) {
            session.execute(table.delete, &[key.into(), found_by.clone()])?;
        }
        for (found_by, rest) in to {
            if from.get(found_by) != Some(rest) {
                let mut parameters = vec![key.into(), found_by.clone()];
                parameters.extend(rest.iter().cloned());
                session.execute(table.put, &parameters)?;
            }
        }
    }
    Ok(())
}

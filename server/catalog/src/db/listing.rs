//! A page of a listing: which scans of which indexes it is made of.
//!
//! What a caller may list is a union of kinds that exclude each other: public images, those of its project with each other
//! visibility, those of others that are shared with it, and so on. What follows the marker is a union of ranges: the images
//! that are equal to it in all keys of the order but the last, those that are equal in all but the last two, … Each kind in
//! each range is one scan, in order and with the page's limit, of an index that begins with what makes the kind and goes on
//! with the order: its cost depends neither on how many images come before the marker nor on those of other kinds. The scans
//! give keys and the values to sort by; they are merged here, and only the images of the page are fetched whole.
//!
//! The default order (when it was made, and id), the one by name and the one by the time of the last change have such indexes:
//! each costs every change of an image. With another order the images of each kind are sorted. So are those that are shared with
//! a project, unless they are ordered by when they were made: their index is that of its memberships.

use super::CatalogError;
use super::rows;
use super::session::{Dialect, Row, Session, Value};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::Write as _;
use tegula_domain::query::{
    Asked, Comparison, Direction, Filter, ImageQuery, ListScope, NumberColumn, SortKey, TextColumn,
    TimeColumn,
};
use tegula_domain::{Image, ImageId, MemberStatus, Timestamp, Visibility};

/// How many images at least are looked at in one go, once some of a page were passed over.
const PASSED_OVER: u32 = 256;

/// One page of the images that `shown` is true of.
///
/// Those it is not true of are passed over here and not by the caller, for a page that is short but goes on, or that goes on
/// after an image which is not in it, would tell how many there are and which.
pub(super) fn page(
    session: &mut dyn Session,
    query: &ImageQuery,
    shown: &dyn Fn(&Image) -> bool,
) -> Result<Vec<Image>, CatalogError> {
    let order = order(&query.sort);
    let mut after = match &query.marker {
        Some(id) => Some(shown_marker(session, id, &query.scope, &order, shown)?),
        None => None,
    };
    if query.limit == 0 || query.filters.iter().any(selects_nothing) {
        return Ok(Vec::new());
    }
    let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let (mut images, mut limit) = (Vec::new(), query.limit);
    loop {
        let run = run(session, (query, limit), &order, after.as_deref())?;
        let ends = run.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        let keys: Vec<i64> = run.iter().map(|(key, _)| *key).collect();
        after = run.into_iter().next_back().map(|(_, values)| values);
        images.extend(fetch(session, &keys)?.into_iter().filter(shown));
        if ends || images.len() >= wanted {
            images.truncate(wanted);
            return Ok(images);
        }
        limit = limit.max(PASSED_OVER);
    }
}

/// Up to `limit` images that fit and follow, in order: their keys, and what they are sorted by.
fn run(
    session: &mut dyn Session,
    (query, limit): (&ImageQuery, u32),
    order: &[(SortKey, Direction)],
    after: Option<&[Value]>,
) -> Result<Vec<(i64, Vec<Value>)>, CatalogError> {
    let (statement, parameters) = statement(session.dialect(), (query, limit), order, after);
    if statement.is_empty() {
        return Ok(Vec::new()); // there is nothing that this caller may list so
    }
    let mut found = session
        .query(&statement, &parameters)?
        .into_iter()
        .map(|mut row| Ok((row.integer("images.key")?, row.rest())))
        .collect::<Result<Vec<(i64, Vec<Value>)>, CatalogError>>()?;
    found.sort_unstable_by(|(_, left), (_, right)| compare(left, right, order));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// Whether no image that is kept can fulfil it.
fn selects_nothing(filter: &Filter) -> bool {
    match filter {
        Filter::Nothing => true,
        Filter::Tag(tag) => tag.contains('\0'),
        Filter::Property(name, value) => name.contains('\0') || value.contains('\0'),
        Filter::Text(_, values) => values.iter().all(|value| value.contains('\0')),
        Filter::Number(..) | Filter::Time(..) | Filter::Protected(_) => false,
    }
}

/// The images of these keys, in that order.
fn fetch(session: &mut dyn Session, keys: &[i64]) -> Result<Vec<Image>, CatalogError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut by_key: HashMap<i64, Image> = rows::of_keys(session, keys.to_vec())?
        .into_iter()
        .map(|keyed| (keyed.key, keyed.image))
        .collect();
    Ok(keys.iter().filter_map(|key| by_key.remove(key)).collect())
}

/// The keys of an order up to the id, which no two images share: what follows it decides nothing. A key that comes again
/// decides nothing either.
pub(super) fn order(sort: &[(SortKey, Direction)]) -> Vec<(SortKey, Direction)> {
    let mut order: Vec<(SortKey, Direction)> = Vec::new();
    for (key, direction) in sort.iter().chain(&[(SortKey::Id, Direction::Ascending)]) {
        if !order.iter().any(|(earlier, _)| earlier == key) {
            order.push((*key, *direction));
        }
        if *key == SortKey::Id {
            break;
        }
    }
    order
}

fn compare(left: &[Value], right: &[Value], order: &[(SortKey, Direction)]) -> Ordering {
    for ((left, right), (_, direction)) in left.iter().zip(right).zip(order) {
        let ordering = match direction {
            Direction::Ascending => left.cmp(right),
            Direction::Descending => right.cmp(left),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// The column that an order is by, in the table `images`.
const fn column(key: SortKey) -> &'static str {
    match key {
        SortKey::Name => "coalesce(images.name, '')",
        SortKey::Status => "images.status",
        SortKey::ContainerFormat => "coalesce(images.container_format, '')",
        SortKey::DiskFormat => "coalesce(images.disk_format, '')",
        SortKey::Size => "coalesce(images.size, 0)",
        SortKey::Id => "images.id",
        SortKey::CreatedAt => "images.created_at",
        SortKey::UpdatedAt => "images.updated_at",
    }
}

/// The same of a marker that `shown` must be true of; one that is deleted, which only administrators may continue after, is
/// not looked at.
fn shown_marker(
    session: &mut dyn Session,
    id: &ImageId,
    scope: &ListScope,
    order: &[(SortKey, Direction)],
    shown: &dyn Fn(&Image) -> bool,
) -> Result<Vec<Value>, CatalogError> {
    let values = marker(session, id, scope, order)?;
    match rows::find(session, id, false)? {
        Some(found) if !shown(&found.image) => Err(CatalogError::NoMarker(id.clone())),
        _ => Ok(values),
    }
}

/// What the marker is sorted by.
///
/// # Errors
/// [`CatalogError::NoMarker`] if the caller could not have been shown it. Administrators may continue after a deleted image.
pub(super) fn marker(
    session: &mut dyn Session,
    id: &ImageId,
    scope: &ListScope,
    order: &[(SortKey, Direction)],
) -> Result<Vec<Value>, CatalogError> {
    let columns: Vec<&str> = order.iter().map(|(key, _)| column(*key)).collect();
    let seen = if scope.admin {
        ""
    } else {
        " AND live AND (visibility IN ('public', 'community') OR owner = $3 \
          OR (visibility = 'shared' AND (owner IS NULL OR EXISTS \
              (SELECT 1 FROM image_members AS member WHERE member.image = images.key AND member.project = $3))))"
    };
    let statement = format!(
        "SELECT {} FROM images WHERE id_lower = $1 AND id = $2{seen}",
        columns.join(", ")
    );
    let mut parameters = vec![Value::Text(id.lower_case()), id.as_str().into()];
    if !scope.admin {
        parameters.push(Value::optional(scope.project.as_ref()));
    }
    let found = session.query(&statement, &parameters)?.into_iter().next();
    found
        .map(Row::rest)
        .ok_or_else(|| CatalogError::NoMarker(id.clone()))
}

/// A kind of images that a caller may list. Kinds of one listing have no image in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// All of one visibility.
    All(Visibility),
    /// Those of one visibility that belong to the project.
    Own(&'a str, Visibility),
    /// Those of others that are shared with the project, which says that of them.
    SharedWith(&'a str, MemberStatus),
}

/// What a listing is made of.
fn kinds(scope: &ListScope) -> Vec<Kind<'_>> {
    use Visibility::{Community, Private, Public, Shared};
    let asked = |visibility| match scope.visibility {
        Asked::Only(only) => only == visibility,
        Asked::Usual | Asked::All => true,
    };
    let whole: &[Visibility] = match (scope.admin, scope.visibility) {
        (true, Asked::Usual) => &[Public, Shared, Private],
        (true, _) => &[Public, Community, Shared, Private],
        (false, Asked::Usual) => &[Public],
        (false, _) => &[Public, Community],
    };
    let mut kinds: Vec<Kind<'_>> = whole.iter().copied().map(Kind::All).collect();
    if let Some(project) = scope.project.as_deref() {
        let others = Visibility::ALL
            .into_iter()
            .filter(|visibility| !whole.contains(visibility));
        kinds.extend(others.map(|visibility| Kind::Own(project, visibility)));
        if !scope.admin {
            let statuses = MemberStatus::ALL
                .into_iter()
                .filter(|status| scope.member_status.is_none_or(|asked| asked == *status));
            kinds.extend(statuses.map(|status| Kind::SharedWith(project, status)));
        }
    }
    kinds.retain(|kind| match kind {
        Kind::All(visibility) | Kind::Own(_, visibility) => asked(*visibility),
        Kind::SharedWith(..) => asked(Shared),
    });
    kinds
}

/// The statement of a page: its scans, one after the other.
pub(super) fn statement(
    dialect: Dialect,
    (query, limit): (&ImageQuery, u32),
    order: &[(SortKey, Direction)],
    marker: Option<&[Value]>,
) -> (String, Vec<Value>) {
    let mut text = Text::new(dialect);
    // How many keys of the order are equal to the marker's.
    let ranges: Vec<Option<(usize, &[Value])>> = match marker {
        None => vec![None],
        Some(values) => (0..order.len())
            .rev()
            .map(|equal| Some((equal, values)))
            .collect(),
    };
    for kind in kinds(&query.scope) {
        for range in &ranges {
            text.scan((query, limit), kind, order, *range);
        }
    }
    (text.statement, text.parameters)
}

/// A statement that is being written, and its parameters in the order of their numbers.
struct Text {
    dialect: Dialect,
    statement: String,
    parameters: Vec<Value>,
    scans: usize,
    filters: Option<String>,
}

impl Text {
    const fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            statement: String::new(),
            parameters: Vec::new(),
            scans: 0,
            filters: None,
        }
    }

    fn push(&mut self, text: &str) {
        self.statement.push_str(text);
    }

    fn parameter(&mut self, value: impl Into<Value>) {
        self.parameters.push(value.into());
        write!(self.statement, "${}", self.parameters.len())
            .expect("because a string takes all that is written");
    }

    fn scan(
        &mut self,
        (query, limit): (&ImageQuery, u32),
        kind: Kind<'_>,
        order: &[(SortKey, Direction)],
        range: Option<(usize, &[Value])>,
    ) {
        let number = self.scans;
        self.scans += 1;
        if number > 0 {
            self.push(" UNION ALL ");
        }
        self.push("SELECT * FROM (SELECT images.key");
        // Memberships know when their image was made, and its id: their index has the default order.
        let shared = matches!(kind, Kind::SharedWith(..));
        let by_membership = order
            .iter()
            .all(|(key, _)| matches!(key, SortKey::CreatedAt | SortKey::Id));
        let column = |key| match key {
            SortKey::CreatedAt if shared && by_membership => "member.image_created_at",
            SortKey::Id if shared && by_membership => "member.image_id",
            key => column(key),
        };
        for (key, _) in order {
            self.push(", ");
            self.push(column(*key));
        }
        self.kind(kind);
        self.push(" AND images.hidden = ");
        self.parameter(query.scope.hidden);
        self.push(" AND images.status <> 'pending_delete'");
        self.filters(&query.filters);
        if let Some((equal, values)) = range {
            for (index, ((key, direction), value)) in order.iter().zip(values).enumerate() {
                let relation = match (index.cmp(&equal), direction) {
                    (Ordering::Less, _) => " = ",
                    (Ordering::Equal, Direction::Ascending) => " > ",
                    (Ordering::Equal, Direction::Descending) => " < ",
                    (Ordering::Greater, _) => break,
                };
                self.push(" AND ");
                self.push(column(*key));
                self.push(relation);
                self.parameter(value.clone());
            }
        }
        // Within a range the first keys are the same for all.
        let equal = range.map_or(0, |(equal, _)| equal);
        for (index, (key, direction)) in order.iter().skip(equal).enumerate() {
            self.push(if index == 0 { " ORDER BY " } else { ", " });
            self.push(column(*key));
            self.push(match direction {
                Direction::Ascending => " ASC",
                Direction::Descending => " DESC",
            });
        }
        self.push(" LIMIT ");
        self.parameter(limit);
        write!(self.statement, ") AS scan{number}")
            .expect("because a string takes all that is written");
    }

    fn kind(&mut self, kind: Kind<'_>) {
        match kind {
            Kind::All(visibility) => {
                self.push(" FROM images WHERE images.live AND images.visibility = ");
                self.parameter(visibility.as_str());
            }
            Kind::Own(project, visibility) => {
                self.push(" FROM images WHERE images.live AND images.owner = ");
                self.parameter(project);
                self.push(" AND images.visibility = ");
                self.parameter(visibility.as_str());
            }
            Kind::SharedWith(project, status) => {
                // SQLite takes the tables of a CROSS JOIN in this order.
                self.push(
                    " FROM image_members AS member CROSS JOIN images WHERE member.project = ",
                );
                self.parameter(project);
                self.push(" AND member.status = ");
                self.parameter(status.as_str());
                self.push(" AND images.key = member.image AND images.live AND images.visibility = 'shared'");
                self.push(" AND images.owner IS DISTINCT FROM ");
                self.parameter(project);
            }
        }
    }

    /// The filters, which are the same in every scan: so are their parameters.
    fn filters(&mut self, filters: &[Filter]) {
        if let Some(written) = &self.filters {
            self.statement.push_str(written);
            return;
        }
        let before = self.statement.len();
        for filter in filters {
            self.push(" AND ");
            self.filter(filter);
        }
        self.filters = self.statement.get(before..).map(str::to_owned);
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Text(column, values) => self.text_filter(*column, values),
            Filter::Number(column, comparison, value) => {
                self.push(match column {
                    NumberColumn::Size => "images.size",
                    NumberColumn::VirtualSize => "images.virtual_size",
                    NumberColumn::MinRam => "images.min_ram",
                    NumberColumn::MinDisk => "images.min_disk",
                });
                self.push(match comparison {
                    Comparison::Equal => " = ",
                    Comparison::NotEqual => " <> ",
                    Comparison::Less => " < ",
                    Comparison::LessOrEqual => " <= ",
                    Comparison::Greater => " > ",
                    Comparison::GreaterOrEqual => " >= ",
                });
                self.parameter(*value);
            }
            Filter::Time(column, comparison, time) => {
                let column = match column {
                    TimeColumn::CreatedAt => "images.created_at",
                    TimeColumn::UpdatedAt => "images.updated_at",
                };
                self.time_filter(column, *comparison, *time);
            }
            Filter::Protected(protected) => {
                self.push("images.protected = ");
                self.parameter(*protected);
            }
            Filter::Tag(tag) => {
                self.push("EXISTS (SELECT 1 FROM image_tags AS tag WHERE tag.image = images.key AND tag.tag = ");
                self.parameter(tag);
                self.push(")");
            }
            Filter::Property(name, value) => {
                self.push("EXISTS (SELECT 1 FROM image_properties AS property WHERE property.image = images.key");
                self.push(" AND property.name = ");
                self.parameter(name);
                self.push(" AND property.value = ");
                self.parameter(value);
                self.push(")");
            }
            Filter::Nothing => self.push("1 = 0"),
        }
    }

    fn text_filter(&mut self, column: TextColumn, values: &[String]) {
        let kept: Vec<String> = values
            .iter()
            .filter(|value| !value.contains('\0'))
            .cloned()
            .collect();
        let column = match column {
            TextColumn::Id => {
                let lower: Vec<String> = kept.iter().map(|id| id.to_lowercase()).collect();
                self.among("images.id_lower", &lower);
                self.push(" AND ");
                "images.id"
            }
            TextColumn::Name => {
                // The index of names has none as the empty one, which is not the name asked for.
                self.push("images.name IS NOT NULL AND ");
                "coalesce(images.name, '')"
            }
            TextColumn::Status => "images.status",
            TextColumn::Owner => "images.owner",
            TextColumn::Checksum => "images.checksum",
            TextColumn::HashAlgorithm => "images.hash_algorithm",
            TextColumn::HashValue => "images.hash_value",
            TextColumn::DiskFormat => "images.disk_format",
            TextColumn::ContainerFormat => "images.container_format",
        };
        self.among(column, &kept);
    }

    fn among(&mut self, column: &str, values: &[String]) {
        match values {
            [] => self.push("1 = 0"),
            [value] => {
                self.push(column);
                self.push(" = ");
                self.parameter(value);
            }
            many => {
                self.parameters.push(Value::Texts(many.to_vec()));
                let among = self.dialect.among(column, self.parameters.len());
                self.push(&among);
            }
        }
    }

    /// Compares the second that a time lies in.
    fn time_filter(&mut self, column: &str, comparison: Comparison, time: Timestamp) {
        let first = time.seconds().saturating_mul(1_000_000);
        let next = first.saturating_add(1_000_000);
        let bounds: (&str, i64, Option<(&str, i64)>) = match comparison {
            Comparison::Equal => (" >= ", first, Some((" AND ", next))),
            Comparison::NotEqual => (" < ", first, Some((" OR ", next))),
            Comparison::Less => (" < ", first, None),
            Comparison::LessOrEqual => (" < ", next, None),
            Comparison::Greater => (" >= ", next, None),
            Comparison::GreaterOrEqual => (" >= ", first, None),
        };
        let (relation, bound, second) = bounds;
        self.push("(");
        self.push(column);
        self.push(relation);
        self.parameter(bound);
        if let Some((joined, bound)) = second {
            self.push(joined);
            self.push(column);
            self.push(if joined == " AND " { " < " } else { " >= " });
            self.parameter(bound);
        }
        self.push(")");
    }
}

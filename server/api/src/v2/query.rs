//! The query of `GET /v2/images`: which images, in which order, from where.
//!
//! A name that is neither a column nor one of those that say how to list is that of a property.

use super::{Refused, time};
use crate::settings::Settings;
use tegula_catalog::service::ListRequest;
use tegula_domain::query::{
    Asked, Comparison, Direction, Filter, NumberColumn, SortKey, TextColumn, TimeColumn,
};
use tegula_domain::{ImageId, MemberStatus, Visibility};

/// What is asked for, and the pairs of the query that asked it.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) request: ListRequest,
    pub(crate) pairs: Vec<(String, String)>,
}

/// How many pairs a query may have. Each filter is a part of the statement, and a database takes only so many: SQLite a
/// thousand, the last of them at a cost that grows with the square of their number.
const PAIRS_MAX: usize = 128;

/// How the order is asked for: once by `sort`, or by `sort_key` and `sort_dir` as often as wanted.
#[derive(Debug, Default)]
struct Order {
    sort: Option<String>,
    keys: Vec<String>,
    directions: Vec<String>,
}

/// Reads a query.
pub(crate) fn listing(settings: &Settings, query: &str) -> Result<Listing, Refused> {
    let pairs = crate::url::decode_query(query)
        .ok_or_else(|| Refused::invalid("the query is not percent-encoded UTF-8"))?;
    if pairs.len() > PAIRS_MAX {
        return Err(Refused::invalid(format!(
            "the query has {} parameters, at most {PAIRS_MAX} are allowed (one `in:` takes many values)",
            pairs.len()
        )));
    }
    let mut request = ListRequest {
        visibility: Asked::Usual,
        member_status: Some(MemberStatus::Accepted),
        hidden: false,
        filters: Vec::new(),
        sort: Vec::new(),
        marker: None,
        limit: settings.page_default.min(settings.page_max),
    };
    let mut order = Order::default();
    for (name, value) in counted(&pairs) {
        for text in [name, value] {
            crate::json::check_text(text).map_err(Refused::invalid)?;
        }
        match name {
            "limit" => request.limit = limit(settings, value)?,
            "marker" => request.marker = Some(marker(value)?),
            "visibility" => request.visibility = visibility(value)?,
            "member_status" => request.member_status = member_status(value)?,
            "os_hidden" => request.hidden = truth(name, &value.to_lowercase())?,
            "sort" => order.sort = Some(value.to_owned()),
            "sort_key" => order.keys.push(value.to_owned()),
            "sort_dir" => order.directions.push(value.to_owned()),
            "deleted" => {}
            "changes-since" => {
                return Err(Refused::invalid("changes-since is not part of this API"));
            }
            name => request.filters.push(filter(name, value)?),
        }
    }
    request.sort = sort(&order)?;
    Ok(Listing { request, pairs })
}

/// The pairs that count: all of what may be repeated, the last of every other name. Of two bounds of a time, as of two tags,
/// both are meant.
fn counted(pairs: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let entries = pairs.iter().enumerate();
    entries.filter_map(|(index, (name, value))| {
        let repeatable = matches!(
            name.as_str(),
            "tag" | "sort_key" | "sort_dir" | "created_at" | "updated_at"
        );
        let mut later = pairs.iter().skip(index + 1);
        (repeatable || !later.any(|(other, _)| other == name))
            .then_some((name.as_str(), value.as_str()))
    })
}

fn limit(settings: &Settings, text: &str) -> Result<u32, Refused> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits {
        return Err(Refused::invalid(format!(
            "limit: found `{text}`, expected an integer from 0"
        )));
    }
    // More than any integer is more than the most, too.
    Ok(text.parse().unwrap_or(u32::MAX).min(settings.page_max))
}

fn marker(text: &str) -> Result<ImageId, Refused> {
    ImageId::parse(text).map_err(|_| Refused::invalid(format!("marker: there is no image {text}")))
}

fn visibility(text: &str) -> Result<Asked, Refused> {
    match (text, Visibility::from_name(text)) {
        ("all", _) => Ok(Asked::All),
        (_, Some(visibility)) => Ok(Asked::Only(visibility)),
        (_, None) => Err(Refused::invalid(format!(
            "visibility: found `{text}`, expected public, community, shared, private or all"
        ))),
    }
}

fn member_status(text: &str) -> Result<Option<MemberStatus>, Refused> {
    match (text, MemberStatus::from_name(text)) {
        ("all", _) => Ok(None),
        (_, Some(status)) => Ok(Some(status)),
        (_, None) => Err(Refused::invalid(format!(
            "member_status: found `{text}`, expected pending, accepted, rejected or all"
        ))),
    }
}

fn truth(name: &str, text: &str) -> Result<bool, Refused> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Refused::invalid(format!(
            "{name}: found `{text}`, expected true or false"
        ))),
    }
}

fn filter(name: &str, value: &str) -> Result<Filter, Refused> {
    let text = |column| Filter::Text(column, vec![value.to_owned()]);
    Ok(match name {
        "tag" => Filter::Tag(value.to_owned()),
        "protected" => Filter::Protected(truth(name, value)?),
        "name" => Filter::Text(TextColumn::Name, one_of(name, value)?),
        "id" => Filter::Text(TextColumn::Id, one_of(name, value)?),
        "status" => Filter::Text(TextColumn::Status, one_of(name, value)?),
        "container_format" => Filter::Text(TextColumn::ContainerFormat, one_of(name, value)?),
        "disk_format" => Filter::Text(TextColumn::DiskFormat, one_of(name, value)?),
        "owner" => text(TextColumn::Owner),
        "checksum" => text(TextColumn::Checksum),
        "os_hash_algo" => text(TextColumn::HashAlgorithm),
        "os_hash_value" => text(TextColumn::HashValue),
        "created_at" => moment(name, TimeColumn::CreatedAt, value)?,
        "updated_at" => moment(name, TimeColumn::UpdatedAt, value)?,
        name => match number_column(name) {
            Some(column) => match value.parse() {
                Ok(number) => Filter::Number(column, Comparison::Equal, number),
                // No number equals what is no number.
                Err(_) => Filter::Nothing,
            },
            None => bound(name, value)?,
        },
    })
}

fn number_column(name: &str) -> Option<NumberColumn> {
    match name {
        "size" => Some(NumberColumn::Size),
        "virtual_size" => Some(NumberColumn::VirtualSize),
        "min_ram" => Some(NumberColumn::MinRam),
        "min_disk" => Some(NumberColumn::MinDisk),
        _ => None,
    }
}

/// `size_min` and the like, or a property.
fn bound(name: &str, value: &str) -> Result<Filter, Refused> {
    let (column, comparison) = if let Some(column) = name.strip_suffix("_min") {
        (column, Comparison::GreaterOrEqual)
    } else if let Some(column) = name.strip_suffix("_max") {
        (column, Comparison::LessOrEqual)
    } else {
        return Ok(Filter::Property(name.to_owned(), value.to_owned()));
    };
    let column = number_column(column)
        .ok_or_else(|| Refused::invalid(format!("{name}: `{column}` is no column of integers")))?;
    let number = value
        .parse()
        .map_err(|_| Refused::invalid(format!("{name}: found `{value}`, expected an integer")))?;
    Ok(Filter::Number(column, comparison, number))
}

/// `v`, `eq:v` or `in:a,b`: the values that fit.
fn one_of(name: &str, value: &str) -> Result<Vec<String>, Refused> {
    match value.split_once(':') {
        None => Ok(vec![value.to_owned()]),
        Some(("eq", value)) => Ok(vec![value.to_owned()]),
        Some(("in", list)) => split_list(list).ok_or_else(|| {
            Refused::invalid(format!(
                "{name}: found `{list}`, expected values separated by commas, those with commas in double quotes"
            ))
        }),
        Some((operator, _)) => Err(Refused::invalid(format!(
            "{name}: found the operator `{operator}`, expected eq or in (a value with a colon is written eq:…)"
        ))),
    }
}

/// Splits `a,"b, c"`; within quotes a backslash takes the next character as it is. None if the quotes are not right.
fn split_list(list: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut rest = list;
    loop {
        let value;
        (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => {
                let (value, rest) = rest
                    .find(',')
                    .map_or((rest, ""), |comma| rest.split_at(comma));
                if value.contains('"') {
                    return None;
                }
                (value.to_owned(), rest)
            }
        };
        values.push(value);
        if rest.is_empty() {
            return Some(values);
        }
        rest = rest.strip_prefix(',')?;
    }
}

/// The value up to the closing quote, and what follows the quote.
fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

/// `op:time`, or a time alone.
fn moment(name: &str, column: TimeColumn, value: &str) -> Result<Filter, Refused> {
    let operator = match value.split_once(':') {
        Some((operator, rest)) => comparison(operator).map(|comparison| (comparison, rest)),
        None => None,
    };
    let (comparison, text) = operator.unwrap_or((Comparison::Equal, value));
    let time = time::read(text).ok_or_else(|| {
        Refused::invalid(format!(
            "{name}: found `{value}`, expected an ISO 8601 time, perhaps after gt:, gte:, lt:, lte:, eq: or neq:"
        ))
    })?;
    Ok(Filter::Time(column, comparison, time))
}

fn comparison(operator: &str) -> Option<Comparison> {
    Some(match operator {
        "gt" => Comparison::Greater,
        "gte" => Comparison::GreaterOrEqual,
        "lt" => Comparison::Less,
        "lte" => Comparison::LessOrEqual,
        "eq" => Comparison::Equal,
        "neq" => Comparison::NotEqual,
        _ => return None,
    })
}

fn sort(order: &Order) -> Result<Vec<(SortKey, Direction)>, Refused> {
    let mut by = match &order.sort {
        Some(_) if !order.keys.is_empty() || !order.directions.is_empty() => {
            return Err(Refused::invalid(
                "sort cannot be mixed with sort_key and sort_dir",
            ));
        }
        Some(sort) => by_sort(sort)?,
        None => by_keys(order)?,
    };
    // What decides between equals goes in the direction that was given for all, else backwards.
    let last = by.for_all.unwrap_or(Direction::Descending);
    for key in [SortKey::CreatedAt, SortKey::Id] {
        if !by.sort.iter().any(|(other, _)| *other == key) {
            by.sort.push((key, last));
        }
    }
    Ok(by.sort)
}

/// An order as it was asked for, and the only direction in it if there is only one.
struct By {
    sort: Vec<(SortKey, Direction)>,
    for_all: Option<Direction>,
}

fn by_sort(text: &str) -> Result<By, Refused> {
    let sort: Vec<_> = text
        .split(',')
        .map(|entry| {
            let entry = entry.trim();
            let (key, direction) = entry.split_once(':').unwrap_or((entry, "desc"));
            Ok((sort_key(key)?, direction_of(direction)?))
        })
        .collect::<Result<_, Refused>>()?;
    let for_all = match sort.as_slice() {
        [(_, only)] => Some(*only),
        _ => None,
    };
    Ok(By { sort, for_all })
}

fn by_keys(order: &Order) -> Result<By, Refused> {
    let mut keys: Vec<SortKey> = order
        .keys
        .iter()
        .map(|key| sort_key(key))
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        keys.push(SortKey::CreatedAt);
    }
    let directions: Vec<Direction> = order
        .directions
        .iter()
        .map(|direction| direction_of(direction))
        .collect::<Result<_, _>>()?;
    let all = |direction| keys.iter().map(|key| (*key, direction)).collect();
    match directions.as_slice() {
        [] => Ok(By {
            sort: all(Direction::Descending),
            for_all: None,
        }),
        [only] => Ok(By {
            sort: all(*only),
            for_all: Some(*only),
        }),
        many if many.len() == keys.len() => Ok(By {
            sort: keys.into_iter().zip(directions).collect(),
            for_all: None,
        }),
        many => Err(Refused::invalid(format!(
            "sort_dir is there {} times, sort_key {} times",
            many.len(),
            keys.len()
        ))),
    }
}

fn sort_key(name: &str) -> Result<SortKey, Refused> {
    Ok(match name {
        "name" => SortKey::Name,
        "status" => SortKey::Status,
        "container_format" => SortKey::ContainerFormat,
        "disk_format" => SortKey::DiskFormat,
        "size" => SortKey::Size,
        "id" => SortKey::Id,
        "created_at" => SortKey::CreatedAt,
        "updated_at" => SortKey::UpdatedAt,
        name => {
            return Err(Refused::invalid(format!(
                "images cannot be sorted by `{name}`"
            )));
        }
    })
}

fn direction_of(name: &str) -> Result<Direction, Refused> {
    match name {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        name => Err(Refused::invalid(format!(
            "a direction is `{name}`, expected asc or desc"
        ))),
    }
}

#[cfg(test)]
mod tests;

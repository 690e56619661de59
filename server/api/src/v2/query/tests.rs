//! Queries and what they mean.

use super::*;
use Direction::{Ascending, Descending};

fn read(query: &str) -> Result<ListRequest, u16> {
    listing(&Settings::default(), query)
        .map(|listing| listing.request)
        .map_err(|refused| refused.status.as_u16())
}

fn filters(query: &str) -> Vec<Filter> {
    read(query)
        .unwrap_or_else(|status| panic!("{query}: {status}"))
        .filters
}

fn texts(column: TextColumn, values: &[&str]) -> Vec<Filter> {
    let values = values.iter().map(|&value| value.to_owned()).collect();
    vec![Filter::Text(column, values)]
}

#[test]
fn without_a_query_the_newest_25_are_listed() {
    let request = read("").unwrap();
    assert_eq!((request.limit, request.visibility), (25, Asked::Usual));
    assert_eq!(request.member_status, Some(MemberStatus::Accepted));
    let newest = [(SortKey::CreatedAt, Descending), (SortKey::Id, Descending)];
    assert_eq!(request.sort, newest);
    assert_eq!(read("limit=0").unwrap().limit, 0);
    assert_eq!(read("limit=99999999999999999999").unwrap().limit, 1000);
    assert_eq!(read("limit=1&limit=2").unwrap().limit, 2);
}

#[test]
fn texts_have_two_operators() {
    assert_eq!(filters("name=a%20b"), texts(TextColumn::Name, &["a b"]));
    assert_eq!(filters("name=eq:a:b"), texts(TextColumn::Name, &["a:b"]));
    assert_eq!(
        filters(r#"name=in:%22a,%20%5C%22b%22,c,"#),
        texts(TextColumn::Name, &["a, \"b", "c", ""])
    );
    assert_eq!(filters("owner=eq:a"), texts(TextColumn::Owner, &["eq:a"]));
    for bad in [
        "name=ne:a",
        "name=a:b",
        "name=in:%22a",
        "name=in:%22a%22b",
        "name=in:a%22b%22",
        "id=gt:1",
    ] {
        assert_eq!(read(bad), Err(400), "{bad}");
    }
}

#[test]
fn numbers_have_bounds_and_times_have_operators() {
    use Comparison::{Equal, Greater, GreaterOrEqual, LessOrEqual};
    let number = |column, comparison, number| vec![Filter::Number(column, comparison, number)];
    let size = NumberColumn::Size;
    assert_eq!(filters("size=3"), number(size, Equal, 3));
    assert_eq!(filters("size_min=3"), number(size, GreaterOrEqual, 3));
    let ram = NumberColumn::MinRam;
    assert_eq!(filters("min_ram_max=-1"), number(ram, LessOrEqual, -1));
    assert_eq!(filters("size=gt:3"), [Filter::Nothing]);
    let seven = tegula_domain::Timestamp::from_micros(7_000_000);
    assert_eq!(
        filters("created_at=gt:1970-01-01T00:00:07Z"),
        [Filter::Time(TimeColumn::CreatedAt, Greater, seven)]
    );
    assert_eq!(
        filters("updated_at=1970-01-01T00:00:07Z"),
        [Filter::Time(TimeColumn::UpdatedAt, Equal, seven)]
    );
    assert_eq!(
        filters("created_at=gt:1970-01-01T00:00:07Z&name=a&created_at=1970-01-01T00:00:07Z"),
        [
            Filter::Time(TimeColumn::CreatedAt, Greater, seven),
            Filter::Text(TextColumn::Name, vec!["a".to_owned()]),
            Filter::Time(TimeColumn::CreatedAt, Equal, seven),
        ]
    );
    for bad in [
        "created_at=x&created_at=1970-01-01T00:00:07Z",
        "size_min=x",
        "name_min=1",
        "x_max=1",
        "created_at=x",
        "created_at=ge:1970-01-01",
        "created_at=gt:",
    ] {
        assert_eq!(read(bad), Err(400), "{bad}");
    }
}

#[test]
fn other_names_are_properties_and_tags_add_up() {
    let tag = |tag: &str| Filter::Tag(tag.to_owned());
    assert_eq!(filters("tag=a&tag=b&deleted=true"), [tag("a"), tag("b")]);
    let property = Filter::Property("os:x".to_owned(), "eq:1".to_owned());
    assert_eq!(filters("os%3Ax=2&os%3Ax=eq:1"), [property]);
    for bad in [
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1.5",
        "marker=x",
        "visibility=Public",
        "member_status=x",
        "os_hidden=1",
        "protected=True",
        "changes-since=1970-01-01",
        "x=%ff",
        "x=%00",
        "x=%F0%9F%98%80",
    ] {
        assert_eq!(read(bad), Err(400), "{bad}");
    }
    assert!(read("os_hidden=TRUE").unwrap().hidden);
}

#[test]
fn the_order_is_total_and_ties_go_the_way_that_was_given_for_all() {
    use SortKey::{CreatedAt, Id, Name, Size};
    let sort = |query: &str| read(query).map(|request| request.sort);
    let up = |keys: &[SortKey]| keys.iter().map(|key| (*key, Ascending)).collect::<Vec<_>>();
    let down = |keys: &[SortKey]| keys.iter().map(|key| (*key, Descending)).collect();
    let then = |first: Vec<_>, then: Vec<_>| [first, then].concat();
    for (query, expected) in [
        ("sort=name:asc", up(&[Name, CreatedAt, Id])),
        (
            "sort=name:asc,size",
            then(up(&[Name]), down(&[Size, CreatedAt, Id])),
        ),
        ("sort_key=name", down(&[Name, CreatedAt, Id])),
        ("sort_dir=asc", up(&[CreatedAt, Id])),
        (
            "sort_key=name&sort_key=size&sort_dir=asc",
            up(&[Name, Size, CreatedAt, Id]),
        ),
        (
            "sort_key=name&sort_dir=asc&sort_key=id&sort_dir=desc",
            then(up(&[Name]), down(&[Id, CreatedAt])),
        ),
    ] {
        assert_eq!(sort(query).unwrap(), expected, "{query}");
    }
    for bad in [
        "sort=x",
        "sort=name:up",
        "sort=",
        "sort_key=owner",
        "sort_dir=x",
        "sort=name&sort_key=id",
        "sort_dir=asc&sort_dir=asc",
        "sort_key=id&sort_key=name&sort_key=size&sort_dir=asc&sort_dir=asc",
    ] {
        assert_eq!(sort(bad), Err(400), "{bad}");
    }
}

#[test]
fn a_query_has_only_so_many_parameters() {
    let many = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("p{n}=x")).collect();
        read(&pairs.join("&")).map(|request| request.filters.len())
    };
    assert_eq!(many(PAIRS_MAX), Ok(PAIRS_MAX));
    assert_eq!(many(PAIRS_MAX + 1), Err(400));
    assert_eq!(read(&"sort_key=name&".repeat(200)).map(drop), Err(400));
}

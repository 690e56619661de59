//! Random operations and listings, compared with the model.

use super::model::Model;
use super::{World, at, id};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::fmt::Debug;
use tegula_catalog::db::{Catalog, CatalogError};
use tegula_domain::query::{
    Asked, Comparison, Direction, Filter, ImageQuery, ListScope, NumberColumn, SortKey, TextColumn,
    TimeColumn,
};
use tegula_domain::{
    ContentHash, Image, ImageId, ImageStatus, Lineage, Location, Member, MemberStatus, Timestamp,
    Visibility,
};

/// So few of everything that values meet.
const IMAGES: u32 = 12;
const PROJECTS: [&str; 3] = ["p1", "p2", "p3"];
const WORDS: [&str; 5] = ["", "a", "A", "aa", "é"];

#[derive(Debug, Clone)]
enum Operation {
    Insert(Box<Image>),
    /// Saves what these fields of the second image make of the first one's; with an older version if not `fresh`.
    Save {
        state: Box<Image>,
        fresh: bool,
    },
    InsertMember(ImageId, Member, u64),
    SetMember(ImageId, String, MemberStatus, Timestamp),
    RemoveMember(ImageId, String),
    List(Box<ImageQuery>),
    Others(ImageId, String, Vec<ImageStatus>),
}

fn word() -> impl Strategy<Value = String> {
    select(&WORDS[..]).prop_map(str::to_owned)
}

fn project() -> impl Strategy<Value = String> {
    select(&PROJECTS[..]).prop_map(str::to_owned)
}

fn an_id() -> impl Strategy<Value = ImageId> {
    (0..IMAGES, prop::bool::weighted(0.1)).prop_map(|(number, upper)| {
        let id = id(number);
        if upper {
            ImageId::parse(&id.as_str().to_uppercase()).unwrap()
        } else {
            id
        }
    })
}

/// Times that differ by less than a second, and by seconds.
fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_i64, select(vec![0_i64, 1, 999_999]))
        .prop_map(|(seconds, micros)| Timestamp::from_micros(at(seconds).as_micros() + micros))
}

fn location() -> impl Strategy<Value = Location> {
    (word(), btree_map(word(), word(), 0..3)).prop_map(|(url, metadata)| Location { url, metadata })
}

fn an_image() -> impl Strategy<Value = Image> {
    let optional = || prop::option::of(word());
    let number = || prop::option::of(0..3_u64);
    (
        (
            an_id(),
            optional(),
            select(&ImageStatus::ALL[..]),
            select(&Visibility::ALL[..]),
        ),
        (
            any::<bool>(),
            prop::bool::weighted(0.2),
            prop::option::weighted(0.8, project()),
        ),
        (
            optional(),
            prop::option::of((word(), word())),
            number(),
            number(),
        ),
        (optional(), optional(), 0..3_u32, 0..3_u32),
        (
            btree_set(word(), 0..3),
            btree_map(word(), word(), 0..3),
            vec(location(), 0..3),
        ),
        (
            prop::option::of(an_id()),
            number(),
            prop::option::of(0..3_u32),
            optional(),
        ),
        (time(), time()),
    )
        .prop_map(
            |(first, flags, bytes, formats, hanging, lineage, times)| Image {
                id: first.0,
                name: first.1,
                status: first.2,
                visibility: first.3,
                protected: flags.0,
                hidden: flags.1,
                owner: flags.2,
                checksum: bytes.0,
                hash: bytes
                    .1
                    .map(|(algorithm, value)| ContentHash { algorithm, value }),
                size: bytes.2,
                virtual_size: bytes.3,
                disk_format: formats.0,
                container_format: formats.1,
                min_ram: formats.2,
                min_disk: formats.3,
                tags: hanging.0,
                properties: hanging.1,
                locations: hanging.2,
                lineage: Lineage {
                    parent: lineage.0,
                    delta_bytes: lineage.1,
                    chain_depth: lineage.2,
                    tree_hash: lineage.3,
                },
                created_at: times.0,
                updated_at: times.1,
                version: 1,
            },
        )
}

fn a_member() -> impl Strategy<Value = Member> {
    (project(), select(&MemberStatus::ALL[..]), time(), time()).prop_map(
        |(project, status, created_at, updated_at)| Member {
            project,
            status,
            created_at,
            updated_at,
        },
    )
}

fn a_filter() -> impl Strategy<Value = Filter> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let comparison = || {
        select(vec![
            Equal,
            NotEqual,
            Less,
            LessOrEqual,
            Greater,
            GreaterOrEqual,
        ])
    };
    let column = select(vec![
        TextColumn::Name,
        TextColumn::Checksum,
        TextColumn::HashAlgorithm,
        TextColumn::HashValue,
        TextColumn::DiskFormat,
        TextColumn::ContainerFormat,
    ]);
    let number = select(vec![
        NumberColumn::Size,
        NumberColumn::VirtualSize,
        NumberColumn::MinRam,
        NumberColumn::MinDisk,
    ]);
    let times = select(vec![TimeColumn::CreatedAt, TimeColumn::UpdatedAt]);
    prop_oneof![
        (column, vec(word(), 0..4)).prop_map(|(column, words)| Filter::Text(column, words)),
        vec(an_id(), 0..8).prop_map(|ids| {
            let ids = ids.iter().map(|id| id.as_str().to_owned()).collect();
            Filter::Text(TextColumn::Id, ids)
        }),
        vec(select(&ImageStatus::ALL[..]), 1..4).prop_map(|statuses| {
            let names = statuses.iter().map(|status| status.as_str().to_owned());
            Filter::Text(TextColumn::Status, names.collect())
        }),
        project().prop_map(|owner| Filter::Text(TextColumn::Owner, vec![owner])),
        (number, comparison(), -1..3_i64)
            .prop_map(|(column, comparison, value)| Filter::Number(column, comparison, value)),
        (times, comparison(), time())
            .prop_map(|(column, comparison, time)| Filter::Time(column, comparison, time)),
        any::<bool>().prop_map(Filter::Protected),
        word().prop_map(Filter::Tag),
        (word(), word()).prop_map(|(name, value)| Filter::Property(name, value)),
        Just(Filter::Nothing),
    ]
}

fn a_query() -> impl Strategy<Value = ImageQuery> {
    let direction = || select(vec![Direction::Ascending, Direction::Descending]);
    let key = select(vec![
        SortKey::Name,
        SortKey::Status,
        SortKey::ContainerFormat,
        SortKey::DiskFormat,
        SortKey::Size,
        SortKey::Id,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
    ]);
    let asked = prop_oneof![
        Just(Asked::Usual),
        Just(Asked::All),
        select(&Visibility::ALL[..]).prop_map(Asked::Only),
    ];
    let scope = (
        asked,
        prop::option::weighted(0.9, project()),
        prop::bool::weighted(0.3),
        prop::option::of(select(&MemberStatus::ALL[..])),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(visibility, project, admin, member_status, hidden)| ListScope {
                visibility,
                project,
                admin,
                member_status,
                hidden,
            },
        );
    let filters = prop_oneof![3 => vec(a_filter(), 0..1), 1 => vec(a_filter(), 1..3)];
    let sort = (vec((key, direction()), 0..3), direction()).prop_map(|(mut sort, last)| {
        sort.extend([(SortKey::CreatedAt, last), (SortKey::Id, last)]);
        sort
    });
    let marker = prop::option::of(an_id());
    (scope, filters, sort, marker, 0..8_u32).prop_map(|(scope, filters, sort, marker, limit)| {
        ImageQuery {
            scope,
            filters,
            sort,
            marker,
            limit,
        }
    })
}

fn an_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => an_image().prop_map(|image| Operation::Insert(Box::new(image))),
        3 => (an_image(), prop::bool::weighted(0.8))
            .prop_map(|(state, fresh)| Operation::Save { state: Box::new(state), fresh }),
        4 => (an_id(), a_member(), 1..3_u64)
            .prop_map(|(id, member, limit)| Operation::InsertMember(id, member, limit)),
        1 => (an_id(), project(), select(&MemberStatus::ALL[..]), time())
            .prop_map(|(id, project, status, now)| Operation::SetMember(id, project, status, now)),
        1 => (an_id(), project()).prop_map(|(id, project)| Operation::RemoveMember(id, project)),
        8 => a_query().prop_map(|query| Operation::List(Box::new(query))),
        1 => (an_id(), project(), vec(select(&ImageStatus::ALL[..]), 0..3))
            .prop_map(|(id, project, statuses)| Operation::Others(id, project, statuses)),
    ]
}

/// How many operations a run makes.
const OPERATIONS: usize = 3_000;

pub(crate) fn operations_and_listings_agree_with_the_model(world: &World) {
    let seed: u64 = match std::env::var("TEGULA_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => 1,
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let model = Model::default();
    let catalog: &dyn Catalog = &*world.catalog;
    let strategy = an_operation();
    let mut listed = 0;
    for step in 0..OPERATIONS {
        let operation = strategy.new_tree(&mut runner).unwrap().current();
        if let Operation::List(query) = &operation {
            listed += model
                .list(query, &|_| true)
                .map_or(0, |images| images.len());
        }
        if let Err(error) = run(catalog, &model, &operation) {
            panic!("step {step} of TEGULA_SEED={seed}: {operation:#?}: {error}");
        }
    }
    assert!(
        listed > OPERATIONS / 10,
        "{listed} images listed: this run showed little"
    );
}

fn run(catalog: &dyn Catalog, model: &Model, operation: &Operation) -> Result<(), String> {
    match operation {
        Operation::Insert(image) => agree(catalog.insert(image), model.insert(image)),
        Operation::Save { state, fresh } => {
            let mut state = (**state).clone();
            let before = model.image(&state.id).map_err(|error| error.to_string())?;
            state.version = before.map_or(1, |image| image.version);
            if !fresh {
                state.version -= 1;
            }
            agree(catalog.save(&state), model.save(&state))?;
            agree(catalog.image(&state.id), model.image(&state.id))
        }
        Operation::InsertMember(id, member, limit) => agree(
            catalog.insert_member(id, member, *limit),
            model.insert_member(id, member, *limit),
        ),
        Operation::SetMember(id, project, status, now) => agree(
            catalog.set_member(id, project, *status, *now),
            model.set_member(id, project, *status, *now),
        ),
        Operation::RemoveMember(id, project) => agree(
            catalog.remove_member(id, project),
            model.remove_member(id, project),
        ),
        Operation::List(query) => {
            let all = |_: &Image| true;
            agree(catalog.list(query, &all), model.list(query, &all))?;
            let some = |image: &Image| image.min_ram != 1;
            agree(catalog.list(query, &some), model.list(query, &some))
        }
        Operation::Others(id, project, statuses) => {
            agree(catalog.members(id), model.members(id))?;
            agree(catalog.member(id, project), model.member(id, project))?;
            agree(catalog.usage(project), model.usage(project))?;
            agree(catalog.in_status(statuses), model.in_status(statuses))?;
            agree(catalog.without_hash(), model.without_hash())?;
            let sorted = |ids: Result<Vec<ImageId>, CatalogError>| {
                ids.map(|mut ids| {
                    ids.sort();
                    ids
                })
            };
            agree(sorted(catalog.ids()), sorted(model.ids()))
        }
    }
}

/// Both gave the same, or failed with the same error.
fn agree<T: Debug + PartialEq>(
    found: Result<T, CatalogError>,
    expected: Result<T, CatalogError>,
) -> Result<(), String> {
    let same = match (&found, &expected) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(found), Err(expected)) => format!("{found:?}") == format!("{expected:?}"),
        _ => false,
    };
    if same {
        Ok(())
    } else {
        Err(format!("found {found:#?}, the model {expected:#?}"))
    }
}

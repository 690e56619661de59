//! The cases that tell one story each.

use super::{World, at, id, image, query};
use std::collections::BTreeSet;
use tegula_catalog::db::{CatalogError, ProjectUsage, open};
use tegula_domain::query::{Asked, Filter, ImageQuery, TextColumn};
use tegula_domain::{
    ContentHash, Image, ImageId, ImageStatus, Lineage, Location, Member, MemberStatus, Visibility,
};

/// An image with a value in every field.
fn full(number: u32) -> Image {
    Image {
        name: Some("Ångström 😀 'quoted' \"twice\" $1 %_".to_owned()),
        status: ImageStatus::Active,
        visibility: Visibility::Community,
        protected: true,
        hidden: true,
        checksum: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
        hash: Some(ContentHash {
            algorithm: "sha512".to_owned(),
            value: "cf83".to_owned(),
        }),
        owner: Some("project".to_owned()),
        size: Some(i64::MAX as u64),
        virtual_size: Some(10 << 30),
        disk_format: Some("qcow2".to_owned()),
        container_format: Some("bare".to_owned()),
        min_ram: u32::MAX,
        min_disk: 40,
        tags: ["".to_owned(), "lts".to_owned(), "LTS".to_owned()].into(),
        properties: [
            ("".to_owned(), "".to_owned()),
            ("hw:numa".to_owned(), "2".to_owned()),
        ]
        .into(),
        locations: vec![
            location("file:///b", "cheap"),
            location("file:///a", "fast"),
            location("file:///a", "fast"),
        ],
        lineage: Lineage {
            parent: Some(id(77)),
            delta_bytes: Some(0),
            chain_depth: Some(3),
            tree_hash: Some("blake3-tree:64k:00".to_owned()),
        },
        updated_at: tegula_domain::Timestamp::from_micros(-1),
        version: 7,
        ..image(number)
    }
}

fn location(url: &str, store: &str) -> Location {
    Location {
        url: url.to_owned(),
        metadata: [("store".to_owned(), store.to_owned())].into(),
    }
}

fn member(project: &str) -> Member {
    Member {
        project: project.to_owned(),
        status: MemberStatus::Pending,
        created_at: at(1),
        updated_at: at(1),
    }
}

fn numbers(images: &[Image]) -> Vec<u32> {
    let number = |image: &Image| u32::from_str_radix(&image.id.as_str()[28..], 16).unwrap();
    images.iter().map(number).collect()
}

pub(crate) fn an_image_comes_back_as_it_was_inserted(world: &World) {
    for image in [image(1), full(2)] {
        world.catalog.insert(&image).unwrap();
        assert_eq!(world.catalog.image(&image.id).unwrap(), Some(image));
    }
    assert_eq!(world.catalog.image(&id(3)).unwrap(), None);
    let upper = ImageId::parse(&id(1).as_str().to_uppercase()).unwrap();
    assert_eq!(world.catalog.image(&upper).unwrap(), None);
    assert_eq!(world.catalog.ids().unwrap(), [id(1), id(2)]);
    world.catalog.check().unwrap();
}

pub(crate) fn an_id_is_taken_whatever_its_case_and_even_when_deleted(world: &World) {
    let upper = ImageId::parse(&id(0xabc).as_str().to_uppercase()).unwrap();
    let mut first = Image {
        id: upper.clone(),
        ..image(1)
    };
    world.catalog.insert(&first).unwrap();
    assert_eq!(world.catalog.image(&upper).unwrap().unwrap().id, upper);
    let again = || world.catalog.insert(&image(0xabc));
    assert!(matches!(again(), Err(CatalogError::IdTaken(taken)) if taken == id(0xabc)));
    first.status = ImageStatus::Deleted;
    world.catalog.save(&first).unwrap();
    assert!(matches!(again(), Err(CatalogError::IdTaken(_))));
    assert!(matches!(
        world.catalog.insert(&first),
        Err(CatalogError::IdTaken(_))
    ));
}

pub(crate) fn a_stale_image_is_not_saved(world: &World) {
    let mut first = image(1);
    first.tags.insert("kept".to_owned());
    world.catalog.insert(&first).unwrap();
    first.name = Some("a".to_owned());
    assert_eq!(world.catalog.save(&first).unwrap(), 2);
    let mut late = first.clone();
    late.name = Some("b".to_owned());
    late.tags.clear();
    assert!(matches!(world.catalog.save(&late), Err(CatalogError::Stale(stale)) if stale == id(1)));
    first.version = 2;
    assert_eq!(world.catalog.image(&id(1)).unwrap(), Some(first));
    assert!(matches!(
        world.catalog.save(&image(2)),
        Err(CatalogError::Stale(_))
    ));
}

pub(crate) fn saving_writes_every_difference(world: &World) {
    let small = Image {
        version: 7,
        ..image(1)
    };
    let mut states = [
        small.clone(),
        full(1),
        Image {
            tags: ["lts".to_owned(), "new".to_owned()].into(),
            properties: [("hw:numa".to_owned(), "3".to_owned())].into(),
            locations: vec![
                location("file:///a", "fast"),
                location("file:///b", "cheap"),
            ],
            hash: None,
            ..full(1)
        },
        small.clone(),
        small,
    ];
    world.catalog.insert(&image(2)).unwrap();
    world.catalog.insert(&states[0]).unwrap();
    for (version, state) in (8..).zip(&mut states[1..]) {
        state.version = version - 1;
        assert_eq!(world.catalog.save(state).unwrap(), version);
        state.version = version;
        assert_eq!(world.catalog.image(&id(1)).unwrap().as_ref(), Some(&*state));
    }
    // Where it is in the order of listings never changes, and no other image did.
    let mut moved = states[4].clone();
    moved.created_at = at(500);
    world.catalog.save(&moved).unwrap();
    let found = world.catalog.image(&id(1)).unwrap().unwrap();
    assert_eq!(found.created_at, at(1));
    assert_eq!(world.catalog.image(&id(2)).unwrap(), Some(image(2)));
}

pub(crate) fn a_deleted_image_disappears_from_every_call(world: &World) {
    let mut gone = Image {
        hidden: false,
        visibility: Visibility::Shared,
        ..full(1)
    };
    world.catalog.insert(&gone).unwrap();
    world
        .catalog
        .insert_member(&id(1), &member("p2"), 9)
        .unwrap();
    gone.status = ImageStatus::Deleted;
    assert_eq!(world.catalog.save(&gone).unwrap(), 8);
    gone.version = 8;
    assert!(matches!(
        world.catalog.save(&gone),
        Err(CatalogError::Stale(_))
    ));
    assert_eq!(world.catalog.image(&id(1)).unwrap(), None);
    assert_eq!(world.catalog.ids().unwrap(), []);
    assert_eq!(world.catalog.in_status(&ImageStatus::ALL).unwrap(), []);
    assert_eq!(world.catalog.members(&id(1)).unwrap(), []);
    assert_eq!(world.catalog.member(&id(1), "p2").unwrap(), None);
    assert_eq!(
        world.catalog.usage("project").unwrap(),
        ProjectUsage::default()
    );
    let mut admin = query("project", 10);
    admin.scope.admin = true;
    admin.scope.visibility = Asked::All;
    assert_eq!(world.catalog.list(&admin, &|_| true).unwrap(), []);
    assert!(matches!(
        world.catalog.insert_member(&id(1), &member("p3"), 9),
        Err(CatalogError::NoImage(_))
    ));
    assert!(matches!(
        world
            .catalog
            .set_member(&id(1), "p2", MemberStatus::Accepted, at(9)),
        Err(CatalogError::NoMember { .. })
    ));
}

pub(crate) fn members_are_inserted_changed_and_removed(world: &World) {
    let catalog = &world.catalog;
    catalog.insert(&image(1)).unwrap();
    catalog.insert(&image(2)).unwrap();
    for project in ["p2", "p3"] {
        catalog.insert_member(&id(1), &member(project), 2).unwrap();
    }
    assert!(matches!(
        catalog.insert_member(&id(1), &member("p3"), 2),
        Err(CatalogError::MemberTaken { project, .. }) if project == "p3"
    ));
    assert!(matches!(
        catalog.insert_member(&id(1), &member("p4"), 2),
        Err(CatalogError::Limit { limit: 2, .. })
    ));
    let accepted = Member {
        status: MemberStatus::Accepted,
        updated_at: at(5),
        ..member("p2")
    };
    let set = catalog.set_member(&id(1), "p2", MemberStatus::Accepted, at(5));
    assert_eq!(set.unwrap(), accepted);
    assert_eq!(
        catalog.member(&id(1), "p2").unwrap(),
        Some(accepted.clone())
    );
    assert_eq!(
        catalog.members(&id(1)).unwrap(),
        [accepted.clone(), member("p3")]
    );
    assert_eq!(catalog.members(&id(2)).unwrap(), []);
    catalog.remove_member(&id(1), "p3").unwrap();
    assert_eq!(catalog.members(&id(1)).unwrap(), [accepted]);
    for result in [
        catalog.remove_member(&id(1), "p3"),
        catalog.remove_member(&id(2), "p2"),
        catalog.remove_member(&id(9), "p2"),
        catalog
            .set_member(&id(1), "p3", MemberStatus::Rejected, at(9))
            .map(drop),
    ] {
        assert!(matches!(result, Err(CatalogError::NoMember { .. })));
    }
    // A membership is no change of the image.
    assert_eq!(catalog.image(&id(1)).unwrap(), Some(image(1)));
}

pub(crate) fn memberships_keep_to_the_limit_when_many_insert(world: &World) {
    world.catalog.insert(&image(1)).unwrap();
    let inserted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let insert = |n| {
                        let member = member(&format!("p-{thread}-{n}"));
                        world.catalog.insert_member(&id(1), &member, 10)
                    };
                    (0..4).filter(|n| insert(*n).is_ok()).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(inserted, 10);
    assert_eq!(world.catalog.members(&id(1)).unwrap().len(), 10);
}

pub(crate) fn saves_from_many_threads_lose_no_update(world: &World) {
    const THREADS: usize = 8;
    const SAVES: usize = 25;
    world.catalog.insert(&image(1)).unwrap();
    let stale: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let mut stale = 0;
                    for save in 0..SAVES {
                        loop {
                            let mut image = world.catalog.image(&id(1)).unwrap().unwrap();
                            assert_eq!(image.tags.len(), image.properties.len(), "a torn image");
                            let name = format!("{thread}-{save}");
                            image.tags.insert(name.clone());
                            image.properties.insert(name.clone(), name);
                            image.min_ram += 1;
                            match world.catalog.save(&image) {
                                Ok(version) => break assert_eq!(version, image.version + 1),
                                Err(CatalogError::Stale(_)) => stale += 1,
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    }
                    stale
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    let image = world.catalog.image(&id(1)).unwrap().unwrap();
    assert_eq!(image.min_ram as usize, THREADS * SAVES);
    assert_eq!(image.tags.len(), THREADS * SAVES);
    assert_eq!(image.version, 1 + (THREADS * SAVES) as u64);
    assert!(stale > 0, "the threads never met: this test showed nothing");
}

pub(crate) fn one_of_many_inserts_of_an_id_wins(world: &World) {
    let cases = [
        id(0xabcdef),
        ImageId::parse(&id(0xabcdef).as_str().to_uppercase()).unwrap(),
    ];
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let id = cases[thread % 2].clone();
                scope.spawn(move || world.catalog.insert(&Image { id, ..full(1) }).is_ok())
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap().then_some(()))
            .count()
    });
    assert_eq!(won, 1);
    assert_eq!(world.catalog.ids().unwrap().len(), 1);
}

pub(crate) fn what_was_saved_is_there_after_opening_again(world: &World) {
    world.catalog.insert(&full(1)).unwrap();
    world
        .catalog
        .insert_member(&id(1), &member("p2"), 9)
        .unwrap();
    let again = open(&world.url).unwrap();
    assert_eq!(again.image(&id(1)).unwrap(), Some(full(1)));
    assert_eq!(again.members(&id(1)).unwrap(), [member("p2")]);
    // Two that have it open see what the other saves.
    let saved = again
        .save(&Image {
            name: None,
            ..full(1)
        })
        .unwrap();
    let seen = world.catalog.image(&id(1)).unwrap().unwrap();
    assert_eq!((seen.version, seen.name), (saved, None));
}

pub(crate) fn numbers_that_do_not_fit_are_refused(world: &World) {
    let huge = Image {
        size: Some(1 << 63),
        ..image(1)
    };
    assert!(matches!(
        world.catalog.insert(&huge),
        Err(CatalogError::TooLarge { what: "size", .. })
    ));
    world.catalog.insert(&image(1)).unwrap();
    assert!(world.catalog.save(&huge).is_err());
    assert_eq!(world.catalog.image(&id(1)).unwrap(), Some(image(1)));
}

pub(crate) fn texts_that_do_not_fit_are_refused_and_found_nowhere(world: &World) {
    let nul = || "a\0b".to_owned();
    let names = [
        Image {
            name: Some(nul()),
            ..image(1)
        },
        Image {
            tags: [nul()].into(),
            ..image(1)
        },
        Image {
            properties: [(nul(), String::new())].into(),
            ..image(1)
        },
    ];
    world.catalog.insert(&image(1)).unwrap();
    for image in names {
        let refused = world.catalog.save(&image);
        assert!(matches!(refused, Err(CatalogError::NulCharacter(text)) if text == nul()));
    }
    assert!(matches!(
        world.catalog.insert_member(&id(1), &member(&nul()), 9),
        Err(CatalogError::NulCharacter(_))
    ));
    assert_eq!(world.catalog.image(&id(1)).unwrap(), Some(image(1)));
    assert_eq!(world.catalog.member(&id(1), &nul()).unwrap(), None);
    for filter in [
        Filter::Tag(nul()),
        Filter::Property(String::new(), nul()),
        Filter::Text(TextColumn::Name, vec![nul()]),
        Filter::Text(TextColumn::Name, vec![nul(), "other".to_owned()]),
    ] {
        let query = ImageQuery {
            filters: vec![filter],
            ..query("p1", 10)
        };
        assert_eq!(world.catalog.list(&query, &|_| true).unwrap(), []);
    }
}

pub(crate) fn usage_counts_what_a_project_has(world: &World) {
    let sized = |number, size, locations: usize, status| Image {
        size,
        status,
        locations: vec![location("file:///x", "fast"); locations],
        ..image(number)
    };
    for image in [
        sized(1, Some(10), 1, ImageStatus::Active),
        sized(2, Some(100), 2, ImageStatus::Deactivated),
        sized(3, Some(1000), 0, ImageStatus::Importing),
        sized(4, None, 0, ImageStatus::Saving),
        sized(5, None, 0, ImageStatus::Queued),
        Image {
            owner: Some("p2".to_owned()),
            ..sized(6, Some(7), 1, ImageStatus::Active)
        },
        Image {
            owner: None,
            ..sized(7, Some(7), 1, ImageStatus::Active)
        },
    ] {
        world.catalog.insert(&image).unwrap();
    }
    let expected = ProjectUsage {
        images: 5,
        bytes: 210,
        uploading: 2,
    };
    assert_eq!(world.catalog.usage("p1").unwrap(), expected);
    assert_eq!(
        world.catalog.usage("none").unwrap(),
        ProjectUsage::default()
    );
}

pub(crate) fn projects_keep_to_their_bytes_when_many_images_arrive(world: &World) {
    const IMAGES: u32 = 16;
    for number in 0..IMAGES {
        world.catalog.insert(&image(number)).unwrap();
    }
    let arrived = |number| Image {
        size: Some(30),
        locations: vec![location("file:///x", "fast")],
        status: ImageStatus::Active,
        ..image(number)
    };
    let together = std::sync::Barrier::new(IMAGES as usize);
    let saved: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..IMAGES)
            .map(|number| {
                let (arrived, together) = (arrived(number), &together);
                scope.spawn(move || {
                    together.wait();
                    match world.catalog.save_within(&arrived, 100) {
                        Ok(_) => true,
                        Err(CatalogError::Limit { limit: 100, .. }) => false,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().unwrap().then_some(()))
            .count()
    });
    assert_eq!(saved, 3);
    assert_eq!(world.catalog.usage("p1").unwrap().bytes, 90);
    let queued = (0..IMAGES).filter(|number| {
        let found = world.catalog.image(&id(*number)).unwrap().unwrap();
        found == image(*number)
    });
    assert_eq!(queued.count(), 13, "what was refused is as it was");
    // Others, and images of nobody, have room.
    for (number, owner) in [(100, Some("p2".to_owned())), (101, None)] {
        let other = Image {
            owner,
            ..arrived(number)
        };
        let queued = Image {
            owner: other.owner.clone(),
            ..image(number)
        };
        world.catalog.insert(&queued).unwrap();
        world.catalog.save_within(&other, 30).unwrap();
    }
}

pub(crate) fn pages_follow_one_another_without_gap_or_overlap(world: &World) {
    // Three made in each second: ties are broken by the id.
    for number in 0..60 {
        let visibility = Visibility::ALL[number as usize % 4];
        let created_at = at(i64::from(number) / 3);
        let owner = Some(if number % 5 == 0 { "p1" } else { "p2" }.to_owned());
        let image = Image {
            visibility,
            created_at,
            owner,
            ..image(number)
        };
        world.catalog.insert(&image).unwrap();
        if number % 8 == 2 {
            let accepted = Member {
                status: MemberStatus::Accepted,
                ..member("p1")
            };
            world
                .catalog
                .insert_member(&id(number), &accepted, 9)
                .unwrap();
        }
    }
    let whole = world.catalog.list(&query("p1", 1000), &|_| true).unwrap();
    let expected: Vec<u32> = (0..60)
        .rev()
        .filter(|n| n % 4 == 0 || n % 5 == 0 || n % 8 == 2)
        .collect();
    assert_eq!(numbers(&whole), expected);
    for limit in [1, 2, 7] {
        let mut paged = Vec::new();
        let mut page = query("p1", limit);
        loop {
            let found = world.catalog.list(&page, &|_| true).unwrap();
            assert!(found.len() <= limit as usize);
            let Some(last) = found.last() else { break };
            page.marker = Some(last.id.clone());
            paged.extend(found);
        }
        assert_eq!(paged, whole, "in pages of {limit}");
    }
}

pub(crate) fn images_that_are_not_shown_leave_no_gap_in_a_page(world: &World) {
    for number in 0..700 {
        world.catalog.insert(&image(number)).unwrap();
    }
    // The last ones of each hundred are shown, so some pages pass over more than are looked at in one go.
    let is_shown = |number: &u32| {
        number % 100 >= 98 || (200..500).contains(number) && number.is_multiple_of(299)
    };
    let shown = |image: &Image| is_shown(&numbers(std::slice::from_ref(image))[0]);
    let expected: Vec<u32> = (0..700).rev().filter(is_shown).collect();
    for limit in [1, 3, 5, 1000] {
        let (mut paged, mut page): (Vec<u32>, _) = (Vec::new(), query("p1", limit));
        loop {
            let found = numbers(&world.catalog.list(&page, &shown).unwrap());
            page.marker = found.last().copied().map(id);
            paged.extend(&found);
            let rest = expected.len() - paged.len();
            assert!(found.len() == limit as usize || rest == 0, "{found:?}");
            if found.is_empty() || rest == 0 {
                break;
            }
        }
        assert_eq!(paged, expected, "in pages of {limit}");
    }
    let after = |number| {
        let marker = Some(id(number));
        let page = ImageQuery {
            marker,
            ..query("p1", 5)
        };
        world
            .catalog
            .list(&page, &shown)
            .map(|found| numbers(&found))
    };
    assert!(after(598).is_ok());
    assert!(matches!(after(597), Err(CatalogError::NoMarker(none)) if none == id(597)));
}

pub(crate) fn a_marker_must_be_one_that_the_caller_could_see(world: &World) {
    let images = [
        (1, "p2", Visibility::Public),
        (2, "p2", Visibility::Community),
        (3, "p2", Visibility::Shared),
        (4, "p2", Visibility::Private),
        (5, "p1", Visibility::Private),
        (6, "p2", Visibility::Shared),  // and p1 rejected it
        (7, "p2", Visibility::Private), // and p1 was its member before
        (8, "p1", Visibility::Private), // and it is deleted
    ];
    for (number, owner, visibility) in images {
        let owner = Some(owner.to_owned());
        let image = Image {
            owner,
            visibility,
            ..image(number)
        };
        world.catalog.insert(&image).unwrap();
        if matches!(number, 6 | 7) {
            let rejected = Member {
                status: MemberStatus::Rejected,
                ..member("p1")
            };
            world
                .catalog
                .insert_member(&id(number), &rejected, 9)
                .unwrap();
        }
        if number == 8 {
            let status = ImageStatus::Deleted;
            world.catalog.save(&Image { status, ..image }).unwrap();
        }
    }
    let after = |marker, admin| {
        let mut query = query("p1", 100);
        query.scope.admin = admin;
        query.marker = Some(id(marker));
        world.catalog.list(&query, &|_| true)
    };
    for (marker, seen) in (1..10).zip([true, true, false, false, true, true, false, false, false]) {
        match after(marker, false) {
            Ok(found) => {
                assert!(seen, "continued after {marker}");
                assert!(numbers(&found).iter().all(|number| *number < marker));
            }
            Err(CatalogError::NoMarker(none)) => assert!(!seen && none == id(marker), "{marker}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(numbers(&after(8, true).unwrap()), [7, 6, 5, 4, 3, 1]);
    assert!(matches!(after(9, true), Err(CatalogError::NoMarker(_))));
}

pub(crate) fn limits_and_filters_that_select_nothing_give_empty_pages(world: &World) {
    world.catalog.insert(&image(1)).unwrap();
    let filtered = |filter| ImageQuery {
        filters: vec![filter],
        ..query("p1", 10)
    };
    for empty in [
        query("p1", 0),
        filtered(Filter::Nothing),
        filtered(Filter::Text(TextColumn::Name, Vec::new())),
        filtered(Filter::Text(TextColumn::Name, vec![String::new()])),
    ] {
        assert_eq!(world.catalog.list(&empty, &|_| true).unwrap(), []);
    }
    assert_eq!(
        world
            .catalog
            .list(&query("p1", u32::MAX), &|_| true)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(world.catalog.in_status(&[]).unwrap(), []);
}

pub(crate) fn a_filter_takes_thousands_of_values(world: &World) {
    let names: Vec<String> = (0..20_000).map(|n| format!("{n}")).collect();
    for number in 0..3 {
        let name = Some(format!("{}", number * 9_999));
        world
            .catalog
            .insert(&Image {
                name,
                ..image(number)
            })
            .unwrap();
    }
    let mut query = query("p1", 10);
    query.filters = vec![Filter::Text(TextColumn::Name, names)];
    query.marker = Some(id(2));
    assert_eq!(
        numbers(&world.catalog.list(&query, &|_| true).unwrap()),
        [1, 0]
    );
    let distinct: BTreeSet<ImageId> = world.catalog.ids().unwrap().into_iter().collect();
    assert_eq!(distinct.len(), 3);
}

pub(crate) fn the_store_that_was_noted_first_stays_until_it_is_forgotten(world: &World) {
    assert_eq!(world.catalog.store().unwrap(), None);
    for store in ["first", "second", "first"] {
        assert_eq!(world.catalog.note_store(store).unwrap(), "first");
    }
    let again = open(&world.url).unwrap();
    assert_eq!(again.store().unwrap().as_deref(), Some("first"));
    assert_eq!(again.forget_store().unwrap().as_deref(), Some("first"));
    assert_eq!(again.forget_store().unwrap(), None);
    assert_eq!(world.catalog.store().unwrap(), None);
    assert_eq!(world.catalog.note_store("second").unwrap(), "second");
}

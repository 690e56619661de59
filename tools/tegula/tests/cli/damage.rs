//! Damage is found, named and mended.

use crate::support::{World, listing};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Flips a byte in the middle of the first chunk of a segment.
pub(crate) fn flip_in_first_chunk(segment: &Path) {
    flip(segment, 10_000);
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], offset).unwrap();
}

#[test]
fn a_damaged_chunk_is_named_with_its_place_and_its_images() {
    let world = World::new();
    world.put("hit", &[1, 2, 3]);
    world.put("spared", &[4]);
    world.put("hit too", &[1]);
    flip_in_first_chunk(&world.segments()[0]);
    for depth in [&["verify"][..], &["verify", "--full"], &["verify", "hit"]] {
        let arguments = [depth, &["--json"]].concat();
        let found = world.run(arguments).expect_code(3).json();
        let finding = &found["findings"][0];
        assert_eq!(found["findings"].as_array().unwrap().len(), 1, "{found}");
        let path = finding["path"].as_str().unwrap();
        assert!(world.segments()[0].ends_with(path), "{path}");
        assert!(finding["offset"].is_u64());
        assert_eq!(finding["chunk"].as_str().unwrap().len(), 64);
        assert_eq!(finding["derived"], false);
        let images: Vec<_> = finding["images"].as_array().unwrap().iter().collect();
        match depth.contains(&"hit") {
            true => assert!(images.contains(&&"hit".into()), "{images:?}"),
            false => assert_eq!(images, ["hit", "hit too"]),
        }
    }
    let text = world.run(["verify"]).expect_code(3).out;
    assert!(
        text.contains("hit, hit too") && text.contains("1 finding"),
        "{text}"
    );
    world.ok(["verify", "spared"]);
}

#[test]
fn a_damaged_image_is_not_restored_and_its_neighbours_are() {
    let world = World::new();
    world.put("hit", &[1, 2, 3]);
    let spared = world.put("spared", &[4]);
    flip_in_first_chunk(&world.segments()[0]);
    let out = world.file("out");
    world
        .refuses(["get", "hit", &out], 3, &["chunk", "segment"])
        .hints("repair --from");
    assert!(!Path::new(&out).exists());
    world.run(["get", "hit", "-"]).expect_code(3);
    world.get_is("spared", &spared);
}

#[test]
fn repair_takes_good_copies_from_another_store() {
    let (world, backup) = (World::new(), World::new());
    let disk = world.put("hit", &[1, 2, 3]);
    backup.put("copy", &[3, 2, 1]);
    flip_in_first_chunk(&world.segments()[0]);
    // Without the other store it tells what is still wrong.
    let alone = world.run(["repair", "--json"]).expect_code(3).json();
    assert_eq!(alone["quarantined_chunks"], 1);
    assert_eq!(alone["remaining"][0]["images"][0], "hit");
    let from = backup.store().to_str().unwrap();
    let mended = world.json(["repair", "--from", from]);
    assert_eq!(
        (&mended["healed_chunks"], &mended["remaining"]),
        (&1.into(), &serde_json::json!([]))
    );
    world.get_is("hit", &disk);
    world.ok(["verify", "--full"]);
}

#[test]
fn putting_an_image_again_heals_it() {
    let world = World::new();
    let disk = world.put("hit", &[1, 2, 3]);
    flip_in_first_chunk(&world.segments()[0]);
    world.run(["repair"]).expect_code(3);
    world.ok(["put", "again", &disk]);
    world.get_is("hit", &disk);
    world.ok(["verify"]);
}

#[test]
fn a_damaged_index_costs_nothing_but_a_repair() {
    let world = World::new();
    let disk = world.put("one", &[1, 2, 3]);
    let runs = crate::support::listing(&world.store().join("index"));
    let (run, bytes) = runs.first().expect("an index").clone();
    flip(&run, bytes - 20);
    world.get_is("one", &disk);
    let found = world.run(["verify", "--json"]).expect_code(3).json();
    assert_eq!(found["findings"][0]["derived"], true, "{found}");
    let mended = world.json(["repair"]);
    assert_eq!(
        (&mended["index_rebuilt"], &mended["remaining"]),
        (&true.into(), &serde_json::json!([]))
    );
    world.ok(["verify", "--full"]);
    world.get_is("one", &disk);
}

#[test]
fn damage_in_the_head_of_the_store_is_damage_and_mended() {
    let world = World::new();
    let one = world.put("one", &[1]);
    let (head, copy) = ["tegula.store", "tegula.store.copy"]
        .map(|file| world.store().join(file))
        .into();
    let damages: [&dyn Fn(); 3] = [
        &|| flip(&head, 30),
        &|| std::fs::remove_file(&head).expect("a file to remove"),
        &|| {
            flip(&head, 30);
            std::fs::remove_file(&copy).expect("a file to remove");
        },
    ];
    for (damage, from) in damages.into_iter().zip(["copy", "copy", "segments"]) {
        damage();
        let found = world.run(["verify", "--json"]).expect_code(3).json();
        assert_eq!(found["findings"][0]["path"], "tegula.store", "{found}");
        let text = world.run(["verify"]).expect_code(3).out;
        assert!(text.contains("nothing else was looked at"), "{text}");
        for command in [&["ls"][..], &["show", "one"]] {
            world
                .refuses(command, 3, &["tegula.store", "damaged"])
                .hints("`tegula repair` makes it again");
        }
        world.refuses(["init"], 1, &["it is a tegula store"]);
        let mended = world.json(["repair"]);
        assert_eq!(mended["config_restored"], from);
        // Where nothing was left of the copy, it was made as well.
        assert_eq!(mended["config_copy_restored"], from == "segments");
        world.ok(["verify", "--full"]);
        world.get_is("one", &one);
    }
    std::fs::remove_file(&copy).expect("a file to remove");
    world.run(["verify"]).expect_code(3);
    assert_eq!(world.json(["repair"])["config_copy_restored"], true);
    world.ok(["verify"]);
}

#[test]
fn a_damaged_or_lost_collection_state_is_a_finding_and_mended() {
    let world = World::new();
    let one = world.put("one", &[1]);
    let state = world.store().join("gc.state");
    let damages: [&dyn Fn(); 2] = [
        &|| std::fs::write(&state, "xx").expect("a file to overwrite"),
        &|| std::fs::remove_file(&state).expect("a file to remove"),
    ];
    for damage in damages {
        damage();
        let found = world.run(["verify", "--full", "--json"]).expect_code(3);
        let found = found.json();
        let findings = found["findings"].as_array().expect("findings");
        assert_eq!(findings.len(), 1, "{found}");
        assert_eq!(findings[0]["path"], "gc.state");
        assert_eq!(findings[0]["derived"], true);
        // The rest was looked at all the same.
        assert_eq!((&found["images"], &found["chunks"]), (&1.into(), &1.into()));
        world
            .refuses(["ls"], 3, &["gc.state", "damaged"])
            .hints("`tegula repair` makes it again");
        assert_eq!(world.json(["repair"])["state_restored"], true);
        world.ok(["verify", "--full"]);
        world.get_is("one", &one);
    }
}

#[test]
fn a_damaged_version_is_damage_and_mended() {
    let (world, copy) = (World::new(), World::new());
    let one = world.put("one", &[1]);
    copy.put("one", &[1]);
    let copy = copy.store().to_str().unwrap();
    let layer = || {
        let layers = listing(&world.store().join("layers"));
        layers[0].0.clone()
    };
    for file in [
        &|| world.store().join("images/one.image"),
        &layer as &dyn Fn() -> _,
    ] {
        flip(&file(), 9);
        world.refuses(["get", "one", "-"], 3, &["damaged", "checksum"]);
        world.run(["verify"]).expect_code(3);
        world.ok(["repair", "--from", copy]);
        world.ok(["verify", "--full"]);
        world.get_is("one", &one);
    }
}

#[test]
fn a_damaged_record_is_not_taken_for_an_absent_image() {
    let world = World::new();
    world.put("hit", &[1]);
    let spared = world.put("spared", &[2]);
    flip(&world.store().join("images/hit.image"), 40);
    for command in [&["ls"][..], &["show", "hit"], &["gc"]] {
        world.refuses(command, 3, &["hit.image", "damaged"]);
    }
    world.get_is("spared", &spared);
    let found = world.run(["verify", "--json"]).expect_code(3).json();
    assert_eq!(found["findings"][0]["images"][0], "hit");
}

#[test]
fn repair_names_the_other_store_if_that_is_what_fails() {
    let world = World::new();
    let ran = world.run(["repair", "--from", "/nowhere/at/all"]);
    ran.refused(1, &["/nowhere/at/all"]);
    let plain = world.file("plain");
    std::fs::create_dir(&plain).unwrap();
    let ran = world.run(["repair", "--from", &plain]);
    ran.refused(1, &[&plain, "not a tegula store"]);
}

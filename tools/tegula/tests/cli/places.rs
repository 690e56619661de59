//! Stores in places that do not let everything happen: read-only, full, absent, not ours.

use crate::machine::Mount;
use crate::support::{BLOCK, Ran, World, assert_same, listing, program};
use std::os::unix::fs::FileExt;

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let origin = World::new();
    let disk = origin.put("base", &[1, 2, 3]);
    let changed = origin.disk("disk", &[1, 9, 3]);
    origin.ok(["put", "child", &changed, "--parent", "base"]);
    origin.ok(["gc"]);
    let mount = Mount::read_only(origin.store());
    let world = World::with_store_at(mount.path());
    world.get_is("base", &disk);
    world.get_is("child", &changed);
    assert_eq!(world.names(), ["base", "child"]);
    for command in [
        &["show", "child"][..],
        &["diff", "base", "child"],
        &["stats"],
        &["du"],
        &["verify", "--full"],
        &["verify", "child"],
        &["gc", "--dry-run"],
        // There is nothing to free, so there is nothing to write.
        &["gc"],
    ] {
        world.ok(command);
    }
    for command in [
        &["put", "new", &disk][..],
        &["rm", "base"],
        &["rename", "base", "new"],
        &["flatten", "child"],
        &["clone", "child", "twin"],
    ] {
        let ran = world.refuses(command, 1, &["Read-only file system"]);
        ran.hints("cannot be written");
    }
}

#[test]
fn a_store_on_a_read_only_medium_needs_no_locks() {
    let origin = World::new();
    let disk = origin.put("base", &[1, 2, 3]);
    origin.put("other", &[4]);
    let locks = origin.store().join("locks");
    // As a copy leaves it out, and as one leaves it empty.
    for remade in [false, true] {
        std::fs::remove_dir_all(&locks).unwrap();
        if remade {
            std::fs::create_dir(&locks).unwrap();
        }
        let mount = Mount::read_only(origin.store());
        let world = World::with_store_at(mount.path());
        world.get_is("base", &disk);
        assert_eq!(world.names(), ["base", "other"]);
        for command in [
            &["show", "base"][..],
            &["diff", "base", "other"],
            &["stats"],
            &["du"],
            &["verify", "--full"],
        ] {
            world.ok(command);
        }
        for command in [&["put", "new", &disk][..], &["rm", "other"]] {
            world
                .refuses(command, 1, &["Read-only file system"])
                .hints("cannot be written");
        }
        drop(world);
        drop(mount);
        std::fs::create_dir_all(&locks).unwrap();
    }
}

#[test]
fn a_full_disk_is_named_and_harms_no_image() {
    let world = World::without_store();
    let mount = Mount::ext4(&world.path("small"), 48);
    let full = World::with_store_at(&mount.path().join("store"));
    full.ok(["init"]);
    let kept = full.put("kept", &(1..=100).collect::<Vec<_>>());
    let large = full.disk("large", &(1000..2000).collect::<Vec<_>>());
    full.run(["put", "large", &large])
        .refused(
            1,
            &[mount.path().to_str().unwrap(), "No space left on device"],
        )
        .hints("tegula gc");
    assert_eq!(full.names(), ["kept"]);
    full.get_is("kept", &kept);
    full.ok(["verify", "--full"]);
    // The same again, now that every byte may be taken.
    full.run(["put", "large", &large])
        .refused(1, &["No space left on device"]);
    full.get_is("kept", &kept);

    full.ok(["rm", "kept"]);
    full.ok(["gc", "--min-live", "1"]);
    let next = full.put("next", &(200..=300).collect::<Vec<_>>());
    full.get_is("next", &next);
    full.ok(["verify", "--full"]);
}

#[test]
fn a_destination_that_is_full_is_named_and_left_as_it_was() {
    let world = World::new();
    world.put("large", &(1..=800).collect::<Vec<_>>());
    let mount = Mount::ext4(&world.path("small"), 24);
    let out = mount.file("out");
    let before = listing(mount.path());
    world.refuses(
        ["get", "large", &out],
        1,
        &[&out, "No space left on device"],
    );
    assert_eq!(
        listing(mount.path()),
        before,
        "nothing stays beside the destination"
    );
}

#[test]
fn a_directory_that_is_no_store_is_named() {
    let world = World::without_store();
    let plain = world.store();
    for command in [
        &["ls"][..],
        &["put", "new", "/dev/null"],
        &["gc"],
        &["repair"],
    ] {
        world
            .refuses(
                command,
                1,
                &[plain.to_str().unwrap(), "No such file or directory"],
            )
            .hints("init");
    }
    assert!(!plain.exists());
    std::fs::create_dir(plain).unwrap();
    for command in [
        &["ls"][..],
        &["put", "new", "/dev/null"],
        &["gc"],
        &["repair"],
    ] {
        world
            .refuses(command, 1, &[plain.to_str().unwrap(), "not a tegula store"])
            .hints("init");
    }
    std::fs::remove_dir(plain).unwrap();
    std::fs::write(plain, b"a file").unwrap();
    world
        .run(["ls"])
        .refused(1, &[plain.to_str().unwrap(), "Not a directory"]);
}

#[test]
fn a_store_of_a_newer_version_is_not_touched() {
    let world = World::new();
    let disk = world.put("one", &[1]);
    let head = world.store().join("tegula.store");
    let file = std::fs::OpenOptions::new().write(true).open(head).unwrap();
    file.write_all_at(&[99], 8).unwrap();
    // With the checksum of version 1 it would be a damaged version.
    file.write_all_at(&[0; 4], 28).unwrap();
    for command in [
        &["ls"][..],
        &["put", "two", &disk],
        &["gc"],
        &["repair"],
        &["get", "one", "out"],
    ] {
        let ran = world.refuses(command, 1, &["tegula.store", "newer tegula", "version 99"]);
        ran.hints("nothing is damaged");
    }
}

#[test]
fn init_makes_a_store_in_a_new_or_empty_directory_only() {
    let world = World::without_store();
    let taken = world.path("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("letter"), b"").unwrap();
    let taken = World::with_store_at(&taken);
    taken
        .refuses(["init"], 1, &[taken.store().to_str().unwrap(), "letter"])
        .hints("empty directory");

    std::fs::create_dir(world.store()).unwrap();
    world.ok(["init"]);
    world.refuses(["init"], 1, &["already"]);

    let orphan = World::with_store_at(&world.path("no/such/parent"));
    orphan
        .refuses(
            ["init"],
            1,
            &["no/such/parent", "No such file or directory"],
        )
        .hints("parent");
    assert!(!world.path("no").exists());
}

#[test]
fn the_store_may_be_anywhere_and_named_in_any_way() {
    let world = World::without_store();
    let disk = world.disk("disk", &[1, 2]);
    let mut command = program();
    command
        .current_dir(world.path(""))
        .args(["--store", "a store", "init"]);
    Ran::of(&mut command).expect_code(0);
    std::os::unix::fs::symlink("a store", world.path("link")).unwrap();
    let linked = World::with_store_at(&world.path("link"));
    linked.ok(["put", "one", &disk]);
    let out = world.file("out");
    let mut command = program();
    command
        .current_dir(world.path("a store"))
        .args(["--store", ".", "get", "one", "../out"]);
    Ran::of(&mut command).expect_code(0);
    assert_same(&out, &disk);
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 2 * BLOCK);
}

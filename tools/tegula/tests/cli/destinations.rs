//! Where images go: what stands there is kept unless it may go, and nothing half done stays.

use crate::machine::LoopDevice;
use crate::support::{BLOCK, World, assert_same, listing};
use rustix::fs::{CWD, Mode, SeekFrom};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Runs a get that must be refused, and makes sure that nothing around its destination changed.
#[track_caller]
fn refused_without_trace(world: &World, arguments: &[&str], code: i32, named: &[&str]) {
    let around = Path::new(arguments[2]).parent().unwrap();
    let before = listing(around);
    world.refuses(arguments, code, named);
    assert_eq!(listing(around), before, "{arguments:?}");
}

#[test]
fn an_existing_destination_is_kept_unless_it_may_go() {
    let world = World::new();
    let disk = world.put("one", &[1, 2]);
    let out = world.file("out");
    std::fs::write(&out, b"precious").unwrap();
    refused_without_trace(&world, &["get", "one", &out], 1, &[&out, "exists"]);
    world.run(["get", "one", &out]).hints("--force");
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    world.ok(["get", "one", &out, "--force"]);
    assert_same(&out, &disk);
}

#[test]
fn what_cannot_hold_a_disk_is_refused_by_its_kind() {
    let world = World::new();
    world.put("one", &[1]);
    let directory = world.file("directory");
    std::fs::create_dir(&directory).unwrap();
    let fifo = world.file("fifo");
    rustix::fs::mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
    let cases = [
        (&directory, "a directory", "a new file in it"),
        (&fifo, "a FIFO", "get IMAGE -"),
    ];
    for (destination, kind, hint) in cases {
        for option in ["-q", "--force", "--in-place", "--format=qcow2"] {
            let arguments = ["get", "one", destination, option];
            refused_without_trace(&world, &arguments, 1, &[destination, kind]);
            world.run(arguments).hints(hint);
        }
    }
    for option in ["-q", "--force"] {
        let arguments = ["get", "one", "/dev/null", option];
        world
            .refuses(arguments, 1, &["a character device"])
            .hints("get IMAGE -");
    }
}

#[test]
fn a_destination_directory_that_is_not_there_is_named() {
    let world = World::new();
    world.put("one", &[1]);
    let out = world.file("nowhere/out");
    world.refuses(
        ["get", "one", &out],
        1,
        &[&out, "No such file or directory"],
    );
    assert!(!world.path("nowhere").exists());
}

#[test]
fn an_image_that_is_not_there_makes_no_file() {
    let world = World::new();
    let out = world.file("out");
    refused_without_trace(&world, &["get", "nobody", &out], 1, &["nobody"]);
}

#[test]
fn the_files_of_the_store_are_no_destination() {
    let world = World::new();
    let one = world.put("one", &[1]);
    let config = world.store().join("tegula.store");
    let link = world.path("link");
    std::os::unix::fs::symlink(&config, &link).unwrap();
    let segment = world.segments().remove(0);
    for (destination, option) in [
        (&config, "--force"),
        (&link, "--in-place"),
        (&segment, "--force"),
        (&world.store().join("segments/../new"), "--force"),
    ] {
        let destination = destination.to_str().unwrap();
        world.refuses(["get", "one", destination, option], 2, &["in the store"]);
    }
    let create = [
        "delta",
        "create",
        "--full",
        "one",
        "--force",
        "-o",
        config.to_str().unwrap(),
    ];
    world.refuses(create, 2, &["in the store"]);
    world.get_is("one", &one);
}

#[test]
fn holes_stay_holes() {
    let world = World::new();
    let mut blocks = vec![0; 400];
    (blocks[100], blocks[300]) = (1, 2);
    let disk = world.put("sparse", &blocks);
    let out = world.file("out");
    world.ok(["get", "sparse", &out]);
    assert_same(&out, &disk);
    let file = File::open(&out).unwrap();
    let allocated = file.metadata().unwrap().blocks() * 512;
    assert!(
        allocated <= 3 * BLOCK,
        "{allocated} bytes allocated for two blocks"
    );
    let data = rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap();
    let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap();
    assert_eq!((data, hole), (100 * BLOCK, 101 * BLOCK));
}

#[test]
fn in_place_writes_only_what_differs() {
    let world = World::new();
    let disk = world.put("one", &[1, 2, 3, 0, 5]);
    let out = world.file("out");
    std::fs::copy(&disk, &out).unwrap();
    assert_eq!(
        world.json(["get", "one", &out, "--in-place"])["written_bytes"],
        0
    );

    let file = OpenOptions::new().write(true).open(&out).unwrap();
    file.write_all_at(b"x", BLOCK + 17).unwrap();
    assert_eq!(
        world.json(["get", "one", &out, "--in-place"])["written_bytes"],
        BLOCK
    );
    assert_same(&out, &disk);

    // Something where zeros belong counts too.
    file.write_all_at(b"x", 3 * BLOCK + 17).unwrap();
    file.write_all_at(b"x", 4 * BLOCK).unwrap();
    assert_eq!(
        world.json(["get", "one", &out, "--in-place"])["written_bytes"],
        2 * BLOCK
    );
    assert_same(&out, &disk);
}

#[test]
fn in_place_makes_a_file_as_long_as_the_image() {
    let world = World::new();
    let disk = world.put("one", &[1, 2, 0]);
    let out = world.file("out");
    for blocks in [&[][..], &[1], &[1, 2, 3, 4, 5]] {
        world.disk("out", blocks);
        world.ok(["get", "one", &out, "--in-place"]);
        assert_same(&out, &disk);
    }
}

#[test]
fn in_place_needs_something_that_is_there() {
    let world = World::new();
    world.put("one", &[1]);
    let out = world.file("out");
    let arguments = ["get", "one", &out, "--in-place"];
    refused_without_trace(&world, &arguments, 1, &[&out, "No such file or directory"]);
}

#[test]
fn a_device_is_overwritten_only_if_it_may_be() {
    let world = World::new();
    let disk = world.put("one", &[1, 0, 2, 0, 3]);
    let file = world.file("device");
    let device = LoopDevice::filled(&file, 6 * BLOCK, 0xaa);
    let path = device.path();
    world
        .refuses(["get", "one", path], 1, &[path, "a block device"])
        .hints("--force");
    assert!(
        device.content().iter().all(|byte| *byte == 0xaa),
        "a refused get wrote"
    );
    for option in ["--force", "--in-place"] {
        std::fs::write(path, vec![0xaa; 6 * BLOCK as usize]).unwrap();
        world.ok(["get", "one", path, option]);
        let (content, image) = (device.content(), std::fs::read(&disk).unwrap());
        let (start, rest) = content.split_at(image.len());
        assert!(
            start == image,
            "{option}: zeros are written over what was there"
        );
        assert!(
            rest.iter().all(|byte| *byte == 0xaa),
            "{option}: past the image nothing is touched"
        );
    }
    let again = world.json(["get", "one", path, "--in-place"]);
    assert_eq!(
        again["written_bytes"], 0,
        "a device that holds the image is not written"
    );
}

#[test]
fn a_device_that_is_too_small_stays_as_it_was() {
    let world = World::new();
    world.put("one", &[1, 2, 3]);
    let device = LoopDevice::filled(&world.file("device"), 2 * BLOCK, 0xaa);
    for option in ["--force", "--in-place"] {
        let arguments = ["get", "one", device.path(), option];
        world.refuses(arguments, 1, &[device.path(), "131072", "196608"]);
        assert!(device.content().iter().all(|byte| *byte == 0xaa));
    }
}

#[test]
fn a_device_in_use_is_refused() {
    let world = World::new();
    world.put("one", &[1]);
    let mount = crate::machine::Mount::ext4(&world.path("mounted"), 8);
    let device =
        crate::machine::system("findmnt", &["-n", "-o", "SOURCE", mount.file("").as_str()]);
    let arguments = ["get", "one", &device, "--force"];
    world
        .refuses(arguments, 1, &[&device, "in use"])
        .hints("unmount");
}

#[test]
fn a_file_as_long_as_its_name_may_be_is_written() {
    let world = World::new();
    let disk = world.put("one", &[1]);
    let out = world.file(&"d".repeat(255));
    world.ok(["get", "one", &out]);
    assert_same(&out, &disk);
}

#[test]
fn a_stream_cannot_be_combined_with_what_is_for_files() {
    let world = World::new();
    world.put("one", &[1]);
    for option in ["--force", "--in-place", "--json"] {
        world.refuses(["get", "one", "-", option], 2, &[option]);
    }
    world.refuses(
        ["get", "one", &world.file("out"), "--force", "--in-place"],
        2,
        &["--force"],
    );
}

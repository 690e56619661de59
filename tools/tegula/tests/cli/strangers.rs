//! What stands in a store and is no file of it: special files in the place of its own, and files of somebody else.

use crate::support::{World, listing};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Puts something that is no file in the place of one.
type Stranger = fn(&Path);

const STRANGERS: [(&str, Stranger); 4] = [
    ("directory", |path| fs::create_dir(path).unwrap()),
    ("link", |path| symlink("/etc/hostname", path).unwrap()),
    ("fifo", |path| {
        rustix::fs::mkfifoat(CWD, path, Mode::RWXU).unwrap();
    }),
    ("device", |path| {
        // Unlike /dev/zero, this has no end to read to and no beginning: number 0 is nobody's.
        mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::RWXU,
            makedev(0, 0),
        )
        .expect("run it as root");
    }),
];

#[test]
fn what_is_no_file_in_the_place_of_a_record_is_damage_and_has_a_way_out() {
    for (kind, put_there) in STRANGERS {
        let world = World::new();
        world.put("hit", &[1, 2]);
        let spared = world.put("spared", &[3]);
        let record = world.store().join("images/hit.image");
        fs::remove_file(&record).unwrap();
        put_there(&record);
        for command in [&["ls"][..], &["show", "hit"], &["gc"]] {
            world
                .refuses(command, 3, &["hit.image"])
                .hints("repair --from");
        }
        world.refuses(["get", "hit", &world.file("out")], 3, &["hit.image"]);
        world.get_is("spared", &spared);
        let found = world.run(["verify", "--json"]).expect_code(3).json();
        assert_eq!(found["findings"][0]["path"], "images/hit.image", "{kind}");
        assert_eq!(found["findings"][0]["images"][0], "hit", "{kind}");

        let removed = world.json(["rm", "hit", "spared"]);
        assert!(removed["removed"][0]["digest"].is_null(), "{kind}");
        let kept = removed["removed"][0]["set_aside"].as_str().unwrap();
        let kept = world.store().join(kept).symlink_metadata();
        assert!(kept.is_ok(), "{kind}: it is kept in quarantine");
        assert!(removed["removed"][1]["digest"].is_string(), "{kind}");
        assert_eq!(world.names(), [""; 0], "{kind}");
        world.ok(["gc", "--min-live", "1"]);
        world.ok(["verify", "--full"]);
        assert_eq!(listing(&world.store().join("segments")), [], "{kind}");
    }
}

#[test]
fn a_file_among_the_records_that_no_image_can_have_stops_collection_until_it_is_repaired_or_moved()
{
    let world = World::new();
    let kept = world.put("kept", &[1, 2]);
    world.put("gone", &[3, 4, 5]);
    let images = world.store().join("images");
    let record = fs::read(images.join("kept.image")).unwrap();
    let mut damaged = record.clone();
    damaged[40] ^= 1;
    let name = " no name.image";
    for (bytes, goes) in [
        (&b"notes"[..], true),
        (&record[..], true),
        (&damaged[..], false),
    ] {
        fs::write(images.join(name), bytes).unwrap();
        // What it needs, were it a record, is not known: nothing is collected.
        world.refuses(["gc"], 3, &[name]).hints("tegula repair");
        let found = world.run(["verify", "--json"]).expect_code(3).json();
        assert_eq!(found["findings"][0]["path"], format!("images/{name}"));
        world.run(["repair"]).expect_code(if goes { 0 } else { 3 });
        assert_eq!(images.join(name).exists(), !goes);
        let aside = fs::read(world.store().join("quarantine").join(name));
        if goes {
            assert_eq!(aside.unwrap(), bytes);
            fs::remove_file(world.store().join("quarantine").join(name)).unwrap();
            world.ok(["gc"]);
        }
        world.get_is("kept", &kept);
    }
    // What may have been a record is for whoever knows it to take away.
    world.refuses(["gc"], 3, &[name]);
    fs::remove_file(images.join(name)).unwrap();
    world.ok(["rm", "gone"]);
    assert!(world.json(["gc", "--min-live", "1"])["freed_bytes"].as_u64() > Some(0));
    world.ok(["verify", "--full"]);
}

#[test]
fn a_damaged_record_is_kept_when_its_image_is_removed() {
    let world = World::new();
    world.put("hit", &[1]);
    let record = world.store().join("images/hit.image");
    let mut bytes = fs::read(&record).unwrap();
    bytes[40] ^= 1;
    fs::write(&record, &bytes).unwrap();
    // None is removed if one of them does not exist.
    world.refuses(["rm", "hit", "absent"], 1, &["absent"]);
    let text = world.ok(["rm", "hit"]).out;
    assert!(text.contains("quarantine/hit.image"), "{text}");
    let kept = fs::read(world.store().join("quarantine/hit.image")).unwrap();
    assert_eq!(kept, bytes);
    world.ok(["gc"]);
}

#[test]
fn what_is_no_file_in_the_place_of_a_segment_or_layer_is_damage() {
    for (kind, put_there) in STRANGERS {
        for directory in ["segments", "layers"] {
            let world = World::new();
            world.put("hit", &[1, 2]);
            let (path, _) = listing(&world.store().join(directory)).remove(0);
            fs::remove_file(&path).unwrap();
            put_there(&path);
            let name = path.file_name().unwrap().to_str().unwrap();
            world.refuses(["get", "hit", &world.file("out")], 3, &[]);
            let found = world.run(["verify", "--json"]).expect_code(3).json();
            let findings = found["findings"].as_array().unwrap();
            let named = |finding: &serde_json::Value| {
                finding["path"]
                    .as_str()
                    .is_some_and(|at| at.ends_with(name))
            };
            assert!(findings.iter().any(named), "{kind} in {directory}: {found}");
            // It names what is lost, and ends.
            world.run(["repair"]).expect_code(3);
            world.ok(["put", "again", &world.file("hit.disk")]);
            world.get_is("again", &world.file("hit.disk"));
        }
    }
}

#[test]
fn what_is_no_directory_in_the_place_of_one_is_damage_by_name() {
    for directory in ["segments", "layers", "images", "index"] {
        let world = World::new();
        world.put("kept", &[1, 2]);
        let place = world.store().join(directory);
        fs::rename(&place, world.path("aside")).unwrap();
        fs::write(&place, b"").unwrap();
        for command in [&["verify"][..], &["gc"], &["stats"]] {
            world
                .refuses(command, 3, &[directory])
                .hints("tegula repair");
        }
        fs::remove_file(&place).unwrap();
        // The index is made again; nothing was done to anything else.
        match directory {
            "index" => _ = world.ok(["repair"]),
            _ => fs::rename(world.path("aside"), &place).unwrap(),
        }
        world.ok(["verify", "--full"]);
        world.get_is("kept", &world.file("kept.disk"));
    }
}

#[test]
fn the_files_of_somebody_else_are_named_and_left_alone() {
    let world = World::new();
    let disk = world.put("one", &[1]);
    assert_eq!(
        world.json(["verify"])["foreign_files"],
        serde_json::json!([])
    );
    let foreign = [
        "images/notes.txt",
        "index/backup",
        "layers/one.layer",
        "letter",
        "locks/epoch-007",
        "segments/00000001.seg~",
        "tmp/mine",
    ];
    for path in foreign {
        fs::write(world.store().join(path), path).unwrap();
    }
    let found = world.json(["verify"]);
    assert_eq!(found["foreign_files"], serde_json::json!(foreign));
    assert_eq!(found["findings"], serde_json::json!([]));
    let text = world.ok(["verify"]).out;
    assert!(text.contains("letter: not a file of the store"), "{text}");
    assert!(text.contains("no damage"), "{text}");
    for command in [&["gc"][..], &["repair"], &["rm", "one"], &["gc"]] {
        world.ok(command);
    }
    world.ok(["put", "one", &disk]);
    for path in foreign {
        assert_eq!(fs::read(world.store().join(path)).unwrap(), path.as_bytes());
    }
}

//! Ceph's form of differences, held against Ceph's own `rbd merge-diff`, which needs no cluster.

use crate::support::{BLOCK, Ran, World, assert_same, program};
use std::process::Command;

/// Three disks of a series, each put as an image.
fn series(world: &World) -> [String; 3] {
    [
        world.put("a", &[1, 2, 3, 4, 5, 6]),
        world.put("b", &[1, 7, 0, 4]),
        world.put("c", &[8, 7, 0, 4, 0, 9, 9]),
    ]
}

fn create(world: &World, from: &str, to: &str, format: &str) -> String {
    let file = world.file(&format!("{from}-{to}.{format}"));
    world.ok(["delta", "create", from, to, "--format", format, "-o", &file]);
    let told = world.json(["delta", "size", from, to, "--format", format]);
    assert_eq!(told["bytes"], std::fs::metadata(&file).unwrap().len());
    file
}

#[test]
fn a_difference_goes_out_and_in_in_both_versions() {
    for format in ["rbd-v1", "rbd-v2"] {
        let (here, there) = (World::new(), World::new());
        let [a, b, c] = series(&here);
        there.put("a", &[1, 2, 3, 4, 5, 6]);
        let (first, second) = (
            create(&here, "a", "b", format),
            create(&here, "b", "c", format),
        );
        there.ok([
            "delta", "apply", &first, "b", "--format", format, "--base", "a",
        ]);
        there.get_is("b", &b);
        let input = std::fs::File::open(&second).unwrap();
        let mut command = there.command([
            "delta", "apply", "-", "c", "--format", format, "--base", "b",
        ]);
        Ran::of(command.stdin(input)).expect_code(0);
        there.get_is("c", &c);
        assert_eq!(
            there.json(["show", "c"])["digest"],
            here.json(["show", "c"])["digest"]
        );
        there.ok(["verify", "--full"]);
        let disk = there.file("disk");
        std::fs::copy(&a, &disk).unwrap();
        for (file, target) in [(&first, &b), (&second, &c)] {
            // Twice is as good as once.
            for _ in 0..2 {
                let mut apply = program();
                apply.args(["delta", "apply", file, "--raw", &disk, "--format", format]);
                Ran::of(apply.arg("--unverified")).expect_code(0);
            }
            assert_same(&disk, target);
        }
    }
}

#[test]
fn what_rbd_merges_of_ours_is_ours_of_the_whole() {
    let world = World::new();
    let [_, _, c] = series(&world);
    let (first, second) = (
        create(&world, "a", "b", "rbd-v1"),
        create(&world, "b", "c", "rbd-v1"),
    );
    let merged = world.file("merged");
    let rbd = Command::new("rbd")
        .args(["merge-diff", &first, &second, &merged])
        .output()
        .expect("rbd is there: Debian's package ceph-common");
    assert!(rbd.status.success(), "{rbd:?}");
    world.ok([
        "delta",
        "apply",
        &merged,
        "of-merged",
        "--format",
        "rbd-v1",
        "--base",
        "a",
    ]);
    world.get_is("of-merged", &c);
    let whole = create(&world, "a", "c", "rbd-v1");
    world.ok([
        "delta", "apply", &whole, "of-whole", "--format", "rbd-v1", "--base", "a",
    ]);
    let digest = |image| world.json(["show", image])["digest"].clone();
    assert_eq!(digest("of-merged"), digest("of-whole"));
    // And rbd takes its own merging for one that ends where ours does.
    let bytes = std::fs::read(&merged).unwrap();
    let names = [&b"f\x01\0\0\0a"[..], b"t\x01\0\0\0c"].concat();
    assert!(bytes[12..].starts_with(&names), "{:?}", &bytes[..40]);
}

#[test]
fn ranges_that_are_no_whole_blocks_change_only_what_they_name() {
    let world = World::new();
    let base = world.put("base", &[1, 2, 0, 3]);
    let mut expected = std::fs::read(&base).unwrap();
    let size = 3 * BLOCK + 100;
    let mut diff = b"rbd diff v1\nf\x01\0\0\0as".to_vec();
    diff.extend(size.to_le_bytes());
    let edges = [
        (b'w', 10, 5),
        (b'z', BLOCK - 3, 7),
        (b'w', 2 * BLOCK - 1, 2),
        (b'z', size - 1, 1),
    ];
    for (tag, offset, length) in edges {
        diff.push(tag);
        diff.extend(u64::to_le_bytes(offset));
        diff.extend(u64::to_le_bytes(length));
        let range = offset as usize..(offset + length) as usize;
        let fill = if tag == b'w' { b'!' } else { 0 };
        expected[range].fill(fill);
        diff.extend(vec![fill; if tag == b'w' { length as usize } else { 0 }]);
    }
    diff.push(b'e');
    expected.truncate(size as usize);
    let (file, disk) = (world.file("diff"), world.file("expected"));
    std::fs::write(&file, &diff).unwrap();
    std::fs::write(&disk, expected).unwrap();
    world.ok([
        "delta", "apply", &file, "made", "--format", "rbd-v1", "--base", "base",
    ]);
    world.get_is("made", &disk);
    let raw = world.file("raw");
    std::fs::copy(&base, &raw).unwrap();
    let patch = ["delta", "apply", &file, "--raw", &raw, "--format", "rbd-v1"];
    world.ok(patch.iter().chain(&["--unverified"]));
    assert_same(&raw, &disk);
    diff.pop();
    std::fs::write(&file, &diff).unwrap();
    let apply = [
        "delta", "apply", &file, "again", "--format", "rbd-v1", "--base", "base",
    ];
    world.refuses(apply, 1, &[&file, "cut short"]);
    world.refuses(
        ["delta", "apply", &file, "x", "--base", "base"],
        2,
        &["--base"],
    );
}

/// An rbd difference in its first version: the head's records, the length, and one range that becomes zero.
fn erasing(head: &[u8], size: u64, offset: u64, length: u64) -> Vec<u8> {
    let mut diff = [b"rbd diff v1\n", head, b"s"].concat();
    diff.extend(size.to_le_bytes());
    diff.push(b'z');
    diff.extend(offset.to_le_bytes());
    diff.extend(length.to_le_bytes());
    diff.push(b'e');
    diff
}

#[test]
fn a_range_that_becomes_zero_is_zero_from_end_to_end() {
    let world = World::new();
    let base = world.put("base", &[1, 2, 0, 3, 4, 5, 6, 7]);
    let file = world.file("diff");
    let (offset, end) = (BLOCK / 2, 6 * BLOCK + 5);
    let diff = erasing(b"f\x01\0\0\0a", 8 * BLOCK, offset, end - offset);
    std::fs::write(&file, diff).unwrap();
    let mut expected = std::fs::read(&base).unwrap();
    expected[offset as usize..end as usize].fill(0);
    let disk = world.file("expected");
    std::fs::write(&disk, expected).unwrap();
    world.ok([
        "delta", "apply", &file, "made", "--format", "rbd-v1", "--base", "base",
    ]);
    world.get_is("made", &disk);
    let digest = |image| world.json(["show", image])["digest"].clone();
    world.ok(["put", "expected", &disk]);
    assert_eq!(digest("made"), digest("expected"));
    // A volume of a tebibyte, all of it discarded: as many blocks as would take a minute to look at.
    let size = 1 << 40;
    std::fs::write(&file, erasing(b"", size, 0, size)).unwrap();
    world.ok(["delta", "apply", &file, "empty", "--format", "rbd-v1"]);
    let disk = std::fs::File::create(&disk).unwrap();
    disk.set_len(size).unwrap();
    world.ok(["put", "sparse", &world.file("expected")]);
    assert_eq!(digest("empty"), digest("sparse"));
}

#[test]
fn a_difference_is_not_applied_to_nothing_if_it_starts_from_something() {
    for format in ["rbd-v1", "rbd-v2"] {
        let world = World::new();
        let [_, b, _] = series(&world);
        let diff = create(&world, "a", "b", format);
        let without_base = ["delta", "apply", &diff, "made", "--format", format];
        world.refuses(without_base, 1, &["snapshot \"a\"", "--base"]);
        // Nor to a disk that nobody can compare with what it starts from.
        let other = world.disk("other", &[1, 2, 3, 4, 5, 6, 7, 8]);
        let before = std::fs::read(&other).unwrap();
        let patch = ["delta", "apply", &diff, "--raw", &other, "--format", format];
        world.refuses(patch, 1, &["snapshot \"a\"", &other, "--unverified"]);
        let with_base = patch.iter().chain(&["--base", "a"]);
        world.run(with_base).refused(2, &["--base"]);
        assert!(std::fs::read(&other).unwrap() == before);
        let whole = world.file("whole");
        world.ok([
            "delta", "create", "--full", "b", "--format", format, "-o", &whole,
        ]);
        let with_base = [
            "delta", "apply", &whole, "made", "--format", format, "--base", "a",
        ];
        world.refuses(with_base, 1, &[&whole, "starts from nothing", "--base"]);
        world.ok(["delta", "apply", &whole, "made", "--format", format]);
        world.get_is("made", &b);
        // Nothing of what was there shines through.
        let disk = world.disk("raw", &[9, 9, 9, 9, 9, 9, 9]);
        let mut apply = program();
        apply.args(["delta", "apply", &whole, "--raw", &disk, "--format", format]);
        Ran::of(&mut apply).expect_code(0);
        assert_same(&disk, &b);
    }
}

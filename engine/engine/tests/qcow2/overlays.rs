//! Overlays: the upper part of a disk, put over the image that is the lower one.

use crate::support::{World, noise};
use tegula_engine::EngineError;

const MIB: u64 = 1 << 20;

const KINDS: [&str; 6] = [
    "compat=1.1",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=4k",
    "cluster_size=2M",
    "extended_l2=on",
];

#[test]
fn an_overlay_over_its_parent_is_the_disk_that_qemu_sees() {
    let world = World::new();
    world.disk(
        "base.raw",
        4 * MIB + 512,
        &[
            (0, noise(1, 2 << 20)),
            (3 * MIB, noise(2, 1 << 20)),
            (4 * MIB, noise(3, 512)),
        ],
    );
    world.put_raw("base.raw");
    for kind in KINDS {
        // As long as the parent, shorter (not at a block's end), longer.
        for size in ["4194816", "3000832", "100k", "9M"] {
            world.qemu_img(&[
                "create", "-q", "-f", "qcow2", "-o", kind, "-b", "base.raw", "-F", "raw",
                "o.qcow2", size,
            ]);
            let mut writes = vec!["write -P 1 4k 512", "write -P 2 70k 5000"];
            if size != "100k" {
                writes.extend([
                    "write -P 3 1M 200k",
                    "write -z 1500k 100k",
                    "write -z 2M 64k",
                    "discard 2200k 64k",
                ]);
            }
            if size == "9M" {
                writes.extend(["write -P 4 4194304 4k", "write -P 5 8M 1M"]);
            }
            let writes: Vec<String> = writes.iter().map(|one| sectors(one)).collect();
            world.qemu_io(
                "o.qcow2",
                &writes.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let expected = world.put_as_qemu_reads("o.qcow2", &[]);
            assert_eq!(
                world.put("o.qcow2", Some("base.raw")),
                expected,
                "{kind}, {size}"
            );
        }
    }
}

/// Rounds the length of a write to sectors.
fn sectors(command: &str) -> String {
    command.replace(" 5000", " 5120")
}

#[test]
fn only_what_an_overlay_holds_is_read() {
    let world = World::new();
    world.disk("base.raw", 64 * MIB, &[(0, noise(1, 32 << 20))]);
    world.put_raw("base.raw");
    world.qemu_img(&[
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "o.qcow2",
    ]);
    world.qemu_io("o.qcow2", &["write -P 1 1M 64k", "write -P 2 20M 128k"]);
    let put = world
        .try_put("child", "o.qcow2", Some("base.raw"), None)
        .unwrap()
        .report;
    assert_eq!(put.read_bytes, 192 << 10);
    assert_eq!(put.new_chunks, 2, "of three blocks two are the same");
    assert_eq!(put.record.parent.unwrap().name.as_str(), "base.raw");
}

#[test]
fn a_chain_of_overlays_becomes_a_chain_of_images_and_the_last_is_the_whole_disk() {
    let world = World::new();
    world.disk("a.raw", 4 * MIB, &[(0, noise(1, 4 << 20))]);
    world.put_raw("a.raw");
    for (upper, lower, format, write) in [
        ("b.qcow2", "a.raw", "raw", "write -P 1 0 1M"),
        ("c.qcow2", "b.qcow2", "qcow2", "write -z 512k 1M"),
        ("d.qcow2", "c.qcow2", "qcow2", "write -P 3 700k 100k"),
    ] {
        world.qemu_img(&[
            "create", "-q", "-f", "qcow2", "-b", lower, "-F", format, upper,
        ]);
        world.qemu_io(upper, &[write]);
        let expected = world.put_as_qemu_reads(upper, &[]);
        assert_eq!(world.put(upper, Some(lower)), expected, "{upper}");
    }
}

#[test]
fn an_overlay_alone_is_refused_and_the_file_below_is_not_needed() {
    let world = World::new();
    world.disk("base.raw", MIB, &[(0, noise(1, 1 << 20))]);
    world.put_raw("base.raw");
    world.qemu_img(&[
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "o.qcow2",
    ]);
    world.qemu_io("o.qcow2", &["write -P 1 64k 64k"]);
    let expected = world.put_as_qemu_reads("o.qcow2", &[]);
    std::fs::remove_file(world.path("base.raw")).unwrap();
    let error = world.try_put("alone", "o.qcow2", None, None).unwrap_err();
    match &error {
        EngineError::ParentNeeded { overlay_of, .. } => assert_eq!(overlay_of, "base.raw"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.put("o.qcow2", Some("base.raw")), expected);
}

#[test]
fn an_overlay_that_was_cut_off_from_its_backing_file_is_a_whole_disk() {
    let world = World::new();
    world.disk("base.raw", 2 * MIB, &[(0, noise(1, 2 << 20))]);
    let base = world.put_raw("base.raw");
    world.qemu_img(&[
        "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "o.qcow2",
    ]);
    world.qemu_img(&["rebase", "-b", "", "o.qcow2"]);
    assert_eq!(world.put("o.qcow2", None), base);
    assert_eq!(
        world.put("o.qcow2", Some("base.raw")),
        base,
        "a parent makes no difference"
    );
}

#[test]
fn a_whole_disk_with_a_parent_is_the_same_disk() {
    let world = World::new();
    world.disk("base.raw", 2 * MIB, &[(0, noise(1, 2 << 20))]);
    world.put_raw("base.raw");
    world.disk("next.raw", 3 * MIB, &[(0, noise(1, 1 << 20))]);
    let next = world.put_raw("next.raw");
    world.qemu_img(&["convert", "-O", "qcow2", "-c", "next.raw", "next.qcow2"]);
    assert_eq!(world.put("next.qcow2", Some("base.raw")), next);
}

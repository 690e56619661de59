//! `put` with a hint of what was changed.

use crate::support::{BLOCK, World};
use std::process::Command;

/// A store with `base`, and a disk that is a changed copy of it. Returns the disk and the base's digest.
fn world() -> (World, String, String) {
    let world = World::new();
    let kinds: Vec<u32> = (1..=80).collect();
    world.put("base", &kinds);
    let changed: Vec<u32> = kinds
        .iter()
        .map(|kind| match kind {
            7 => 700,
            20 => 0,
            kind => *kind,
        })
        .collect();
    let disk = world.disk("disk", &changed);
    let digest = world.json(["show", "base"])["digest"].clone();
    (world, disk, digest.as_str().unwrap().to_owned())
}

fn write(world: &World, name: &str, text: &str) -> String {
    std::fs::write(world.path(name), text).unwrap();
    world.file(name)
}

#[test]
fn what_diff_prints_is_a_hint_in_every_store_that_has_the_base() {
    let (there, disk, digest) = world();
    there.ok(["put", "child", &disk, "--parent", "base"]);
    let diff = there.ok(["diff", "base", "child", "--json"]).out;
    assert!(diff.contains(&digest));
    let (world, disk, _) = world();
    let changed = write(&world, "changed.json", &diff);
    let put = [
        "put",
        "child",
        &disk,
        "--parent",
        "base",
        "--changed",
        &changed,
        "--sample",
        "0",
    ];
    let report = world.json(put);
    // Of the two blocks, one is a hole.
    assert_eq!(report["read_bytes"], BLOCK);
    let hint = serde_json::json!({
        "used": true, "reason": null, "changed_bytes": 2 * BLOCK, "sampled_blocks": 0, "missed_blocks": null
    });
    assert_eq!(report["hint"], hint);
    world.get_is("child", &disk);
    let there = there.json(["show", "child"]);
    assert_eq!(there["digest"], report["digest"]);
    let ran = world.ok([&put[..], &["--replace", "--paranoid"]].concat());
    assert!(ran.out.contains("missed 0 changed blocks"), "{ran:?}");
    assert!(
        ran.err.contains("everything was compared, as asked"),
        "{ran:?}"
    );
}

#[test]
fn a_hint_against_another_base_is_not_used_and_a_note_says_so() {
    let (world, disk, digest) = world();
    let list = format!(r#"[{{"offset": {}, "length": {BLOCK}}}]"#, 6 * BLOCK);
    let changed = write(&world, "changed.json", &list);
    let put = [
        "put",
        "child",
        &disk,
        "--parent",
        "base",
        "--changed",
        &changed,
    ];
    let ran = world.ok(put);
    assert!(
        ran.err.contains("note: ") && ran.err.contains("which image"),
        "{ran:?}"
    );
    world.get_is("child", &disk);
    let wrong = digest.replace(['0', '1', '2', '3', '4', '5'], "6");
    let report = world.json([&put[..], &["--replace", "--base-digest", &wrong]].concat());
    assert_eq!(report["hint"]["used"], false);
    let reason = report["hint"]["reason"].as_str().unwrap();
    assert!(
        reason.contains(&wrong) && reason.contains(&digest),
        "{reason}"
    );
    world.get_is("child", &disk);
    // It leaves a changed block out: enough samples find it.
    let sampled = ["--replace", "--base-digest", &digest, "--sample", "2000"];
    let report = world.json([&put[..], &sampled].concat());
    assert_eq!(
        (&report["hint"]["used"], &report["hint"]["missed_blocks"]),
        (&false.into(), &1.into())
    );
    world.get_is("child", &disk);
}

#[test]
fn a_hint_comes_from_a_pipe_as_well() {
    let (world, disk, digest) = world();
    let xml = r#"<superblock uuid="" time="0" transaction="1" data_block_size="128" nr_data_blocks="0">
      <diff left="1" right="2"><same begin="0" length="6"/><different begin="6" length="1"/>
      <left_only begin="19" length="1"/></diff></superblock>"#;
    let xml = write(&world, "delta.xml", xml);
    let put = [
        "put",
        "child",
        &disk,
        "--parent",
        "base",
        "--changed",
        "/dev/stdin",
        "--base-digest",
        &digest,
        "--json",
        "--sample",
        "3",
    ];
    let mut command = world.command(put);
    command.stdin(std::fs::File::open(xml).unwrap());
    let report = crate::support::Ran::of(&mut command).expect_code(0).json();
    assert_eq!(report["hint"]["used"], true);
    assert_eq!(report["hint"]["sampled_blocks"], 3);
    world.get_is("child", &disk);
}

fn qemu(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("it is in Debian's qemu-utils");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

#[test]
fn a_bitmap_that_qemu_keeps_in_the_file_is_a_hint_and_none_for_its_snapshots() {
    let (world, _, digest) = world();
    let kinds: Vec<u32> = (1..=80).collect();
    let (before, file, after) = (
        world.disk("before", &kinds),
        world.file("disk.qcow2"),
        world.file("after"),
    );
    qemu("qemu-img", &["convert", "-O", "qcow2", &before, &file]);
    qemu("qemu-img", &["bitmap", "--add", &file, "since"]);
    let written = format!("write -P 90 {} {BLOCK}", 6 * BLOCK);
    let zeroed = format!("write -z {} {BLOCK}", 19 * BLOCK);
    qemu(
        "qemu-io",
        &["-f", "qcow2", "-c", &written, "-c", &zeroed, &file],
    );
    qemu("qemu-img", &["snapshot", "-c", "now", &file]);
    qemu("qemu-img", &["convert", "-O", "raw", &file, &after]);
    let put = [
        "put",
        "child",
        &file,
        "--parent",
        "base",
        "--changed-bitmap",
        "since",
        "--base-digest",
        &digest,
    ];
    // A bitmap says what was written up to now, not up to when a snapshot was made.
    world.refuses(
        [&put[..], &["--snapshot", "now"]].concat(),
        2,
        &["--changed-bitmap", "--snapshot"],
    );
    assert_eq!(world.names(), ["base"]);
    let report = world.json([&put[..], &["--sample", "0"]].concat());
    // Of the two blocks, one is known to be zeros.
    assert_eq!(report["read_bytes"], BLOCK);
    let hint = serde_json::json!({
        "used": true, "reason": null, "changed_bytes": 2 * BLOCK, "sampled_blocks": 0, "missed_blocks": null
    });
    assert_eq!(report["hint"], hint);
    world.get_is("child", &after);
    let paranoid = world.json([&put[..], &["--replace", "--paranoid"]].concat());
    assert_eq!(paranoid["hint"]["missed_blocks"], 0);
    assert_eq!(paranoid["digest"], report["digest"]);
}

#[test]
fn what_is_no_hint_is_refused_and_nothing_is_put() {
    let (world, disk, digest) = world();
    let changed = write(&world, "changed", "not a list");
    let put = ["put", "child", &disk, "--parent", "base"];
    let with = |rest: &[&str]| {
        [&put[..], rest]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    world
        .refuses(with(&["--changed", &changed]), 1, &[&changed, "no JSON"])
        .hints("--changed-format");
    let absent = world.file("absent");
    world.refuses(with(&["--changed", &absent]), 1, &[&absent, "No such file"]);
    world.refuses(
        with(&["--changed-bitmap", "b", "--base-digest", &digest]),
        1,
        &["raw", "\"b\""],
    );
    world.refuses(
        with(&["--changed", &changed, "--base-digest", "12"]),
        2,
        &["64 hexadecimal"],
    );
    world.refuses(
        with(&["--changed", &changed, "--changed-format", "x"]),
        2,
        &["thin-delta"],
    );
    world.refuses(
        ["put", "child", &disk, "--changed", &changed],
        2,
        &["--parent"],
    );
    world.refuses(
        [
            "put",
            "child",
            "-",
            "--parent",
            "base",
            "--changed",
            &changed,
        ],
        2,
        &["standard input"],
    );
}

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

/// The arguments of a put over `base` of what the bitmap `since` of a file says was changed.
fn by_bitmap<'a>(file: &'a str, digest: &'a str) -> [&'a str; 9] {
    [
        "put",
        "child",
        file,
        "--parent",
        "base",
        "--changed-bitmap",
        "since",
        "--base-digest",
        digest,
    ]
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
    let put = by_bitmap(&file, &digest);
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

/// Puts a child of `base`, and expects that everything is compared, with a note and a reason that have these parts.
fn compares_everything(world: &World, put: &[&str], bytes: &str, parts: &[&str]) {
    let ran = world.ok([put, &["--replace"]].concat());
    for part in [&["note: ", "was not used"], parts].concat() {
        assert!(ran.err.contains(part), "{part:?}: {ran:?}");
    }
    world.get_is("child", bytes);
    // Twice: also where everything is compared as asked.
    for more in [&[][..], &["--paranoid"]] {
        let report = world.json([put, &["--replace"], more].concat());
        let hint = &report["hint"];
        let reason = hint["reason"].as_str().unwrap();
        assert_eq!(hint["used"], false);
        assert!(hint["missed_blocks"].is_null(), "{hint}");
        for part in parts {
            assert!(reason.contains(part), "{part:?}: {reason:?}");
        }
        world.get_is("child", bytes);
    }
}

#[test]
fn what_is_no_hint_is_not_used_and_a_note_says_what_is_wrong_with_it() {
    let (world, disk, digest) = world();
    let broken = [
        ("auto", "", "no JSON"),
        ("auto", "not a list", "no JSON"),
        ("auto", r#"[{"offset":0"#, "no JSON"),
        ("auto", r#"[{"offset": 24576, "length": 4096}"#, "no JSON"),
        ("auto", "{}", "neither a list"),
        ("rbd-json", "7", "neither a list"),
        (
            "auto",
            r#"<superblock data_block_size="128"><diff>"#,
            "thin_delta",
        ),
        ("auto", "<superblock data_block", "thin_delta"),
        ("thin-delta", "[]", "thin_delta"),
        ("qemu-map", "<superblock/>", "no JSON"),
    ];
    for (format, text, part) in broken {
        let changed = write(&world, "changed", text);
        let put = [
            "put",
            "child",
            &disk,
            "--parent",
            "base",
            "--changed",
            &changed,
            "--changed-format",
            format,
            "--base-digest",
            &digest,
        ];
        compares_everything(&world, &put, &disk, &[&changed, part]);
    }
    // A text that would have to be held in memory whole is not of any tool.
    let long = format!(r#"[{{"offset": 0, "x": "{}"}}]"#, "8".repeat(100_000));
    let changed = write(&world, "changed", &long);
    let put = [
        "put",
        "child",
        &disk,
        "--parent",
        "base",
        "--changed",
        &changed,
    ];
    compares_everything(&world, &put, &disk, &[&changed]);
}

#[test]
fn a_bitmap_that_was_not_saved_or_is_disabled_is_not_used_and_a_note_says_so() {
    let (world, disk, digest) = world();
    let file = world.file("disk.qcow2");
    let put = by_bitmap(&file, &digest);
    qemu("qemu-img", &["convert", "-O", "qcow2", &disk, &file]);
    qemu("qemu-img", &["bitmap", "--add", &file, "since"]);
    qemu("qemu-img", &["bitmap", "--disable", &file, "since"]);
    compares_everything(&world, &put, &disk, &["\"since\"", "disabled"]);
    qemu("qemu-img", &["bitmap", "--enable", &file, "since"]);
    // As a guest leaves it that crashed: bit 0 of the flags of the directory's only entry, 12 bytes in. Where the
    // directory begins is told by the header's extension, 24 bytes in; older copies of it are left in the file.
    let mut bytes = std::fs::read(&file).unwrap();
    let extension = [0x23, 0x85, 0x28, 0x75];
    let at = bytes.windows(4).position(|part| part == extension).unwrap() + 24;
    let digits = bytes[at..at + 8].iter();
    let entry = digits.fold(0, |number, byte| number << 8 | usize::from(*byte));
    assert_eq!(bytes[entry + 12..entry + 16], [0, 0, 0, 2]);
    bytes[entry + 15] |= 1;
    std::fs::write(&file, bytes).unwrap();
    compares_everything(&world, &put, &disk, &["\"since\"", "in use"]);
}

#[test]
fn a_hint_that_is_not_there_or_cannot_be_is_refused_and_nothing_is_put() {
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
    let absent = world.file("absent");
    world.refuses(with(&["--changed", &absent]), 1, &[&absent, "No such file"]);
    // It can be opened and not be read.
    let directory = world.file("directory");
    std::fs::create_dir(&directory).unwrap();
    for format in ["auto", "extents", "thin-delta"] {
        let options = ["--changed", &directory, "--changed-format", format];
        world.refuses(with(&options), 1, &[&directory, "directory"]);
    }
    let bare = world.file("bare.qcow2");
    qemu("qemu-img", &["convert", "-O", "qcow2", &disk, &bare]);
    world.refuses(
        [
            "put",
            "child",
            &bare,
            "--parent",
            "base",
            "--changed-bitmap",
            "b",
        ],
        1,
        &["no bitmap", "\"b\""],
    );
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
    assert_eq!(world.names(), ["base"]);
}

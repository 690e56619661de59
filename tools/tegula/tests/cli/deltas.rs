//! Deltas: made of a pair of images, applied in another store, shown, refused.

use crate::support::{BLOCK, Ran, World};
use std::process::Stdio;

/// A store with two images, and one with only the first of them, under another name.
fn two_stores() -> (World, World, String) {
    let (here, there) = (World::new(), World::new());
    here.put("base", &[1, 2, 0, 3, 4]);
    let target = here.disk("target.disk", &[1, 5, 6, 0, 4, 2, 5]);
    here.ok(["put", "target", &target, "--parent", "base"]);
    there.put("mine", &[1, 2, 0, 3, 4]);
    (here, there, target)
}

#[test]
fn a_delta_goes_from_one_store_to_another_as_a_file() {
    let (here, there, target) = two_stores();
    let file = here.file("delta");
    let size = here.json(["delta", "size", "base", "target"]);
    let made = here.json(["delta", "create", "base", "target", "-o", &file]);
    let bytes = std::fs::metadata(&file).unwrap().len();
    assert_eq!(size["bytes"], bytes);
    assert_eq!(made["bytes"], bytes);
    // Of the five blocks that hold data the base has one's chunk, and two hold the same.
    assert_eq!(
        (&made["data_blocks"], &made["zero_blocks"]),
        (&4.into(), &1.into())
    );
    assert_eq!(made["records"], 2);
    let applied = there.json(["delta", "apply", &file, "made"]);
    assert_eq!(applied["parent"], "mine");
    assert_eq!(applied["new_chunks"], 2);
    assert_eq!(applied["digest"], here.json(["show", "target"])["digest"]);
    there.get_is("made", &target);
    there.ok(["verify", "--full"]);
}

#[test]
fn a_delta_goes_through_a_pipe() {
    let (here, there, target) = two_stores();
    let mut create = here
        .command(["delta", "create", "base", "target", "-o", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = Stdio::from(create.stdout.take().unwrap());
    Ran::of(there.command(["delta", "apply", "-", "made"]).stdin(pipe)).expect_code(0);
    assert!(create.wait().unwrap().success());
    there.get_is("made", &target);
    assert_eq!(crate::support::listing(&there.store().join("tmp")), []);
}

#[test]
fn a_full_delta_needs_no_base() {
    let (here, _, target) = two_stores();
    let file = here.file("delta");
    here.ok(["delta", "create", "--full", "target", "-o", &file]);
    let empty = World::new();
    let applied = empty.json(["delta", "apply", &file, "made"]);
    assert_eq!(applied["parent"], serde_json::Value::Null);
    empty.get_is("made", &target);
    here.refuses(["delta", "size", "target"], 2, &["--full"]);
    here.refuses(["delta", "size", "--full", "base", "target"], 2, &["BASE"]);
}

#[test]
fn small_deltas_are_recompressed_unless_told_otherwise() {
    let kinds: Vec<u32> = (1..=8).collect();
    for init in [&["init"][..], &["init", "--no-prefix-frames"]] {
        let here = World::without_store();
        here.ok(init);
        let mut bytes = std::fs::read(here.put("base", &kinds)).unwrap();
        // A bit of a block that cannot be compressed by itself.
        bytes[usize::try_from(3 * BLOCK + BLOCK / 2).unwrap()] ^= 1;
        std::fs::write(here.path("changed"), bytes).unwrap();
        here.ok(["put", "target", &here.file("changed"), "--parent", "base"]);
        let made = |name: &str, when: &[&str]| {
            let file = here.file(name);
            let create = ["delta", "create", "base", "target", "-o", &file];
            let report = here.json([&create[..], when].concat());
            let size = here.json([&["delta", "size", "base", "target"], when].concat());
            assert_eq!(size["bytes"], report["bytes"]);
            let recompressed = report["recompressed"].as_u64().unwrap();
            (std::fs::read(file).unwrap(), recompressed)
        };
        let small = made("small", &[]);
        assert_eq!(small.1, 1);
        assert!(small.0.len() < 1000);
        for (name, when) in [
            ("auto", "--recompress=auto"),
            ("all", "--recompress=always"),
        ] {
            assert!(small == made(name, &[when]));
        }
        assert!(small == made("word", &["--recompress"]));
        let stored = made("never", &["--recompress=never"]);
        assert_eq!(stored.1, 0);
        assert!(small.0.len() <= stored.0.len());
        let unknown = ["delta", "size", "base", "target", "--recompress=x"];
        here.refuses(unknown, 2, &["auto", "never"]);
    }
}

#[test]
fn show_needs_no_store_and_finds_damage() {
    let (here, _, _) = two_stores();
    let file = here.file("delta");
    here.ok(["delta", "create", "base", "target", "-o", &file]);
    let mut show = crate::support::program();
    let shown = Ran::of(show.args(["delta", "show", &file, "--json"])).expect_code(0);
    let shown = shown.json();
    assert_eq!(shown["size"], 7 * BLOCK);
    let extents: Vec<_> = shown["extents"].as_array().unwrap().iter().collect();
    let kinds: Vec<_> = extents.iter().map(|extent| &extent["type"]).collect();
    assert_eq!(kinds, ["data", "zero", "data"]);
    let text = here.ok(["delta", "show", &file]).out;
    assert!(text.contains("a whole delta"), "{text}");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    here.refuses(["delta", "show", &file], 1, &[&file, "at byte"]);
    std::fs::write(&file, b"no delta at all, but more than 32 bytes").unwrap();
    here.refuses(["delta", "show", &file], 1, &["not a delta stream"]);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_nothing_is_left() {
    let (here, there, _) = two_stores();
    let file = here.file("delta");
    here.ok(["delta", "create", "base", "target", "-o", &file]);
    let digest = here.json(["show", "base"])["digest"].clone();
    there.ok(["rm", "mine"]);
    there.ok(["gc", "--min-live", "1"]);
    there
        .refuses(
            ["delta", "apply", &file, "made"],
            1,
            &[digest.as_str().unwrap()],
        )
        .hints("put that image first");
    here.refuses(["delta", "apply", &file, "base"], 1, &["base", "already"]);
    here.refuses(
        ["delta", "create", "base", "target", "-o", &file],
        1,
        &["exists"],
    );
    here.ok(["delta", "create", "target", "base", "-o", &file, "--force"]);
    here.ok(["delta", "apply", &file, "target", "--replace"]);
    let digests = ["base", "target"].map(|name| here.json(["show", name])["digest"].clone());
    assert_eq!(digests[0], digests[1]);
    let small = World::without_store();
    small.ok(["init", "--block-size", "4K"]);
    small.refuses(["delta", "apply", &file, "made"], 1, &["64 KiB", "4 KiB"]);
    let mut cut = std::fs::read(&file).unwrap();
    cut.pop();
    std::fs::write(&file, cut).unwrap();
    here.refuses(["delta", "apply", &file, "made"], 1, &[&file, "trailer"]);
}

#[test]
fn an_interrupted_apply_leaves_no_image() {
    use rustix::process::{Pid, Signal, kill_process};
    let (here, there, _) = two_stores();
    let file = here.file("delta");
    here.ok(["delta", "create", "base", "target", "-o", &file]);
    let before = there.names();
    let mut child = there
        .command(["delta", "apply", "-", "made"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::io::Write::write_all(&mut input, &bytes[..bytes.len() - 1]).unwrap();
    crate::support::wait_until("it has begun", || {
        !crate::support::listing(&there.store().join("locks")).is_empty()
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ran::wait(child).expect_code(130);
    drop(input);
    assert_eq!(there.names(), before);
    there.ok(["verify", "--full"]);
}

#[test]
fn deltas_that_follow_each_other_become_one() {
    let (here, there, _) = two_stores();
    let last = here.put("last", &[1, 5, 0, 8]);
    let [first, second, both] = ["first", "second", "both"].map(|name| here.file(name));
    here.ok(["delta", "create", "base", "target", "-o", &first]);
    here.ok(["delta", "create", "target", "last", "-o", &second]);
    let merged = here.json(["delta", "merge", &first, &second, "-o", &both]);
    assert_eq!(merged["merged"], 2);
    assert_eq!(merged["digest"], here.json(["show", "last"])["digest"]);
    there.ok(["delta", "apply", &both, "made"]);
    there.get_is("made", &last);
    std::fs::remove_file(&both).unwrap();
    here.refuses(
        ["delta", "merge", &second, &first, "-o", &both],
        1,
        &[&first, &second],
    );
    assert!(!std::path::Path::new(&both).exists());
}

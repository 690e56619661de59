//! The demonstration shows what it says.

use crate::machine::{Mount, system};
use crate::support::{Ran, World, assert_same, listing, program, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Command, Stdio};

/// Prepares a demonstration whose temporary files go into a directory of the world.
fn demo(world: &World) -> Command {
    let place = world.path("tmp");
    std::fs::create_dir_all(&place).unwrap();
    let mut command = program();
    command.arg("demo").env("TMPDIR", place).env("LC_ALL", "C");
    command
}

fn leftovers(world: &World) -> Vec<std::path::PathBuf> {
    let list = listing(&world.path("tmp")).into_iter();
    list.map(|(path, _)| path).collect()
}

#[test]
fn the_demo_shows_true_numbers_and_keeps_what_it_is_asked_to_keep() {
    let world = World::without_store();
    let ran = Ran::of(demo(&world).arg("--keep").arg("--io").arg("blocking")).expect_code(0);
    let text = &ran.out;
    assert!(
        !text.contains('\u{1b}') && text.is_ascii(),
        "no colours and no Unicode: {text}"
    );
    for sign in [
        "ALLOCATED",
        "OVER HTTP",
        "upload changed: what differs from base",
        "# changed",
        ": as before",
        "byte for byte",
        "Try next",
    ] {
        assert!(text.contains(sign), "{sign:?} is missing: {text}");
    }
    let place = text
        .split_whitespace()
        .find(|word| word.contains("tegula-demo-"))
        .unwrap();
    let place = Path::new(place.trim_end_matches(','));
    assert!(place.is_dir(), "{}", place.display());
    let kept = World::with_store_at(&place.join("store"));
    assert_eq!(kept.names(), ["changed"]);
    kept.ok(["verify", "--full"]);
    let file = |name: &str| place.join(name);
    for restored in ["restored.raw", "restored-again.raw"] {
        assert_same(file(restored), file("changed.raw"));
    }
    assert!(
        std::fs::read(file("base.raw")).unwrap() != std::fs::read(file("changed.raw")).unwrap()
    );
    // The host has both images, and the server ended after it had served them.
    for held in ["base.raw", "changed.raw"] {
        assert_same(place.join("host").join(held), file(held));
    }
    let log = std::fs::read_to_string(file("tegulad.log")).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.ends_with("ended"), "{log}");
    assert!(file("tegula-data/admin-token").is_file() && file("tegula-data/store").is_dir());
    // The file systems are sound, and hold what was said.
    for disk in ["base.raw", "changed.raw"] {
        system("e2fsck", &["-fn", file(disk).to_str().unwrap()]);
    }
    let new = system(
        "debugfs",
        &[
            "-R",
            "ls -p /opt/new",
            file("changed.raw").to_str().unwrap(),
        ],
    );
    let written = new.lines().filter(|line| line.contains("/100")).count();
    assert!(
        text.contains(&format!("after {written} files were written")),
        "{written}: {text}"
    );
    let stored = kept.json(["stats"])["stored_bytes"].as_u64().unwrap();
    let mebibytes = format!("{:.1} MiB after", stored as f64 / f64::from(1 << 20));
    assert!(text.contains(&mebibytes), "{mebibytes:?} is not in {text}");
}

#[test]
fn the_demo_as_a_document_leaves_nothing_behind() {
    let world = World::without_store();
    let mut command = demo(&world);
    // A proxy that does not exist: nothing of this leaves the machine.
    for proxy in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        command.env(proxy, "http://127.0.0.1:9");
    }
    let shown = Ran::of(command.arg("--json")).expect_code(0).json();
    assert!(shown["directory"].is_null());
    let images = shown["images"].as_array().unwrap();
    let number = |image: usize, key: &str| images[image][key].as_u64().unwrap();
    assert_eq!(number(0, "virtual_size"), 512 << 20);
    assert!(number(0, "allocated_bytes") < 512 << 20);
    assert!(number(1, "stored_new_bytes") < number(0, "stored_new_bytes"));
    assert!(shown["changed_bytes"].as_u64() >= shown["zeroed_bytes"].as_u64());
    assert!(shown["stored_bytes"].as_u64() < shown["stored_bytes_before_gc"].as_u64());
    assert_eq!(shown["identical_restores"], 3);
    for (image, hash) in images
        .iter()
        .zip(shown["server"]["tree_hashes"].as_array().unwrap())
    {
        let digest = image["digest"].as_str().unwrap();
        assert_eq!(hash.as_str().unwrap(), format!("blake3-tree:64k:{digest}"));
    }
    assert_eq!(leftovers(&world), [""; 0].map(std::path::PathBuf::from));
}

/// What heads of requests and answers, and documents about images, may come to.
const HEADS: u64 = 32 << 10;

#[test]
fn the_demo_counts_what_went_over_the_wire() {
    let world = World::without_store();
    let shown = Ran::of(demo(&world).args(["--json", "--keep"])).expect_code(0);
    let shown = shown.json();
    let place = Path::new(shown["directory"].as_str().unwrap());
    let server = &shown["server"];
    let length = server["virtual_size"].as_u64().unwrap();
    let step = |number: usize, action: &str, image: &str, form: &str| {
        let step = &server["steps"][number];
        assert_eq!(
            (&step["action"], &step["image"], &step["form"]),
            (&action.into(), &image.into(), &form.into())
        );
        let bytes = |key: &str| step[key].as_u64().unwrap();
        (bytes("sent_bytes"), bytes("received_bytes"))
    };
    let about = |found: u64, bytes: u64| {
        assert!(found > bytes && found < bytes + HEADS, "{found}, {bytes}");
    };
    // The access log has what the server sent, a line for each request.
    let log = std::fs::read_to_string(place.join("tegulad.log")).unwrap();
    let sent = |target: &str| -> u64 {
        let lines = log.lines().filter(|line| line.contains(target));
        let bytes = lines.filter_map(|line| {
            let (_, rest) = line.split_once("bytes_sent=")?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        });
        bytes.sum()
    };
    about(step(0, "upload", "base", "whole").0, length);
    let delta = step(1, "upload", "changed", "delta").0;
    about(delta, place.join("changed.delta").metadata().unwrap().len());
    let first = step(2, "pull", "base", "full_delta").1;
    about(first, sent("/delta?base=none"));
    let second = step(3, "pull", "changed", "delta").1;
    let all = sent("/delta?base=");
    about(second, all - sent("/delta?base=none"));
    let download = step(4, "download", "changed", "whole").1;
    about(download, length);
    // Less than half of what is allocated goes over the wire for all of it, and of that less than half for what differs.
    let allocated = server["allocated_bytes"].as_u64().unwrap();
    assert!(first < allocated / 2 && second < first / 2 && delta < first / 2);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let world = World::without_store();
    let mut command = demo(&world);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("it makes a disk", || {
        leftovers(&world)
            .iter()
            .any(|path| path.ends_with("base.raw"))
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::wait(child).expect_code(130);
    assert!(ran.err.contains("error: interrupted"), "{ran:?}");
    assert_eq!(leftovers(&world), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_demo_interrupted_while_the_server_serves_leaves_nothing_behind() {
    let world = World::without_store();
    let mut command = demo(&world);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // Not by a listing: files come and go there.
    let has_store = |entry: std::fs::DirEntry| {
        let store = entry.path().join("tegula-data/store/tegula.store");
        store.is_file()
    };
    wait_until("the server has a store", || {
        let mut places = std::fs::read_dir(world.path("tmp")).unwrap();
        places.any(|place| has_store(place.unwrap()))
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::wait(child).expect_code(130);
    assert_eq!(ran.err, "error: interrupted\n");
    assert_eq!(leftovers(&world), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn the_demo_says_what_to_install_and_installs_nothing() {
    let world = World::without_store();
    let (empty, tmp) = (world.file("empty"), world.file("tmp"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&tmp).unwrap();
    // In a mount namespace of its own, which ends with it, the system's directories are empty.
    let script = "for place in /usr/sbin /sbin; do
            test -L $place || mount --bind \"$1\" $place || exit 99
        done
        exec \"$2\" demo";
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(&empty)
        .arg(env!("CARGO_BIN_EXE_tegula"))
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", &tmp);
    let ran = Ran::of(&mut command);
    ran.refused(1, &["mke2fs", "debugfs"])
        .hints("apt-get install e2fsprogs");
    assert_eq!(leftovers(&world), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_demo_without_room_says_where_room_is_needed() {
    let small = Mount::tmpfs(64);
    let ran = Ran::of(program().arg("demo").arg("-q").env("TMPDIR", small.path()));
    let ran = ran.expect_code(1);
    assert!(ran.err.contains("error: "), "{ran:?}");
    assert!(ran.err.contains("No space left on device"), "{ran:?}");
    assert_eq!(listing(small.path()), []);
}

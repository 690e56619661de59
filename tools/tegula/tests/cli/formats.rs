//! Disks in formats of their own: what the program says of them, and what it does not do for them.

use crate::support::{Ran, World};
use std::path::Path;
use std::process::Command;
use tegula_fuzz::qcow2::{Image, hostile, valid};

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output();
    let output = output.expect("qemu-img runs: it is in Debian's qemu-utils");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn a_qcow2_file_is_put_as_the_disk_in_it_and_said_to_be_one() {
    let world = World::new();
    let raw = world.disk("raw", &[1, 0, 2, 2]);
    let file = world.file("disk.qcow2");
    qemu_img(&["convert", "-c", "-O", "qcow2", &raw, &file]);
    let put = world.json(["put", "raw", &raw]);
    assert_eq!(put["format"], "raw");
    let ran = world.ok(["put", "disk", &file]);
    assert!(ran.out.contains("format  qcow2"), "{ran:#?}");
    let again = world.json(["put", "again", &file, "--format", "qcow2"]);
    assert_eq!(
        (&again["format"], &again["digest"]),
        (&"qcow2".into(), &put["digest"])
    );
    world.get_is("disk", &raw);
    world.ok(["put", "bytes", &file, "--format", "raw"]);
    world.get_is("bytes", &file);
    world.refuses(
        ["put", "no", &raw, "--format", "qcow2"],
        1,
        &["raw cannot be read as qcow2", "does not begin"],
    );
    world.refuses(
        ["put", "no", "-", "--format", "qcow2"],
        2,
        &["standard input"],
    );
    world.refuses(["put", "no", "-", "--snapshot", "x"], 2, &["--snapshot"]);
    world
        .refuses(
            ["put", "no", &raw, "--snapshot", "x"],
            1,
            &["is raw", "\"x\""],
        )
        .hints("inspect");
}

#[test]
fn an_overlay_is_put_over_its_parent_or_not_at_all() {
    let world = World::new();
    let base = world.put("base", &[1, 2, 3]);
    let file = world.file("overlay.qcow2");
    qemu_img(&[
        "create", "-q", "-f", "qcow2", "-b", &base, "-F", "raw", &file,
    ]);
    world
        .refuses(["put", "child", &file], 1, &["overlay", &base])
        .hints("--parent");
    world.ok(["put", "child", &file, "--parent", "base"]);
    world.get_is("child", &base);
}

#[test]
fn an_image_is_got_as_qcow2_whole_compressed_and_over_another() {
    let world = World::new();
    let raw = world.put("base", &[1, 2, 0, 3]);
    let changed = world.put("changed", &[1, 0, 4, 3]);
    let (file, overlay) = (world.file("file.qcow2"), world.file("overlay.qcow2"));
    for more in [
        &[][..],
        &["--compress"],
        &["--compress", "--compression-type", "zstd"],
        &["--cluster-size", "4K"],
    ] {
        let mut get = vec!["get", "base", &file, "--format", "qcow2", "--force"];
        get.extend(more);
        assert_eq!(world.json(get)["format"], "qcow2");
        qemu_img(&["check", "-q", &file]);
        qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", &raw, &file]);
    }
    let got = world
        .command(["get", "base", "-", "--format", "qcow2"])
        .output()
        .unwrap();
    std::fs::write(&file, &got.stdout).unwrap();
    qemu_img(&["check", "-q", &file]);
    qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", &raw, &file]);
    world.ok([
        "get",
        "changed",
        &overlay,
        "--format",
        "qcow2",
        "--backing",
        "base",
        "--backing-name",
        "file.qcow2",
    ]);
    let shown = world.json(["inspect", &overlay]);
    assert_eq!(shown["qcow2"]["backing_file"], "file.qcow2");
    assert_eq!(shown["qcow2"]["backing_format"], "qcow2");
    qemu_img(&[
        "compare", "-q", "-f", "raw", "-F", "qcow2", &changed, &overlay,
    ]);
    world.ok(["put", "again", &overlay, "--parent", "base"]);
    world.get_is("again", &changed);
}

#[test]
fn what_does_not_go_with_qcow2_is_refused_before_anything_is_done() {
    let world = World::new();
    let raw = world.put("base", &[1]);
    for (more, named) in [
        (&["--compress"][..], "--compress is for --format qcow2"),
        (&["--backing", "base"], "--backing is for"),
        (&["--cluster-size", "4K"], "--cluster-size is for"),
        (&["--format", "qcow2", "--in-place"], "--in-place"),
        (
            &["--format", "qcow2", "--cluster-size", "3K"],
            "power of two",
        ),
        (&["--format", "qcow2", "--backing-name", "x"], "--backing"),
    ] {
        let mut get = vec!["get", "base", &raw];
        get.extend(more);
        world.refuses(get, 2, &[named]);
    }
    world.refuses(
        ["get", "base", "-", "--format", "qcow2", "--compress"],
        2,
        &["--compress needs a file"],
    );
    world.refuses(["get", "base", &raw, "--format", "qcow2"], 1, &["exists"]);
    let absent = world.file("absent.qcow2");
    world.refuses(
        [
            "get",
            "base",
            &absent,
            "--format",
            "qcow2",
            "--backing",
            "none",
        ],
        1,
        &["none"],
    );
    assert!(!Path::new(&absent).exists());
    let name = "b".repeat(1024);
    world
        .refuses(
            [
                "get",
                "base",
                &absent,
                "--format",
                "qcow2",
                "--backing",
                "base",
                "--backing-name",
                &name,
            ],
            1,
            &["1024"],
        )
        .hints("--backing-name");
}

#[test]
fn a_disk_of_odd_length_is_got_with_a_remark() {
    let world = World::new();
    std::fs::write(world.path("odd"), b"odd").unwrap();
    world.ok(["put", "odd", &world.file("odd")]);
    let ran = world.ok(["get", "odd", &world.file("odd.qcow2"), "--format", "qcow2"]);
    assert!(
        ran.err
            .contains("512 bytes, whole sectors; the image has 3"),
        "{ran:#?}"
    );
}

#[test]
fn inspect_tells_what_a_file_is_and_what_is_in_it() {
    let world = World::without_store();
    let file = world.file("disk.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", &file, "10M"]);
    qemu_img(&["snapshot", "-c", "mon\tday", &file]);
    qemu_img(&["bitmap", "--add", &file, "since"]);
    let ran = world.ok(["inspect", &file]);
    for text in [
        "qcow2, version 3",
        "10.0 MiB",
        "mon\\tday",
        "since",
        "takes note of every write",
    ] {
        assert!(ran.out.contains(text), "{text:?}: {ran:#?}");
    }
    let document = world.json(["inspect", &file]);
    assert_eq!(document["virtual_size"], 10 << 20);
    assert_eq!(document["qcow2"]["snapshots"][0]["name"], "mon\tday");
    assert_eq!(document["qcow2"]["bitmaps"][0]["granularity"], 65_536);
    let raw = world.disk("raw", &[1]);
    assert!(world.json(["inspect", &raw])["qcow2"].is_null());
    let overlay = world.file("overlay.qcow2");
    qemu_img(&[
        "create", "-q", "-u", "-f", "qcow2", "-b", "/dev/sda", "-F", "raw", &overlay, "1M",
    ]);
    assert_eq!(
        world.json(["inspect", &overlay])["qcow2"]["backing_file"],
        "/dev/sda"
    );
}

/// What a program may open: itself, what the system gives it to start, and what it was told.
fn may_be_opened(path: &str, told: &[&Path]) -> bool {
    let system = ["/lib", "/usr/lib", "/etc/ld.so", "/proc/", "/sys/"];
    system.iter().any(|start| path.starts_with(start))
        || told.iter().any(|told| Path::new(path).starts_with(told))
}

/// Has the program put a file while its system calls are watched: it opens nothing but the file and the store, and
/// nothing at all of the network.
fn put_watched(world: &World, file: &Path) -> Ran {
    let trace = world.path("trace");
    let tegula = world.command(["--io", "blocking", "put", "--replace", "image"]);
    let mut strace = Command::new("strace");
    strace
        .args([
            "-f",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=open,openat,openat2,execve,%network",
            "-o",
        ])
        .arg(&trace)
        .arg(tegula.get_program())
        .args(tegula.get_args())
        .arg(file);
    // Cargo has the loader look into its own directories first.
    strace
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("TEGULA_STORE");
    let ran = Ran::of(&mut strace);
    let calls = std::fs::read_to_string(&trace).expect("strace runs: it is in Debian's strace");
    assert!(
        calls.contains(file.to_str().unwrap()),
        "the file itself is seen: {calls}"
    );
    for call in calls.lines() {
        let Some((name, rest)) = call.split_once('(') else {
            continue;
        };
        let name = name.rsplit(' ').next().unwrap();
        assert!(
            name.starts_with("open") || name == "execve",
            "{file:?}: {call}"
        );
        let path = rest.split('"').nth(1).unwrap_or_default();
        let relative_to_store = !path.starts_with('/') && !rest.starts_with("AT_FDCWD");
        let program = Path::new(tegula.get_program());
        let fine = relative_to_store || may_be_opened(path, &[file, world.store(), program]);
        assert!(fine, "{file:?}: {call}");
    }
    ran
}

#[test]
fn no_file_can_have_another_one_opened() {
    let world = World::new();
    let secret = world.disk("secret", &[1]);
    let backing = [
        "/etc/passwd",
        "../../../../etc/passwd",
        "secret",
        &secret,
        "/dev/zero",
        "nbd:localhost:10809",
        r#"json:{"driver":"file","filename":"/etc/passwd"}"#,
        "http://127.0.0.1:1/x",
        "fd:0",
    ];
    let path = world.path("hostile.qcow2");
    for name in backing {
        let mut overlay = Image::new(9);
        overlay.lie_over(name);
        overlay.add_data(0, 1);
        std::fs::write(&path, &overlay.bytes).unwrap();
        let named = [name.replace('"', "\\\"")];
        put_watched(&world, &path)
            .refused(1, &[&named[0]])
            .hints("--parent");
        // The name is not opened for being told either.
        let shown = world.json(["inspect", path.to_str().unwrap()]);
        assert_eq!(shown["qcow2"]["backing_file"], name);
    }
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn every_hostile_file_is_refused_by_name_and_has_nothing_opened() {
    let world = World::new();
    let path = world.path("hostile.qcow2");
    for hostile in hostile() {
        // What is only looked at by those who ask for it is no matter of the disk.
        let asked_for = ["bitmap with reserved bits", "bitmap's bits past the end"];
        if hostile.name == "no mark" || asked_for.contains(&hostile.name) {
            continue;
        }
        std::fs::write(&path, &hostile.bytes).unwrap();
        put_watched(&world, &path)
            .refused(1, &["hostile.qcow2 cannot be read as qcow2", hostile.says]);
    }
    assert_eq!(world.names(), [""; 0]);
    for (name, bytes) in valid() {
        std::fs::write(&path, &bytes).unwrap();
        let ran = put_watched(&world, &path);
        match name {
            "overlay" => drop(ran.refused(1, &["/etc/passwd"])),
            _ => drop(ran.expect_code(0)),
        }
    }
}

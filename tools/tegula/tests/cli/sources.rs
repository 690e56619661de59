//! Sources that are no disk, or not the one they were: refused by name, without a trace.

use crate::machine::{LoopDevice, Mount};
use crate::support::{BLOCK, Ran, World, block};
use rustix::fs::{CWD, Mode};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn what_is_not_there_or_no_disk_is_refused_by_its_kind() {
    let world = World::new();
    world.put("one", &[1]);
    let directory = world.file("directory");
    std::fs::create_dir(&directory).unwrap();
    let fifo = world.file("fifo");
    rustix::fs::mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
    let socket = world.file("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let missing = world.file("missing");
    for (source, kind) in [
        (missing.as_str(), "No such file or directory"),
        (&directory, "a directory"),
        (&fifo, "a FIFO"),
        (&socket, "a socket"),
        ("/dev/null", "a character device"),
    ] {
        world.refuses(["put", "new", source], 1, &[source, kind]);
    }
    world
        .refuses(["put", "new", &fifo], 1, &[])
        .hints("put NAME -");
    assert_eq!(world.names(), ["one"]);
}

#[test]
fn an_input_that_cannot_bring_anything_makes_no_empty_image() {
    let world = World::new();
    // Null, as a test has it.
    world.refuses(["put", "new", "-"], 2, &["standard input", "/dev/null"]);
    let mut shell = std::process::Command::new("sh");
    let put = world.command(["put", "new", "-"]);
    shell.args(["-c", "exec \"$@\" <&-", "sh"]);
    shell.arg(put.get_program()).args(put.get_args());
    Ran::of(&mut shell).refused(2, &["closed"]);
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn a_source_that_is_written_to_while_it_is_read_is_refused() {
    let world = World::new();
    let disk = world.disk("disk", &(1..=512).collect::<Vec<_>>());
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    let ended = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = 0_u8;
            while !ended.load(Ordering::SeqCst) {
                byte = byte.wrapping_add(1);
                file.write_all_at(&[byte], 300 * BLOCK).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let ran = world.run(["put", "new", &disk]);
        ended.store(true, Ordering::SeqCst);
        ran
    });
    ran.refused(1, &[&disk, "was changed while it was read"])
        .hints("snapshot");
    world.nothing_is_left();
}

#[test]
fn a_source_that_gets_shorter_while_it_is_read_is_refused() {
    let world = World::new();
    let disk = world.disk("disk", &(1..=512).collect::<Vec<_>>());
    let file = OpenOptions::new().write(true).open(&disk).unwrap();
    let ended = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                for blocks in [512, 256] {
                    file.set_len(blocks * BLOCK).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        let ran = world.run(["put", "new", &disk]);
        ended.store(true, Ordering::SeqCst);
        ran
    });
    ran.refused(1, &[&disk, "was changed while it was read"]);
    world.nothing_is_left();
}

#[test]
fn a_parent_that_is_not_there_is_refused() {
    let world = World::new();
    let disk = world.disk("disk", &[1]);
    world
        .refuses(["put", "new", &disk, "--parent", "nobody"], 1, &["nobody"])
        .hints("tegula ls");
}

#[test]
fn the_longest_image_is_taken_and_one_byte_more_refused() {
    // No disk file system here holds such a file; one in memory does, since nearly all of it is a hole.
    let memory = Mount::tmpfs(16);
    let world = World::without_store();
    world.ok(["init", "--block-size", "4K"]);
    let limit = 1_u64 << 44;
    let source = memory.file("disk");
    let file = std::fs::File::create(&source).unwrap();
    file.set_len(limit + 1).unwrap();
    file.write_all_at(&block(1), limit - BLOCK).unwrap();
    let named = [source.as_str(), "17592186044417", "17592186044416", "4 KiB"];
    world
        .refuses(["put", "new", &source], 1, &named)
        .hints("larger blocks");

    file.set_len(limit).unwrap();
    let put = world.json(["put", "new", &source]);
    assert_eq!(
        (&put["virtual_size"], &put["data_blocks"]),
        (&limit.into(), &16.into())
    );
    let out = memory.file("out");
    world.ok(["get", "new", &out]);
    let mut end = vec![0; BLOCK as usize];
    std::fs::File::open(&out)
        .unwrap()
        .read_exact_at(&mut end, limit - BLOCK)
        .unwrap();
    assert!(end == block(1));
}

#[test]
fn a_block_device_is_read_to_its_end() {
    let world = World::new();
    let disk = world.disk("disk", &[1, 0, 2, 0, 3]);
    let device = LoopDevice::of(&disk);
    let put = world.json(["put", "device", device.path()]);
    assert_eq!(put["virtual_size"], 5 * BLOCK);
    assert_eq!(
        (&put["new_chunks"], &put["zero_blocks"]),
        (&3.into(), &2.into())
    );
    let file = world.json(["put", "file", &disk]);
    assert_eq!(put["digest"], file["digest"]);
    world.get_is("device", &disk);
}

#[test]
fn a_symbolic_link_to_a_disk_is_that_disk() {
    let world = World::new();
    let disk = world.disk("disk", &[1]);
    std::os::unix::fs::symlink(&disk, world.path("link")).unwrap();
    world.ok(["put", "linked", &world.file("link")]);
    world.get_is("linked", &disk);
}

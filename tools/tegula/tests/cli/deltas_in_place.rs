//! Disks patched in place: files and devices, killed and gone on with.

use crate::machine::LoopDevice;
use crate::support::{BLOCK, Ran, World, assert_same, program};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Makes two disks and the delta that turns the first into the second.
fn pair(world: &World, base: &[u32], target: &[u32]) -> (String, String, String) {
    let base = world.put("base", base);
    let target = world.put("target", target);
    let delta = world.file("delta");
    world.ok(["delta", "create", "base", "target", "-o", &delta]);
    (base, target, delta)
}

fn apply(delta: &str, disk: &str) -> std::process::Command {
    let mut command = program();
    command.args(["delta", "apply", delta, "--raw", disk, "--json"]);
    command
}

#[test]
fn a_file_becomes_shorter_and_longer_and_keeps_its_holes() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new();
    let (long, short) = ([1, 2, 0, 3, 4, 5, 6], [2, 1, 0, 0, 7]);
    let (base, target, delta) = pair(&world, &long, &short);
    let disk = world.disk("disk", &long);
    let dry = Ran::of(apply(&delta, &disk).arg("--dry-run"));
    assert_eq!(dry.expect_code(0).json()["dry_run"], true);
    assert_same(&disk, &base);
    let patched = Ran::of(&mut apply(&delta, &disk)).expect_code(0).json();
    assert_eq!(patched["virtual_size"], 5 * BLOCK);
    // Blocks 0 and 1 changed places.
    assert_eq!(patched["saved_bytes"], 2 * BLOCK);
    assert_same(&disk, &target);
    let blocks = std::fs::metadata(&disk).unwrap().blocks();
    assert!(
        blocks * 512 <= 3 * BLOCK,
        "{blocks} sectors for three blocks"
    );
    world.ok(["delta", "create", "target", "base", "-o", &delta, "--force"]);
    Ran::of(&mut apply(&delta, &disk)).expect_code(0);
    assert_same(&disk, &base);
    let again = Ran::of(&mut apply(&delta, &disk)).expect_code(0).json();
    assert_eq!(again["done_before"], true);
}

#[test]
fn a_device_may_be_longer_than_the_image_and_keeps_what_is_behind_it() {
    let world = World::new();
    let (base, target, delta) = pair(&world, &[1, 2, 3], &[1, 0, 4, 0, 2]);
    let file = world.file("device");
    let device = LoopDevice::filled(&file, 7 * BLOCK, 0xaa);
    let path = device.path().to_owned();
    let journal = world.file("journal");
    Ran::of(&mut apply(&delta, &path))
        .refused(1, &[&path, "journal"])
        .hints("--journal");
    Ran::of(apply(&delta, &path).args(["--journal", &journal]))
        .refused(1, &[&path, "digest"])
        .hints("nothing was written");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut device| {
            std::io::Write::write_all(&mut device, &std::fs::read(&base).unwrap())?;
            device.sync_all()
        })
        .unwrap();
    let mut command = apply(&delta, &path);
    Ran::of(command.args(["--journal", &journal])).expect_code(0);
    assert!(!Path::new(&journal).exists());
    drop(device);
    let found = std::fs::read(&file).unwrap();
    let target = std::fs::read(&target).unwrap();
    assert!(
        found[..target.len()] == target,
        "what is new and not set reads as zeros"
    );
    assert!(found[target.len()..].iter().all(|byte| *byte == 0xaa));
}

#[test]
fn a_device_that_is_too_short_is_refused() {
    let world = World::new();
    let (base, _, delta) = pair(&world, &[1, 2], &[1, 2, 3]);
    let file = world.file("device");
    std::fs::copy(&base, &file).unwrap();
    let device = LoopDevice::of(&file);
    let path = device.path().to_owned();
    let mut command = apply(&delta, &path);
    command.args(["--journal", &world.file("journal")]);
    Ran::of(&mut command)
        .refused(1, &[&path])
        .hints("larger device");
}

#[test]
fn a_patch_that_is_killed_again_and_again_is_done_in_the_end() {
    let world = World::new();
    // Half of it moves, half of it is new: 50 MiB, so that there are marks.
    let blocks = 800_u32;
    let base: Vec<_> = (1..=blocks).collect();
    let target: Vec<_> = (1..=blocks)
        .map(|n| {
            if n % 2 == 0 {
                blocks + 1 - n
            } else {
                10_000 + n
            }
        })
        .collect();
    let (base, target, delta) = pair(&world, &base, &target);
    let (disk, journal) = (world.file("disk"), world.file("disk.tegula-journal"));
    std::fs::copy(&base, &disk).unwrap();
    let (mut killed, mut with_journal) = (0, 0);
    let mut patience = Duration::from_millis(5);
    loop {
        let mut child = apply(&delta, &disk)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(patience);
        // The next one gets further, so that this ends.
        patience += patience / 4;
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "{output:?}");
        killed += 1;
        with_journal += u32::from(Path::new(&journal).exists());
    }
    assert!(
        killed > 3 && with_journal > 0,
        "{killed} kills, {with_journal} with a journal"
    );
    assert_same(&disk, &target);
    assert!(!Path::new(&journal).exists());
}

#[test]
fn a_delta_from_a_pipe_patches_too() {
    let world = World::new();
    let (base, target, delta) = pair(&world, &[1, 2, 3], &[3, 2, 9]);
    let disk = world.file("disk");
    std::fs::copy(&base, &disk).unwrap();
    let input = std::fs::File::open(&delta).unwrap();
    Ran::of(apply("-", &disk).stdin(input)).expect_code(0);
    assert_same(&disk, &target);
    // What is no delta is refused before all of it was read.
    let endless = std::fs::File::open("/dev/zero").unwrap();
    Ran::of(apply("-", &disk).stdin(endless)).refused(1, &["not a delta stream"]);
    assert_same(&disk, &target);
}

#[test]
fn a_name_and_a_disk_exclude_each_other() {
    let world = World::new();
    let (base, _, delta) = pair(&world, &[1], &[2]);
    world.refuses(["delta", "apply", &delta], 2, &["--raw"]);
    world.refuses(
        ["delta", "apply", &delta, "name", "--raw", &base],
        2,
        &["--raw"],
    );
    world.refuses(
        ["delta", "apply", &delta, "name", "--dry-run"],
        2,
        &["--raw"],
    );
}

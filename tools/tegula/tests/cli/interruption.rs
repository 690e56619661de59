//! What happens when a command is not allowed to finish, or is not alone.

use crate::support::{BLOCK, Ran, World, block, listing, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Begins the program with no signal ignored, however the tests were begun.
fn begin(command: &Command) -> Child {
    let mut env = Command::new("env");
    env.arg("--default-signal=INT,TERM,HUP")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    env.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Begins a put of standard input and feeds it so many blocks.
fn begin_put(world: &World, blocks: u32) -> (Child, ChildStdin) {
    let mut child = begin(&world.command(["put", "new", "-"]));
    let mut input = child.stdin.take().unwrap();
    for kind in 1..=blocks {
        input.write_all(&block(kind)).unwrap();
    }
    (child, input)
}

#[test]
fn an_interrupted_put_leaves_no_image() {
    for asked in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = World::new();
        world.put("one", &[1]);
        // More than a window of the pipeline, so that segments are being written.
        let (child, input) = begin_put(&world, 700);
        wait_until("a segment is written", || world.segments().len() > 1);
        // It waits for more input, which does not come.
        signal(&child, asked);
        Ran::wait(child).refused(130, &["interrupted"]);
        drop(input);
        assert_eq!(world.names(), ["one"]);
        world.ok(["rm", "one"]);
        world.nothing_is_left();
    }
}

#[test]
fn a_put_that_waits_for_its_first_byte_can_be_interrupted() {
    let world = World::new();
    let before = world.content();
    let (child, input) = begin_put(&world, 0);
    wait_until("it has begun", || world.content() != before);
    signal(&child, Signal::INT);
    Ran::wait(child).refused(130, &["interrupted"]);
    drop(input);
    assert_eq!(world.content(), before, "nothing is left");
}

#[test]
fn what_an_interrupted_put_stored_serves_the_next() {
    let world = World::new();
    let (child, input) = begin_put(&world, 3000);
    wait_until("a segment is sealed", || {
        let sealed = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "seg");
        world.segments().iter().any(sealed)
    });
    signal(&child, Signal::INT);
    Ran::wait(child).expect_code(130);
    drop(input);
    let disk = world.disk("disk", &(1..=3000).collect::<Vec<_>>());
    let put = world.json(["put", "new", &disk]);
    let new = put["new_chunks"].as_u64().unwrap();
    assert!(new < 3000, "{new} chunks were stored again");
    world.get_is("new", &disk);
}

/// Begins a get into a file and stops the process when it has begun to write.
fn begin_get(world: &World, out: &str, format: &[&str]) -> Child {
    let child = begin(world.command(["get", "large", out]).args(format));
    let temporary = || {
        listing(&world.path(""))
            .iter()
            .any(|(path, _)| path.to_string_lossy().contains("/.out.tegula-"))
    };
    wait_until("the temporary file is there", temporary);
    signal(&child, Signal::STOP);
    child
}

/// The ways to get an image into a file.
const FORMATS: [&[&str]; 3] = [
    &[],
    &["--format", "qcow2"],
    &["--format", "qcow2", "--compress"],
];

/// A long disk that is quickly made: the same block all over.
fn large(world: &World) {
    world.put("large", &vec![7; 8192]);
    std::fs::remove_file(world.path("large.disk")).unwrap();
}

#[test]
fn an_interrupted_get_leaves_no_file() {
    let world = World::new();
    large(&world);
    let before = listing(&world.path(""));
    for format in FORMATS {
        for asked in [Signal::INT, Signal::HUP] {
            let interrupted = || {
                let child = begin_get(&world, &world.file("out"), format);
                signal(&child, asked);
                signal(&child, Signal::CONT);
                let ran = Ran::wait(child);
                let done = ran.status.code() == Some(0);
                done.then(|| std::fs::remove_file(world.path("out")).unwrap());
                (!done).then_some(ran)
            };
            // On a busy machine it may be done before the signal comes.
            let ran = (0..20).find_map(|_| interrupted());
            ran.unwrap().refused(130, &["interrupted"]);
            assert_eq!(listing(&world.path("")), before, "{format:?}");
        }
    }
}

/// Has a shell begin the program, after these commands.
fn begin_in_shell(world: &World, commands: &str, arguments: &[&str]) -> Command {
    let command = world.command(arguments);
    let mut shell = Command::new("sh");
    let script = format!("{commands}; exec \"$@\"");
    shell.args(["-c", &script, "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    shell
}

#[test]
fn what_was_told_to_ignore_that_the_terminal_closes_goes_on() {
    let world = World::new();
    let mut child = begin(&begin_in_shell(&world, "trap '' HUP", &["put", "new", "-"]));
    let mut input = child.stdin.take().unwrap();
    let before = world.content();
    input.write_all(&block(1)).unwrap();
    wait_until("it has begun", || world.content() != before);
    signal(&child, Signal::HUP);
    input.write_all(&block(2)).unwrap();
    drop(input);
    Ran::wait(child).expect_code(0);
    world.get_is("new", &world.disk("disk", &[1, 2]));
}

#[test]
fn a_file_that_may_not_get_so_long_is_an_error_and_leaves_nothing() {
    let world = World::new();
    large(&world);
    let before = listing(&world.path(""));
    let mut get = begin_in_shell(
        &world,
        "ulimit -f 100",
        &["get", "large", &world.file("out")],
    );
    Ran::of(&mut get).refused(1, &["too large"]);
    assert_eq!(listing(&world.path("")), before);
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    large(&world);
    let child = begin_get(&world, &world.file("out"), &[]);
    signal(&child, Signal::INT);
    signal(&child, Signal::TERM);
    signal(&child, Signal::CONT);
    Ran::wait(child).expect_code(130);
    assert!(
        !world.path("out").exists(),
        "what is under the name is whole"
    );
}

#[test]
fn a_get_that_nobody_reads_can_be_interrupted() {
    let world = World::new();
    large(&world);
    for format in ["raw", "qcow2"] {
        let mut child = begin(&world.command(["get", "large", "-", "--format", format]));
        // It has begun, and will soon wait for somebody to read on.
        let mut byte = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut byte)
            .unwrap();
        signal(&child, Signal::INT);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130));
    }
}

#[test]
fn a_reader_that_leaves_is_no_error_worth_a_word() {
    let world = World::new();
    large(&world);
    for format in ["raw", "qcow2"] {
        let mut child = begin(&world.command(["get", "large", "-", "-q", "--format", format]));
        let mut byte = [0];
        child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
        let ran = Ran::wait(child).expect_code(141);
        assert_eq!(ran.err, "");
    }
}

#[test]
fn a_report_that_nobody_reads_is_no_panic() {
    let world = World::new();
    world.put("one", &[1, 0, 2]);
    for command in [
        &["ls"][..],
        &["show", "one"],
        &["verify"],
        &["gc"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = world.command(command);
        let ran = Ran::of_streams(command.args(["--io", "blocking"]).stdout(writer));
        assert_eq!((ran.status.code(), ran.err.as_str()), (Some(141), ""));
    }
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let world = World::new();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = world.command(["ls"]);
    Ran::of_streams(command.stdout(full))
        .refused(1, &["standard output", "No space left on device"]);
}

#[test]
fn a_put_that_is_killed_leaves_nothing_that_gc_does_not_take() {
    let world = World::new();
    let kept = world.put("kept", &[1, 2]);
    let (mut child, input) = begin_put(&world, 2500);
    wait_until("segments are written", || world.segments().len() > 2);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    drop(input);
    assert_eq!(world.names(), ["kept"]);
    world.ok(["verify", "--full"]);
    let told = world.json(["gc", "--min-live", "1", "--dry-run"]);
    let gc = world.json(["gc", "--min-live", "1"]);
    assert!(gc["freed_bytes"].as_u64().unwrap() > 0, "{gc}");
    for key in ["freed_bytes", "abandoned_removed"] {
        assert_eq!(told[key], gc[key], "{key}");
    }
    world.get_is("kept", &kept);
    world.ok(["verify", "--full"]);
    world.ok(["rm", "kept"]);
    world.nothing_is_left();
}

#[test]
fn of_two_puts_of_a_name_exactly_one_wins() {
    let world = World::new();
    let disks = [vec![1; 300], vec![2; 300]];
    let mut running = Vec::new();
    for kinds in &disks {
        let mut child = begin(&world.command(["put", "new", "-"]));
        let mut input = child.stdin.take().unwrap();
        for kind in kinds {
            input.write_all(&block(*kind)).unwrap();
        }
        running.push((child, input));
    }
    // Both are in the middle of it; now both end at the same time.
    let children: Vec<_> = running.into_iter().map(|(child, _input)| child).collect();
    let ended: Vec<_> = children.into_iter().map(Ran::wait).collect();
    let codes: Vec<_> = ended.iter().map(|ran| ran.status.code()).collect();
    let winner = match codes[..] {
        [Some(0), Some(1)] => 0,
        [Some(1), Some(0)] => 1,
        _ => panic!("{ended:#?}"),
    };
    let loser = ended.into_iter().nth(1 - winner).unwrap();
    loser.refused(1, &["new", "already"]);
    world.get_is("new", &world.disk("expected", &disks[winner]));
    world.ok(["gc", "--min-live", "1"]);
    world.ok(["verify", "--full"]);
    assert_eq!(world.json(["stats"])["chunks"], 1);
}

#[test]
fn other_commands_end_at_once_when_interrupted() {
    // A gc that waits for a put to end.
    let world = World::new();
    world.put("garbage", &[9000, 9001]);
    let (mut child, input) = begin_put(&world, 40);
    world.ok(["rm", "garbage"]);
    let gc = begin(&world.command(["gc", "--wait", "600"]));
    // What it condemned it wrote down before it began to wait.
    let state = world.store().join("gc.state");
    let before = std::fs::metadata(&state).unwrap().len();
    wait_until("gc waits", || {
        std::fs::metadata(&state).unwrap().len() != before
    });
    signal(&gc, Signal::INT);
    assert_eq!(Ran::wait(gc).status.code(), Some(130));
    drop(input);
    assert!(child.wait().unwrap().success());
    let gc = world.json(["gc"]);
    assert!(
        gc["freed_bytes"].as_u64().unwrap() > 2 * BLOCK,
        "the next gc goes on: {gc}"
    );
    world.ok(["verify", "--full"]);
}

#[test]
fn gc_leaves_to_the_next_what_others_still_look_at() {
    let world = World::new();
    world.put("garbage", &[9000, 9001]);
    let (mut child, input) = begin_put(&world, 40);
    let begun = world.store().join("locks");
    wait_until("the put has begun", || {
        listing(&begun)
            .iter()
            .any(|(path, _)| path.to_string_lossy().contains("ingest-"))
    });
    world.ok(["rm", "garbage"]);
    let first = world.json(["gc", "--wait", "0"]);
    assert!(
        first["pending_bytes"].as_u64().unwrap() > 2 * BLOCK,
        "{first}"
    );
    drop(input);
    assert!(child.wait().unwrap().success());
    let second = world.json(["gc", "--wait", "0"]);
    assert_eq!(second["pending_bytes"], 0);
    assert!(
        second["freed_bytes"].as_u64().unwrap() > 2 * BLOCK,
        "{second}"
    );
}

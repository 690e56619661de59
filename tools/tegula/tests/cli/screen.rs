//! What people see: help, tables, progress.

use crate::support::{Ran, World, program};
use rustix::pty::OpenptFlags;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

const COMMANDS: [&str; 22] = [
    "init",
    "put",
    "get",
    "inspect",
    "ls",
    "show",
    "rename",
    "rm",
    "diff",
    "delta",
    "pull",
    "stats",
    "du",
    "verify",
    "gc",
    "optimize",
    "repair",
    "clone",
    "coalesce",
    "flatten",
    "demo",
    "completions",
];

#[test]
fn the_help_of_every_command_has_an_example() {
    let help = Ran::of(program().arg("--help")).expect_code(0).out;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty());
    let listed: Vec<_> = listed
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in &listed {
        assert!(
            COMMANDS.contains(command) || *command == "help",
            "{command}: not tested here"
        );
    }
    for command in COMMANDS {
        assert!(listed.contains(&command), "{command} is not listed");
        let ran = Ran::of(program().args([command, "--help"])).expect_code(0);
        let examples = ran.out.split("Examples:").nth(1).unwrap_or_default();
        let shown = |line: &str| line.contains("tegula ") && line.contains(&format!(" {command}"));
        assert!(examples.lines().any(shown), "{ran:?}");
        assert_eq!(ran.err, "");
        let short = Ran::of(program().args([command, "-h"])).expect_code(0);
        assert!(short.out.contains("Examples:"), "{short:?}");
    }
    for command in ["create", "size", "show", "apply", "merge"] {
        let ran = Ran::of(program().args(["delta", command, "--help"])).expect_code(0);
        let examples = ran.out.split("Examples:").nth(1).unwrap_or_default();
        assert!(
            examples.contains(&format!("tegula delta {command}")),
            "{ran:?}"
        );
    }
    for code in ["0 ", "1 ", "2 ", "3 ", "130", "141"] {
        assert!(
            help.contains(&format!("\n  {code}")),
            "exit code {code} is not in the help"
        );
    }
}

#[test]
fn the_version_is_printed() {
    let ran = Ran::of(program().arg("--version")).expect_code(0);
    assert_eq!(ran.out, concat!("tegula ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn tables_are_aligned_and_exact_if_asked() {
    let world = World::new();
    world.put("a", &[1, 2]);
    world.put("a longer name", &[1, 0, 0]);
    let table = world.ok(["ls"]).out;
    let lines: Vec<_> = table.lines().collect();
    let column = |text: &str| {
        lines
            .iter()
            .filter_map(|line| line.find(text))
            .collect::<Vec<_>>()
    };
    assert!(lines[0].starts_with("IMAGE"), "{table}");
    assert_eq!(column("KiB").len(), 2, "{table}");
    assert_eq!(column("KiB")[0], column("KiB")[1], "{table}");
    assert!(!table.contains("131072"), "{table}");
    assert!(world.ok(["ls", "-v"]).out.contains("128.0 KiB (131072 B)"));
    assert!(world.ok(["show", "a", "-v"]).out.contains("131072 B"));
}

#[test]
fn quiet_commands_say_nothing_but_results_and_errors() {
    let world = World::without_store();
    let disk = world.disk("disk", &[1]);
    let out = world.file("out");
    for command in [
        &["init"][..],
        &["put", "one", &disk],
        &["get", "one", &out],
        &["rename", "one", "two"],
        &["coalesce", "two"],
        &["flatten", "two"],
        &["clone", "two", "three"],
        &["gc"],
        &["repair"],
        &["rm", "two"],
    ] {
        let ran = world.ok([command, &["-q"]].concat());
        assert_eq!(
            (ran.out.as_str(), ran.err.as_str()),
            ("", ""),
            "{command:?}"
        );
    }
    assert!(
        !world.ok(["stats", "-q"]).out.is_empty(),
        "results are printed"
    );
    world.refuses(["show", "nobody", "-q"], 1, &["nobody"]);
    world.refuses(["ls", "-q", "-v"], 2, &["--quiet", "--verbose"]);
}

/// Runs the program with its standard error on a terminal; returns what the terminal got.
fn on_a_terminal(world: &World, arguments: &[&str]) -> String {
    let controller = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&controller).unwrap();
    rustix::pty::unlockpt(&controller).unwrap();
    let name = rustix::pty::ptsname(&controller, Vec::new()).unwrap();
    let name = std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
    let terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let mut command = world.command(arguments);
    command.env("TERM", "xterm").stderr(terminal);
    let shown = std::thread::spawn(move || {
        let (mut bytes, mut controller) = (Vec::new(), File::from(controller));
        // Ends with an error when the last one has closed the terminal.
        let _ = controller.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = command.status().unwrap();
    // It holds the terminal too.
    drop(command);
    assert!(status.success(), "{arguments:?}");
    shown.join().unwrap()
}

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let world = World::new();
    let disk = world.disk("disk", &(1..=600).collect::<Vec<_>>());
    let shown = on_a_terminal(&world, &["put", "one", &disk]);
    assert!(
        shown.contains("put") && shown.contains("37.50 MiB"),
        "{shown:?}"
    );
    let shown = on_a_terminal(&world, &["get", "one", &world.file("out")]);
    assert!(
        shown.contains("get") && shown.contains("37.50 MiB"),
        "{shown:?}"
    );
    assert!(on_a_terminal(&world, &["verify"]).contains("verify"));
    for silent in ["-q", "--json"] {
        let shown = on_a_terminal(&world, &["verify", silent]);
        assert!(!shown.contains('\u{1b}'), "{silent}: {shown:?}");
    }
    let piped = world.ok(["get", "one", &world.file("out"), "--force"]);
    assert!(
        !piped.err.contains('\u{1b}') && !piped.err.contains("get"),
        "{piped:?}"
    );
}

#[test]
fn an_error_is_said_once_with_what_to_do_next() {
    let world = World::new();
    let missing = world.file("missing");
    let ran = world.refuses(["put", "new", &missing], 1, &[&missing]);
    assert_eq!(
        ran.err.matches("No such file or directory").count(),
        1,
        "{ran:?}"
    );
    assert_eq!(ran.err.matches("hint: ").count(), 1, "{ran:?}");
}

#[test]
fn what_a_path_hides_is_shown_and_not_obeyed() {
    let world = World::new();
    let ran = world.run(["put", "new", "/no/\u{1b}[2Jsuch"]);
    let ran = ran.refused(1, &["\\u{1b}[2J"]);
    assert!(!ran.err.contains('\u{1b}'), "{ran:?}");
}

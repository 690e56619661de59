//! Wrong arguments: exit code 2, said before anything is touched.

use crate::support::{Ran, World, program};

#[test]
fn a_command_without_a_store_is_told_to_name_one() {
    for command in [
        &["ls"][..],
        &["init"],
        &["put", "one", "disk"],
        &["get", "one", "-"],
        &["gc"],
    ] {
        Ran::of(program().args(command)).refused(2, &["--store", "TEGULA_STORE"]);
    }
    Ran::of(program().env("TEGULA_STORE", "").arg("ls")).refused(2, &["--store"]);
}

#[test]
fn names_that_could_mislead_are_refused_by_rule() {
    let world = World::new();
    let disk = world.disk("disk", &[1]);
    let long = "x".repeat(201);
    for (name, rule) in [
        ("a/b", "must not contain '/'"),
        ("../escape", "must not contain '/'"),
        ("line\nbreak", "must not contain '\\n'"),
        ("\u{1b}[2Jclear", "must not contain '\\u{1b}'"),
        ("left\u{202e}right", "must not contain '\\u{202e}'"),
        (&long, "at most 200 bytes, this one has 201"),
        ("", "must not be empty"),
        (".hidden", "must not begin with"),
        (" space", "white space"),
    ] {
        for command in [
            &["put", name, &disk][..],
            &["show", name],
            &["rm", name],
            &["rename", "one", name],
        ] {
            let ran = world.refuses(command, 2, &[rule]);
            assert!(
                !name.contains('\u{1b}') || ran.err.contains("\\u{1b}[2Jclear"),
                "what a terminal would obey is shown: {ran:?}"
            );
        }
    }
    // A leading dash makes an option of it, unless it is said that none follows.
    world.refuses(["put", "-x", &disk], 2, &["-x"]);
    world.refuses(["put", "--", "-x", &disk], 2, &["must not begin with"]);
    assert_eq!(world.names(), [""; 0]);
}

#[test]
fn names_that_are_not_utf_8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    world.run(["show".as_ref(), name]).refused(2, &["UTF-8"]);
}

#[test]
fn block_sizes_are_powers_of_two_from_4k_to_4m() {
    let world = World::without_store();
    for (size, what) in [
        ("3K", "power of two"),
        ("65537", "power of two"),
        ("2K", "4K to 4M"),
        ("8M", "4K to 4M"),
        ("0", "power of two"),
        ("64X", "no unit"),
        ("sixty", "whole number"),
        ("-4096", "-4"),
    ] {
        world
            .run(["init", "--block-size", size])
            .refused(2, &[what]);
    }
    assert!(!world.store().exists());
}

#[test]
fn numbers_out_of_range_are_refused() {
    let world = World::without_store();
    for level in ["20", "-8", "much"] {
        world
            .run(["init", "--zstd-level", level])
            .refused(2, &["--zstd-level"]);
    }
    assert!(!world.store().exists());
    let world = World::new();
    for share in ["1.1", "-0.1", "NaN", "half"] {
        world.refuses(["gc", "--min-live", share], 2, &["from 0 to 1"]);
    }
    world.refuses(["gc", "--wait", "-1"], 2, &["--wait"]);
}

#[test]
fn commands_that_need_images_say_so() {
    let world = World::new();
    for command in [
        "rm", "coalesce", "flatten", "clone", "show", "rename", "get",
    ] {
        world.refuses([command], 2, &["required", "IMAGE"]);
    }
}

#[test]
fn images_that_are_not_there_are_named() {
    let world = World::new();
    world.put("one", &[1]);
    for command in [
        &["show", "nobody"][..],
        &["diff", "one", "nobody"],
        &["diff", "nobody", "one"],
        &["rename", "nobody", "somebody"],
        &["rm", "nobody"],
        &["du", "one", "nobody"],
        &["verify", "nobody"],
        &["coalesce", "nobody"],
        &["coalesce", "one", "--onto", "nobody"],
        &["flatten", "nobody"],
        &["clone", "nobody", "somebody"],
        &["get", "nobody", "out"],
    ] {
        let arguments = [command, &["--json"]].concat();
        world
            .refuses(arguments, 1, &["nobody", world.store().to_str().unwrap()])
            .hints("tegula ls");
    }
}

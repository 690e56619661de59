//! What the commands do when all is well.

use crate::support::{BLOCK, Ran, World, assert_same, block, listing, program};
use std::process::Stdio;

#[test]
fn an_image_comes_back_as_it_went_in() {
    let world = World::new();
    let disk = world.put("one", &[1, 0, 2, 2, 0, 3]);
    let out = world.file("out");
    world.ok(["get", "one", &out]);
    assert_same(&out, &disk);
    let streamed = world.command(["get", "one", "-"]).output().unwrap();
    assert!(streamed.status.success());
    assert!(streamed.stdout == std::fs::read(&disk).unwrap());
}

#[test]
fn a_length_that_is_no_multiple_of_the_block_size_is_kept() {
    let world = World::new();
    let bytes: Vec<u8> = block(1).into_iter().chain(*b"the rest").collect();
    let disk = world.file("disk");
    std::fs::write(&disk, &bytes).unwrap();
    let put = world.json(["put", "odd", &disk]);
    assert_eq!(put["virtual_size"], BLOCK + 8);
    world.get_is("odd", &disk);
}

#[test]
fn an_empty_source_makes_an_empty_image() {
    let world = World::new();
    let disk = world.disk("disk", &[]);
    assert_eq!(world.json(["put", "empty", &disk])["virtual_size"], 0);
    world.get_is("empty", &disk);
    assert!(
        world
            .command(["get", "empty", "-"])
            .output()
            .unwrap()
            .stdout
            .is_empty()
    );
    world.ok(["verify", "--full"]);
}

#[test]
fn standard_input_gives_the_same_image_as_a_file() {
    let world = World::new();
    let disk = world.disk("disk", &[1, 0, 2, 2, 0, 3, 0]);
    let file = world.json(["put", "file", &disk]);
    let input = std::fs::File::open(&disk).unwrap();
    let mut command = world.command(["put", "stream", "-", "--json"]);
    let stream = Ran::of(command.stdin(input)).expect_code(0).json();
    assert_eq!(stream["digest"], file["digest"]);
    assert_eq!(stream["new_chunks"], 0);
    world.get_is("stream", &disk);
}

#[test]
fn put_tells_what_it_read_and_what_was_new() {
    let world = World::new();
    let disk = world.disk("disk", &[1, 0, 2, 2, 0, 3]);
    let put = world.json(["put", "one", &disk]);
    assert_eq!(put["read_bytes"], 4 * BLOCK);
    assert_eq!(put["new_chunks"], 3);
    assert_eq!(put["new_bytes"], 3 * BLOCK);
    assert_eq!(put["reused_chunks"], 1);
    assert_eq!(put["zero_blocks"], 2);
    let segments: u64 = listing(&world.store().join("segments"))
        .iter()
        .map(|(_, bytes)| bytes)
        .sum();
    assert_eq!(put["stored_new_bytes"], segments);
}

#[test]
fn put_replaces_only_if_it_may() {
    let world = World::new();
    let (old, new) = (world.put("one", &[1, 2]), world.disk("new", &[3]));
    world
        .refuses(["put", "one", &new], 1, &["one", "already"])
        .hints("--replace");
    world.get_is("one", &old);
    world.ok(["put", "one", &new, "--replace"]);
    world.get_is("one", &new);
    assert_eq!(world.names(), ["one"]);
}

#[test]
fn an_image_may_be_replaced_by_a_changed_copy_of_itself() {
    let world = World::new();
    world.put("one", &[1, 2, 3]);
    let new = world.disk("new", &[1, 9, 3]);
    let put = world.json(["put", "one", &new, "--parent", "one", "--replace"]);
    assert_eq!(put["new_chunks"], 1);
    world.get_is("one", &new);
}

#[test]
fn a_child_outlives_its_parent() {
    let world = World::new();
    world.put("base", &[1, 2, 3, 4, 5, 6, 0, 7]);
    let disk = world.disk("disk", &[1, 9, 3, 0, 5, 6, 8, 7]);
    let put = world.json(["put", "child", &disk, "--parent", "base"]);
    assert_eq!(
        (&put["new_chunks"], &put["reused_chunks"]),
        (&2.into(), &5.into())
    );
    let shown = world.json(["show", "child"]);
    assert_eq!(
        (&shown["parent"], &shown["layers"]),
        (&"base".into(), &2.into())
    );
    world.ok(["rm", "base"]);
    world.ok(["gc", "--min-live", "1"]);
    world.get_is("child", &disk);
    world.ok(["verify", "--full"]);
}

#[test]
fn diff_lists_what_to_write_and_what_to_zero() {
    let world = World::new();
    world.put("base", &[1, 2, 3, 4, 5, 6, 0, 7]);
    let disk = world.disk("disk", &[1, 9, 8, 0, 5, 6, 0, 7, 0, 5]);
    world.ok(["put", "child", &disk, "--parent", "base"]);
    for image in ["child", "unrelated"] {
        if image == "unrelated" {
            world.ok(["put", image, &disk]);
        }
        let diff = world.json(["diff", "base", image]);
        assert_eq!(
            (&diff["base"], &diff["image"]),
            (&"base".into(), &image.into())
        );
        assert_eq!(diff["base_size"], 8 * BLOCK);
        assert_eq!(diff["size"], 10 * BLOCK);
        assert_eq!(diff["block_size"], BLOCK);
        assert_eq!(diff["changed_bytes"], 4 * BLOCK);
        let extent = |first: u64, blocks: u64, kind: &str| serde_json::json!({ "offset": first * BLOCK, "length": blocks * BLOCK, "type": kind });
        let expected = [
            extent(1, 2, "data"),
            extent(3, 1, "zero"),
            extent(9, 1, "data"),
        ];
        assert_eq!(diff["extents"], serde_json::json!(expected), "{image}");
    }
    let same = world.json(["diff", "child", "unrelated"]);
    assert_eq!(
        (&same["changed_bytes"], &same["extents"]),
        (&0.into(), &serde_json::json!([]))
    );
}

#[test]
fn a_renamed_image_is_the_same_image() {
    let world = World::new();
    let disk = world.put("old", &[1, 2]);
    world.put("other", &[3]);
    let before = world.json(["show", "old"])["digest"].clone();
    world.refuses(["rename", "old", "other"], 1, &["other", "already"]);
    world.ok(["rename", "old", "new"]);
    assert_eq!(world.names(), ["new", "other"]);
    assert_eq!(world.json(["show", "new"])["digest"], before);
    world.get_is("new", &disk);
}

#[test]
fn rm_removes_all_it_is_given_or_none() {
    let world = World::new();
    for image in ["a", "b", "c"] {
        world.put(image, &[1]);
    }
    world
        .refuses(["rm", "a", "nobody", "b"], 1, &["nobody"])
        .hints("tegula ls");
    assert_eq!(world.names(), ["a", "b", "c"]);
    let removed = world.json(["rm", "c", "a", "a"]);
    let names = removed["removed"].as_array().unwrap().iter();
    assert_eq!(
        names.map(|image| &image["name"]).collect::<Vec<_>>(),
        ["a", "c"]
    );
    assert_eq!(world.names(), ["b"]);
}

#[test]
fn a_dry_run_of_gc_tells_what_gc_then_frees() {
    let world = World::new();
    world.put("a", &[1, 2, 3]);
    world.put("b", &[4]);
    world.ok(["rm", "a"]);
    let before = world.content();
    let told = world.json(["gc", "--dry-run"]);
    assert_eq!(world.content(), before, "a dry run changes nothing");
    let done = world.json(["gc"]);
    assert_eq!(
        (&told["dry_run"], &done["dry_run"]),
        (&true.into(), &false.into())
    );
    assert_eq!(told["freed_bytes"], done["freed_bytes"]);
    assert_eq!(done["segments_removed"], 1);
    assert!(done["freed_bytes"].as_u64().unwrap() > 3 * BLOCK);
    world.ok(["rm", "b"]);
    world.nothing_is_left();
}

#[test]
fn gc_frees_what_it_says_also_where_it_moves_survivors() {
    let world = World::new();
    world.put("a", &[1, 2, 3, 4]);
    let kept = world.put("b", &[1]);
    world.ok(["rm", "a"]);
    let segment_bytes = || world.json(["stats"])["stored_bytes"].as_u64().unwrap();
    let before = segment_bytes();
    let told = world.json(["gc", "--dry-run", "--min-live", "1"]);
    // What better compression saves is not known before, and that is said.
    let dry = |more: &[&str]| {
        let command = ["gc", "--dry-run", "--min-live", "1"].iter().chain(more);
        world.ok(command).out
    };
    let (about, exact) = (dry(&[]), dry(&["--recompress", "0"]));
    assert!(about.starts_with("would free about "), "{about}");
    assert!(!exact.contains("about"), "{exact}");
    let done = world.json(["gc", "--min-live", "1", "--recompress", "0"]);
    assert_eq!(done["segments_rewritten"], 1);
    world.get_is("b", &kept);
    // Beside the segments, layers are freed: small ones.
    let freed = before - segment_bytes();
    let said = done["freed_bytes"].as_u64().unwrap();
    assert!(
        (freed..freed + 4096).contains(&said),
        "freed {freed}, said {said}"
    );
    assert_eq!(told["freed_bytes"], said, "what the dry run told");
}

#[test]
fn gc_waits_as_long_as_anybody_can_say() {
    let world = World::new();
    world.put("a", &[1]);
    world.ok(["rm", "a"]);
    let longest = u64::MAX.to_string();
    world.ok(["gc", "--wait", &longest]);
    world.nothing_is_left();
}

#[test]
fn min_live_zero_moves_nothing() {
    let world = World::new();
    world.put("a", &[1, 2, 3, 4]);
    world.put("b", &[1]);
    world.ok(["rm", "a"]);
    assert_eq!(
        world.json(["gc", "--min-live", "0"])["segments_rewritten"],
        0
    );
}

#[test]
fn a_flattened_image_has_one_layer_and_the_same_content() {
    let world = World::new();
    world.put("base", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let disk = world.disk("disk", &[1, 2, 3, 4, 5, 6, 7, 9]);
    world.ok(["put", "child", &disk, "--parent", "base"]);
    let segments = world.segments();
    let flattened = world.json(["flatten", "child"]);
    let image = &flattened["images"][0];
    assert_eq!(
        (&image["layers_before"], &image["layers"]),
        (&2.into(), &1.into())
    );
    let shown = world.json(["show", "child"]);
    assert_eq!(
        (&shown["layers"], &shown["digest"], &shown["parent"]),
        (&1.into(), &image["digest"], &"base".into())
    );
    assert_eq!(world.segments(), segments, "only metadata changes");
    world.get_is("child", &disk);
    world.ok(["flatten", "child", "base", "--forget-parent"]);
    assert!(world.json(["show", "child"])["parent"].is_null());
    world.refuses(["flatten", "nobody"], 1, &["nobody"]);
}

#[test]
fn increments_are_coalesced_over_their_base_or_over_an_ancestor() {
    let world = World::new();
    world.put("v0", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut disk = String::new();
    for version in 1..=3u32 {
        disk = world.disk("disk", &[1, 2, 3, 4, 5, 6, 7, 10 + version]);
        let (name, parent) = (format!("v{version}"), format!("v{}", version - 1));
        world.ok(["put", &name, &disk, "--parent", &parent]);
    }
    let layers = |image: &str| world.json(["show", image])["layers"].clone();
    assert_eq!(layers("v3"), 4);
    let onto = world.json(["coalesce", "v3", "--onto", "v1"]);
    assert_eq!(onto["images"][0]["layers"], 3);
    assert_eq!(layers("v3"), 3);
    let ran = world.ok(["coalesce", "v3"]);
    assert_eq!(ran.out, "coalesced v3: 3 layers, now 2\n");
    assert_eq!(layers("v3"), 2);
    assert_eq!(world.json(["show", "v3"])["parent"], "v2");
    world.get_is("v3", &disk);
    for image in ["v1", "v0", "v2"] {
        world.ok(["rm", image]);
        world.ok(["gc", "--min-live", "1"]);
        world.get_is("v3", &disk);
    }
}

#[test]
fn a_clone_costs_nothing_and_outlives_its_origin() {
    let world = World::new();
    let disk = world.put("origin", &[1, 2, 3]);
    world.put("taken", &[4]);
    let segments = world.segments();
    let cloned = world.json(["clone", "origin", "twin"]);
    let origin = world.json(["show", "origin"]);
    assert_eq!(cloned["digest"], origin["digest"]);
    assert_eq!(cloned["parent"], "origin");
    assert_eq!(world.segments(), segments);
    world.refuses(["clone", "origin", "taken"], 1, &["taken", "already"]);
    world.refuses(["clone", "origin", "origin", "--replace"], 1, &["origin"]);
    world.ok(["clone", "origin", "taken", "--replace"]);
    world.ok(["rm", "origin"]);
    world.ok(["gc", "--min-live", "1"]);
    world.get_is("twin", &disk);
    world.get_is("taken", &disk);
    world.ok(["verify", "--full"]);
}

#[test]
fn du_tells_what_is_shared_and_what_is_not() {
    let world = World::new();
    world.put("a", &[1, 2, 3]);
    world.put("b", &[1, 2, 4, 5]);
    let all = world.json(["du"]);
    let [a, b] = &all["images"].as_array().unwrap()[..] else {
        panic!("{all}");
    };
    for (image, blocks, exclusive) in [(a, 3, 1), (b, 4, 2)] {
        assert_eq!(image["logical_bytes"], blocks * BLOCK);
        let number = |key: &str| image[key].as_u64().unwrap();
        assert_eq!(
            number("stored_bytes"),
            number("shared_bytes") + number("exclusive_bytes")
        );
        // The blocks do not compress: a record is a block and a header.
        assert_eq!(number("exclusive_bytes") / BLOCK, exclusive, "{image}");
        assert_eq!(number("stored_bytes") / BLOCK, blocks, "{image}");
    }
    assert_eq!(all["stored_bytes"].as_u64().unwrap() / BLOCK, 5);
    assert_eq!(
        all["stored_bytes"], all["together_bytes"],
        "nobody else is there"
    );
    let one = world.json(["du", "b"]);
    assert_eq!(one["images"].as_array().unwrap().len(), 1);
    assert_eq!(one["together_bytes"], b["exclusive_bytes"]);
    world.refuses(["du", "nobody"], 1, &["nobody"]);
}

#[test]
fn stats_count_each_chunk_once() {
    let world = World::new();
    let empty = world.json(["stats"]);
    assert_eq!(
        (&empty["images"], &empty["dedup_ratio"]),
        (&0.into(), &1.0.into())
    );
    world.put("a", &[1, 2, 0]);
    world.put("b", &[1, 2, 2]);
    let stats = world.json(["stats"]);
    assert_eq!((&stats["images"], &stats["chunks"]), (&2.into(), &2.into()));
    assert_eq!(stats["logical_bytes"], 5 * BLOCK);
    assert_eq!(stats["dedup_ratio"], 2.5);
    assert_eq!(stats["segments"], world.segments().len());
}

#[test]
fn the_store_may_be_named_by_the_environment() {
    let world = World::new();
    world.put("one", &[1]);
    let ran = Ran::of(program().env("TEGULA_STORE", world.store()).arg("ls")).expect_code(0);
    assert!(ran.out.contains("one"), "{ran:?}");
    // The option is nearer than the environment.
    let elsewhere = world.path("elsewhere");
    let ran = Ran::of(world.command(["ls"]).env("TEGULA_STORE", elsewhere)).expect_code(0);
    assert!(ran.out.contains("one"), "{ran:?}");
}

#[test]
fn global_options_may_stand_before_and_after_the_command() {
    let world = World::new();
    let mut command = program();
    command.args(["ls", "--json", "--store"]).arg(world.store());
    assert_eq!(
        Ran::of(&mut command).expect_code(0).json()["images"],
        serde_json::json!([])
    );
}

#[test]
fn every_block_size_and_level_there_is_can_be_chosen() {
    for (size, bytes) in [
        ("4096", 4096),
        ("4K", 4096),
        ("1M", 1 << 20),
        ("4MiB", 4 << 20),
    ] {
        let world = World::without_store();
        let made = world.json(["init", "--block-size", size, "--zstd-level", "-3"]);
        assert_eq!(
            (&made["block_size"], &made["zstd_level"]),
            (&bytes.into(), &(-3).into())
        );
        let disk = world.put("one", &[1, 0, 2]);
        world.get_is("one", &disk);
        assert_eq!(world.json(["show", "one"])["block_size"], bytes);
    }
}

#[test]
fn the_way_to_the_files_can_be_chosen() {
    let world = World::without_store();
    let remark = "io_uring is not available";
    let blocking = world.ok(["init", "--io", "blocking"]);
    assert!(!blocking.err.contains(remark), "{blocking:?}");
    let auto = world.ok(["ls", "--io", "auto"]);
    assert!(auto.err.matches(remark).count() <= 1, "{auto:?}");
    let quiet = world.ok(["ls", "-q"]);
    assert_eq!(quiet.err, "");
    let mut command = world.command(["ls"]);
    let ran = Ran::of(command.env("TEGULA_IO", "blocking")).expect_code(0);
    assert_eq!(ran.err, "");
    // Whether it can be had depends on the machine; a clear word does not.
    let uring = world.run(["ls", "--io", "uring"]);
    if !uring.status.success() {
        uring.refused(1, &[remark]).hints("--io blocking");
    }
}

#[test]
fn images_are_listed_by_name() {
    let world = World::new();
    for image in ["zeta", "alpha 2", "alpha", "Ubuntu 24.04 (cloud)", "é"] {
        world.put(image, &[1]);
    }
    assert_eq!(
        world.names(),
        ["Ubuntu 24.04 (cloud)", "alpha", "alpha 2", "zeta", "é"]
    );
}

#[test]
fn a_put_goes_on_while_garbage_is_collected() {
    use std::io::Write;
    let world = World::new();
    world.put("garbage", &[1, 2, 3, 4]);
    let disk = world.disk("disk", &(1..400).collect::<Vec<_>>());
    let bytes = std::fs::read(&disk).unwrap();
    let mut command = world.command(["put", "late", "-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    input.write_all(first).unwrap();
    world.ok(["rm", "garbage"]);
    world.ok(["gc", "--min-live", "1", "--wait", "0"]);
    input.write_all(rest).unwrap();
    drop(input);
    Ran::wait(child).expect_code(0);
    world.get_is("late", &disk);
    world.ok(["verify", "--full"]);
}

#[test]
fn all_else_goes_before_a_collection_unless_it_is_told_otherwise() {
    let world = World::new();
    world.put("one", &[1, 2]);
    let asked_for = |arguments: &[&str]| {
        let trace = world.path("trace");
        let tegula = world.command(arguments);
        let mut strace = std::process::Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=setpriority,clone,clone3", "-o"]);
        strace.arg(&trace);
        strace.arg(tegula.get_program()).args(tegula.get_args());
        strace.env_remove("LD_LIBRARY_PATH");
        Ran::of(&mut strace).expect_code(0);
        let calls = std::fs::read_to_string(&trace).unwrap();
        let first = calls.lines().next().unwrap_or_default();
        let (_, rest) = first.split_once("setpriority(PRIO_PROCESS, 0, ")?;
        let (nice, _) = rest.split_once(')')?;
        nice.parse::<i32>().ok()
    };
    let own = rustix::process::getpriority_process(None).unwrap();
    let lower = |by: i32| Some((own + by).min(19));
    assert_eq!(asked_for(&["gc"]), lower(10));
    assert_eq!(asked_for(&["gc", "--nice", "3"]), lower(3));
    assert_eq!(asked_for(&["optimize"]), lower(10));
    assert_eq!(asked_for(&["verify"]), None);
    world.run(["gc", "--nice", "20"]).expect_code(2);
}

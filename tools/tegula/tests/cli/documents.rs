//! The JSON documents: which keys there are and what they hold. Scripts rely on every one of them.

use crate::support::{Ran, World, program};
use serde_json::Value;

#[derive(Debug, Clone, Copy)]
enum Is {
    Text,
    TextOrNull,
    Count,
    CountOrNull,
    Number,
    Flag,
    List,
    ObjectOrNull,
}

#[track_caller]
fn check(document: &Value, fields: &[(&str, Is)]) {
    let found: Vec<_> = document.as_object().expect("an object").keys().collect();
    for (key, is) in fields {
        let value = document
            .get(key)
            .unwrap_or_else(|| panic!("no {key:?} in {found:?}"));
        let fits = match is {
            Is::Text => value.is_string(),
            Is::TextOrNull => value.is_string() || value.is_null(),
            Is::Count => value.is_u64(),
            Is::CountOrNull => value.is_u64() || value.is_null(),
            Is::Number => value.is_f64(),
            Is::Flag => value.is_boolean(),
            Is::List => value.is_array(),
            Is::ObjectOrNull => value.is_object() || value.is_null(),
        };
        assert!(fits, "{key} is {value}, not {is:?}");
    }
    for key in found {
        let known = fields.iter().any(|(name, _)| name == key);
        assert!(known, "{key:?} is new: the contract has to name it");
    }
}

const RECORD: [(&str, Is); 9] = [
    ("name", Is::Text),
    ("virtual_size", Is::Count),
    ("block_size", Is::Count),
    ("digest", Is::Text),
    ("parent", Is::TextOrNull),
    ("parent_digest", Is::TextOrNull),
    ("data_blocks", Is::Count),
    ("zero_blocks", Is::Count),
    ("created_at", Is::Text),
];

const COSTS: [(&str, Is); 5] = [
    ("layers", Is::Count),
    ("logical_bytes", Is::Count),
    ("stored_bytes", Is::Count),
    ("exclusive_bytes", Is::Count),
    ("mean_run_bytes", Is::Count),
];

const FINDING: [(&str, Is); 6] = [
    ("path", Is::Text),
    ("offset", Is::CountOrNull),
    ("chunk", Is::TextOrNull),
    ("images", Is::List),
    ("message", Is::Text),
    ("derived", Is::Flag),
];

#[test]
fn init_put_show_and_ls_have_their_keys() {
    let world = World::without_store();
    let made = world.json(["init"]);
    check(
        &made,
        &[
            ("store", Is::Text),
            ("id", Is::Text),
            ("block_size", Is::Count),
            ("zstd_level", Is::Count),
            ("prefix_frames", Is::Flag),
        ],
    );
    let disk = world.disk("disk", &[1, 0]);
    let put = [
        ("read_bytes", Is::Count),
        ("new_chunks", Is::Count),
        ("new_bytes", Is::Count),
        ("framed_chunks", Is::Count),
        ("stored_new_bytes", Is::Count),
        ("reused_chunks", Is::Count),
        ("recovered_chunks", Is::Count),
        ("stored_again_chunks", Is::Count),
        ("format", Is::Text),
        ("hint", Is::ObjectOrNull),
        ("seconds", Is::Number),
    ];
    let base = world.json(["put", "base", &disk]);
    check(&base, &[&RECORD[..], &COSTS, &put].concat());
    assert!(base["parent"].is_null());
    let child = world.json(["put", "child", &disk, "--parent", "base"]);
    assert_eq!(child["parent"], "base");
    assert_eq!(child["parent_digest"], base["digest"]);

    let shown = world.json(["show", "child"]);
    check(&shown, &[&RECORD[..], &COSTS].concat());
    for (key, value) in shown.as_object().unwrap() {
        assert_eq!(&child[key], value, "put and show agree on {key}");
    }
    let list = world.json(["ls"]);
    check(&list, &[("images", Is::List)]);
    for image in list["images"].as_array().unwrap() {
        check(image, &RECORD);
    }
}

#[test]
fn moments_are_rfc_3339_in_utc_and_digests_are_hexadecimal() {
    let world = World::new();
    world.put("one", &[1]);
    let shown = world.json(["show", "one"]);
    let created = shown["created_at"].as_str().unwrap();
    let shape: String = created
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert_eq!(shape, "9999-99-99T99:99:99Z");
    let digest = shown["digest"].as_str().unwrap();
    assert_eq!(digest.len(), 64);
    assert!(
        digest
            .chars()
            .all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
    );
}

#[test]
fn get_rename_rm_coalesce_flatten_clone_and_diff_have_their_keys() {
    let world = World::new();
    world.put("one", &[1, 0]);
    let got = world.json(["get", "one", &world.file("out")]);
    check(
        &got,
        &[
            ("name", Is::Text),
            ("destination", Is::Text),
            ("format", Is::Text),
            ("virtual_size", Is::Count),
            ("digest", Is::Text),
            ("written_bytes", Is::Count),
            ("zero_blocks", Is::Count),
            ("seconds", Is::Number),
        ],
    );
    for command in ["coalesce", "flatten"] {
        let folded = world.json([command, "one"]);
        check(&folded, &[("images", Is::List)]);
        check(
            &folded["images"][0],
            &[
                ("name", Is::Text),
                ("digest", Is::Text),
                ("layers_before", Is::Count),
                ("layers", Is::Count),
            ],
        );
    }
    let cloned = world.json(["clone", "one", "twin"]);
    check(&cloned, &[&RECORD[..], &[("from", Is::Text)]].concat());
    let renamed = world.json(["rename", "one", "two"]);
    check(
        &renamed,
        &[("from", Is::Text), ("to", Is::Text), ("digest", Is::Text)],
    );
    world.put("three", &[2, 0]);
    let diff = world.json(["diff", "two", "three"]);
    check(
        &diff,
        &[
            ("base", Is::Text),
            ("image", Is::Text),
            ("base_digest", Is::Text),
            ("digest", Is::Text),
            ("base_size", Is::Count),
            ("size", Is::Count),
            ("block_size", Is::Count),
            ("changed_bytes", Is::Count),
            ("extents", Is::List),
        ],
    );
    check(
        &diff["extents"][0],
        &[
            ("offset", Is::Count),
            ("length", Is::Count),
            ("type", Is::Text),
        ],
    );
    let removed = world.json(["rm", "two"]);
    check(&removed, &[("removed", Is::List)]);
    check(
        &removed["removed"][0],
        &[
            ("name", Is::Text),
            ("digest", Is::TextOrNull),
            ("set_aside", Is::TextOrNull),
        ],
    );
}

#[test]
fn stats_and_du_have_their_keys() {
    let world = World::new();
    world.put("one", &[1, 0]);
    check(
        &world.json(["stats"]),
        &[
            ("images", Is::Count),
            ("virtual_bytes", Is::Count),
            ("logical_bytes", Is::Count),
            ("chunks", Is::Count),
            ("chunk_bytes", Is::Count),
            ("live_bytes", Is::Count),
            ("stored_bytes", Is::Count),
            ("metadata_bytes", Is::Count),
            ("segments", Is::Count),
            ("block_size", Is::Count),
            ("zstd_level", Is::Count),
            ("prefix_frames", Is::Flag),
            ("dedup_ratio", Is::Number),
            ("compression_ratio", Is::Number),
        ],
    );
    let du = world.json(["du"]);
    check(
        &du,
        &[
            ("images", Is::List),
            ("stored_bytes", Is::Count),
            ("together_bytes", Is::Count),
            ("freed_if_deleted_bytes", Is::Count),
        ],
    );
    check(
        &du["images"][0],
        &[
            ("name", Is::Text),
            ("virtual_size", Is::Count),
            ("logical_bytes", Is::Count),
            ("stored_bytes", Is::Count),
            ("exclusive_bytes", Is::Count),
            ("shared_bytes", Is::Count),
            ("freed_if_deleted_bytes", Is::Count),
        ],
    );
}

#[test]
fn verify_gc_optimize_and_repair_have_their_keys() {
    let world = World::new();
    world.put("one", &[1, 2]);
    world.put("two", &[3]);
    let verify = [
        ("full", Is::Flag),
        ("segments", Is::Count),
        ("chunks", Is::Count),
        ("bytes", Is::Count),
        ("layers", Is::Count),
        ("images", Is::Count),
        ("findings", Is::List),
        ("foreign_files", Is::List),
    ];
    check(&world.json(["verify"]), &verify);
    check(&world.json(["verify", "--full", "one"]), &verify);
    let gc = [
        ("dry_run", Is::Flag),
        ("freed_bytes", Is::Count),
        ("segments_removed", Is::Count),
        ("segments_rewritten", Is::Count),
        ("recompressed_chunks", Is::Count),
        ("layers_removed", Is::Count),
        ("abandoned_removed", Is::Count),
        ("pending_bytes", Is::Count),
    ];
    check(&world.json(["gc", "--dry-run"]), &gc);
    check(&world.json(["gc"]), &gc);
    let optimize = [
        ("dry_run", Is::Flag),
        ("segments_rewritten", Is::Count),
        ("chunks", Is::Count),
        ("compressed_chunks", Is::Count),
        ("framed_chunks", Is::Count),
        ("old_bytes", Is::Count),
        ("new_bytes", Is::Count),
        ("pending_bytes", Is::Count),
    ];
    let dry = world.json(["optimize", "--dry-run", "--one-in", "2"]);
    assert_eq!(dry["dry_run"], true);
    check(&dry, &optimize);
    check(&world.json(["optimize", "one"]), &optimize);
    let repair = [
        ("healed_chunks", Is::Count),
        ("salvaged_chunks", Is::Count),
        ("quarantined_chunks", Is::Count),
        ("quarantined_files", Is::List),
        ("restored_records", Is::List),
        ("restored_layers", Is::List),
        ("state_restored", Is::Flag),
        ("config_restored", Is::TextOrNull),
        ("config_copy_restored", Is::Flag),
        ("index_rebuilt", Is::Flag),
        ("remaining", Is::List),
    ];
    check(&world.json(["repair"]), &repair);

    crate::damage::flip_in_first_chunk(&world.segments()[0]);
    let found = Ran::of(&mut world.command(["verify", "--json"]))
        .expect_code(3)
        .json();
    check(&found, &verify);
    check(&found["findings"][0], &FINDING);
    let mended = Ran::of(&mut world.command(["repair", "--json"]))
        .expect_code(3)
        .json();
    check(&mended, &repair);
    check(&mended["remaining"][0], &FINDING);
}

const STREAM: [(&str, Is); 10] = [
    ("block_size", Is::Count),
    ("base_size", Is::CountOrNull),
    ("base_digest", Is::TextOrNull),
    ("size", Is::Count),
    ("digest", Is::Text),
    ("data_blocks", Is::Count),
    ("zero_blocks", Is::Count),
    ("records", Is::Count),
    ("record_bytes", Is::Count),
    ("bytes", Is::Count),
];

#[test]
fn the_delta_commands_have_their_keys() {
    let world = World::new();
    world.put("one", &[1, 2]);
    world.put("two", &[1, 0]);
    let file = world.file("delta");
    let stream = |more: &[(&'static str, Is)]| [&STREAM[..], more].concat();
    let pair = [
        ("base", Is::TextOrNull),
        ("image", Is::Text),
        ("recompressed", Is::Count),
    ];
    check(&world.json(["delta", "size", "one", "two"]), &stream(&pair));
    check(
        &world.json(["delta", "size", "--full", "two"]),
        &stream(&pair),
    );
    let made = [
        ("destination", Is::Text),
        ("recompressed", Is::Count),
        ("seconds", Is::Number),
    ];
    let create = ["delta", "create", "one", "two", "-o", &file];
    check(&world.json(create), &stream(&made));
    let shown = world.json(["delta", "show", &file]);
    check(
        &shown,
        &stream(&[("file", Is::Text), ("extents", Is::List)]),
    );
    let extent = [
        ("offset", Is::Count),
        ("length", Is::Count),
        ("type", Is::Text),
    ];
    check(&shown["extents"][0], &extent);
    let applied = [
        ("bytes", Is::Count),
        ("records", Is::Count),
        ("new_chunks", Is::Count),
        ("new_bytes", Is::Count),
        ("stored_new_bytes", Is::Count),
        ("seconds", Is::Number),
    ];
    let both = world.file("both");
    let merged = world.json(["delta", "merge", &file, "-o", &both]);
    let merge = [("destination", Is::Text), ("merged", Is::Count)];
    check(&merged, &stream(&merge));
    let apply = world.json(["delta", "apply", &file, "three"]);
    check(&apply, &[&RECORD[..], &applied].concat());
}

#[test]
fn pull_has_its_keys_however_the_image_came() {
    let scene = crate::pull::Scene::new();
    let keys = [
        ("image", Is::Text),
        ("disk", Is::Text),
        ("kind", Is::Text),
        ("base_image", Is::TextOrNull),
        ("virtual_size", Is::Count),
        ("fetched_bytes", Is::Count),
        ("wire_bytes", Is::Count),
        ("digest", Is::TextOrNull),
        ("hash", Is::TextOrNull),
        ("base", Is::TextOrNull),
        ("resumed", Is::Flag),
        ("done_before", Is::Flag),
        ("seconds", Is::Number),
    ];
    for increments in [true, false] {
        let service = scene.service(increments);
        let mut command = crate::pull::pull(&service, crate::pull::NEW, &scene.disk());
        let ran = Ran::of(command.arg("--force")).expect_code(0);
        check(&ran.json(), &keys);
    }
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = Ran::of(program().args(["completions", shell])).expect_code(0);
        assert!(ran.out.contains("coalesce"), "{shell}: {}", ran.out);
        let document = Ran::of(program().args(["completions", shell, "--json"])).json();
        check(&document, &[("shell", Is::Text), ("script", Is::Text)]);
        assert_eq!(document["script"], ran.out);
    }
    Ran::of(program().args(["completions", "dos"])).refused(2, &["dos", "bash"]);
}

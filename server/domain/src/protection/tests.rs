//! Whom a file lets do what, against tables written by hand; which files are refused; and what names cannot be used for.

use super::PropertyOperation::{Create, Delete, Read, Update};
use super::*;
use crate::property::BadText;

fn roles(text: &str) -> Protection {
    Protection::parse(text, &Format::Roles).unwrap_or_else(|error| panic!("{error}"))
}

fn with_policy(rules: &[(&str, &str)]) -> Format {
    let texts = rules
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    Format::Policies(Arc::new(Policy::new(&texts).unwrap()))
}

fn caller(roles: &[&str]) -> Caller {
    Caller::new("u", "p", roles)
}

fn section(name: &str, create: &str, read: &str, update: &str, delete: &str) -> String {
    format!("[{name}]\ncreate = {create}\nread = {read}\nupdate = {update}\ndelete = {delete}\n")
}

/// What the caller may do with the property, as four letters or signs.
fn rights(protection: &Protection, caller: &Caller, name: &str) -> String {
    PropertyOperation::ALL
        .into_iter()
        .zip("crud".chars())
        .map(|(operation, letter)| {
            if protection.may(caller, operation, name) {
                letter
            } else {
                '-'
            }
        })
        .collect()
}

fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The file of the tests below: what an operator would write.
fn file() -> String {
    [
        "# Billing is the operator's, licences are everybody's to read.\n".to_owned(),
        section(
            "^x_billing_",
            "admin,billing",
            "admin,billing",
            "Billing",
            "admin",
        ),
        section("^x_licence$", "admin", "@", "admin", "!"),
        section("^x_dropbox$", "member", "admin", "admin", "admin"),
        section("^x_writable$", "member", "admin", "member", "member"),
        section("^x_none", "!", "!", "!", "!"),
        section("_ro_", "", "reader", "", ""),
        section("^hw_", "member", "reader", "member", "member"),
    ]
    .concat()
}

#[test]
fn the_first_section_found_in_the_name_decides() {
    let protection = roles(&file());
    #[rustfmt::skip]
    let table = [
        //                        nobody  reader  member  billing admin
        ("x_billing_code",       ["----", "----", "----", "cru-", "cr-d"]),
        ("x_licence",            ["-r--", "-r--", "-r--", "-r--", "cru-"]),
        ("x_dropbox",            ["----", "----", "c---", "----", "-rud"]),
        ("x_writable",           ["----", "----", "c-ud", "----", "-r--"]),
        ("x_none",               ["----", "----", "----", "----", "----"]),
        ("x_nonesuch",           ["----", "----", "----", "----", "----"]),
        ("a_ro_b",               ["----", "-r--", "-r--", "----", "-r--"]),
        // Found by the first of two patterns, whatever the second allows.
        ("x_billing_ro_",        ["----", "----", "----", "cru-", "cr-d"]),
        ("hw_ro_x",              ["----", "-r--", "-r--", "----", "-r--"]),
        ("hw_disk_bus",          ["----", "-r--", "crud", "----", "-r--"]),
        // Found by none.
        ("os_distro",            ["----", "----", "----", "----", "----"]),
        ("my_x_licence",         ["----", "----", "----", "----", "----"]),
        ("x_licences",           ["----", "----", "----", "----", "----"]),
        ("",                     ["----", "----", "----", "----", "----"]),
        // The server's own.
        ("os_glance_failed_import", ["crud", "crud", "crud", "crud", "crud"]),
        // Not the server's own, wherever the words stand.
        ("x_os_glance_y",        ["----", "----", "----", "----", "----"]),
        ("x_billing_os_glance",  ["----", "----", "----", "cru-", "cr-d"]),
    ];
    let callers = [
        caller(&[]),
        caller(&["reader"]),
        caller(&["Member", "reader"]),
        caller(&["billing"]),
        caller(&["admin", "reader"]),
    ];
    for (name, row) in table {
        for (caller, expected) in callers.iter().zip(row) {
            assert_eq!(
                rights(&protection, caller, name),
                expected,
                "{name} for {caller:?}"
            );
        }
    }
}

#[test]
fn the_roles_of_a_service_count_as_the_users_own() {
    let protection = roles(&section("^x_", "nova", "nova", "nova", "!"));
    let user = caller(&["member"]);
    assert_eq!(rights(&protection, &user, "x_a"), "----");
    let served = user.with_service_roles(["service", "Nova"]);
    assert_eq!(rights(&protection, &served, "x_a"), "cru-");
}

#[test]
fn values_may_be_rules_of_the_policy() {
    let format = with_policy(&[
        ("billing", "role:billing and not role:guest"),
        ("own", "project_id:%(project_id)s"),
    ]);
    let text = section("^x_", "billing", "@", "context_is_admin", "!")
        + &section("^y_", "own", "", "billing", "billing");
    let protection = Protection::parse(&text, &format).unwrap();
    for (who, x, y) in [
        (caller(&["billing"]), "cr--", "--ud"),
        (caller(&["billing", "guest"]), "-r--", "----"),
        (caller(&["admin"]), "-ru-", "----"),
    ] {
        assert_eq!(rights(&protection, &who, "x_a"), x, "{who:?}");
        assert_eq!(rights(&protection, &who, "y_a"), y, "{who:?}");
    }
    // A rule that speaks of the image is asked with none, and denies.
    assert_eq!(
        protection.warnings(),
        ["line 8: `read` is empty: nobody may"]
    );
}

#[test]
fn without_a_file_everything_may_be_done_and_an_empty_one_allows_nothing() {
    let anyone = Caller::anonymous();
    assert_eq!(rights(&Protection::unrestricted(), &anyone, "x"), "crud");
    for empty in ["", "# nothing\n\n", "\r\n; nothing\r\n"] {
        let protection = roles(empty);
        assert_eq!(rights(&protection, &caller(&["admin"]), "x"), "----");
        assert_eq!(protection.warnings().len(), 1);
    }
}

#[test]
fn files_are_read_as_python_reads_them() {
    let text = "\r\n# a comment\r\n[^a[bc]$] ; and another\r\n  Create = admin ,\r\n     ; within\r\n\r\n    Nova,\r\n  READ:@\r\n  update =\r\n    member\r\n  delete=  !  ,\r\n";
    let protection = roles(text);
    assert_eq!(rights(&protection, &caller(&["nova"]), "ab"), "cr--");
    assert_eq!(rights(&protection, &caller(&["member"]), "ac"), "-ru-");
    assert_eq!(rights(&protection, &caller(&["member"]), "ad"), "----");
    // Everyone among others is everyone, no one among others no one.
    let mixed = roles(&section("^a$", "admin, @", "!,admin", "@", "admin,,"));
    assert_eq!(rights(&mixed, &caller(&["admin"]), "a"), "c-ud");
    assert_eq!(rights(&mixed, &caller(&[]), "a"), "c-u-");
}

#[test]
fn sections_for_the_servers_own_properties_are_left_out() {
    let protection =
        roles(&(section("os_glance_x", "!", "!", "!", "!") + &section(".*", "@", "@", "@", "@")));
    assert_eq!(rights(&protection, &caller(&[]), "os_glance_x"), "crud");
    assert_eq!(rights(&protection, &caller(&[]), "a"), "crud");
    assert_eq!(
        protection.warnings(),
        ["line 1: section [os_glance_x] is left out: such properties are the server's own"]
    );
}

#[test]
fn what_is_not_a_protection_file_is_refused_by_line() {
    let good = section("a", "@", "@", "@", "@");
    let cases = [
        (
            "create = @\n".to_owned(),
            "line 1: `create = @` stands before the first section",
        ),
        (
            "\u{feff}".to_owned() + &good,
            "line 1: `\u{feff}[a]` stands before the first section",
        ),
        (
            good.clone() + "[a]\n",
            "line 6: section [a] stands in line 1 already",
        ),
        (
            good.clone() + "READ = @\n",
            "line 6: `read` of [a] stands in line 3 already",
        ),
        (
            good.clone() + "raed = @\n",
            "line 6: `raed` is none of create, read, update and delete",
        ),
        (
            good.clone() + "nothing\n",
            "line 6: `nothing` is neither a section nor `key = value`",
        ),
        (good.clone() + "= x\n", "line 6: `= x` has no key"),
        ("[a\n".to_owned(), "line 1: `[a` has no `]`"),
        ("[]\n".to_owned(), "line 1: the section has no name"),
        (
            "[a] b\n".to_owned(),
            "line 1: `b` stands behind the section's `]`",
        ),
        (
            "[a] ; see [b]\n".to_owned(),
            "line 1: a comment behind a section's `]` must not contain one",
        ),
        (
            "[DEFAULT]\n".to_owned(),
            "line 1: [DEFAULT] is not supported: give each section its own four keys",
        ),
        (
            "[a]\nread = %(x)s\n".to_owned(),
            "line 2: `%(x)s` contains `%`, which would put another value in: not supported",
        ),
        (
            "[a]\nread = @ ; all\n".to_owned(),
            "line 2: `@ ; all` has a comment behind it: comments have lines of their own",
        ),
        ("[a]\nread = a\0b\n".to_owned(), "line 2: it contains a NUL"),
        (
            "[a]\ncreate = @\nread = @\nupdate = @\n".to_owned(),
            "line 1: section [a] has no `delete`: each needs create, read, update and delete",
        ),
        (
            good.clone() + &section("(", "@", "@", "@", "@"),
            "line 6: the pattern `(` is no regular expression: unclosed group",
        ),
        (
            section("^(?!x)", "@", "@", "@", "@"),
            "line 1: the pattern `^(?!x)` looks ahead or behind, which is not supported (at character 2)",
        ),
        (
            section("a", "@", "@,!", "@", "@"),
            "line 3: `@,!` says both `@`, everyone, and `!`, no one",
        ),
        (
            section("a", "@", "x\n  y", "@", "@"),
            "line 3: between the roles `x` and `y` a comma is missing",
        ),
        // Also of sections that would be left out.
        (
            "[os_glance]\n".to_owned(),
            "line 1: section [os_glance] has no `create`: each needs create, read, update and delete",
        ),
    ];
    for (text, expected) in cases {
        match Protection::parse(&text, &Format::Roles) {
            Err(error) => assert_eq!(error.to_string(), expected),
            Ok(_) => panic!("accepted: {text}"),
        }
    }
    let format = with_policy(&[("one", "@"), ("two", "@")]);
    for (value, expected) in [
        (
            "one,two",
            "line 3: `one,two` is more than one rule: combine them in the policy",
        ),
        (
            "@,one",
            "line 3: `@,one` is more than one rule: combine them in the policy",
        ),
        ("three", "line 3: the policy has no rule three"),
        ("One", "line 3: the policy has no rule One"),
    ] {
        let text = section("a", "one", value, "two", "context_is_admin");
        assert_eq!(
            Protection::parse(&text, &format).unwrap_err().to_string(),
            expected
        );
    }
    assert!(Protection::parse(&"#".repeat((1 << 20) + 1), &Format::Roles).is_err());
}

#[test]
fn a_view_shows_what_may_be_read_and_nothing_of_the_inside() {
    let protection = roles(&file());
    let image = properties(&[
        ("x_billing_code", "17"),
        ("x_licence", "GPL"),
        ("x_dropbox", "mail"),
        ("hw_disk_bus", "virtio"),
        ("os_distro", "debian"),
        ("os_glance_stage_host", "http://worker-1"),
        ("os_glance_hash_op_host", "http://worker-2"),
        ("os_glance_failed_import", ""),
    ]);
    let names = |caller: &Caller| {
        protection
            .readable(caller, &image)
            .into_keys()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&caller(&["reader"])),
        ["hw_disk_bus", "os_glance_failed_import", "x_licence"]
    );
    assert_eq!(
        names(&caller(&["admin"])),
        [
            "os_glance_failed_import",
            "x_billing_code",
            "x_dropbox",
            "x_licence"
        ]
    );
    // A list can be filtered by what is shown, and by nothing else.
    for who in [&[][..], &["reader"], &["member"], &["admin"]].map(caller) {
        let seen = names(&who);
        for name in image.keys() {
            assert_eq!(
                protection.may_filter(&who, name),
                seen.contains(&name.as_str()),
                "{name}"
            );
        }
    }
    let unrestricted = Protection::unrestricted();
    assert!(!unrestricted.may_filter(&caller(&["admin"]), "os_glance_stage_host"));
    assert_eq!(unrestricted.readable(&Caller::anonymous(), &image).len(), 6);
}

/// What an edit comes to: `ok`, or who or what refuses it.
fn outcome(result: &Result<(), EditRefused>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(EditRefused::Forbidden {
            operation: Create, ..
        }) => "create",
        Err(EditRefused::Forbidden {
            operation: Read, ..
        }) => "read",
        Err(EditRefused::Forbidden {
            operation: Update, ..
        }) => "update",
        Err(EditRefused::Forbidden {
            operation: Delete, ..
        }) => "delete",
        Err(EditRefused::Absent(_)) => "absent",
        Err(EditRefused::Present(_)) => "present",
        Err(EditRefused::Reserved(_)) => "reserved",
        Err(EditRefused::Text(_)) => "text",
    }
}

#[test]
fn every_combination_of_rights_has_an_answer_to_every_edit() {
    // The rights; then, without the property and with it: add, add new, replace, remove.
    #[rustfmt::skip]
    let table = [
        ("----", ["create", "create", "absent", "absent"], ["create", "create", "absent",  "absent"]),
        ("c---", ["ok",     "ok",     "absent", "absent"], ["update", "update", "absent",  "absent"]),
        ("-r--", ["create", "create", "absent", "absent"], ["update", "present", "update", "delete"]),
        ("--u-", ["create", "create", "absent", "absent"], ["create", "create", "absent",  "absent"]),
        ("---d", ["create", "create", "absent", "absent"], ["create", "create", "absent",  "absent"]),
        ("cr--", ["ok",     "ok",     "absent", "absent"], ["update", "present", "update", "delete"]),
        ("c-u-", ["ok",     "ok",     "absent", "absent"], ["ok",     "ok",     "absent",  "absent"]),
        ("c--d", ["ok",     "ok",     "absent", "absent"], ["update", "update", "absent",  "absent"]),
        ("-ru-", ["create", "create", "absent", "absent"], ["ok",     "present", "ok",     "delete"]),
        ("-r-d", ["create", "create", "absent", "absent"], ["update", "present", "update", "ok"]),
        ("--ud", ["create", "create", "absent", "absent"], ["create", "create", "absent",  "absent"]),
        ("cru-", ["ok",     "ok",     "absent", "absent"], ["ok",     "present", "ok",     "delete"]),
        ("cr-d", ["ok",     "ok",     "absent", "absent"], ["update", "present", "update", "ok"]),
        ("c-ud", ["ok",     "ok",     "absent", "absent"], ["ok",     "ok",     "absent",  "absent"]),
        ("-rud", ["create", "create", "absent", "absent"], ["ok",     "present", "ok",     "ok"]),
        ("crud", ["ok",     "ok",     "absent", "absent"], ["ok",     "present", "ok",     "ok"]),
    ];
    let who = caller(&["member"]);
    for (rights, without, with) in table {
        let sign = |letter| if rights.contains(letter) { "@" } else { "!" };
        let protection = roles(&section("^x$", sign('c'), sign('r'), sign('u'), sign('d')));
        for (there, expected) in [(false, without), (true, with)] {
            let mut before = properties(&[("kept", "hidden from the caller")]);
            if there {
                before.insert("x".to_owned(), "old".to_owned());
            }
            let edits = [
                PropertyEdit::Add {
                    name: "x",
                    value: "new",
                },
                PropertyEdit::AddNew {
                    name: "x",
                    value: "new",
                },
                PropertyEdit::Replace {
                    name: "x",
                    value: "new",
                },
                PropertyEdit::Remove { name: "x" },
            ];
            for (edit, expected) in edits.into_iter().zip(expected) {
                let mut after = before.clone();
                let result = protection.edit(&who, &mut after, edit);
                assert_eq!(
                    outcome(&result),
                    expected,
                    "{rights}, there: {there}, {edit:?}"
                );
                let mut model = before.clone();
                if result.is_ok() {
                    match edit {
                        PropertyEdit::Remove { .. } => model.remove("x"),
                        _ => model.insert("x".to_owned(), "new".to_owned()),
                    };
                }
                assert_eq!(after, model, "{rights}: what was not named has changed");
            }
        }
    }
}

#[test]
fn an_edit_leaves_alone_what_its_caller_cannot_see() {
    let protection = roles(&file());
    let mut image = properties(&[
        ("x_billing_code", "17"),
        ("x_none", "1"),
        ("os_glance_stage_host", "w"),
        ("hw_a", "1"),
    ]);
    let who = caller(&["member", "reader"]);
    let edits = [
        PropertyEdit::Replace {
            name: "hw_a",
            value: "2",
        },
        PropertyEdit::Add {
            name: "hw_b",
            value: "3",
        },
        PropertyEdit::Remove { name: "hw_a" },
    ];
    for edit in edits {
        protection.edit(&who, &mut image, edit).unwrap();
    }
    assert_eq!(
        image,
        properties(&[
            ("x_billing_code", "17"),
            ("x_none", "1"),
            ("os_glance_stage_host", "w"),
            ("hw_b", "3")
        ])
    );
}

#[test]
fn an_image_to_be_has_only_properties_that_its_maker_may_create() {
    let protection = roles(&file());
    let who = caller(&["member", "reader"]);
    for (name, expected) in [
        ("hw_disk_bus", "ok"),
        ("x_dropbox", "ok"),
        ("x_billing_a", "create"),
        ("os_distro", "create"),
        ("os_glance_x", "reserved"),
        ("", "text"),
    ] {
        let new = properties(&[("hw_first", "1"), (name, "v")]);
        assert_eq!(
            outcome(&protection.check_new(&who, &new)),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_name_that_looks_like_another_is_another() {
    // `é` composed and in two characters; the letter I with a dot; digits of another script; look-alikes; space around it.
    let denied = roles(
        &(section("^x_secret$", "!", "!", "!", "!")
            + &section("^x_caf\u{e9}$", "!", "!", "!", "!")
            + &section("^x_istanbul$", "!", "!", "!", "!")
            + &section("^x_", "@", "@", "@", "@")),
    );
    let names = [
        ("x_secret", false),
        ("x_SECRET", true),
        ("x_secret ", true),
        ("x_secret.", true),
        ("x_secret\u{200b}", true),
        ("x_s\u{435}cret", true),
        ("x_ｓecret", true),
        ("x_caf\u{e9}", false),
        ("x_cafe\u{301}", true),
        ("x_istanbul", false),
        ("x_\u{130}stanbul", true),
        ("x_\u{131}stanbul", true),
        ("X_secret", false),
        (" x_secret", false),
        ("\u{feff}x_secret", false),
        ("x_secret/", true),
        ("~0x_secret", false),
    ];
    let who = caller(&["member"]);
    let image = properties(&[("x_secret", "s"), ("x_caf\u{e9}", "s"), ("x_istanbul", "s")]);
    for (name, allowed) in names {
        let expected = if allowed { "crud" } else { "----" };
        assert_eq!(rights(&denied, &who, name), expected, "{name:?}");
        // Whatever it is called, the three that are protected are neither seen nor changed.
        let mut edited = image.clone();
        for edit in [
            PropertyEdit::Add {
                name,
                value: "mine",
            },
            PropertyEdit::Replace {
                name,
                value: "mine",
            },
            PropertyEdit::Remove { name },
            PropertyEdit::AddNew {
                name,
                value: "mine",
            },
        ] {
            let _ = denied.edit(&who, &mut edited, edit);
        }
        for (secret, value) in &image {
            assert_eq!(edited.get(secret), Some(value), "{name:?}");
            assert!(!denied.readable(&who, &edited).contains_key(secret.as_str()));
        }
    }
}

#[test]
fn names_and_values_that_cannot_be_are_refused_before_anything_else() {
    let protection = Protection::unrestricted();
    let who = caller(&["admin"]);
    let mut image = BTreeMap::new();
    let long = "x".repeat(256);
    for name in ["", "x\0", "x\ny", "os_glance\0", long.as_str()] {
        for edit in [
            PropertyEdit::Add { name, value: "v" },
            PropertyEdit::Remove { name },
        ] {
            let result = protection.edit(&who, &mut image, edit);
            assert!(
                matches!(result, Err(EditRefused::Text(_))),
                "{name:?}: {result:?}"
            );
        }
    }
    let fits = "é".repeat(255);
    fn add<'a>(name: &'a str, value: &'a str) -> PropertyEdit<'a> {
        PropertyEdit::Add { name, value }
    }
    assert_eq!(protection.edit(&who, &mut image, add(&fits, "v")), Ok(()));
    assert!(matches!(
        protection.edit(&who, &mut image, add("a", &"v".repeat(65_536))),
        Err(EditRefused::Text(BadText::ValueTooLong { .. }))
    ));
    assert!(matches!(
        protection.edit(&who, &mut image, add("os_glance_import_task", "t")),
        Err(EditRefused::Reserved(_))
    ));
    assert_eq!(image.len(), 1);
}

mod any_text {
    use super::super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(
            lines in prop::collection::vec(prop_oneof![
                Just("[".to_owned()), Just("[x]".to_owned()), Just("create = @".to_owned()), Just("read=admin".to_owned()),
                Just("update: !".to_owned()), Just("  delete =".to_owned()), Just(" more,".to_owned()), "[\\[\\]\\\\(){}?*+a-z^$|,=:;#!@ <>-]{0,12}",
                "\\PC{0,8}",
            ], 0..12),
            name in "\\PC{0,8}",
        ) {
            if let Ok(protection) = Protection::parse(&lines.join("\n"), &Format::Roles) {
                let _ = protection.may(&Caller::anonymous(), PropertyOperation::Read, &name);
            }
        }

        #[test]
        fn any_pattern_is_compiled_or_refused(pattern in "[\\[\\]\\\\(){}?*+a-zA-Z0-9^$|,=:!<>&~#.-]{0,16}", name in "\\PC{0,8}") {
            if let Ok(regex) = super::super::pattern::compile(&pattern) {
                let _ = regex.is_match(&name);
            }
        }
    }
}

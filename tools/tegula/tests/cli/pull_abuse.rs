//! `tegula pull` from services that say no, lie, change their minds or send what would do harm.

use crate::pull::{NEW, OLD, Scene, over, pull};
use crate::service::{Reply, Service, Stream};
use crate::support::{Ran, assert_same, wait_until};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A scene with a base on the host.
fn scene() -> (Scene, String) {
    let scene = Scene::new();
    let base = scene.world.disk("base.raw", &(1..40).collect::<Vec<_>>());
    (scene, base)
}

/// Runs a pull that must fail with these words, and leave the base and the place of the disk as they are.
#[track_caller]
fn refused(scene: &Scene, base: &str, mut command: Command, code: i32, named: &[&str]) -> Ran {
    let ran = Ran::of(command.args(["--retries", "2"])).refused(code, named);
    assert!(!std::path::Path::new(&scene.disk()).exists(), "{ran:#?}");
    assert_same(base, &scene.old);
    ran
}

/// Changes the delta that the service gives.
fn delta(service: &Service, change: impl FnOnce(&mut Stream)) {
    let key = (NEW.to_owned(), OLD.to_owned());
    service.change(|content| change(content.deltas.get_mut(&key).unwrap()));
}

#[test]
fn a_delta_that_changes_while_it_is_fetched_is_fetched_anew() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let other = scene.world.file("other.delta");
    scene.world.ok(["delta", "create", OLD, NEW, "-o", &other]);
    let other = Stream {
        bytes: std::fs::read(other).unwrap(),
        tag: Some("\"other\"".to_owned()),
    };
    let mut asked = 0;
    service.change(|content| {
        content.cut_always = Some(70_000);
        let key = (NEW.to_owned(), OLD.to_owned());
        let first = content.deltas.insert(key, other).unwrap();
        content.first = Some(Box::new(move |request| {
            if !request.path.contains("/delta") {
                return None;
            }
            asked += 1;
            let part = Reply::of(200, &*first.bytes)
                .with("Content-Type", "application/vnd.tegula.delta")
                .with("ETag", first.tag.as_ref().unwrap());
            (asked == 1).then_some(part)
        }));
    });
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    Ran::of(&mut command).expect_code(0);
    assert_same(scene.disk(), &scene.new);
    let requests = service.data_requests();
    assert!(requests[1].header("if-range").unwrap().len() > 60);
    assert_eq!(requests[2].header("if-range"), Some("\"other\""));
}

#[test]
fn a_delta_that_never_stays_the_same_is_given_up() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let bytes = scene.stream(Some(OLD), NEW).bytes;
    let mut asked = 0;
    service.change(|content| {
        content.first = Some(Box::new(move |request| {
            if !request.path.contains("/delta") {
                return None;
            }
            asked += 1;
            let reply = Reply::of(200, &*bytes)
                .with("Content-Type", "application/vnd.tegula.delta")
                .with("ETag", &format!("\"{asked}\""));
            Some(Reply {
                cut: Some(5000),
                ..reply
            })
        }));
    });
    let command = over(pull(&service, NEW, &scene.disk()), &base);
    refused(&scene, &base, command, 1, &["something else"]);
}

#[test]
fn pieces_that_do_not_fit_are_thrown_away_and_all_is_fetched_once_more() {
    let (scene, base) = scene();
    for weak in [false, true] {
        let service = scene.service(true);
        let good = scene.stream(Some(OLD), NEW);
        let mut mixed = good.clone();
        mixed.bytes[2000] ^= 1;
        let mut asked = 0;
        // The first answer is another stream under the same tag, cut in the middle.
        service.change(|content| {
            content.first = Some(Box::new(move |request| {
                if !request.path.contains("/delta") {
                    return None;
                }
                asked += 1;
                let tag = mixed.tag.as_ref().unwrap();
                let tag = if weak {
                    format!("W/{tag}")
                } else {
                    tag.clone()
                };
                let reply = Reply::of(200, &*mixed.bytes)
                    .with("Content-Type", "application/vnd.tegula.delta")
                    .with("ETag", &tag);
                (asked == 1).then_some(Reply {
                    cut: Some(50_000),
                    ..reply
                })
            }));
        });
        let mut command = over(pull(&service, NEW, &scene.disk()), &base);
        Ran::of(command.arg("--force")).expect_code(0);
        assert_same(scene.disk(), &scene.new);
        let asked: Vec<_> = service
            .data_requests()
            .iter()
            .map(|one| one.range_start())
            .collect();
        // To a weak tag no byte is added.
        let expected = if weak {
            vec![None, None]
        } else {
            vec![None, Some(50_000), None]
        };
        assert_eq!(
            asked.len(),
            expected.len() + usize::from(weak && asked.len() > 2),
            "{asked:?}"
        );
        std::fs::remove_file(scene.disk()).unwrap();
    }
}

#[test]
fn hostile_deltas_are_refused_before_a_byte_is_written() {
    let (scene, base) = scene();
    let good = scene.stream(Some(OLD), NEW).bytes;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let back = scene.stream(Some(NEW), OLD).bytes;
    let full = scene.stream(None, NEW).bytes;
    let huge = {
        let mut bytes = good.clone();
        bytes[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("nothing", Vec::new(), ""),
        ("a web page", b"<html>hello</html>".to_vec(), ""),
        ("a changed head", flipped(60), "delta stream"),
        ("a changed record", flipped(good.len() / 2), "byte"),
        ("a changed trailer", flipped(good.len() - 20), "trailer"),
        ("a length that cannot be", huge, "delta stream"),
        ("another pair", back, "length"),
        ("no base", full, "a base of digest"),
        ("a part of it", good[..good.len() - 1].to_vec(), "byte"),
    ];
    for (what, bytes, named) in cases {
        let service = scene.service(true);
        delta(&service, |stream| stream.bytes = bytes);
        let command = over(pull(&service, NEW, &scene.disk()), &base);
        let ran = refused(&scene, &base, command, 1, &[named]);
        assert!(ran.err.contains("hint: "), "{what}: {ran:#?}");
        // Nor in place.
        let command = over(pull(&service, NEW, &base), &base);
        refused(&scene, &base, command, 1, &[named]);
        // And what was bad is not kept: the same command does it when the service does.
        delta(&service, |stream| stream.bytes.clone_from(&good));
        let mut command = over(pull(&service, NEW, &scene.disk()), &base);
        Ran::of(&mut command).expect_code(0);
        assert_same(scene.disk(), &scene.new);
        std::fs::remove_file(scene.disk()).unwrap();
    }
}

#[test]
fn a_service_that_names_another_digest_is_not_believed() {
    let (scene, base) = scene();
    for (image, named) in [(NEW, "an image of digest"), (OLD, "a base of digest")] {
        let service = scene.service(true);
        service.change(|content| {
            let record = &mut content.images.get_mut(image).unwrap().0;
            record["os_tree_hash"] = json!(format!("blake3-tree:64k:{}", "ab".repeat(32)));
        });
        let command = over(pull(&service, NEW, &scene.disk()), &base);
        refused(&scene, &base, command, 1, &[named, "abab"]).hints("thrown away");
    }
}

#[test]
fn lies_about_lengths_are_found_and_end() {
    let (scene, base) = scene();
    for increments in [true, false] {
        for (what, stated, range) in [
            ("longer", Some(10_000_000), None),
            ("shorter", Some(100), None),
            ("another range", None, Some("bytes 0-9/10")),
            ("no range", None, Some("whatever")),
        ] {
            let service = scene.service(increments);
            let bytes = match increments {
                true => scene.stream(Some(OLD), NEW).bytes,
                false => scene.bytes(NEW),
            };
            service.change(|content| {
                content.first = Some(Box::new(move |request| {
                    if !request.path.contains("/delta") && !request.path.ends_with("/file") {
                        return None;
                    }
                    let kind = match increments {
                        true => "application/vnd.tegula.delta",
                        false => "application/octet-stream",
                    };
                    let reply = match (request.range_start(), range) {
                        (Some(start), Some(range)) => {
                            Reply::of(206, &bytes[start..]).with("Content-Range", range)
                        }
                        _ => Reply::of(200, &*bytes),
                    };
                    Some(Reply {
                        stated,
                        cut: range.map(|_| 20_000),
                        ..reply.with("Content-Type", kind).with("ETag", "\"one\"")
                    })
                }));
            });
            let command = over(pull(&service, NEW, &scene.disk()), &base);
            let ran = refused(&scene, &base, command, 1, &[]);
            assert!(
                ran.err.contains("hint: "),
                "{what}, increments {increments}: {ran:#?}"
            );
            for left in ["tegula-part", "tegula-delta", "tegula-pull"] {
                let _ = std::fs::remove_file(format!("{}.{left}", scene.disk()));
            }
        }
    }
}

#[test]
fn a_whole_image_that_hashes_to_something_else_never_appears() {
    let (scene, base) = scene();
    let service = scene.service(false);
    service.change(|content| content.images.get_mut(NEW).unwrap().1[70_000] ^= 1);
    let command = pull(&service, NEW, &scene.disk());
    refused(&scene, &base, command, 1, &["a hash of"]).hints("thrown away");
    assert_eq!(service.data_requests().len(), 1, "it came in one piece");
    // Without any hash it is taken only by who says so.
    let hidden = |content: &mut crate::service::Content| {
        content.images.get_mut(NEW).unwrap().0["os_hash_value"] = Value::Null;
    };
    service.change(hidden);
    let command = pull(&service, NEW, &scene.disk());
    refused(&scene, &base, command, 1, &["checksum"]).hints("--unverified");
    let mut command = pull(&service, NEW, &scene.disk());
    let report = Ran::of(command.arg("--unverified")).expect_code(0).json();
    assert_eq!(report["hash"], Value::Null);
}

#[test]
fn a_service_that_says_no_is_quoted_with_what_to_do() {
    let (scene, base) = scene();
    for (status, hint) in [
        (401, "OS_TOKEN"),
        (403, "who owns the image"),
        (404, "check the image's id"),
        (409, "state"),
        (302, "redirections"),
        (503, "run the same command again"),
    ] {
        for data in [false, true] {
            let service = scene.service(true);
            service.change(|content| {
                content.first = Some(Box::new(move |request| {
                    let wanted = request.path.contains("/delta") == data;
                    let message =
                        json!({ "message": format!("no by {status}\u{1b}[31m"), "code": "x" });
                    let reply = Reply::json(&message).with("Location", "http://127.0.0.1:1/");
                    wanted.then_some(Reply { status, ..reply })
                }));
            });
            let command = over(pull(&service, NEW, &scene.disk()), &base);
            let named = [&*status.to_string(), &format!("no by {status}")];
            let ran = refused(&scene, &base, command, 1, &named).hints(hint);
            assert!(
                !ran.err.contains('\u{1b}'),
                "a terminal would obey: {ran:#?}"
            );
        }
    }
}

#[test]
fn a_service_that_is_busy_is_asked_again() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let mut asked = 0;
    service.change(|content| {
        content.first = Some(Box::new(move |_| {
            asked += 1;
            let later = Reply::of(503, "busy").with("Retry-After", "0");
            (asked % 2 == 1).then_some(later)
        }));
    });
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    Ran::of(&mut command).expect_code(0);
    assert_same(scene.disk(), &scene.new);
}

#[test]
fn a_service_that_nobody_runs_is_given_up_soon() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let command = over(pull(&service, NEW, &scene.disk()), &base);
    drop(service);
    refused(&scene, &base, command, 1, &["no answer, 3 times"]).hints("goes on where it stopped");
}

#[test]
fn images_without_data_and_answers_of_no_image_service_are_refused() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let record = |key: &str, value: Value| {
        let key = key.to_owned();
        service.change(|content| content.images.get_mut(NEW).unwrap().0[key] = value);
    };
    let command = || over(pull(&service, NEW, &scene.disk()), &base);
    record("status", json!("queued"));
    refused(&scene, &base, command(), 1, &["queued"]).hints("upload");
    record("status", json!("active"));
    record("id", json!(OLD));
    refused(&scene, &base, command(), 1, &["no image's record"]);
    service.change(|content| {
        content.first = Some(Box::new(|_| Some(Reply::of(200, "<html>hello</html>"))));
    });
    refused(&scene, &base, command(), 1, &["no JSON"]).hints("image service");
}

#[test]
fn the_wrong_base_is_refused() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let short = scene.world.disk("short.raw", &[1, 2]);
    let mut command = over(pull(&service, NEW, &scene.disk()), &short);
    Ran::of(&mut command)
        .refused(1, &[&short, OLD])
        .hints("nothing was fetched");
    assert_eq!(service.sent(), 0);
    let mut blocks: Vec<u32> = (1..40).collect();
    blocks[12] = 77;
    let other = scene.world.disk("other.raw", &blocks);
    let before = std::fs::read(&other).unwrap();
    for disk in [scene.disk(), other.clone()] {
        let mut command = over(pull(&service, NEW, &disk), &other);
        Ran::of(&mut command)
            .refused(1, &["is not the image"])
            .hints("nothing was written");
        assert!(std::fs::read(&other).unwrap() == before);
    }
    assert!(!std::path::Path::new(&scene.disk()).exists());
    let mut command = pull(&service, OLD, &scene.disk());
    command.args(["--base", &base]);
    Ran::of(&mut command)
        .refused(1, &["which image"])
        .hints("--base-image");
}

#[test]
fn what_stands_there_is_replaced_only_if_asked() {
    let (scene, base) = scene();
    let service = scene.service(true);
    std::fs::write(scene.disk(), "mine").unwrap();
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    Ran::of(&mut command)
        .refused(1, &[&scene.disk(), "exists"])
        .hints("--force");
    assert_eq!(std::fs::read(scene.disk()).unwrap(), b"mine");
    assert_eq!(
        service.change(|content| content.log.len()),
        0,
        "nothing was asked"
    );
    Ran::of(over(pull(&service, NEW, &scene.disk()), &base).arg("--force")).expect_code(0);
    assert_same(scene.disk(), &scene.new);
    let directory = scene.world.file("directory");
    std::fs::create_dir(&directory).unwrap();
    Ran::of(&mut pull(&service, NEW, &directory)).refused(1, &[&directory]);
}

#[test]
fn two_pulls_to_one_place_do_not_meet() {
    let (scene, base) = scene();
    let service = scene.service(true);
    service.change(|content| content.slow = Some(Duration::from_millis(30)));
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    let first = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("bytes come", || service.sent() > 0);
    let mut second = over(pull(&service, NEW, &scene.disk()), &base);
    Ran::of(&mut second)
        .refused(1, &["under way"])
        .hints("wait for it");
    Ran::wait(first).expect_code(0);
    assert_same(scene.disk(), &scene.new);
}

#[test]
fn another_request_to_the_same_place_begins_anew() {
    let (scene, base) = scene();
    let service = scene.service(true);
    service.change(|content| content.cut_always = Some(0));
    service.change(|content| content.cuts.push_back(80_000));
    let command = over(pull(&service, NEW, &scene.disk()), &base);
    refused(&scene, &base, command, 1, &["no answer"]);
    service.change(|content| content.cut_always = None);
    Ran::of(&mut pull(&service, NEW, &scene.disk())).expect_code(0);
    assert_same(scene.disk(), &scene.new);
    scene.stand(&["base.raw", "disk.raw"]);
    assert_eq!(service.data_requests().last().unwrap().range_start(), None);
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let (scene, base) = scene();
    let service = scene.service(true);
    for (variable, token) in [
        ("TEGULA_TOKEN", "first-secret"),
        ("OS_TOKEN", "second-secret"),
    ] {
        let mut command = over(pull(&service, NEW, &scene.disk()), &base);
        let ran = Ran::of(command.env(variable, token).arg("--force")).expect_code(0);
        assert!(!format!("{}{}", ran.out, ran.err).contains(token));
        let sent = service.change(|content| std::mem::take(&mut content.log));
        for request in sent {
            assert_eq!(request.header("x-auth-token"), Some(token), "{request:?}");
        }
    }
    let mut command = over(pull(&service, NEW, &scene.disk()), &base);
    let ran = Ran::of(command.arg("--force").args(["--token", "bad\ntoken"]));
    assert_ne!(ran.status.code(), Some(0), "{ran:#?}");
}

#[test]
fn keystone_gives_a_token_and_another_when_it_is_no_longer_good() {
    let (scene, base) = scene();
    let service = scene.service(true);
    let mut given = 0;
    service.change(|content| {
        content.first = Some(Box::new(move |request| {
            if request.path == "/identity/v3/auth/tokens" {
                let asked: Value = serde_json::from_slice(&request.body).unwrap();
                let user = &asked["auth"]["identity"]["password"]["user"];
                if request.method != "POST" || user["password"] != "secret" {
                    return Some(Reply::of(
                        401,
                        r#"{"error": {"message": "wrong password"}}"#,
                    ));
                }
                given += 1;
                let reply = Reply::of(201, "{}");
                return Some(reply.with("X-Subject-Token", &format!("token-{given}")));
            }
            // The first token expires before the data are asked for.
            let token = request.header("x-auth-token").unwrap_or_default();
            let old = token == "token-1" && request.path.contains("/delta");
            (old || !token.starts_with("token-")).then_some(Reply::of(401, "expired"))
        }));
    });
    let url = service.url("identity");
    let with = |password: &str| {
        let mut command = over(pull(&service, NEW, &scene.disk()), &base);
        command.envs([
            ("OS_AUTH_URL", &*url),
            ("OS_USERNAME", "ann"),
            ("OS_PASSWORD", password),
            ("OS_PROJECT_NAME", "web"),
        ]);
        command
    };
    let ran = refused(&scene, &base, with("guess"), 1, &["401", "wrong password"]);
    assert!(!ran.err.contains("guess"));
    Ran::of(&mut with("secret")).expect_code(0);
    assert_same(scene.disk(), &scene.new);
}

#[test]
fn what_is_no_url_is_refused() {
    let (scene, base) = scene();
    let service = scene.service(true);
    for url in [
        "images",
        "ftp://host/x",
        "http://host",
        "http://host/v2/images/..",
    ] {
        let mut command = over(pull(&service, NEW, &scene.disk()), &base);
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        command = crate::support::program();
        command.arg("pull").arg(url).args(&arguments[2..]);
        refused(&scene, &base, command, 1, &[url]).hints("http://HOST:9292/IMAGE");
    }
}

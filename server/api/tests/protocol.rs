//! What holds for every request: versions, methods, errors, ids, bodies, limits of time and size, and the end of the server.

mod support;

use serde_json::json;
use std::time::Duration;
use support::{Server, Setup};
use tegula_api::{Cors, Settings};

#[test]
fn versions_are_choices_for_everybody() {
    let server = Server::start(Setup::default());
    for (target, expected) in [
        ("/", 300),
        ("/versions", 200),
        ("/versions/", 200),
        ("/v1/images", 300),
        ("/v2.99/images", 300),
        ("/nothing", 300),
    ] {
        let response = server.get("", target);
        assert_eq!(response.status, expected, "{target}");
        let versions = response.json();
        assert_eq!(
            versions["versions"][0]["links"][0]["href"],
            "http://images.example/v2/"
        );
    }
    assert_eq!(server.get("", "/v2").status, 401);
    let moved = server.get("blue", "/v2");
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("http://images.example/v2/"))
    );
    assert_eq!(server.get("blue", "/v2/").status, 404);
    for target in ["/v2.0/images", "/v2.18/images", "/v2/images"] {
        assert_eq!(server.get("blue", target).status, 200, "{target}");
    }
    let accept = "Accept: application/vnd.openstack.images-v2.7";
    assert_eq!(
        server.send("blue", "GET", "/images", &[accept], b"").status,
        200
    );
}

#[test]
fn callers_are_known_by_their_token_or_told_where_to_get_one() {
    let server = Server::start(Setup::default());
    for user in ["", "nobody"] {
        let refused = server.get(user, "/v2/images");
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").is_some());
        assert_eq!(server.get(user, "/v2/nothing").status, 401);
    }
    for open in ["/healthcheck", "/openapi.json", "/metrics", "/"] {
        assert_ne!(server.get("", open).status, 401, "{open}");
    }
    assert_eq!(server.get("", "/healthcheck").text(), "OK");
}

#[test]
fn methods_and_paths_that_do_not_exist_are_told_apart() {
    let server = Server::start(Setup::default());
    for (method, target, status, allow) in [
        ("HEAD", "/v2/images", 405, Some("GET, POST")),
        ("BREW", "/v2/images", 405, Some("GET, POST")),
        ("POST", "/v2/images/x", 405, Some("GET, PATCH, DELETE")),
        ("GET", "/v2/nothing", 404, None),
        ("BREW", "/v2/nothing", 501, None),
        ("POST", "/versions", 405, Some("GET")),
        ("GET", "/v2/images/", 404, None),
        ("DELETE", "/v2/images/", 404, None),
    ] {
        let response = server.send("blue", method, target, &[], b"");
        assert_eq!(
            (response.status, response.header("allow")),
            (status, allow),
            "{method} {target}"
        );
    }
}

#[test]
fn errors_come_in_the_form_that_was_asked_for() {
    let server = Server::start(Setup::default());
    for (accept, kind) in [
        ("Accept: application/json", "application/json"),
        ("Accept: */*", "text/html; charset=UTF-8"),
        ("Accept: text/plain", "text/plain; charset=UTF-8"),
    ] {
        let response = server.send("blue", "GET", "/v2/images/%3Cx%3E", &[accept], b"");
        assert_eq!(
            (response.status, response.header("content-type")),
            (404, Some(kind))
        );
        assert_eq!(
            response.text().contains("<x>"),
            kind != "text/html; charset=UTF-8"
        );
    }
    let error = server
        .send(
            "blue",
            "GET",
            "/v2/images/x",
            &["Accept: application/json"],
            b"",
        )
        .json();
    assert_eq!(
        (&error["code"], &error["title"]),
        (&json!("404 Not Found"), &json!("Not Found"))
    );
}

#[test]
fn every_answer_has_an_id_and_is_logged_under_it() {
    let server = Server::start(Setup::default());
    let id = |headers: &[&str]| {
        let response = server.send("blue", "GET", "/v2/images?x=1", headers, b"");
        (
            response.status,
            response
                .header("x-openstack-request-id")
                .unwrap()
                .to_owned(),
        )
    };
    assert_eq!(
        id(&["X-OpenStack-Request-ID: req-mine"]),
        (200, "req-mine".to_owned())
    );
    let (status, own) = id(&[]);
    assert!(
        status == 200 && own.starts_with("req-") && own.len() == 40,
        "{own}"
    );
    let long = format!("X-OpenStack-Request-ID: {}", "x".repeat(65));
    assert_eq!(id(&[&long]).0, 431);
    let entries = server.logged.wait_for(3);
    let mine = entries
        .iter()
        .find(|entry| entry.request_id == "req-mine")
        .unwrap();
    assert_eq!(
        (mine.operation, mine.target.as_str()),
        (Some("listImages"), "/v2/images?x=1")
    );
    assert_eq!(
        (mine.user.as_deref(), mine.project.as_deref()),
        (Some("blue"), Some("blue"))
    );
    assert!(mine.complete && mine.bytes_sent > 0 && mine.status == 200);
}

#[test]
fn a_body_where_there_is_none_to_be_is_refused() {
    let server = Server::start(Setup::default());
    let image = server.create("blue", json!({}));
    let deactivate = format!("{image}/actions/deactivate");
    let tag = format!("{image}/tags/t");
    for (method, target) in [
        ("GET", "/v2/images"),
        ("GET", &image),
        ("DELETE", &image),
        ("POST", &deactivate),
        ("PUT", &tag),
    ] {
        let response = server.send("blue", method, target, &["Content-Length: 1"], b"x");
        assert_eq!(response.status, 400, "{method} {target}");
    }
    let chunked = ["Transfer-Encoding: chunked"];
    let response = server.send("blue", "PUT", &tag, &chunked, b"0\r\n\r\n");
    assert_eq!(response.status, 400);
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(server.send("blue", "PUT", &tag, &[], b"").status, 204);
}

#[test]
fn json_that_is_none_or_too_much_is_refused() {
    let server = Server::start(Setup::default());
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let big = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
    for (body, expected) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("1", 400),
        ("null", 400),
        (r#"{"name":"a","name":"b"}"#, 400),
        (deep.as_str(), 400),
        (big.as_str(), 413),
    ] {
        let response = server.send("blue", "POST", "/v2/images", &[], body.as_bytes());
        let shown: String = body.chars().take(30).collect();
        assert_eq!(response.status, expected, "{shown}");
    }
    assert_eq!(server.get("blue", "/v2/images").json()["images"], json!([]));
}

#[test]
fn pages_of_other_origins_may_call_if_they_are_named() {
    let cors = Cors {
        allowed_origins: vec!["https://dashboard".to_owned()],
        ..Cors::default()
    };
    let settings = Settings {
        cors,
        ..Settings::default()
    };
    let server = Server::start(Setup {
        settings,
        ..Setup::default()
    });
    let origin = "Origin: https://dashboard";
    let asked = [
        origin,
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: x-auth-token",
    ];
    let preflight = server.send("", "OPTIONS", "/v2/images/x/file", &asked, b"");
    assert_eq!((preflight.status, preflight.body.len()), (200, 0));
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        Some("https://dashboard")
    );
    let answer = server.send("blue", "GET", "/v2/images", &[origin], b"");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://dashboard")
    );
    let other = server.send("blue", "GET", "/v2/images", &["Origin: https://evil"], b"");
    assert_eq!(
        (other.status, other.header("access-control-allow-origin")),
        (200, None)
    );
}

#[test]
fn a_connection_is_used_again_and_again() {
    let server = Server::start(Setup::default());
    let mut connection = server.connect();
    let request = "GET /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: blue\r\n\r\n";
    for _ in 0..3 {
        connection.write(request.as_bytes());
        assert_eq!(connection.response().status, 200);
    }
    connection.write(request.repeat(100).as_bytes());
    for _ in 0..100 {
        assert_eq!(connection.response().status, 200);
    }
}

#[test]
fn who_sends_nothing_or_too_slowly_is_cut_off() {
    let settings = Settings {
        head_timeout: Duration::from_millis(300),
        json_timeout: Duration::from_millis(300),
        ..Settings::default()
    };
    let server = Server::start(Setup {
        settings,
        ..Setup::default()
    });
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    assert!(
        slow.try_response()
            .is_none_or(|response| response.status == 408)
    );
    assert!(silent.closed());
    let mut idle = server.connect();
    idle.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.response().status, 300);
    assert!(idle.closed(), "an idle connection is closed");
    let mut body = server.connect();
    body.write(
        b"POST /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: blue\r\nContent-Length: 10\r\n\r\n{",
    );
    assert_eq!(body.response().status, 408);
}

#[test]
fn heads_that_are_too_much_are_refused() {
    let server = Server::start(Setup::default());
    for head in [
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
            "X-A: b\r\n".repeat(10_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: x\r\nX-A: {}\r\n\r\n",
            "b".repeat(1 << 20)
        ),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "b".repeat(1 << 20)),
    ] {
        let mut connection = server.connect();
        connection.write(head.as_bytes());
        let response = connection.try_response();
        assert!(response.is_none_or(|response| matches!(response.status, 414 | 431)));
    }
    assert_eq!(server.get("", "/").status, 300);
}

#[test]
fn the_end_waits_for_what_is_under_way_and_not_for_who_idles() {
    let mut server = Server::start(Setup::default());
    let mut idle = server.connect();
    idle.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.response().status, 300);
    let mut working = server.connect();
    working.write(
        b"POST /v2/images HTTP/1.1\r\nHost: x\r\nX-Auth-Token: blue\r\nContent-Length: 2\r\n\r\n{",
    );
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    assert!(idle.closed());
    std::thread::sleep(Duration::from_millis(200));
    working.write(b"}");
    assert_eq!(working.response().status, 201);
    assert_eq!(server.stopped().cut_off, 0);
}

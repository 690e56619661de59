//! Images over HTTP: what is known of them, who may know and change it, and their bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails here"
)]

mod support;

use serde_json::{Value, json};
use support::{Server, Setup};

/// Nobody but nurses reads `secret`; everybody may write it, but only nurses change it. `free` is free, nothing else is.
const PROTECTION: &str = "
[^secret]
create = @
read = nurse
update = nurse
delete = nurse
[^fixed]
create = admin
read = @
update = admin
delete = admin
[^free]
create = @
read = @
update = @
delete = @
";

fn protected() -> Server {
    Server::start(Setup {
        protection: Some(PROTECTION),
        ..Setup::default()
    })
}

fn properties(image: &Value) -> Vec<&str> {
    let known = ["secret", "secret2", "fixed", "free"];
    known
        .into_iter()
        .filter(|name| image.get(name).is_some())
        .collect()
}

#[test]
fn a_new_image_has_every_key() {
    let server = Server::start(Setup::default());
    let response = server.post(
        "blue",
        "/v2/images",
        json!({"name": "n", "tags": ["b", "a", "b"], "x": "y"}),
    );
    assert_eq!(response.status, 201);
    let image = response.json();
    let id = image["id"].as_str().unwrap();
    assert_eq!(
        response.header("location"),
        Some(format!("http://images.example/v2/images/{id}").as_str())
    );
    assert_eq!(response.header("openstack-image-store-ids"), Some("tegula"));
    for (name, expected) in [
        ("status", json!("queued")),
        ("visibility", json!("shared")),
        ("owner", json!("blue")),
        ("checksum", Value::Null),
        ("os_hash_algo", Value::Null),
        ("os_hash_value", Value::Null),
        ("size", Value::Null),
        ("virtual_size", Value::Null),
        ("disk_format", Value::Null),
        ("container_format", Value::Null),
        ("min_ram", json!(0)),
        ("min_disk", json!(0)),
        ("protected", json!(false)),
        ("os_hidden", json!(false)),
        ("tags", json!(["a", "b"])),
        ("x", json!("y")),
        ("self", json!(format!("/v2/images/{id}"))),
        ("file", json!(format!("/v2/images/{id}/file"))),
        ("schema", json!("/v2/schemas/image")),
    ] {
        assert_eq!(image.get(name), Some(&expected), "{name}");
    }
    assert_eq!(
        server.get("blue", &format!("/v2/images/{id}")).json(),
        image
    );
}

#[test]
fn an_id_is_used_once_whatever_its_case() {
    let server = Server::start(Setup::default());
    let id = "0123ABCD-0000-4000-8000-000000000001";
    let image = server.create("blue", json!({ "id": id }));
    assert_eq!(image, format!("/v2/images/{id}"));
    for other in [id, &id.to_lowercase()] {
        assert_eq!(
            server
                .post("red", "/v2/images", json!({ "id": other }))
                .status,
            409,
            "{other}"
        );
    }
    assert_eq!(server.delete("blue", &image).status, 204);
    assert_eq!(server.delete("blue", &image).status, 404);
    assert_eq!(
        server
            .post("blue", "/v2/images", json!({ "id": id }))
            .status,
        409
    );
}

#[test]
fn what_may_not_be_known_is_not_there_and_what_may_not_be_done_is_forbidden() {
    let server = Server::start(Setup::default());
    let private = server.create("blue", json!({"visibility": "private"}));
    let community = server.create("blue", json!({"visibility": "community"}));
    let name = json!([{"op": "replace", "path": "/name", "value": "x"}]);
    for (user, image, show, change) in [
        ("blue", &private, 200, 200),
        ("blue-reader", &private, 200, 403),
        ("red", &private, 404, 404),
        ("admin", &private, 200, 200),
        ("red", &community, 200, 403),
    ] {
        assert_eq!(server.get(user, image).status, show, "{user} {image}");
        assert_eq!(
            server.patch(user, image, name.clone()).status,
            change,
            "{user} {image}"
        );
        let tagged = server
            .send(user, "PUT", &format!("{image}/tags/t"), &[], b"")
            .status;
        assert_eq!(
            tagged,
            if change == 200 { 204 } else { change },
            "{user} {image}"
        );
    }
    assert_eq!(
        server.post("blue-reader", "/v2/images", json!({})).status,
        403
    );
    assert_eq!(
        server
            .post("blue", "/v2/images", json!({"owner": "red"}))
            .status,
        403
    );
    assert_eq!(
        server
            .post("blue", "/v2/images", json!({"visibility": "public"}))
            .status,
        403
    );
    assert_eq!(server.delete("red", &community).status, 403);
    assert_eq!(server.delete("red", &private).status, 404);
}

#[test]
fn changes_are_all_made_or_none() {
    let server = Server::start(Setup::default());
    let image = server.create("blue", json!({"a": "1"}));
    let changes = json!([
        {"op": "replace", "path": "/a", "value": "2"},
        {"op": "replace", "path": "/absent", "value": "2"},
    ]);
    assert_eq!(server.patch("blue", &image, changes).status, 409);
    let give_away = json!([{"op": "replace", "path": "/a", "value": "2"}, {"op": "add", "path": "/owner", "value": "red"}]);
    assert_eq!(server.patch("blue", &image, give_away).status, 403);
    let shown = server.get("blue", &image).json();
    assert_eq!(
        (&shown["a"], &shown["owner"]),
        (&json!("1"), &json!("blue"))
    );
    assert_eq!(server.patch("blue", &image, json!([])).json(), shown);
    assert_eq!(server.patch("blue-reader", &image, json!([])).status, 403);
    let kind = "Content-Type: application/openstack-images-v2.0-json-patch";
    let old = json!([{"replace": "/a", "value": "3"}, {"add": "/b:c.d", "value": "4"}]).to_string();
    assert_eq!(
        server
            .send("blue", "PATCH", &image, &[kind], old.as_bytes())
            .json()["b:c.d"],
        "4"
    );
    assert_eq!(
        server
            .send("blue", "PATCH", &image, &[kind], old.as_bytes())
            .status,
        409
    );
    let wrong = server.send(
        "blue",
        "PATCH",
        &image,
        &["Content-Type: application/json"],
        b"[]",
    );
    assert_eq!(wrong.status, 415);
    assert!(
        wrong
            .header("accept-patch")
            .unwrap()
            .contains("v2.0-json-patch")
    );
}

#[test]
fn hidden_properties_survive_what_their_readers_do_not_see() {
    let server = protected();
    let image = server.create("blue", json!({"secret": "1", "free": "2"}));
    let change = json!([{"op": "add", "path": "/free", "value": "3"}]);
    assert_eq!(
        properties(&server.patch("blue", &image, change).json()),
        ["free"]
    );
    assert_eq!(
        server
            .send("blue", "PUT", &format!("{image}/tags/t"), &[], b"")
            .status,
        204
    );
    let shown = server.get("nurse", &image).json();
    assert_eq!(
        (&shown["secret"], &shown["free"]),
        (&json!("1"), &json!("3"))
    );
    let listed = server.get("blue", "/v2/images").json();
    assert_eq!(properties(&listed["images"][0]), ["free"]);
}

#[test]
fn no_question_tells_the_value_of_a_hidden_property() {
    let server = protected();
    server.create("blue", json!({"secret": "1"}));
    let count = |user: &str, query: &str| {
        let listed = server.get(user, &format!("/v2/images?{query}")).json();
        listed["images"].as_array().unwrap().len()
    };
    assert_eq!(
        (count("nurse", "secret=1"), count("nurse", "secret=2")),
        (1, 0)
    );
    assert_eq!(
        (count("blue", "secret=1"), count("blue", "secret=2")),
        (0, 0)
    );
    assert_eq!(server.get("blue", "/v2/images?sort_key=secret").status, 400);
}

#[test]
fn each_right_to_a_property_is_asked_for_in_both_forms_of_changes() {
    let server = protected();
    let image = server.create(
        "admin",
        json!({"owner": "blue", "fixed": "1", "secret": "1"}),
    );
    let status = |user: &str, operation: &str, name: &str| {
        let new = json!([{"op": operation, "path": format!("/{name}"), "value": "2"}]);
        let old = json!([{operation: format!("/{name}"), "value": "2"}]).to_string();
        let kind = "Content-Type: application/openstack-images-v2.0-json-patch";
        let old = server
            .send(user, "PATCH", &image, &[kind], old.as_bytes())
            .status;
        let new = server.patch(user, &image, new).status;
        (new, old)
    };
    for (operation, name, expected) in [
        ("replace", "fixed", (403, 403)),
        ("remove", "fixed", (403, 403)),
        ("add", "fixed", (403, 409)),
        ("add", "fixed2", (403, 403)),
        ("replace", "secret", (409, 409)),
        ("remove", "secret", (409, 409)),
        ("add", "secret", (403, 403)),
        ("add", "unknown", (403, 403)),
        ("replace", "unknown", (409, 409)),
        ("add", "Secret", (403, 403)),
        ("add", "os_glance_x", (403, 403)),
    ] {
        assert_eq!(
            status("blue", operation, name),
            expected,
            "{operation} {name}"
        );
    }
    assert_eq!(
        server
            .post("blue", "/v2/images", json!({"fixed": "1"}))
            .status,
        403
    );
    assert_eq!(server.get("nurse", &image).json()["secret"], "1");
}

#[test]
fn members_see_themselves_and_decide_for_themselves() {
    let server = Server::start(Setup::default());
    let image = server.create("blue", json!({}));
    let members = format!("{image}/members");
    assert_eq!(server.get("red", &image).status, 404);
    let added = server.post("blue", &members, json!({"member": "red"}));
    assert_eq!(
        (added.status, &added.json()["status"]),
        (200, &json!("pending"))
    );
    assert_eq!(
        server
            .post("blue", &members, json!({"member": "red"}))
            .status,
        409
    );
    assert_eq!(server.post("blue", &members, json!({})).status, 400);
    assert_eq!(
        server
            .post("blue", &members, json!({"member": "green"}))
            .status,
        200
    );
    assert_eq!(server.get("red", &image).status, 200);
    let seen = |user: &str| {
        server.get(user, &members).json()["members"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((seen("blue"), seen("red")), (2, 1));
    let red = format!("{members}/red");
    assert_eq!(
        server
            .put("blue", &red, json!({"status": "accepted"}))
            .status,
        403
    );
    assert_eq!(
        server.put("red", &red, json!({"status": "maybe"})).status,
        400
    );
    let listed = |query: &str| {
        server.get("red", &format!("/v2/images{query}")).json()["images"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(
        (
            listed(""),
            listed("?visibility=shared&member_status=pending")
        ),
        (0, 1)
    );
    assert_eq!(
        server
            .put("red", &red, json!({"status": "accepted"}))
            .json()["status"],
        "accepted"
    );
    assert_eq!(listed(""), 1);
    assert_eq!(server.get("red", &format!("{members}/green")).status, 404);
    assert_eq!(
        server
            .put(
                "red",
                &format!("{members}/green"),
                json!({"status": "accepted"})
            )
            .status,
        404
    );
    assert_eq!(
        server.post("red", &members, json!({"member": "x"})).status,
        403
    );
    assert_eq!(server.delete("red", &red).status, 403);
    assert_eq!(server.delete("blue", &red).status, 204);
    assert_eq!(server.get("red", &image).status, 404);
    let private = json!([{"op": "replace", "path": "/visibility", "value": "private"}]);
    assert_eq!(server.patch("blue", &image, private).status, 200);
    assert_eq!(server.get("blue", &members).status, 403);
    assert_eq!(server.get("blue", &format!("{members}/green")).status, 404);
}

#[test]
fn pages_follow_each_other_to_the_end() {
    let server = Server::start(Setup::default());
    for name in ["a", "b", "c", "d", "e"] {
        server.create("blue", json!({"name": name, "tags": ["x", "y"]}));
    }
    let mut names = Vec::new();
    let mut next = Some("/v2/images?limit=2&sort=name:asc&tag=x&tag=y".to_owned());
    let mut pages = 0;
    while let Some(target) = next {
        let page = server.get("blue", &target).json();
        for image in page["images"].as_array().unwrap() {
            names.push(image["name"].as_str().unwrap().to_owned());
        }
        assert_eq!(
            page["first"],
            "/v2/images?limit=2&sort=name:asc&tag=x&tag=y"
        );
        next = page["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    assert_eq!((names.concat().as_str(), pages), ("abcde", 3));
    assert_eq!(
        server
            .get(
                "blue",
                "/v2/images?marker=01234567-0000-4000-8000-000000000000"
            )
            .status,
        400
    );
}

#[test]
fn bytes_come_back_as_they_were_sent() {
    let server = Server::start(Setup::default());
    let image = server.create(
        "blue",
        json!({"disk_format": "raw", "container_format": "bare"}),
    );
    let id = image.rsplit('/').next().unwrap();
    let file = format!("{image}/file");
    let queued = server.get("blue", &file);
    assert_eq!((queued.status, queued.body.len()), (204, 0));
    assert_eq!(
        server
            .send("blue", "GET", &file, &["Range: bytes=0-1"], b"")
            .status,
        204
    );
    let bytes: Vec<u8> = (0..300_000u32)
        .flat_map(|n| (n % 70_001).to_le_bytes())
        .chain([0; 200_000])
        .collect();
    assert_eq!(
        server
            .send("blue", "PUT", &file, &["Content-Type: text/plain"], &bytes)
            .status,
        415
    );
    assert_eq!(server.upload("red", id, &bytes).status, 404);
    assert_eq!(server.upload("blue-reader", id, &bytes).status, 403);
    let short = [
        "Content-Type: application/octet-stream",
        "X-OpenStack-Image-Size: 5",
    ];
    assert_eq!(
        server.send("blue", "PUT", &file, &short, b"1234").status,
        400
    );
    assert_eq!(server.get("blue", &image).json()["status"], "queued");
    assert_eq!(server.upload("blue", id, &bytes).status, 204);
    assert_eq!(server.upload("blue", id, &bytes).status, 409);
    let shown = server.get("blue", &image).json();
    assert_eq!(
        (&shown["status"], &shown["size"]),
        (&json!("active"), &json!(bytes.len()))
    );
    assert_eq!(
        (&shown["stores"], &shown["os_hash_algo"]),
        (&json!("tegula"), &json!("sha512"))
    );
    let whole = server.get("blue", &file);
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    assert_eq!(whole.header("content-md5"), shown["checksum"].as_str());
    assert_eq!(
        whole.header("content-type"),
        Some("application/octet-stream")
    );
    for (range, expected) in [
        ("0-0", 0..1),
        ("100000-299999", 100_000..300_000),
        ("-5", bytes.len() - 5..bytes.len()),
    ] {
        let part = server.send(
            "blue",
            "GET",
            &file,
            &[&format!("Range: bytes={range}")],
            b"",
        );
        assert_eq!(
            (part.status, part.body == bytes[expected.clone()]),
            (206, true),
            "{range}"
        );
        let content_range = format!(
            "bytes {}-{}/{}",
            expected.start,
            expected.end - 1,
            bytes.len()
        );
        assert_eq!(part.header("content-range"), Some(content_range.as_str()));
    }
    let beyond = format!("Range: bytes={}-", bytes.len());
    assert_eq!(
        server.send("blue", "GET", &file, &[&beyond], b"").status,
        416
    );
    assert_eq!(
        server
            .send("blue", "GET", &file, &["Range: bytes=0-1,3-4"], b"")
            .status,
        400
    );
    assert_eq!(server.get("blue-reader", &file).status, 403);
    assert_eq!(
        server.get("blue", &format!("{file}?prefer=tegula")).status,
        200
    );
    assert_eq!(
        server.get("blue", &format!("{file}?prefer=other")).status,
        400
    );
}

#[test]
fn chunked_bytes_and_empty_ones_are_images_too() {
    let server = Server::start(Setup::default());
    for (body, expected) in [
        (&b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"[..], &b"abcde"[..]),
        (b"0\r\n\r\n", b""),
    ] {
        let image = server.create(
            "blue",
            json!({"disk_format": "raw", "container_format": "bare"}),
        );
        let headers = [
            "Content-Type: application/octet-stream",
            "Transfer-Encoding: chunked",
        ];
        assert_eq!(
            server
                .send("blue", "PUT", &format!("{image}/file"), &headers, body)
                .status,
            204
        );
        let got = server.get("blue", &format!("{image}/file"));
        assert_eq!((got.status, got.body.as_slice()), (200, expected));
        assert_eq!(
            got.header("content-length"),
            Some(expected.len().to_string().as_str())
        );
    }
}

#[test]
fn an_upload_that_breaks_off_leaves_the_image_queued() {
    let server = Server::start(Setup::default());
    let image = server.create(
        "blue",
        json!({"disk_format": "raw", "container_format": "bare"}),
    );
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut connection = server.connect();
        let head = format!(
            "PUT {image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: blue\r\nContent-Type: application/octet-stream\r\n{framing}\r\n\r\n"
        );
        connection.write(head.as_bytes());
        connection.write(b"3\r\nabc\r\n");
        wait_for(&server, &image, "saving");
        drop(connection);
        wait_for(&server, &image, "queued");
    }
    let id = image.rsplit('/').next().unwrap();
    assert_eq!(server.upload("blue", id, b"whole").status, 204);
}

#[test]
fn a_refused_upload_is_answered_though_it_goes_on() {
    let server = Server::start(Setup::default());
    let image = server.create("blue", json!({}));
    let mut connection = server.connect();
    let head = format!(
        "PUT {image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: blue\r\nContent-Type: application/octet-stream\r\nContent-Length: 50000000\r\n\r\n"
    );
    connection.write(head.as_bytes());
    connection.write(&vec![1; 50_000_000]);
    assert_eq!(
        connection.response().status,
        400,
        "the image has no formats"
    );
}

#[test]
fn withdrawn_bytes_are_for_administrators() {
    let server = Server::start(Setup::default());
    let image = server.create(
        "blue",
        json!({"disk_format": "raw", "container_format": "bare"}),
    );
    let action = |user: &str, name: &str| {
        server
            .send(user, "POST", &format!("{image}/actions/{name}"), &[], b"")
            .status
    };
    assert_eq!(action("blue", "deactivate"), 403, "it is queued");
    assert_eq!(
        server
            .upload("blue", image.rsplit('/').next().unwrap(), b"x")
            .status,
        204
    );
    assert_eq!(
        (action("blue", "deactivate"), action("blue", "deactivate")),
        (204, 204)
    );
    let file = format!("{image}/file");
    assert_eq!(
        (
            server.get("blue", &file).status,
            server.get("admin", &file).status
        ),
        (403, 200)
    );
    assert_eq!(action("blue-reader", "reactivate"), 403);
    assert_eq!(
        (
            action("blue", "reactivate"),
            server.get("blue", &file).status
        ),
        (204, 200)
    );
}

#[test]
fn what_the_server_has_is_told_as_it_is() {
    let server = Server::start(Setup::default());
    assert_eq!(
        server.get("blue", "/v2/info/import").json()["import-methods"]["value"],
        json!([])
    );
    let stores = json!({"stores": [{"id": "tegula", "default": "true"}]});
    assert_eq!(server.get("blue", "/v2/info/stores").json(), stores);
    assert_eq!(server.get("blue", "/v2/info/stores/detail").status, 403);
    assert_eq!(server.get("admin", "/v2/info/stores/detail").status, 200);
    assert_eq!(
        server.get("blue", "/v2/info/usage").json(),
        json!({"usage": {}})
    );
    for name in ["image", "images", "member", "members"] {
        assert_eq!(
            server.get("blue", &format!("/v2/schemas/{name}")).json()["name"],
            name
        );
    }
}

/// Waits until the image is in that state.
fn wait_for(server: &Server, image: &str, status: &str) {
    for _ in 0..2000 {
        if server.get("blue", image).json()["status"] == status {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the image is not {status} after 10 s");
}

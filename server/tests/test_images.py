"""Images are made, shown, changed and deleted."""

import re
import time
import uuid

import pytest
from support.http import PATCH_V20, PATCH_V21
from support.images import Case, Images, cases

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


# --- Making them ------------------------------------------------------------------------------------------------------


def test_an_image_of_nothing_has_every_key(alice):
    response = alice.post("/v2/images", {}).expect(201)
    image = response.json()
    image_id = image["id"]
    assert str(uuid.UUID(image_id)) == image_id
    assert TIME.fullmatch(image.pop("created_at")) and TIME.fullmatch(image.pop("updated_at"))
    assert image == {
        "id": image_id,
        "name": None,
        "status": "queued",
        "visibility": "shared",
        "protected": False,
        "os_hidden": False,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "owner": "alpha",
        "size": None,
        "virtual_size": None,
        "disk_format": None,
        "container_format": None,
        "min_ram": 0,
        "min_disk": 0,
        "tags": [],
        "self": f"/v2/images/{image_id}",
        "file": f"/v2/images/{image_id}/file",
        "schema": "/v2/schemas/image",
    }
    location = f"http://127.0.0.1:{alice.port}/v2/images/{image_id}"
    assert response.headers["Location"] == location
    methods = alice.get("/v2/info/import").json()["import-methods"]["value"]
    assert response.headers.get("OpenStack-image-import-methods", "") == ",".join(methods)
    assert response.headers["OpenStack-image-store-ids"]


def test_an_image_keeps_what_its_maker_said(alice):
    image_id = str(uuid.uuid4())
    said = {
        "id": image_id,
        "name": "Überbild \N{SNOWMAN}",
        "visibility": "private",
        "protected": True,
        "os_hidden": True,
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_ram": 2**31 - 1,
        "min_disk": 7,
        "kernel_id": str(uuid.uuid4()),
        "os_distro": "debian",
        "hw_disk_bus": "virtio",
        "trait:CUSTOM": "required",
        "with/slash~tilde": "",
        "owner": "alpha",
    }
    alice.post("/v2/images", said | {"tags": ["b", "a", "b"]}).expect(201)
    image = alice.show(image_id)
    assert {name: image[name] for name in said} == said
    assert sorted(image["tags"]) == ["a", "b"]
    listed = alice.list(f"os_hidden=true&id={image_id}")
    assert listed == [image]


def test_an_id_keeps_its_case_and_is_never_used_again(alice, carol):
    image_id = str(uuid.uuid4()).upper()
    assert alice.create(id=image_id)["id"] == image_id
    assert alice.show(image_id)["self"] == f"/v2/images/{image_id}"
    alice.post("/v2/images", {"id": image_id}).expect(409)
    carol.post("/v2/images", {"id": image_id}).expect(409)
    alice.delete(f"/v2/images/{image_id}").expect(204)
    alice.post("/v2/images", {"id": image_id}).expect(409)
    carol.post("/v2/images", {"id": image_id}).expect(409)


def create(title, fields, status, who="alice"):
    return Case(title, who, "POST", "/v2/images", status, json_body=fields)


CREATE = [
    create("a property that is a number", {"x": 1}, 400),
    create("a property that is null", {"x": None}, 400),
    create("a property that is true", {"x": True}, 400),
    create("a property that is a list", {"x": ["y"]}, 400),
    create("a property that is an object", {"x": {"y": "z"}}, 400),
    create("a name that is a number", {"name": 1}, 400),
    create("a name of 255", {"name": "x" * 255}, 201),
    create("a name of 256", {"name": "x" * 256}, 400),
    create("a name of null", {"name": None}, 201),
    create("a tag of 255", {"tags": ["x" * 255]}, 201),
    create("a tag of 256", {"tags": ["x" * 256]}, 400),
    create("tags that are a text", {"tags": "x"}, 400),
    create("a tag that is a number", {"tags": [1]}, 400),
    create("a disk format of nobody", {"disk_format": "floppy"}, 400),
    create("a disk format of another case", {"disk_format": "RAW"}, 400),
    create("a container format of nobody", {"container_format": "crate"}, 400),
    create("a visibility of nobody", {"visibility": "secret"}, 400),
    create("a visibility of null", {"visibility": None}, 400),
    create("protected as a text", {"protected": "true"}, 400),
    create("os_hidden as a text", {"os_hidden": "true"}, 400),
    create("an id that is no UUID", {"id": "x"}, 400),
    create("an id without hyphens", {"id": "0123456789abcdef0123456789abcdef"}, 400),
    create("an id that is a number", {"id": 1}, 400),
    create("a kernel that is no UUID", {"kernel_id": "x"}, 400),
    create("a ramdisk that is no UUID", {"ramdisk_id": "x"}, 400),
    create("a kernel of null", {"kernel_id": None}, 201),
    create("min_ram below 0", {"min_ram": -1}, 400),
    create("min_disk below 0", {"min_disk": -1}, 400),
    create("min_ram of 2^31", {"min_ram": 2**31}, 400),
    create("min_disk of 2^31", {"min_disk": 2**31}, 400),
    create("min_ram of 2^64", {"min_ram": 2**64}, 400),
    create("min_disk as a text", {"min_disk": "1"}, 400),
    create("min_disk as a fraction", {"min_disk": 1.5}, 400),
    create("a property name of 255", {"x" * 255: "y"}, 201),
    create("a property name of 256", {"x" * 256: "y"}, 400),
    create("a property without a name", {"": "y"}, 400),
    create("128 properties", {f"p{n}": "" for n in range(128)}, 201),
    create("129 properties", {f"p{n}": "" for n in range(129)}, 413),
    create("128 tags", {"tags": [str(n) for n in range(128)]}, 201),
    create("129 tags", {"tags": [str(n) for n in range(129)]}, 413),
    create("owner null", {"owner": None}, 403),
    create("owner another project", {"owner": "gamma"}, 403),
    create("owner another project, by an operator", {"owner": "gamma"}, 201, who="admin"),
    create("owner null, by an operator", {"owner": None}, 201, who="admin"),
    create("public", {"visibility": "public"}, 403),
    create("public, by an operator", {"visibility": "public"}, 201, who="admin"),
    create("community", {"visibility": "community"}, 201),
    create("private", {"visibility": "private"}, 201),
    create("by a reader", {}, 403, who="alan"),
    create("by someone without a role", {}, 403, who="anna"),
    create("by a service", {}, 403, who="service"),
    create("by nobody", {}, 401, who=None),
    create("a digest, which is ignored", {"os_hash_algo": "sha512", "os_hash_value": "00"}, 201),
] + [
    create(f"{name}, which is not the caller's to say", {name: value}, 403)
    for name, value in {
        "status": "active",
        "size": 1,
        "virtual_size": 1,
        "checksum": "0" * 32,
        "created_at": "2020-01-01T00:00:00Z",
        "updated_at": "2020-01-01T00:00:00Z",
        "direct_url": "file:///etc/passwd",
        "self": "/v2/images/x",
        "file": "/etc/passwd",
        "stores": "native",
        "schema": "x",
        "location": "file:///etc/passwd",
        "locations": [{"url": "file:///etc/passwd", "metadata": {}}],
        "deleted": True,
        "deleted_at": "2020-01-01T00:00:00Z",
        "os_glance_import_task": "x",
        "os_glance": "x",
    }.items()
]


@pytest.mark.parametrize(**cases(CREATE))
def test_what_may_be_said_of_a_new_image(server, case):
    response, _ = case.run(server)
    if response.status == 201:
        image = response.json()
        assert image["os_hash_algo"] is None and image["os_hash_value"] is None
        shown = server.client("admin").show(image["id"])
        for either in (image, shown):
            either["tags"].sort()
        assert shown == image


def test_a_text_beyond_the_basic_plane_is_kept_or_refused(alice):
    text = "\N{GRINNING FACE}"
    for fields in [{"name": text}, {"tags": [text]}, {text: "x"}, {"x": text}]:
        response = alice.post("/v2/images", fields).expect(201, 400)
        if response.status == 201:
            image = alice.show(response.json()["id"])
            assert {name: image[name] for name in fields} == fields


# --- Deleting them ----------------------------------------------------------------------------------------------------


def delete(title, path, status, who="alice"):
    return Case(title, who, "DELETE", path, status)


DELETE = [
    delete("queued", "/v2/images/{queued}", 204),
    delete("active", "/v2/images/{active}", 204),
    delete("deleted already", "/v2/images/{deleted}", 404),
    delete("absent", "/v2/images/{absent}", 404),
    delete("protected", "/v2/images/{protected}", 403),
    delete("protected, by an operator", "/v2/images/{protected}", 403, who="admin"),
    delete("another's that cannot be seen", "/v2/images/{foreign}", 404),
    delete("another's that can be seen", "/v2/images/{public}", 403, who="carol"),
    delete("by an operator", "/v2/images/{private}", 204, who="admin"),
    delete("by a reader", "/v2/images/{active}", 403, who="alan"),
    delete("by a member", "/v2/images/{shared}", 403, who="bob"),
    delete("an empty id", "/v2/images/", 404),
]


@pytest.mark.parametrize(**cases(DELETE))
def test_who_may_delete_what(server, case):
    response, images = case.run(server)
    admin = server.client("admin")
    if response.status == 204:
        image_id = case.path.format_map(images).rsplit("/", 1)[1]
        assert response.body == b""
        for path in ["", "/file", "/members"]:
            admin.get(f"/v2/images/{image_id}{path}").expect(404)
        assert admin.list(f"id={image_id}") == []


# --- Changing them ----------------------------------------------------------------------------------------------------


def patch(title, operations, status, *, path="/v2/images/{queued}", who="alice", media_type=PATCH_V21, before=None):
    import json

    body = operations if isinstance(operations, bytes) else json.dumps(operations).encode()
    headers = {"Content-Type": media_type}
    return Case(title, who, "PATCH", path, status, body=body, headers=headers, before=before)


def add(path, value="v"):
    return {"op": "add", "path": path, "value": value}


def replace(path, value="v"):
    return {"op": "replace", "path": path, "value": value}


def remove(path):
    return {"op": "remove", "path": path}


def with_property(images):
    images.alice.patch(f"/v2/images/{images['queued']}", [add("/x", "old")]).expect(200)


READ_ONLY = ["created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file"]
READ_ONLY += ["schema", "id", "os_hash_algo", "os_hash_value", "location", "deleted", "deleted_at", "os_glance_x", "os_glance"]
BASE = ["name", "visibility", "protected", "os_hidden", "owner", "disk_format", "container_format", "min_ram", "min_disk"]

PATCH = [
    patch("nothing", [], 200),
    patch("a new property", [add("/x")], 200),
    patch("a property over another", [add("/x")], 200, before=with_property),
    patch("a property replaced", [replace("/x")], 200, before=with_property),
    patch("a property removed", [remove("/x")], 200, before=with_property),
    patch("an absent property replaced", [replace("/x")], 409),
    patch("an absent property removed", [remove("/x")], 409),
    patch("a property added and removed", [add("/x"), remove("/x")], 200),
    patch("a property removed twice", [remove("/x"), remove("/x")], 409, before=with_property),
    patch("a name", [replace("/name")], 200),
    patch("a name, added", [add("/name")], 200),
    patch("a name of null", [replace("/name", None)], 200),
    patch("a name of 256", [replace("/name", "x" * 256)], 400),
    patch("a name that is a number", [replace("/name", 1)], 400),
    patch("min_ram", [replace("/min_ram", 5)], 200),
    patch("min_ram as a text", [replace("/min_ram", "5")], 400),
    patch("min_ram below 0", [replace("/min_ram", -1)], 400),
    patch("min_disk of 2^31", [replace("/min_disk", 2**31)], 400),
    patch("a property that is a number", [add("/x", 1)], 400),
    patch("a property that is null", [add("/x", None)], 400),
    patch("a property with a long name", [add("/" + "x" * 256)], 400),
    patch("all tags", [replace("/tags", ["a", "b"])], 200),
    patch("no tags", [replace("/tags", [])], 200),
    patch("one tag at the end", [add("/tags/-")], 400),
    patch("129 tags", [replace("/tags", [str(n) for n in range(129)])], 413),
    patch("128 properties", [add(f"/p{n}") for n in range(128)], 200),
    patch("129 properties", [add(f"/p{n}") for n in range(129)], 413),
    patch("a path without its slash", [add("x")], 400),
    patch("a path with a slash at its end", [add("/x/")], 400),
    patch("a path with two slashes", [add("//x")], 400),
    patch("a path of nothing", [add("")], 400),
    patch("a path of a slash", [add("/")], 400),
    patch("a path with half an escape", [add("/x~")], 400),
    patch("a path with another escape", [add("/x~2")], 400),
    patch("a path two deep", [add("/x/y")], 400),
    patch("a path that is a number", [{"op": "add", "path": 1, "value": "v"}], 400),
    patch("no path", [{"op": "add", "value": "v"}], 400),
    patch("no value", [{"op": "add", "path": "/x"}], 400),
    patch("no op", [{"path": "/x", "value": "v"}], 400),
    patch("an op that is a number", [{"op": 1, "path": "/x", "value": "v"}], 400),
    patch("test", [{"op": "test", "path": "/name", "value": None}], 400),
    patch("move", [{"op": "move", "path": "/x", "from": "/name"}], 400),
    patch("copy", [{"op": "copy", "path": "/x", "from": "/name"}], 400),
    patch("an object instead of a list", {"op": "add", "path": "/x", "value": "v"}, 400),
    patch("a list of no objects", ["x"], 400),
    patch("null", b"null", 400),
    patch("no body", b"", 400),
    patch("no JSON", b"[", 400),
    patch("plain JSON", [], 415, media_type="application/json"),
    patch("RFC 6902", [], 415, media_type="application/json-patch+json"),
    patch("no media type", [], 415, media_type=None),
    patch("visibility private", [replace("/visibility", "private")], 200),
    patch("visibility community", [replace("/visibility", "community")], 200),
    patch("visibility public", [replace("/visibility", "public")], 403),
    patch("visibility public, by an operator", [replace("/visibility", "public")], 200, who="admin"),
    patch("visibility of nobody", [replace("/visibility", "secret")], 400),
    patch("owner", [replace("/owner", "gamma")], 403),
    patch("owner, added", [add("/owner", "gamma")], 403),
    patch("owner null", [replace("/owner", None)], 403),
    patch("owner, by an operator", [replace("/owner", "gamma")], 200, who="admin"),
    patch("owner, added by an operator", [add("/owner", "gamma")], 200, who="admin"),
    patch("a format while queued", [replace("/disk_format", "qcow2")], 200),
    patch("a format of nobody", [replace("/disk_format", "floppy")], 400),
    patch("a format once active", [replace("/disk_format", "qcow2")], 403, path="/v2/images/{active}"),
    patch("a container once active", [replace("/container_format", "ovf")], 403, path="/v2/images/{active}"),
    patch("a property once active", [add("/x")], 200, path="/v2/images/{active}"),
    patch("hidden and protected", [replace("/os_hidden", True), replace("/protected", True)], 200),
    patch("hidden as a text", [replace("/os_hidden", "true")], 400),
    patch("locations", [add("/locations/-", {"url": "http://127.0.0.1/", "metadata": {}})], (403, 409)),
    patch("all locations", [replace("/locations", [])], (403, 409)),
    patch("what seems to be a member", [add("/member")], 200),
    patch("what seems to be the properties", [add("/extra_properties")], 200),
    patch("an image of another", [add("/x")], 404, path="/v2/images/{foreign}"),
    patch("an image of another, nothing", [], 404, path="/v2/images/{foreign}"),
    patch("a public image", [add("/x")], 403, path="/v2/images/{public}", who="carol"),
    patch("a shared image", [add("/x")], 403, path="/v2/images/{shared}", who="bob"),
    patch("as a reader", [add("/x")], 403, who="alan"),
    patch("an absent image", [add("/x")], 404, path="/v2/images/{absent}"),
    patch("a deleted image", [add("/x")], 404, path="/v2/images/{deleted}"),
    # The older form.
    patch("v2.0: nothing", [], 200, media_type=PATCH_V20),
    patch("v2.0: a new property", [{"add": "/x", "value": "v"}], 200, media_type=PATCH_V20),
    patch("v2.0: a property over another", [{"add": "/x", "value": "v"}], 409, media_type=PATCH_V20, before=with_property),
    patch("v2.0: a property replaced", [{"replace": "/x", "value": "v"}], 200, media_type=PATCH_V20, before=with_property),
    patch("v2.0: a property removed", [{"remove": "/x"}], 200, media_type=PATCH_V20, before=with_property),
    patch("v2.0: an absent property replaced", [{"replace": "/x", "value": "v"}], 409, media_type=PATCH_V20),
    patch("v2.0: an absent property removed", [{"remove": "/x"}], 409, media_type=PATCH_V20),
    patch("v2.0: two at once", [{"add": "/x", "replace": "/y", "value": "v"}], 400, media_type=PATCH_V20),
    patch("v2.0: none", [{"value": "v"}], 400, media_type=PATCH_V20),
    patch("v2.0: the newer form", [add("/x")], 400, media_type=PATCH_V20),
    patch("v2.1: the older form", [{"add": "/x", "value": "v"}], 400),
    patch("v2.0: no value", [{"add": "/x"}], 400, media_type=PATCH_V20),
    patch("v2.0: a name", [{"replace": "/name", "value": "v"}], 200, media_type=PATCH_V20),
    patch("v2.0: owner", [{"replace": "/owner", "value": "gamma"}], 403, media_type=PATCH_V20),
]
PATCH += [
    patch(f"{op['op']} {name}, which is not the caller's to say", [op], 403)
    for name in READ_ONLY
    for op in [add(f"/{name}"), replace(f"/{name}"), remove(f"/{name}")]
]
PATCH += [patch(f"remove {name}, which every image has", [remove(f"/{name}")], 403) for name in BASE + ["tags"]]


@pytest.mark.parametrize(**cases(PATCH))
def test_what_may_be_changed(server, case):
    before = {}

    def look(images):
        if case.before:
            case.before(images)
        before[""] = images.admin.get(case_path(images))

    def case_path(images):
        return case.path.format_map(images)

    response, images = Case(
        case.title, case.who, case.method, case.path, case.status, before=look, **case.fields
    ).run(server)
    after = images.admin.get(case_path(images))
    if response.status == 200:
        assert response.json() == after.json()
    elif before[""].status == 200:
        assert after.json() == before[""].json(), "it was refused, and yet something changed"
    if response.status == 415:
        assert {kind.strip() for kind in response.headers["Accept-Patch"].split(",")} == {PATCH_V20, PATCH_V21}


def test_a_change_is_made_whole_or_not_at_all(alice):
    image = alice.create(x="1", tags=["a"])
    path = f"/v2/images/{image['id']}"
    good = [replace("/name", "new"), replace("/x", "2"), add("/y", "3"), replace("/tags", ["b"])]
    for bad, status in [(remove("/absent"), 409), (replace("/status", "active"), 403), (add("/z", 1), 400)]:
        for operations in [good + [bad], [bad] + good]:
            alice.patch(path, operations).expect(status)
            assert alice.show(image["id"]) == image
    alice.patch(path, good).expect(200)
    changed = alice.show(image["id"])
    assert (changed["name"], changed["x"], changed["y"], changed["tags"]) == ("new", "2", "3", ["b"])


def test_escapes_in_a_path_stand_for_themselves(alice):
    image = alice.create()
    path = f"/v2/images/{image['id']}"
    names = {"/a~1b": "a/b", "/c~0d": "c~d", "/~01": "~1", "/with space": "with space", "/dots.and:colons": "dots.and:colons"}
    alice.patch(path, [add(pointer, name) for pointer, name in names.items()]).expect(200)
    shown = alice.show(image["id"])
    assert {name: shown[name] for name in names.values()} == {name: name for name in names.values()}
    alice.patch(path, [remove(pointer) for pointer in names]).expect(200)
    assert set(alice.show(image["id"])) == set(image)


def test_the_time_of_the_last_change_follows_every_change(alice):
    image = alice.create()
    path = f"/v2/images/{image['id']}"
    changes = [
        lambda: alice.patch(path, [add("/x")]).expect(200),
        lambda: alice.put(f"{path}/tags/blue").expect(204),
        lambda: alice.delete(f"{path}/tags/blue").expect(204),
    ]
    last = image["updated_at"]
    for change in changes:
        time.sleep(1.05)
        change()
        shown = alice.show(image["id"])
        assert shown["updated_at"] > last
        assert shown["created_at"] == image["created_at"]
        last = shown["updated_at"]


def test_openstacksdk_may_remove_what_is_not_there_to_remove(alice):
    """It sends removals of all it does not know, among them `stores`, when it updates an image from an object."""
    image = alice.create_active()
    response = alice.patch(f"/v2/images/{image['id']}", [remove("/stores")])
    response.expect(200, 403, 409)
    assert alice.show(image["id"])["status"] == "active"


# --- Tags, actions ----------------------------------------------------------------------------------------------------


def tag(title, method, path, status, who="alice", before=None):
    return Case(title, who, method, path, status, before=before)


def with_tag(images):
    images.alice.put(f"/v2/images/{images['queued']}/tags/blue").expect(204)


def with_all_tags(images):
    tags = [str(n) for n in range(128)]
    images.alice.patch(f"/v2/images/{images['queued']}", [replace("/tags", tags)]).expect(200)


TAGS = [
    tag("a new one", "PUT", "/v2/images/{queued}/tags/blue", 204),
    tag("the same again", "PUT", "/v2/images/{queued}/tags/blue", 204, before=with_tag),
    tag("escaped", "PUT", "/v2/images/{queued}/tags/a%20b%C3%A9", 204),
    tag("no UTF-8", "PUT", "/v2/images/{queued}/tags/%FF", 400),
    tag("of 255", "PUT", "/v2/images/{queued}/tags/" + "x" * 255, 204),
    tag("of 256", "PUT", "/v2/images/{queued}/tags/" + "x" * 256, 400),
    tag("the 129th", "PUT", "/v2/images/{queued}/tags/blue", 413, before=with_all_tags),
    tag("the 128th again", "PUT", "/v2/images/{queued}/tags/5", 204, before=with_all_tags),
    tag("taken away", "DELETE", "/v2/images/{queued}/tags/blue", 204, before=with_tag),
    tag("taken away, absent", "DELETE", "/v2/images/{queued}/tags/blue", 404),
    tag("of an absent image", "PUT", "/v2/images/{absent}/tags/blue", 404),
    tag("of another's image", "PUT", "/v2/images/{foreign}/tags/blue", 404),
    tag("of a public image", "PUT", "/v2/images/{public}/tags/blue", 403, who="carol"),
    tag("by a reader", "PUT", "/v2/images/{queued}/tags/blue", 403, who="alan"),
    tag("taken away by a reader", "DELETE", "/v2/images/{queued}/tags/blue", 403, who="alan", before=with_tag),
]


@pytest.mark.parametrize(**cases(TAGS))
def test_tags(server, case):
    response, images = case.run(server)
    if response.status == 204:
        from urllib.parse import unquote

        image_id, tag_name = re.fullmatch("/v2/images/(.*)/tags/(.*)", case.path.format_map(images)).groups()
        assert (unquote(tag_name) in images.admin.show(image_id)["tags"]) == (case.method == "PUT")


def action(title, path, status, who="alice"):
    return Case(title, who, "POST", path, status)


ACTIONS = [
    action("deactivate", "/v2/images/{active}/actions/deactivate", 204),
    action("deactivate again", "/v2/images/{deactivated}/actions/deactivate", 204),
    action("reactivate", "/v2/images/{deactivated}/actions/reactivate", 204),
    action("reactivate an active one", "/v2/images/{active}/actions/reactivate", 204),
    action("deactivate a queued one", "/v2/images/{queued}/actions/deactivate", 403),
    action("reactivate a queued one", "/v2/images/{queued}/actions/reactivate", 403),
    action("deactivate an absent one", "/v2/images/{absent}/actions/deactivate", 404),
    action("deactivate a public one", "/v2/images/{public}/actions/deactivate", 403, who="carol"),
    action("deactivate another's", "/v2/images/{foreign}/actions/deactivate", 404),
    action("deactivate as an operator", "/v2/images/{private}/actions/deactivate", 204, who="admin"),
    action("deactivate as a reader", "/v2/images/{active}/actions/deactivate", 403, who="alan"),
    action("deactivate as a member", "/v2/images/{shared}/actions/deactivate", 403, who="bob"),
]


@pytest.mark.parametrize(**cases(ACTIONS))
def test_actions(server, case):
    response, images = case.run(server)
    if response.status == 204:
        image_id = case.path.split("/actions")[0].format_map(images).rsplit("/", 1)[1]
        status = {"deactivate": "deactivated", "reactivate": "active"}[case.path.rsplit("/", 1)[1]]
        assert images.admin.show(image_id)["status"] == status


def test_a_withdrawn_image_is_only_for_operators(server, alice, admin):
    images = Images(server)
    image_id = images["deactivated"]
    alice.download(image_id).expect(403)
    assert admin.download(image_id).expect(200).body == b"some bytes"
    alice.post(f"/v2/images/{image_id}/actions/reactivate").expect(204)
    assert alice.download(image_id).expect(200).body == b"some bytes"


# --- Members ----------------------------------------------------------------------------------------------------------


def member(title, method, path, status, who="alice", body=None, before=None):
    return Case(title, who, method, path, status, json_body=body, before=before)


def with_all_members(images):
    for n in range(128):
        images.alice.post(f"/v2/images/{images['queued']}/members", {"member": f"project-{n}"}).expect(200)


MEMBERS_OF = "/v2/images/{shared}/members"
MEMBERS = [
    member("share", "POST", "/v2/images/{active}/members", 200, body={"member": "beta"}),
    member("share a queued one", "POST", "/v2/images/{queued}/members", 200, body={"member": "beta"}),
    member("share again", "POST", MEMBERS_OF, 409, body={"member": "beta"}),
    member("share with no one", "POST", MEMBERS_OF, 400, body={}),
    member("share with an empty one", "POST", MEMBERS_OF, 400, body={"member": ""}),
    member("share with a number", "POST", MEMBERS_OF, 400, body={"member": 1}),
    member("share with null", "POST", MEMBERS_OF, 400, body={"member": None}),
    member("share with one of 256", "POST", MEMBERS_OF, 400, body={"member": "x" * 256}),
    member("share a private one", "POST", "/v2/images/{private}/members", 403, body={"member": "beta"}),
    member("share a public one", "POST", "/v2/images/{public}/members", 403, body={"member": "beta"}),
    member("share a community one", "POST", "/v2/images/{community}/members", 403, body={"member": "beta"}),
    member("share an absent one", "POST", "/v2/images/{absent}/members", 404, body={"member": "beta"}),
    member("share another's", "POST", "/v2/images/{foreign}/members", 404, body={"member": "beta"}),
    member("share as a member", "POST", MEMBERS_OF, 403, who="bob", body={"member": "gamma"}),
    member("share as a reader", "POST", MEMBERS_OF, 403, who="alan", body={"member": "gamma"}),
    member("share as an operator", "POST", MEMBERS_OF, 200, who="admin", body={"member": "gamma"}),
    member("share with the 129th", "POST", "/v2/images/{queued}/members", 413, body={"member": "b"}, before=with_all_members),
    member("list", "GET", MEMBERS_OF, 200),
    member("list as a reader", "GET", MEMBERS_OF, 200, who="alan"),
    member("list as a member", "GET", MEMBERS_OF, 200, who="bob"),
    member("list as a stranger", "GET", MEMBERS_OF, 404, who="carol"),
    member("list of a private one", "GET", "/v2/images/{private}/members", 403),
    member("list of a public one", "GET", "/v2/images/{public}/members", 403, who="carol"),
    member("show", "GET", MEMBERS_OF + "/beta", 200),
    member("show as the member", "GET", MEMBERS_OF + "/beta", 200, who="bella"),
    member("show an absent one", "GET", MEMBERS_OF + "/gamma", 404),
    member("show another as a member", "GET", MEMBERS_OF + "/gamma", 404, who="bob"),
    member("show of a public one", "GET", "/v2/images/{public}/members/beta", 404, who="carol"),
    member("show of a private one", "GET", "/v2/images/{private}/members/beta", 404),
    member("accept", "PUT", MEMBERS_OF + "/beta", 200, who="bob", body={"status": "accepted"}),
    member("reject", "PUT", MEMBERS_OF + "/beta", 200, who="bob", body={"status": "rejected"}),
    member("be undecided again", "PUT", MEMBERS_OF + "/beta", 200, who="bob", body={"status": "pending"}),
    member("accept as an operator", "PUT", MEMBERS_OF + "/beta", 200, who="admin", body={"status": "accepted"}),
    member("accept for the member", "PUT", MEMBERS_OF + "/beta", 403, body={"status": "accepted"}),
    member("accept as a reader of the member", "PUT", MEMBERS_OF + "/beta", 403, who="bella", body={"status": "accepted"}),
    member("accept for another member", "PUT", MEMBERS_OF + "/gamma", 404, who="bob", body={"status": "accepted"}),
    member("accept as a stranger", "PUT", MEMBERS_OF + "/gamma", 404, who="carol", body={"status": "accepted"}),
    member("accept somehow", "PUT", MEMBERS_OF + "/beta", 400, who="bob", body={"status": "maybe"}),
    member("accept emptily", "PUT", MEMBERS_OF + "/beta", 400, who="bob", body={"status": ""}),
    member("accept without saying", "PUT", MEMBERS_OF + "/beta", 400, who="bob", body={}),
    member("end", "DELETE", MEMBERS_OF + "/beta", 204),
    member("end as an operator", "DELETE", MEMBERS_OF + "/beta", 204, who="admin"),
    member("end as the member", "DELETE", MEMBERS_OF + "/beta", 403, who="bob"),
    member("end as a reader", "DELETE", MEMBERS_OF + "/beta", 403, who="alan"),
    member("end an absent one", "DELETE", MEMBERS_OF + "/gamma", 404),
    member("end as a stranger", "DELETE", MEMBERS_OF + "/beta", 404, who="carol"),
]


@pytest.mark.parametrize(**cases(MEMBERS))
def test_members(server, case):
    case.run(server)


def test_a_membership_is_shown_as_the_clients_expect(server, alice, bob):
    image_id = alice.create()["id"]
    path = f"/v2/images/{image_id}/members"
    made = alice.post(path, {"member": "beta"}).expect(200).json()
    times = {name: made.pop(name) for name in ("created_at", "updated_at")}
    assert all(map(TIME.fullmatch, times.values()))
    assert made == {"member_id": "beta", "image_id": image_id, "status": "pending", "schema": "/v2/schemas/member"}
    alice.post(path, {"member": "gamma"}).expect(200)
    assert alice.get(f"{path}/beta").expect(200).json() == made | times
    listed = alice.get(path).expect(200).json()
    assert listed["schema"] == "/v2/schemas/members"
    assert [entry["member_id"] for entry in listed["members"]] == ["beta", "gamma"]
    assert [entry["member_id"] for entry in bob.get(path).expect(200).json()["members"]] == ["beta"]
    accepted = bob.put(f"{path}/beta", {"status": "accepted"}).expect(200).json()
    assert accepted["status"] == "accepted"
    assert alice.get(f"{path}/beta").json() == accepted


def test_members_see_the_image_whatever_they_say_and_list_it_as_they_say(server, alice, bob):
    image_id = alice.create_active(name="shared with beta")["id"]
    path = f"/v2/images/{image_id}/members"
    bob.get(f"/v2/images/{image_id}").expect(404)
    alice.post(path, {"member": "beta"}).expect(200)

    def listed(query):
        return image_id in [image["id"] for image in bob.list(query)]

    for status in ["pending", "accepted", "rejected"]:
        bob.put(f"{path}/beta", {"status": status}).expect(200)
        bob.show(image_id)
        bob.download(image_id).expect(200)
        assert listed("") == (status == "accepted")
        assert listed("visibility=shared") == (status == "accepted")
        for asked in ["pending", "accepted", "rejected"]:
            assert listed(f"member_status={asked}") == (asked == status)
        assert listed("member_status=all&visibility=shared")
    alice.delete(f"{path}/beta").expect(204)
    bob.get(f"/v2/images/{image_id}").expect(404)
    bob.download(image_id).expect(404)
    assert not listed("member_status=all")


def test_memberships_mean_nothing_while_the_image_is_not_shared(server, alice, bob):
    image_id = alice.create_active()["id"]
    alice.post(f"/v2/images/{image_id}/members", {"member": "beta"}).expect(200)
    bob.show(image_id)
    alice.patch(f"/v2/images/{image_id}", [replace("/visibility", "private")]).expect(200)
    bob.get(f"/v2/images/{image_id}").expect(404)
    bob.download(image_id).expect(404)
    assert image_id not in [image["id"] for image in bob.list("member_status=all&limit=1000")]
    alice.patch(f"/v2/images/{image_id}", [replace("/visibility", "shared")]).expect(200)
    bob.show(image_id)

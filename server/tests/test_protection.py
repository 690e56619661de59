"""Protected properties: what the rules allow, on every way to a property, whatever its name looks like."""

import json
import urllib.parse

import pytest
from support.http import PATCH_V20, PATCH_V21

# First match wins; a name that no rule matches is denied to all.
BY_ROLES = """
[^open_]
create = @
read = @
update = @
delete = @

[^shown_]
create = admin
read = @
update = admin
delete = admin

[^hidden_]
create = ADMIN, service
read = Admin, service
update = admin, service
delete = admin, service

[^letterbox_]
create = member
read = admin
update = member
delete = !

[^once_]
create = member
read = @
update = !
delete = !

[^service_]
create = service
read = @
update = service
delete = service

# Allows what the first rule for such names denied: never reached.
[^hidden_too]
create = @
read = @
update = @
delete = @

[^never_]
create = !
read = !
update = !
delete = !
"""

BY_POLICIES = """
[^hidden_]
create = only_operators
read = only_operators
update = only_operators
delete = only_operators

[.*]
create = anyone
read = anyone
update = anyone
delete = anyone
"""

POLICY = '"only_operators": "role:admin"\n"anyone": "@"\n'


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    rules = tmp_path_factory.mktemp("rules") / "protection.conf"
    rules.write_text(BY_ROLES)
    return {"property_protection": {"file": str(rules), "format": "roles"}}


def person_with(server, who):
    """`alice`, `admin`, or `alice+service`: Alice, her request passed on by a service."""
    name, _, helper = who.partition("+")
    return server.client(name, **({"X_Service_Token": server.client(helper).token} if helper else {}))


# For each property: what happens to create, read, update and delete it, by Alice, by an operator, and by a service for Alice.
# `+` done; `-` 403; for one that is not read: `.` it is not shown, and update and delete find nothing (409).
#
#   property      alice        admin        alice+service
MATRIX = """
    open_x        + + + +      + + + +      + + + +
    shown_x       - + - -      + + + +      - + - -
    hidden_x      - . . .      + + + +      + + + +
    letterbox_x   + . . .      + + + -      + . . .
    once_x        + + - -      + + - -      + + - -
    service_x     - + - -      - + - -      + + + +
    hidden_too    - . . .      + + + +      + + + +
    never_x       - . . .      - . . .      - . . .
    unknown_x     - . . .      - . . .      - . . .
"""
CALLERS = ["alice", "admin", "alice+service"]
MATRIX_ROWS = [
    (line.split()[0], caller, dict(zip(["create", "read", "update", "delete"], line.split()[1 + 4 * n : 5 + 4 * n])))
    for line in MATRIX.strip("\n").splitlines()
    for n, caller in enumerate(CALLERS)
]


@pytest.fixture
def set_property(server):
    """Puts a property into an image, by whoever may."""

    def put(image_id, name, value):
        for who in ["alice", "admin", "alice+service"]:
            operation = [{"op": "add", "path": f"/{name}", "value": value}]
            if person_with(server, who).patch(f"/v2/images/{image_id}", operation).status == 200:
                return True
        return False

    return put


def true_value(server, image_id, name):
    """What the image has, in the eyes of all who may read."""
    for who in ["admin", "alice+service", "alice"]:
        shown = person_with(server, who).show(image_id)
        if name in shown:
            return shown[name]
    return None


CREATING = {
    "POST": lambda client, image_id, name: client.post(
        "/v2/images", {"disk_format": "raw", "container_format": "bare", name: "v"}
    ),
    "add": lambda client, image_id, name: client.patch(
        f"/v2/images/{image_id}", [{"op": "add", "path": f"/{name}", "value": "v"}]
    ),
    "add, in the older form": lambda client, image_id, name: client.patch(
        f"/v2/images/{image_id}", [{"add": f"/{name}", "value": "v"}], PATCH_V20
    ),
}


@pytest.mark.parametrize("way", CREATING)
@pytest.mark.parametrize(("name", "who", "rights"), MATRIX_ROWS)
def test_who_may_create(server, alice, admin, name, who, rights, way):
    image_id = alice.create()["id"]
    response = CREATING[way](person_with(server, who), image_id, name)
    if rights["create"] == "+":
        response.expect(200, 201)
        assert true_value(server, response.json()["id"], name) == "v"
        assert (name in response.json()) == (rights["read"] == "+")
    else:
        response.expect(403)
        assert true_value(server, image_id, name) is None


@pytest.mark.parametrize(("name", "who", "rights"), MATRIX_ROWS)
def test_who_may_read(server, alice, set_property, name, who, rights):
    image_id = alice.create()["id"]
    if not set_property(image_id, name, "secret value"):
        return  # nobody may create it, so there is nothing to read
    client = person_with(server, who)
    seen = rights["read"] == "+"
    answers = [
        client.get(f"/v2/images/{image_id}"),
        client.get(f"/v2/images?id={image_id}"),
        client.patch(f"/v2/images/{image_id}", []),
        client.patch(f"/v2/images/{image_id}", [{"op": "replace", "path": "/name", "value": "n"}]),
        client.patch(f"/v2/images/{image_id}", [], PATCH_V20),
    ]
    for answer in answers:
        assert (b"secret value" in answer.expect(200).body) == seen, answer
        assert (name.encode() in answer.body) == seen, answer
    # A filter must not tell what is not shown.
    query = urllib.parse.urlencode({name: "secret value", "id": image_id})
    assert [image["id"] for image in client.list(query)] == ([image_id] if seen else [])
    client.get(f"/v2/images?sort={name}").expect(400)
    client.get(f"/v2/images?sort_key={name}").expect(400)


CHANGING = {
    "replace": ("update", lambda name: ([{"op": "replace", "path": f"/{name}", "value": "new"}], PATCH_V21)),
    "replace, in the older form": ("update", lambda name: ([{"replace": f"/{name}", "value": "new"}], PATCH_V20)),
    "add": ("update", lambda name: ([{"op": "add", "path": f"/{name}", "value": "new"}], PATCH_V21)),
    "remove": ("delete", lambda name: ([{"op": "remove", "path": f"/{name}"}], PATCH_V21)),
    "remove, in the older form": ("delete", lambda name: ([{"remove": f"/{name}"}], PATCH_V20)),
}

# To add over a property that one may not see: as if it were new for those who may make one and change it; else denied.
ADD_UNSEEN = {("letterbox_x", "alice"): 200, ("letterbox_x", "alice+service"): 200}


@pytest.mark.parametrize("way", CHANGING)
@pytest.mark.parametrize(("name", "who", "rights"), MATRIX_ROWS)
def test_who_may_change_and_remove(server, alice, set_property, name, who, rights, way):
    image_id = alice.create()["id"]
    there = set_property(image_id, name, "old")
    right, operations = CHANGING[way]
    if way == "add" and not there:
        status = 403
    elif way == "add" and rights[right] == ".":
        status = ADD_UNSEEN.get((name, who), 403)
    else:
        status = {"+": 200, "-": 403, ".": 409}[rights[right]]
    person_with(server, who).patch(f"/v2/images/{image_id}", *operations(name)).expect(status)
    value = true_value(server, image_id, name)
    if status == 200:
        assert value == ("new" if right == "update" else None)
    else:
        assert value == ("old" if there else None)


# --- What the reference implementation gets wrong ---------------------------------------------------------------------


def test_saving_an_image_keeps_what_the_saver_cannot_see(server, alice, admin):
    image_id = alice.create()["id"]
    path = f"/v2/images/{image_id}"
    admin.patch(path, [{"op": "add", "path": "/hidden_x", "value": "kept"}]).expect(200)
    saves = [
        lambda: alice.patch(path, [{"op": "replace", "path": "/name", "value": "n"}]),
        lambda: alice.patch(path, [{"op": "add", "path": "/open_x", "value": "n"}]),
        lambda: alice.patch(path, [{"op": "remove", "path": "/open_x"}]),
        lambda: alice.put(f"{path}/tags/blue"),
        lambda: alice.delete(f"{path}/tags/blue"),
        lambda: alice.post(f"{path}/members", {"member": "beta"}),
        lambda: alice.upload(image_id, b"bytes"),
        lambda: alice.post(f"{path}/actions/deactivate"),
        lambda: alice.post(f"{path}/actions/reactivate"),
    ]
    for save in saves:
        save().expect(200, 204)
        assert admin.show(image_id)["hidden_x"] == "kept"
    staged = alice.create()["id"]
    admin.patch(f"/v2/images/{staged}", [{"op": "add", "path": "/hidden_x", "value": "kept"}]).expect(200)
    alice.stage(staged, b"bytes").expect(204)
    assert admin.show(staged)["hidden_x"] == "kept"


def test_members_see_no_more_than_the_owner(alice, admin, bob):
    image_id = alice.create()["id"]
    admin.patch(f"/v2/images/{image_id}", [{"op": "add", "path": "/hidden_x", "value": "secret value"}]).expect(200)
    alice.post(f"/v2/images/{image_id}/members", {"member": "beta"}).expect(200)
    for path in [f"/v2/images/{image_id}", f"/v2/images/{image_id}/members", "/v2/images?member_status=all", "/v2/schemas/image"]:
        answer = bob.get(path).expect(200)
        assert b"secret value" not in answer.body and b"hidden_x" not in answer.body


def test_a_hidden_property_cannot_be_guessed_from_limits(alice, admin):
    """A caller who may have 128 properties may have 128 that it sees."""
    image_id = alice.create(**{f"open_{n}": "" for n in range(127)})["id"]
    admin.patch(f"/v2/images/{image_id}", [{"op": "add", "path": "/hidden_x", "value": "v"}]).expect(200)
    path = f"/v2/images/{image_id}"
    alice.patch(path, [{"op": "replace", "path": "/name", "value": "n"}]).expect(200)
    alice.patch(path, [{"op": "add", "path": "/open_last", "value": ""}]).expect(200)
    assert admin.show(image_id)["hidden_x"] == "v"
    # What she sees counts, and what she can make without seeing it; who sees all counts all.
    told = alice.patch(path, [{"op": "add", "path": "/open_more", "value": ""}]).expect(413)
    assert b"129" in told.body and b"130" not in told.body
    alice.patch(path, [{"op": "add", "path": "/letterbox_x", "value": ""}]).expect(413)
    admin.patch(path, [{"op": "add", "path": "/hidden_y", "value": ""}]).expect(413)


# --- Names that look like others --------------------------------------------------------------------------------------

# Each is tried as a name; none of them may reach `hidden_x`. The status is that of creating it.
TRICKS = {
    "HIDDEN_x": 403,
    "Hidden_x": 403,
    "hidden_X": 403,
    "h\u0456dden_x": 403,  # a Cyrillic letter
    "\uff48idden_x": 403,  # a full-width letter
    "h\u0131dden_x": 403,  # a dotless i
    "H\u0130DDEN_X": 403,  # a dotted capital I
    "hid\u200bden_x": 403,  # a space of no width
    "\u200bhidden_x": 403,
    "\ufeffhidden_x": 403,
    "hidden\u005fx ": 403,  # matches the rule, and is another name
    " hidden_x": 403,
    "\thidden_x": (400, 403),
    "hidden_x.": 403,
    "hidden_x/": 403,
    "hidden_x~": 403,
    "./hidden_x": 403,
    "open_\u00e9": 201,
    "open_e\u0301": 201,  # the same letter, of two: another name
    "open_/hidden_x": 201,
    "open_x\nhidden_x": (400, 201),
    "\nopen_x": (400, 403),
    "open_\u0000": 400,
    "open_\u0000hidden_x": 400,
    "hidden_x\u0000": (400, 403),
    "open_" + "x" * 250: 201,
    "open_" + "x" * 251: 400,
    "open_" + "é" * 250: 201,
    "os_glance_x": 403,
    "os_glance": 403,
    "os_glancex": 403,
    "": (400, 403),
}


@pytest.fixture(scope="module")
def guarded(alice, admin):
    """An image of Alice's with a hidden property, and what it must be."""
    image_id = alice.create(name="guarded")["id"]
    admin.patch(f"/v2/images/{image_id}", [{"op": "add", "path": "/hidden_x", "value": "secret value"}]).expect(200)
    return image_id


@pytest.mark.parametrize("name", TRICKS, ids=lambda name: ascii(name)[:40])
def test_no_name_stands_for_another(alice, admin, guarded, name):
    status = TRICKS[name] if isinstance(TRICKS[name], tuple) else (TRICKS[name],)
    response = alice.post("/v2/images", {name: "v"}).expect(*status)
    if response.status == 201:
        assert alice.show(response.json()["id"])[name] == "v"
    path = f"/v2/images/{guarded}"
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    for operations in [
        [{"op": "replace", "path": pointer, "value": "stolen"}],
        [{"op": "remove", "path": pointer}],
        [{"op": "add", "path": pointer, "value": "stolen"}],
    ]:
        # In the answer and in what it changed there is nothing of the hidden property.
        answer = alice.patch(path, operations)
        assert answer.status < 500 and b"secret value" not in answer.body, answer
    answer = alice.get("/v2/images?" + urllib.parse.urlencode({name: "secret value"}))
    assert answer.status < 500 and guarded.encode() not in answer.body, answer
    assert admin.show(guarded)["hidden_x"] == "secret value"


POINTERS = ["/hidden_x", "/hidden~5fx", "/hidden_x/", "/hidden_x/-", "/hidden_x/0", "//hidden_x", "hidden_x", "/%68idden_x"]
POINTERS += ["/hidden_x~0", "/hidden_x~1", "/./hidden_x", "/properties/hidden_x", "/extra_properties/hidden_x", "#/hidden_x"]


@pytest.mark.parametrize("pointer", POINTERS)
@pytest.mark.parametrize("operation", ["add", "replace", "remove", "move", "copy", "test"])
def test_no_pointer_reaches_a_hidden_property(alice, admin, guarded, pointer, operation):
    path = f"/v2/images/{guarded}"
    bodies = [{"op": operation, "path": pointer, "value": "stolen"}]
    if operation in ("move", "copy"):
        bodies = [
            {"op": operation, "from": pointer, "path": "/open_x"},
            {"op": operation, "from": "/name", "path": pointer},
        ]
    for body in bodies:
        answer = alice.patch(path, [body]).expect(400, 403, 409)
        assert b"secret value" not in answer.body
    if operation in ("add", "replace", "remove"):
        alice.patch(path, [{operation: pointer, "value": "stolen"}], PATCH_V20).expect(400, 403, 409)
    shown = admin.show(guarded)
    assert shown["hidden_x"] == "secret value"
    assert "open_x" not in shown


@pytest.mark.parametrize(
    "body",
    [
        b'{"hidden_x": "1", "hidden_x": "2"}',
        b'{"open_x": "1", "hidden_x": "2"}',
        b'{"hidden\\u005fx": "1"}',
        b'{"\\u0068idden_x": "1"}',
        b'{"open_x": "1", "os_glance_x": "2"}',
    ],
)
def test_no_json_smuggles_a_protected_property_in(alice, body):
    alice.request("POST", "/v2/images", body, headers={"Content-Type": "application/json"}).expect(400, 403)


def test_a_key_that_comes_twice_is_refused_or_the_last_one_counts(alice):
    body = json.dumps({"open_x": "1"})[:-1] + ', "open_x": "2"}'
    answer = alice.request("POST", "/v2/images", body.encode(), headers={"Content-Type": "application/json"}).expect(201, 400)
    if answer.status == 201:
        assert alice.show(answer.json()["id"])["open_x"] == "2"


def test_no_header_sets_a_property(alice, admin, guarded):
    headers = {"x-image-meta-property-hidden_x": "stolen", "x-image-meta-property-open_x": "stolen"}
    image_id = alice.post("/v2/images", {}, headers=headers).expect(201).json()["id"]
    assert "open_x" not in admin.show(image_id) and "hidden_x" not in admin.show(image_id)
    alice.patch(f"/v2/images/{guarded}", []).expect(200)
    fresh = alice.create()["id"]
    alice.upload(fresh, b"x", headers=headers).expect(204)
    assert "open_x" not in admin.show(fresh) and "hidden_x" not in admin.show(fresh)


# --- The other form of the rules --------------------------------------------------------------------------------------


def test_rules_may_name_policies(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("policies")
    (directory / "protection.conf").write_text(BY_POLICIES)
    (directory / "policy.yaml").write_text(POLICY)
    server = start_server(
        property_protection={"file": str(directory / "protection.conf"), "format": "policies"},
        policy={"file": str(directory / "policy.yaml")},
    )
    alice, admin = server.client("alice"), server.client("admin")
    image_id = alice.create(x="y")["id"]
    alice.patch(f"/v2/images/{image_id}", [{"op": "add", "path": "/hidden_x", "value": "v"}]).expect(403)
    admin.patch(f"/v2/images/{image_id}", [{"op": "add", "path": "/hidden_x", "value": "v"}]).expect(200)
    assert "hidden_x" not in alice.show(image_id)
    assert admin.show(image_id)["hidden_x"] == "v"
    alice.patch(f"/v2/images/{image_id}", [{"op": "remove", "path": "/hidden_x"}]).expect(409)

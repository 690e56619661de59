"""What holds for every call: versions, methods, identity, errors and their form, request ids, bodies where none belong."""

import json
import re
import uuid

import pytest
from support.http import open_socket
from support.images import Case, Images, cases

VERSIONS = ["2.18", "2.17", "2.16", "2.15", "2.14", "2.13", "2.12", "2.11", "2.10", "2.9", "2.8", "2.7"]
VERSIONS += ["2.6", "2.5", "2.4", "2.3", "2.2", "2.1", "2.0"]
IMAGES_TYPE = "application/vnd.openstack.images-v2"


@pytest.fixture(scope="module")
def images(server):
    """Images for all tests of this file that change none."""
    made = Images(server)
    yield made
    made.close()


# --- Versions ---------------------------------------------------------------------------------------------------------


def version_document(host):
    return {
        "versions": [
            {
                "id": f"v{version}",
                "status": "CURRENT" if version == "2.18" else "SUPPORTED",
                "links": [{"rel": "self", "href": f"http://{host}/v2/"}],
            }
            for version in VERSIONS
        ]
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 300),
        ("/versions", 200),
        ("/versions/", 200),
        ("/v1", 300),
        ("/v1/images", 300),
        ("/v3", 300),
        ("/v3/images", 300),
        ("/v2.19/images", 300),
        ("/v2.99/images", 300),
        ("/images", 300),
    ],
)
def test_anyone_gets_the_versions(nobody, path, status):
    response = nobody.get(path, headers={"Host": "glance.example:9292"}).expect(status)
    assert response.json() == version_document("glance.example:9292")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_same_routes(alice, version):
    alice.get(f"/v{version}/images?limit=0").expect(200)


@pytest.mark.parametrize("accepted", [IMAGES_TYPE, IMAGES_TYPE + ".0", IMAGES_TYPE + ".18"])
def test_the_version_may_be_in_the_accept_header(alice, accepted):
    assert "images" in alice.get("/images?limit=0", headers={"Accept": accepted}).expect(200).json()


def test_v2_without_a_slash_leads_to_one_with_a_slash(alice):
    response = alice.get("/v2").expect(302)
    assert response.headers["Location"].endswith("/v2/")
    alice.get("/v2/").expect(404)


def test_the_server_says_that_it_is_well(nobody):
    assert nobody.get("/healthcheck").expect(200).body.strip() == b"OK"


# --- Methods ----------------------------------------------------------------------------------------------------------

METHODS = {
    "/v2/images": {"GET", "POST"},
    "/v2/images/{active}": {"GET", "PATCH", "DELETE"},
    "/v2/images/{active}/file": {"GET", "PUT"},
    "/v2/images/{active}/stage": {"PUT"},
    "/v2/images/{active}/members": {"GET", "POST"},
    "/v2/images/{active}/members/beta": {"GET", "PUT", "DELETE"},
    "/v2/images/{active}/tags/blue": {"PUT", "DELETE"},
    "/v2/images/{active}/actions/deactivate": {"POST"},
    "/v2/images/{active}/actions/reactivate": {"POST"},
    "/v2/schemas/image": {"GET"},
    "/v2/schemas/images": {"GET"},
    "/v2/schemas/member": {"GET"},
    "/v2/schemas/members": {"GET"},
    "/v2/info/import": {"GET"},
    "/v2/info/stores": {"GET"},
    "/v2/info/stores/detail": {"GET"},
}


@pytest.mark.parametrize("path", METHODS)
def test_other_methods_are_refused_and_the_right_ones_named(alice, images, path):
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"]:
        if method not in METHODS[path]:
            response = alice.request(method, path.format_map(images)).expect(405)
            allowed = {name.strip() for name in response.headers["Allow"].split(",")}
            assert allowed == METHODS[path], f"{response}: Allow is {sorted(allowed)}"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/images/",
        "/v2/images/{active}/nothing",
        "/v2/images/{active}/file/more",
        "/v2/images/{active}/members/",
        "/v2/images/{active}/tags/",
        "/v2/images/{active}/tags/a/b",
        "/v2/images/{active}/actions/explode",
        "/v2/schemas/nothing",
        "/v2/info",
        "/v2//images",
    ],
)
def test_there_is_nothing_at_other_paths(alice, images, path):
    alice.get(path.format_map(images)).expect(404)


def test_no_unknown_method_works_at_an_unknown_path(alice):
    alice.request("BREW", "/v2/nothing").expect(404, 501)


@pytest.mark.parametrize("path", ["/v2/images", "/v2/images/{active}", "/v2/images/{active}/file"])
def test_options_needs_no_token(nobody, images, path):
    response = nobody.request("OPTIONS", path.format_map(images)).expect(200)
    assert response.body == b""


# --- Identity ---------------------------------------------------------------------------------------------------------

GUARDED = ["/v2/", "/v2/nothing", "/v2/images", "/v2/images/{active}", "/v2/images/{absent}", "/v2/images/{active}/file"]
GUARDED += ["/v2/images/{active}/members", "/v2/schemas/image", "/v2/info/import", "/v2/info/stores"]


@pytest.mark.parametrize("token", [None, "", "wrong", "alice", "x" * 4000, "alice-token-0123456789abcdeF"])
def test_who_is_not_known_gets_nothing(server, images, token):
    client = server.client(X_Auth_Token=token) if token is not None else server.client()
    for path in GUARDED:
        response = client.get(path.format_map(images)).expect(401)
        # With a Keystone this says where it is; see the tests with one.
        assert response.headers["WWW-Authenticate"], response.headers
        client.delete(path.format_map(images)).expect(401)


def test_forged_identity_headers_mean_nothing(server, images, alice):
    forged = {
        "X-Identity-Status": "Confirmed",
        "X-Roles": "admin",
        "X-Role": "admin",
        "X-Project-Id": "gamma",
        "X-Tenant-Id": "gamma",
        "X-User-Id": "root",
        "X-Is-Admin-Project": "True",
        "X-Service-Roles": "service",
        "X-Service-Identity-Status": "Confirmed",
        "OpenStack-System-Scope": "all",
    }
    server.client().get("/v2/images", headers=forged).expect(401)
    alice.get(f"/v2/images/{images['foreign']}", headers=forged).expect(404)
    alice.get("/v2/info/stores/detail", headers=forged).expect(403)
    assert alice.post("/v2/images", {}, headers=forged).expect(201).json()["owner"] == "alpha"


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        (None, "text/plain"),
        ("text/plain", "text/plain"),
        ("*/*", "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
    ],
)
@pytest.mark.parametrize("status", [401, 404, 405])
def test_errors_have_the_form_that_is_asked_for(server, alice, accepted, kind, status):
    client, path = {
        401: (server.client(), "/v2/images"),
        404: (alice, f"/v2/images/{uuid.uuid4()}"),
        405: (alice, "/v2/schemas/image"),
    }[status]
    response = client.request("PUT" if status == 405 else "GET", path, headers={"Accept": accepted}).expect(status)
    assert response.headers["Content-Type"].split(";")[0].strip() == kind
    title = {401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}[status]
    if kind == "application/json":
        error = response.json()
        assert set(error) == {"message", "code", "title"}
        assert (error["code"], error["title"]) == (f"{status} {title}", title)
    elif kind == "text/plain":
        assert response.body.decode().startswith(f"{status} {title}\n\n")
    else:
        assert title in response.body.decode()


def test_errors_in_html_escape_what_the_caller_wrote(alice):
    for accepted in ["*/*", "text/html"]:
        response = alice.get("/v2/images?limit=<script>alert(1)</script>", headers={"Accept": accepted})
        assert b"<script>alert" not in response.expect(400).body


def test_what_is_found_is_json(alice, images):
    for path in ["/v2/images", f"/v2/images/{images['active']}", "/v2/schemas/image"]:
        assert alice.get(path).expect(200).headers["Content-Type"].split(";")[0] == "application/json"


@pytest.mark.parametrize("image_id", ["x", "0", "null", "%00", "%ff", "..%2f..%2fetc", "%2e%2e", "a" * 5000, "{absent}"])
def test_an_id_that_is_none_is_not_found(alice, images, image_id):
    path = f"/v2/images/{image_id.format_map(images)}"
    statuses = (404, 414) if len(image_id) > 1000 else (400, 404) if image_id == "%ff" else (404,)
    alice.get(path).expect(*statuses)
    alice.delete(path).expect(*statuses)
    alice.get(path + "/file").expect(*statuses)
    alice.patch(path, []).expect(*statuses)


# --- Request ids ------------------------------------------------------------------------------------------------------

REQUEST_ID = re.compile(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_every_answer_has_an_id_of_its_own(nobody, alice, images):
    seen = set()
    for client, path in [(alice, "/v2/images"), (alice, "/v2/images"), (alice, "/v2/images/x"), (nobody, "/v2/images")]:
        request_id = client.get(path).headers["X-Openstack-Request-Id"]
        assert REQUEST_ID.fullmatch(request_id)
        assert request_id not in seen
        seen.add(request_id)


def test_a_request_keeps_the_id_it_came_with(alice):
    request_id = f"req-{uuid.uuid4()}"
    assert alice.get("/v2/images", headers={"X-Openstack-Request-Id": request_id}).headers["X-Openstack-Request-Id"] == request_id
    request_id = "req-" + "x" * 60
    assert alice.get("/v2/images", headers={"X-Openstack-Request-Id": request_id}).headers["X-Openstack-Request-Id"] == request_id


def test_an_id_that_is_too_long_is_refused(alice):
    alice.get("/v2/images", headers={"X-Openstack-Request-Id": "req-" + "x" * 61}).expect(431)


# --- Bodies -----------------------------------------------------------------------------------------------------------

NO_BODY = [
    ("GET", "/v2/images"),
    ("GET", "/v2/images/{active}"),
    ("DELETE", "/v2/images/{active}"),
    ("GET", "/v2/images/{shared}/members"),
    ("GET", "/v2/images/{shared}/members/beta"),
    ("DELETE", "/v2/images/{shared}/members/beta"),
    ("PUT", "/v2/images/{active}/tags/blue"),
    ("DELETE", "/v2/images/{active}/tags/blue"),
    ("POST", "/v2/images/{active}/actions/deactivate"),
    ("POST", "/v2/images/{active}/actions/reactivate"),
    ("GET", "/v2/schemas/image"),
    ("GET", "/v2/schemas/members"),
    ("GET", "/v2/info/import"),
    ("GET", "/v2/info/stores"),
]


@pytest.mark.parametrize(("method", "path"), NO_BODY)
def test_a_body_where_none_belongs_is_refused(alice, images, method, path):
    path = path.format_map(images)
    alice.request(method, path, b"{}").expect(400)
    if method in ("PUT", "POST"):
        alice.request(method, path, [b"{}"], chunked=True).expect(400)
    alice.get(f"/v2/images/{images['active']}").expect(200)


NOT_AN_OBJECT = {
    "absent": None,
    "empty": b"",
    "no JSON": b"{",
    "a word": b"hello",
    "something after it": b"{} {}",
    "a number": b"1",
    "a string": b'"name"',
    "null": b"null",
    "a list": b"[]",
    "a list of an object": b"[{}]",
    "no UTF-8": b'{"name": "\xff"}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "no number": b'{"min_ram": NaN}',
    "deep": b'{"name": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT)
def test_a_body_that_is_no_object_is_refused(alice, images, body):
    headers = {"Content-Type": "application/json"}
    alice.request("POST", "/v2/images", body, headers=headers).expect(400)
    alice.request("POST", f"/v2/images/{images['shared']}/members", body, headers=headers).expect(400)
    alice.request("PUT", f"/v2/images/{images['shared']}/members/beta", body, headers=headers).expect(400)


def test_a_body_of_json_may_be_long_but_not_endless(alice):
    body = json.dumps({"name": "x" * (4 << 20)}).encode()
    alice.request("POST", "/v2/images", body, headers={"Content-Type": "application/json"}).expect(400, 413)
    # The connection, or a new one, still serves.
    alice.get("/v2/images?limit=1").expect(200)


# --- Schemas and what the server says of itself -----------------------------------------------------------------------


def test_the_schema_of_an_image_is_what_the_clients_go_by(alice):
    schema = alice.get("/v2/schemas/image").expect(200).json()
    assert schema["name"] == "image"
    assert schema["additionalProperties"] == {"type": "string"}
    properties = schema["properties"]
    base = {"id", "name", "status", "visibility", "protected", "os_hidden", "checksum", "os_hash_algo", "os_hash_value"}
    base |= {"owner", "size", "virtual_size", "disk_format", "container_format", "min_ram", "min_disk", "tags"}
    base |= {"created_at", "updated_at", "self", "file", "schema", "direct_url", "locations"}
    assert base <= set(properties)
    for name in base:
        assert properties[name].get("is_base", True), name
    for name in ["status", "size", "checksum", "created_at", "updated_at", "self", "file", "schema", "virtual_size"]:
        assert properties[name]["readOnly"] is True, name
    assert "readOnly" not in properties["name"]
    for name in ["kernel_id", "ramdisk_id", "instance_uuid", "architecture", "os_distro", "os_version"]:
        assert properties[name]["is_base"] is False, name
    assert properties["disk_format"]["enum"][0] is None
    assert {"ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"} <= set(
        properties["disk_format"]["enum"][1:]
    )
    assert properties["container_format"]["enum"][0] is None
    assert {"ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"} <= set(properties["container_format"]["enum"][1:])
    assert properties["visibility"]["enum"] == ["community", "public", "private", "shared"] or set(
        properties["visibility"]["enum"]
    ) == {"community", "public", "private", "shared"}
    links = {link["rel"]: link["href"] for link in schema["links"]}
    assert links == {"self": "{self}", "enclosure": "{file}", "describedby": "{schema}"}


@pytest.mark.parametrize(("name", "entry"), [("images", "image"), ("members", "member")])
def test_collections_have_schemas_too(alice, name, entry):
    schema = alice.get(f"/v2/schemas/{name}").expect(200).json()
    assert schema["name"] == name
    assert schema["properties"]["schema"]["type"] == "string"
    assert schema["properties"][name]["items"]["name"] == entry
    alone = alice.get(f"/v2/schemas/{entry}").expect(200).json()
    assert alone["name"] == entry
    assert alone["properties"] == schema["properties"][name]["items"]["properties"]


def test_images_are_as_their_schema_says(alice, images):
    import jsonschema

    schema = alice.get("/v2/schemas/image").json()
    for state in ["queued", "active", "deactivated", "shared"]:
        jsonschema.validate(alice.show(images[state]), schema)
    jsonschema.validate(alice.get("/v2/images").json(), alice.get("/v2/schemas/images").json())
    members = alice.get(f"/v2/images/{images['shared']}/members").json()
    jsonschema.validate(members, alice.get("/v2/schemas/members").json())
    jsonschema.validate(members["members"][0], alice.get("/v2/schemas/member").json())


def test_the_server_says_how_images_are_imported_and_where_they_are_kept(alice):
    methods = alice.get("/v2/info/import").expect(200).json()["import-methods"]
    assert methods["type"] == "array"
    assert isinstance(methods["description"], str)
    assert isinstance(methods["value"], list)
    stores = alice.get("/v2/info/stores").expect(200).json()["stores"]
    assert [store.get("default") for store in stores].count("true") == 1
    assert all(set(store) <= {"id", "description", "default", "read-only", "weight"} for store in stores)


@pytest.mark.parametrize(("who", "status"), [("admin", 200), ("service", 200), ("alice", 403), ("alan", 403), (None, 401)])
def test_details_of_the_stores_are_for_operators(server, who, status):
    response = server.client(who).get("/v2/info/stores/detail").expect(status)
    if status == 200:
        assert all({"id", "type", "properties"} <= set(store) for store in response.json()["stores"])


def test_usage_is_empty_without_unified_limits(alice):
    assert alice.get("/v2/info/usage").expect(200).json() == {"usage": {}}
    alice.post("/v2/info/usage").expect(404, 405)


@pytest.mark.parametrize(
    "head", ["HTTP/1.0\r\n", "HTTP/1.0\r\nHost: x\r\n", "HTTP/1.1\r\nHost:\r\n", "HTTP/1.1\r\nHost: [::1]:9292\r\n", "HTTP/1.1\r\nHost: a_b\r\n"]
)
def test_a_request_names_its_host_and_an_old_one_need_not(server, head):
    with open_socket(server.port) as connection:
        connection.sendall(f"GET /healthcheck {head}Connection: close\r\n\r\n".encode())
        assert connection.recv(1 << 16).split()[1] == b"200"

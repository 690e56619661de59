"""Callers by the tokens of a real Keystone."""

import time

import openstack
import pytest
from support.http import Client
from support.identity_service import PASSWORD, Keystone
from support.server import free_port

# How long the tokens of the second Keystone live: long enough to be used once, on a busy machine too.
SHORT_S = 4


@pytest.fixture(scope="module")
def keystone(tmp_path_factory):
    """A Keystone with a service user and a few people."""
    keystone = Keystone(tmp_path_factory.mktemp("keystone"))
    try:
        keystone.start()
        service = keystone.project("service")
        keystone.user("glance", **{service: "service"})
        keystone.user("nova", **{service: "service"})
        keystone.user("impostor", **{service: "member"})
        keystone.alpha, keystone.beta = keystone.project("alpha"), keystone.project("beta")
        keystone.alice = keystone.user("alice", **{keystone.alpha: "member"})
        keystone.user("rita", **{keystone.alpha: "reader"})
        keystone.user("bob", **{keystone.beta: "member"})
        keystone.user("nobody")
        yield keystone
    finally:
        keystone.stop()


def section(keystone, **more):
    """The settings of a server that asks this Keystone and forgets its answers at once."""
    return {
        "identity": {"providers": ["keystone"]},
        "identity.tokens": [],
        "identity.keystone": {
            "url": keystone.url,
            "public_url": "https://identity.example.org/v3",
            "password": PASSWORD,
            "cache_s": 0,
        }
        | more,
    }


@pytest.fixture(scope="module")
def settings(keystone):
    return section(keystone)


@pytest.fixture
def caller(keystone, server):
    """A client with a new token of that user in that project."""

    def log_in(user, project=None, scope=None, **headers):
        return Client(server.port, keystone.token(user, project, scope), **headers)

    return log_in


def test_roles_and_projects_are_those_of_the_token(keystone, caller):
    alice, rita, bob = caller("alice", "alpha"), caller("rita", "alpha"), caller("bob", "beta")
    image = alice.create(name="of alice")
    assert image["owner"] == keystone.alpha
    assert rita.show(image["id"])["name"] == "of alice"
    rita.post("/v2/images", {}).expect(403)
    bob.get(f"/v2/images/{image['id']}").expect(404)
    assert bob.list() == []
    admin = caller("admin", "admin")
    admin.patch(f"/v2/images/{image['id']}", [{"op": "replace", "path": "/visibility", "value": "public"}]).expect(200)
    assert [image["name"] for image in bob.list()] == ["of alice"]


@pytest.mark.parametrize("token", [None, "", "x", "gAAAAABn" + "A" * 200, "x" * 9000])
def test_without_a_good_token_a_caller_is_told_where_to_get_one(server, token):
    response = Client(server.port, token).get("/v2/images").expect(401)
    assert response.headers["WWW-Authenticate"] == 'Keystone uri="https://identity.example.org/v3"'
    assert "X-Openstack-Request-Id" in response.headers


def test_a_token_is_good_until_it_is_revoked(keystone, server):
    token = keystone.token("alice", "alpha")
    alice = Client(server.port, token)
    alice.list()
    keystone.revoke(token)
    alice.get("/v2/images").expect(401)


def test_a_token_is_good_until_its_user_is_disabled(keystone, server):
    project = keystone.project("short")
    user = keystone.user("leaver", **{project: "member"})
    client = Client(server.port, keystone.token("leaver", "short"))
    client.list()
    keystone.set_user(user, enabled=False)
    client.get("/v2/images").expect(401)


def test_images_are_managed_in_a_project(keystone, caller):
    user = keystone.user("operator")
    keystone.grant(user, "domains/default", "admin")
    keystone.grant(user, "system", "admin")
    for scope in [{"domain": {"id": "default"}}, {"system": {"all": True}}]:
        operator = caller("operator", scope=scope)
        operator.get("/v2/images").expect(403)
        operator.post("/v2/images", {}).expect(403)
    caller("nobody").get("/v2/images").expect(403)


def test_a_service_may_go_on_with_a_token_that_expired(keystone, server):
    port = keystone.start_of_short_lived_tokens(SHORT_S)
    token = keystone.token("alice", "alpha", port=port)
    service = keystone.token("nova", "service")
    alone, with_service = Client(server.port, token), Client(server.port, token, X_Service_Token=service)
    with_impostor = Client(server.port, token, X_Service_Token=keystone.token("impostor", "service"))
    with_nonsense = Client(server.port, token, X_Service_Token="nonsense")
    time.sleep(SHORT_S + 1)
    alone.get("/v2/images").expect(401)
    with_service.get("/v2/images").expect(200)
    assert with_service.create()["owner"] == keystone.alpha
    with_impostor.get("/v2/images").expect(401)
    with_nonsense.get("/v2/images").expect(401)
    alone.get("/v2/images").expect(401)


def test_an_application_credential_does_what_its_access_rules_say(keystone, server, caller):
    token = keystone.token("alice", "alpha")
    image = caller("alice", "alpha").create()
    free = Client(server.port, keystone.application_credential(keystone.alice, token))
    assert free.show(image["id"])["id"] == image["id"]
    rules = [
        {"service": "image", "method": "GET", "path": "/v2/images/{image_id}"},
        {"service": "compute", "method": "GET", "path": "/v2/images"},
    ]
    restricted = Client(server.port, keystone.application_credential(keystone.alice, token, rules))
    assert restricted.show(image["id"])["id"] == image["id"]
    restricted.get("/v2/images").expect(401)
    restricted.delete(f"/v2/images/{image['id']}").expect(401)
    service = restricted.again(**{"X-Service-Token": keystone.token("nova", "service")})
    service.get("/v2/images").expect(200)


def test_headers_of_a_client_say_nothing(caller, server):
    forged = {"X-Identity-Status": "Confirmed", "X-User-Id": "root", "X-Project-Id": "p", "X-Roles": "admin"}
    Client(server.port).get("/v2/images", headers=forged).expect(401)
    rita = caller("rita", "alpha")
    rita.post("/v2/images", {}, headers=forged | {"X-Is-Admin-Project": "True"}).expect(403)


def test_good_answers_are_remembered(keystone, start_server):
    server = start_server(**section(keystone, cache_s=300))
    token = keystone.token("alice", "alpha")
    client = Client(server.port, token)
    client.list()
    keystone.revoke(token)
    # That is the price of remembering, and what the setting is for.
    client.get("/v2/images").expect(200)


@pytest.mark.parametrize(
    "wrong", [{"url": f"http://127.0.0.1:{free_port()}"}, {"password": "wrong"}, {"project": "wrong"}, {"user": "rita"}]
)
def test_what_cannot_be_asked_is_said_not_to_answer(keystone, start_server, wrong):
    server = start_server(**section(keystone, **wrong))
    client = Client(server.port, keystone.token("alice", "alpha"))
    client.get("/v2/images").expect(503)
    Client(server.port).get("/v2/images").expect(401)
    assert PASSWORD not in server.log() and client.token not in server.log()


def test_the_sdk_finds_the_server_in_the_catalog(keystone, server):
    keystone.endpoint("image", f"http://127.0.0.1:{server.port}")
    connection = openstack.connect(
        auth_url=f"{keystone.url}/v3",
        username="alice",
        password=PASSWORD,
        project_name="alpha",
        user_domain_id="default",
        project_domain_id="default",
        region_name="here",
    )
    made = connection.image.create_image("by the SDK", allow_duplicates=True)
    assert [image.id for image in connection.image.images(name="by the SDK")] == [made.id]

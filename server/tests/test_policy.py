"""The operator's policy: which rule is asked for what, and what is left of an image that it hides."""

import signal
import time

import pytest
from support.http import OCTETS

HIDES = "\"get_image\": \"role:admin or role:reader and not 'yes':%(classified)s\"\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The policy's file: nothing in it."""
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"
    path.write_text("")
    return path


@pytest.fixture(scope="module")
def settings(file):
    return {"policy": {"file": str(file)}}


@pytest.fixture
def policy(server, file):
    """Puts another policy in force, until the test ends."""

    def put(text):
        file.write_text(text)
        said = server.log().count("were read again")
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while server.log().count("were read again") == said:
            assert time.monotonic() < deadline, server.log()[-2000:]
            time.sleep(0.01)

    yield put
    put("")


class World:
    """Images of Alice's: one with bytes and its parent, one without, one that is shared with Bob's project."""

    def __init__(self, alice, admin, bob):
        self.alice, self.admin, self.bob = alice, admin, bob
        self.parent = alice.create_active(b"parent" * 1000)["id"]
        self.active = alice.create_active(b"bytes" * 1000)["id"]
        self.queued = alice.create()["id"]
        self.shared = alice.create()["id"]
        alice.post(self.of(self.shared, "/members"), {"member": "beta"}).expect(200)

    @staticmethod
    def of(image_id, rest=""):
        return f"/v2/images/{image_id}{rest}"

    def change(self, who, image_id, name, value):
        return who.patch(self.of(image_id), [{"op": "add", "path": f"/{name}", "value": value}])


@pytest.fixture
def world(alice, admin, bob):
    return World(alice, admin, bob)


# A rule, what it is asked for, and the answers if it allows and if it does not.
ASKED = [
    ("add_image", 201, 403, lambda w: w.alice.post("/v2/images", {})),
    ("get_image", 200, 404, lambda w: w.alice.get(w.of(w.active))),
    ("get_image", 200, 404, lambda w: w.alice.download(w.active)),
    ("get_image", 204, 404, lambda w: w.alice.delete(w.of(w.active))),
    ("get_images", 200, 403, lambda w: w.alice.get("/v2/images")),
    ("modify_image", 200, 403, lambda w: w.change(w.alice, w.queued, "x", "1")),
    ("modify_image", 204, 403, lambda w: w.alice.put(w.of(w.queued, "/tags/x"))),
    ("modify_image", 204, 403, lambda w: w.alice.stage(w.queued, b"x")),
    ("delete_image", 204, 403, lambda w: w.alice.delete(w.of(w.active))),
    ("publicize_image", 200, 403, lambda w: w.change(w.admin, w.queued, "visibility", "public")),
    ("publicize_image", 201, 403, lambda w: w.admin.post("/v2/images", {"visibility": "public"})),
    ("communitize_image", 200, 403, lambda w: w.change(w.alice, w.queued, "visibility", "community")),
    ("communitize_image", 201, 403, lambda w: w.alice.post("/v2/images", {"visibility": "community"})),
    ("download_image", 200, 403, lambda w: w.alice.download(w.active)),
    ("download_image", 200, 403, lambda w: w.alice.get(w.of(w.active, "/extents"))),
    ("download_image", 200, 403, lambda w: w.alice.get(w.of(w.active, "/delta?base=none"))),
    ("download_image", 201, 400, lambda w: w.alice.post("/v2/images", {"os_parent_id": w.parent})),
    ("download_from_store", 200, 403, lambda w: w.alice.get(w.of(w.active, "/file?prefer=tegula"))),
    ("upload_image", 204, 403, lambda w: w.alice.upload(w.queued, b"x")),
    ("deactivate", 204, 403, lambda w: w.alice.post(w.of(w.active, "/actions/deactivate"))),
    ("reactivate", 204, 403, lambda w: w.alice.post(w.of(w.active, "/actions/reactivate"))),
    ("add_member", 200, 403, lambda w: w.alice.post(w.of(w.queued, "/members"), {"member": "beta"})),
    ("delete_member", 204, 403, lambda w: w.alice.delete(w.of(w.shared, "/members/beta"))),
    ("get_member", 200, 404, lambda w: w.alice.get(w.of(w.shared, "/members/beta"))),
    ("get_members", 200, 403, lambda w: w.alice.get(w.of(w.shared, "/members"))),
    ("modify_member", 200, 403, lambda w: w.bob.put(w.of(w.shared, "/members/beta"), {"status": "accepted"})),
    ("set_lineage", 201, 403, lambda w: w.alice.post("/v2/images", {"os_parent_id": w.parent})),
    ("set_lineage", 200, 403, lambda w: w.change(w.alice, w.queued, "os_parent_id", w.parent)),
    ("set_lineage", 200, 403, lambda w: w.alice.patch(w.of(w.queued), [{"op": "remove", "path": "/os_parent_id"}])),
    ("lineage_flatten", 202, 403, lambda w: w.alice.post(w.of(w.active, "/actions/flatten"))),
    # Allowed, it is found out that the one is no ancestor of the other.
    ("lineage_coalesce", 400, 403, lambda w: w.alice.post(w.of(w.active, "/actions/coalesce"), {"to": w.parent})),
    ("stores_info_detail", 200, 403, lambda w: w.admin.get("/v2/info/stores/detail")),
]


@pytest.mark.parametrize(("rule", "allowed", "denied", "call"), ASKED, ids=[f"{n}-{row[0]}" for n, row in enumerate(ASKED)])
def test_each_rule_is_asked(world, policy, rule, allowed, denied, call):
    call(World(world.alice, world.admin, world.bob)).expect(allowed)
    policy(f'"{rule}": "!"\n')
    call(world).expect(denied)


def test_a_listing_does_not_tell_of_images_that_the_policy_hides(policy, carol):
    policy(HIDES)
    secrets, shown = [], []
    for number in range(30):
        # Seven shown, with more and more hidden ones between them.
        if number in (0, 1, 3, 6, 10, 15, 21):
            shown.append(carol.create(name=f"{number:02}")["id"])
        else:
            secrets.append(carol.create(name=f"{number:02}", classified="yes")["id"])
    shown.reverse()
    assert all(carol.get(f"/v2/images/{secret}").status == 404 for secret in secrets)
    for limit in [1, 2, 3, 7, 8, 100]:
        path, seen = f"/v2/images?visibility=shared&limit={limit}&sort=name:desc", []
        while path:
            answer = carol.get(path).expect(200)
            page = answer.json()
            assert not any(secret.encode() in answer.body for secret in secrets), answer
            # As if there were no others: a page goes on if it is full.
            assert len(page["images"]) == min(limit, len(shown) - len(seen))
            assert ("next" in page) == (len(page["images"]) == limit)
            seen += [image["id"] for image in page["images"]]
            path = page.get("next")
        assert seen == shown, f"in pages of {limit}"
    # What is hidden is as good a marker as what never was.
    never = "7b1c6f0e-3a52-4c55-9d0b-8f1d2c3b4a59"
    answers = [carol.get(f"/v2/images?marker={marker}").expect(400).body.replace(marker.encode(), b"") for marker in (secrets[0], never)]
    assert answers[0] == answers[1]
    assert [image["id"] for image in carol.list(f"visibility=shared&sort=name:desc&marker={shown[3]}")] == shown[4:]


def test_bytes_cannot_be_sent_to_an_image_that_the_policy_hides(policy, alice):
    image_id = alice.create(classified="yes")["id"]
    policy(HIDES)
    for call in ["file", "stage"]:
        alice.request("PUT", f"/v2/images/{image_id}/{call}", b"x", headers={"Content-Type": OCTETS}).expect(404)

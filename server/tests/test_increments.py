"""Images that are increments of others: what is sent, what is kept, what a host has to fetch.

An operator uploads the first version of a disk whole and the next ones as deltas; a host that holds one version pulls the next.
"""

import filecmp
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
import uuid

import pytest
from support import disks
from support.images import Images
from support.proxy import Proxy
from support.server import ROOT

MIB = 1 << 20
DELTA = "application/vnd.tegula.delta"
QCOW2 = "application/x-qcow2"


@pytest.fixture(scope="session")
def series(request, tmp_path_factory):
    """The small series of disks: that of tools/test if it is there, else one of our own."""
    made = ROOT / "target/series-small"
    if not (made / "STAMP").exists():
        made = tmp_path_factory.mktemp("series") / "small"
        subprocess.run([ROOT / "tools/make-series", "small", made], check=True, stderr=subprocess.DEVNULL)
    return {version: made / f"{version}.raw" for version in ["v1", "v2", "v3", "v4", "v5", "v6", "other"]}


class Operator:
    """Somebody with a store of their own, in which all versions are."""

    def __init__(self, tegula, directory, series):
        self.tegula, self.directory = tegula, directory
        self.run("init")
        for version, parent in zip(["v1", "v2", "v3", "v4", "v5", "v6"], [None, "v1", "v2", "v3", "v4", "v5"]):
            self.run("put", version, series[version], *(["--parent", parent] if parent else []))
        self.run("put", "other", series["other"])

    def run(self, *arguments):
        """Runs the binary on the store; returns what it says."""
        command = [self.tegula, "--store", self.directory / "store", "--json", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout else None

    def delta(self, base, image):
        """The delta between two versions."""
        path = self.directory / f"{base}-{image}.delta"
        if not path.exists():
            self.run("delta", "create", base, image, "-o", path)
        return path.read_bytes()

    def digest(self, version):
        """The digest of a version."""
        return self.run("show", version)["digest"]


@pytest.fixture(scope="module")
def operator(tegula, tmp_path_factory, series):
    """The operator's side."""
    return Operator(tegula, tmp_path_factory.mktemp("operator"), series)


@pytest.fixture(scope="module")
def uploaded(alice, operator, series):
    """All versions in the catalog, by name: the first sent whole, the others as deltas from the one before."""
    images = {"v1": alice.create_active(series["v1"].read_bytes(), name="v1")}
    for parent, version in zip(["v1", "v2", "v3", "v4", "v5"], ["v2", "v3", "v4", "v5", "v6"]):
        image = alice.create(name=version, os_parent_id=images[parent]["id"])
        headers = {"Content-Type": DELTA, "If-Parent-Match": f'"{images[parent]["os_tree_hash"]}"'}
        alice.upload(image["id"], operator.delta(parent, version), headers=headers).expect(204)
        images[version] = alice.show(image["id"])
    images["other"] = alice.create_active(series["other"].read_bytes(), name="other")
    return images


def eventually(ask, holds, seconds=30):
    """Asks until what it gets holds; returns that."""
    deadline = time.monotonic() + seconds
    while not holds(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_the_server_says_that_it_knows_increments(alice, nobody):
    lineage = alice.get("/v2/info/lineage").expect(200).json()["lineage"]
    assert lineage["version"] == 1
    assert lineage["granularity"] == 65536
    assert lineage["digest"] == "blake3"
    assert DELTA in lineage["delta_formats"]
    nobody.get("/v2/info/lineage").expect(401)
    assert alice.post("/v2/info/lineage").expect(405).headers["Allow"] == "GET"


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_an_increment_is_a_whole_image(alice, uploaded, operator, series, version):
    image = uploaded[version]
    data = series[version].read_bytes()
    assert image["status"] == "active"
    assert image["size"] == image["virtual_size"] == len(data)
    assert image["os_tree_hash"] == f"blake3-tree:64k:{operator.digest(version)}"
    downloaded = alice.download(image["id"]).expect(200)
    assert downloaded.body == data
    part = alice.download(image["id"], Range="bytes=70000-200000").expect(206)
    assert part.body == data[70000:200001]
    # Digests of all bytes may come later; when they come, they are right.
    hashed = eventually(lambda: alice.show(image["id"]), lambda shown: shown["os_hash_value"])
    assert hashed["checksum"] == hashlib.md5(data).hexdigest()
    assert hashed["os_hash_value"] == hashlib.sha512(data).hexdigest()


def test_an_increment_names_its_parent_and_what_it_costs(alice, uploaded, operator):
    assert "os_parent_id" not in uploaded["v1"]
    image = uploaded["v2"]
    assert image["os_parent_id"] == uploaded["v1"]["id"]
    assert image["os_chain_depth"] >= 1
    stored = operator.run("delta", "size", "v1", "v2")["record_bytes"]
    assert 0 < image["os_delta_size"] <= 2 * max(stored, operator.run("diff", "v1", "v2")["changed_bytes"])


def test_ordinary_images_show_nothing_of_all_this(alice):
    image = alice.create()
    assert not {"os_parent_id", "os_delta_size", "os_chain_depth", "os_tree_hash"} & set(image)


# --- What differs -----------------------------------------------------------------------------------------------------


def extents(client, image_id, query):
    """All extents of an answer, page by page."""
    path = f"/v2/images/{image_id}/extents?{query}"
    found, pages = [], 0
    while path:
        page = client.get(path).expect(200).json()
        found += page["extents"]
        path = page.get("next")
        pages += 1
        assert pages < 10_000
    return found, pages


def blocks(extents_):
    """{block: type}"""
    return {
        block: extent["type"]
        for extent in extents_
        for block in range(extent["offset"] // 65536, -(-(extent["offset"] + extent["length"]) // 65536))
    }


@pytest.mark.parametrize(("base", "image"), [("v1", "v2"), ("v2", "v3"), ("v4", "v5"), ("v5", "v6"), ("v6", "v1"), ("v1", "other")])
def test_what_differs_between_two_images_is_what_differs_between_the_files(alice, uploaded, series, base, image):
    answer = alice.get(f"/v2/images/{uploaded[image]['id']}/extents?base={uploaded[base]['id']}").expect(200).json()
    old, new = series[base].read_bytes(), series[image].read_bytes()
    assert answer["size"] == len(new) and answer["granularity"] == 65536
    due = {}
    for block in range(-(-max(len(old), len(new)) // 65536)):
        before, after = (data[block * 65536 : (block + 1) * 65536].ljust(65536, b"\0") for data in (old, new))
        if before != after and block * 65536 < len(new):
            due[block] = "data" if after.strip(b"\0") else "zero"
    found = blocks(answer["extents"])
    shared = min(len(old), len(new)) // 65536
    assert {block: kind for block, kind in found.items() if block < shared} == {
        block: kind for block, kind in due.items() if block < shared
    }
    assert set(due) <= set(found)
    offsets = [extent["offset"] for extent in answer["extents"]]
    assert offsets == sorted(offsets)
    for one, two in zip(answer["extents"], answer["extents"][1:]):
        assert one["offset"] + one["length"] <= two["offset"]
    # In pages it is the same.
    paged, pages = extents(alice, uploaded[image]["id"], f"base={uploaded[base]['id']}&limit=3")
    assert blocks(paged) == found
    assert pages > 1 or len(answer["extents"]) <= 3


def test_what_an_image_has_at_all(alice, uploaded, series):
    data = series["v1"].read_bytes()
    found = blocks(alice.get(f"/v2/images/{uploaded['v1']['id']}/extents?base=none").expect(200).json()["extents"])
    has_data = {block for block in range(len(data) // 65536) if data[block * 65536 : (block + 1) * 65536].strip(b"\0")}
    assert {block for block, kind in found.items() if kind == "data"} == has_data
    parent = alice.get(f"/v2/images/{uploaded['v2']['id']}/extents?base=parent").expect(200).json()
    named = alice.get(f"/v2/images/{uploaded['v2']['id']}/extents?base={uploaded['v1']['id']}").expect(200).json()
    assert parent["extents"] == named["extents"]


def test_a_delta_never_changes_and_may_be_fetched_in_parts(alice, uploaded, operator):
    path = f"/v2/images/{uploaded['v3']['id']}/delta?base={uploaded['v2']['id']}"
    whole = alice.get(path, headers={"Accept": DELTA}).expect(200)
    assert whole.headers["Content-Type"] == DELTA
    # What it says is what the operator's says; how its chunks are compressed is another store's doing.
    served = operator.directory / "served.delta"
    served.write_bytes(whole.body)
    operator.delta("v2", "v3")
    shown = [operator.run("delta", "show", path) for path in [served, operator.directory / "v2-v3.delta"]]
    same = ["block_size", "base", "target", "data_blocks", "zero_blocks", "records", "extents"]
    assert [{key: one.get(key) for key in same} for one in shown[:1]] == [{key: one.get(key) for key in same} for one in shown[1:]]
    assert int(whole.headers["X-Delta-Size"]) == int(whole.headers["Content-Length"]) == len(whole.body)
    assert whole.headers["ETag"].startswith('"')
    for first, last in [(0, 0), (1, 70_000), (len(whole.body) - 1, len(whole.body) - 1), (500_000, len(whole.body) - 1)]:
        headers = {"Accept": DELTA, "Range": f"bytes={first}-{last}", "If-Range": whole.headers["ETag"]}
        part = alice.get(path, headers=headers).expect(206)
        assert part.body == whole.body[first : last + 1]
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole.body)}"
        assert part.headers["ETag"] == whole.headers["ETag"]
    alice.get(path, headers={"Accept": DELTA, "Range": f"bytes={len(whole.body)}-"}).expect(416)
    # Of another delta, parts are no use: all of it comes.
    other = alice.get(path, headers={"Accept": DELTA, "Range": "bytes=5-", "If-Range": '"something else"'}).expect(200)
    assert other.body == whole.body
    alice.get(path, headers={"Accept": DELTA, "If-None-Match": whole.headers["ETag"]}).expect(304)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_a_delta_from_something_else_is_refused_and_leaves_no_trace(alice, uploaded, operator):
    parent = uploaded["v1"]
    good = operator.delta("v1", "v2")
    headers = {"Content-Type": DELTA, "If-Parent-Match": f'"{parent["os_tree_hash"]}"'}
    image_id = alice.create(os_parent_id=parent["id"])["id"]
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    attempts = [
        (good, headers | {"If-Parent-Match": f'"{uploaded["v2"]["os_tree_hash"]}"'}, (412,)),
        (operator.delta("v2", "v3"), headers, (400, 409, 412, 415)),
        (bytes(damaged), headers, (400, 415)),
        (good[:-1], headers, (400, 415)),
        (good + b"x", headers, (400, 415)),
        (b"", headers, (400, 415)),
        (b"no delta at all", headers, (400, 415)),
        (disks.noise(100_000), headers, (400, 415)),
    ]
    for body, sent, due in attempts:
        alice.upload(image_id, body, headers=sent).expect(*due)
        shown = alice.show(image_id)
        assert (shown["status"], shown["size"], shown["checksum"]) == ("queued", None, None)
        assert shown["os_parent_id"] == parent["id"] and "os_tree_hash" not in shown
        alice.download(image_id).expect(204)
    orphan = alice.create()["id"]
    alice.upload(orphan, good, headers={"Content-Type": DELTA}).expect(400, 409, 412, 415)
    alice.upload(image_id, good, headers=headers).expect(204)


def test_a_parent_must_be_an_image_that_the_caller_may_download(server, alice, carol):
    images = Images(server)
    for name, due in [("absent", (400, 403, 404)), ("deleted", (400, 403, 404)), ("foreign", (400, 403, 404))]:
        alice.post("/v2/images", {"os_parent_id": images[name]}).expect(*due)
    for name in ["private", "shared"]:
        carol.post("/v2/images", {"os_parent_id": images[name]}).expect(400, 403, 404)
    alice.post("/v2/images", {"os_parent_id": "x"}).expect(400)
    alice.post("/v2/images", {"os_parent_id": 1}).expect(400)
    for name in ["os_delta_size", "os_chain_depth", "os_tree_hash"]:
        alice.post("/v2/images", {name: "x"}).expect(400, 403)
    carol.create(os_parent_id=images["public"])
    # Unseen and absent are told alike.
    unseen = carol.post("/v2/images", {"os_parent_id": images["private"]})
    absent = carol.post("/v2/images", {"os_parent_id": images["absent"]})
    assert unseen.status == absent.status
    assert unseen.body == absent.body.replace(images["absent"].encode(), images["private"].encode())


@pytest.mark.parametrize("call", ["extents", "delta"])
def test_who_may_not_download_both_images_learns_nothing_of_their_difference(server, alice, carol, alan, uploaded, call):
    own = carol.create_active(disks.noise(MIB))["id"]
    secret = uploaded["v1"]["id"]
    absent = str(uuid.uuid4())
    nothing = carol.get(f"/v2/images/{own}/{call}?base={absent}").status
    assert nothing in (400, 404)
    carol.get(f"/v2/images/{own}/{call}?base={secret}").expect(nothing)
    carol.get(f"/v2/images/{secret}/{call}?base={own}").expect(404)
    carol.get(f"/v2/images/{absent}/{call}?base={own}").expect(404)
    alan.get(f"/v2/images/{secret}/{call}?base={uploaded['v2']['id']}").expect(403)
    server.client().get(f"/v2/images/{secret}/{call}?base=none").expect(401)
    queued = alice.create()["id"]
    alice.get(f"/v2/images/{queued}/{call}?base={secret}").expect(409)
    alice.get(f"/v2/images/{secret}/{call}?base={queued}").expect(409)
    alice.get(f"/v2/images/{secret}/{call}?base=nonsense").expect(400, 404)
    images = Images(server)
    alice.get(f"/v2/images/{images['deactivated']}/{call}?base={secret}").expect(403, 409)


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "limit=0", "limit=-1", "limit=x", "offset=99999999999999999999", "context=maybe"])
def test_extents_take_no_nonsense(alice, uploaded, query):
    alice.get(f"/v2/images/{uploaded['v2']['id']}/extents?base=parent&{query}").expect(400)


# --- Overlays, chains, deletion ---------------------------------------------------------------------------------------


def qemu_overlay(directory, base, target):
    """A qcow2 file that holds what target has and base has not, as QEMU makes it."""
    overlay = directory / "overlay.qcow2"
    commands = [
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay, str(target.stat().st_size)],
        ["qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", target, "-F", "raw", overlay],
        ["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay],
    ]
    for command in commands:
        subprocess.run(list(map(str, command)), check=True)
    return overlay


def test_an_overlay_of_qemu_is_an_increment_too(alice, uploaded, series, tmp_path):
    overlay = qemu_overlay(tmp_path, series["v1"], series["v2"])
    data = overlay.read_bytes()
    assert len(data) < series["v2"].stat().st_size / 2
    image_id = alice.create(os_parent_id=uploaded["v1"]["id"])["id"]
    headers = {"Content-Type": QCOW2, "If-Parent-Match": f'"{uploaded["v1"]["os_tree_hash"]}"'}
    alice.upload(image_id, data, headers=headers).expect(204)
    shown = alice.show(image_id)
    assert shown["os_tree_hash"] == uploaded["v2"]["os_tree_hash"]
    assert alice.download(image_id).body == series["v2"].read_bytes()


def test_an_increment_has_the_md5_that_is_announced(alice, uploaded, operator, series, tmp_path):
    overlay = qemu_overlay(tmp_path, series["v1"], series["v2"]).read_bytes()
    for kind, data in [(DELTA, operator.delta("v1", "v2")), (QCOW2, overlay)]:
        image_id = alice.create(os_parent_id=uploaded["v1"]["id"])["id"]
        wrong = {"Content-Type": kind, "Content-MD5": hashlib.md5(b"other bytes").hexdigest()}
        alice.upload(image_id, data, headers=wrong).expect(400)
        assert alice.show(image_id)["status"] == "queued"
        right = wrong | {"Content-MD5": hashlib.md5(data).hexdigest()}
        alice.upload(image_id, data, headers=right).expect(204)
        assert alice.show(image_id)["os_tree_hash"] == uploaded["v2"]["os_tree_hash"]


def test_an_overlay_never_opens_what_it_names(alice, uploaded, tmp_path):
    """The name of its backing file is the parent's, whatever it says: nothing of that file gets into the image."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the secret of the host" * 10_000)
    data = disks.qcow2(uploaded["v1"]["size"], backing=str(secret).encode())
    image_id = alice.create(os_parent_id=uploaded["v1"]["id"])["id"]
    answer = alice.upload(image_id, data, headers={"Content-Type": QCOW2}).expect(204, 400, 415)
    if answer.status == 204:
        assert alice.show(image_id)["os_tree_hash"] == uploaded["v1"]["os_tree_hash"]
    assert b"the secret" not in alice.download(image_id).body


def test_a_parent_may_be_deleted_and_its_children_are_whole(alice, operator, series):
    parent = alice.create_active(series["v1"].read_bytes())
    child = alice.create(os_parent_id=parent["id"])["id"]
    alice.upload(child, operator.delta("v1", "v2"), headers={"Content-Type": DELTA}).expect(204)
    grandchild = alice.create(os_parent_id=child)["id"]
    alice.upload(grandchild, operator.delta("v2", "v3"), headers={"Content-Type": DELTA}).expect(204)
    alice.delete(f"/v2/images/{parent['id']}").expect(204)
    assert alice.download(child).body == series["v2"].read_bytes()
    alice.delete(f"/v2/images/{child}").expect(204)
    assert alice.download(grandchild).body == series["v3"].read_bytes()


@pytest.mark.parametrize("action", ["flatten", "coalesce"])
def test_chains_get_shorter_and_no_byte_changes(server, alice, alan, carol, operator, series, action):
    ids = [alice.create_active(series["v1"].read_bytes())["id"]]
    for parent, version in [("v1", "v2"), ("v2", "v3"), ("v3", "v4")]:
        ids.append(alice.create(os_parent_id=ids[-1])["id"])
        alice.upload(ids[-1], operator.delta(parent, version), headers={"Content-Type": DELTA}).expect(204)
    before = alice.show(ids[-1])
    path = f"/v2/images/{ids[-1]}/actions/{action}"
    body = {"to": ids[0]} if action == "coalesce" else None
    alan.post(path, body).expect(403)
    carol.post(path, body).expect(404)
    server.client().post(path, body).expect(401)
    if action == "coalesce":
        alice.post(path, {"to": str(uuid.uuid4())}).expect(400, 404, 409)
        alice.post(path, {}).expect(400)
    alice.post(path, body).expect(200, 202, 204)
    expected = ids[0] if action == "coalesce" else None
    after = eventually(lambda: alice.show(ids[-1]), lambda shown: shown.get("os_parent_id") == expected)
    assert after["os_tree_hash"] == before["os_tree_hash"]
    assert after.get("os_chain_depth", 0) <= before["os_chain_depth"]
    assert alice.download(ids[-1]).body == series["v4"].read_bytes()
    for image_id, version in zip(ids, ["v1", "v2", "v3"]):
        assert alice.download(image_id).body == series[version].read_bytes()


# --- A host -----------------------------------------------------------------------------------------------------------


class Host:
    """A machine with a disk, that reaches the catalog through a proxy which counts."""

    def __init__(self, tegula, server, directory):
        self.tegula, self.server, self.directory = tegula, server, directory
        self.proxy = Proxy(server.port)
        self.token = server.client("alice").token

    def command(self, image, to, *options):
        """The command that pulls an image."""
        return [self.tegula, "--json", "pull", f"http://127.0.0.1:{self.proxy.port}/{image['id']}", "--to", to, *options]

    def pull(self, *arguments):
        """Pulls; returns what came over the wire, and what the command said."""
        before = self.proxy.received
        environment = os.environ | {"OS_TOKEN": self.token}
        done = subprocess.run(list(map(str, self.command(*arguments))), env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return self.proxy.received - before, json.loads(done.stdout)

    def killed_while_pulling(self, seconds, *arguments):
        """Pulls, and kills the command after a while; returns whether it was still at it."""
        environment = os.environ | {"OS_TOKEN": self.token}
        with subprocess.Popen(
            list(map(str, self.command(*arguments))), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as running:
            try:
                running.wait(seconds)
                return False
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                return True


@pytest.fixture
def host(tegula, server, tmp_path):
    """A host."""
    made = Host(tegula, server, tmp_path)
    yield made
    made.proxy.close()


# Beside the delta: the heads of a few answers, the image's record, the discovery.
TALK_BYTES = 32 << 10


def test_a_host_goes_from_version_to_version_and_fetches_only_what_differs(host, uploaded, operator, series):
    disk = host.directory / "disk.raw"
    fetched, said = host.pull(uploaded["v1"], disk)
    assert filecmp.cmp(disk, series["v1"], shallow=False)
    assert fetched < operator.run("delta", "size", "--full", "v1")["bytes"] + TALK_BYTES
    for old, new in zip(["v1", "v2", "v3", "v4", "v5"], ["v2", "v3", "v4", "v5", "v6"]):
        fetched, said = host.pull(uploaded[new], disk, "--base", disk, "--base-image", uploaded[old]["id"])
        assert filecmp.cmp(disk, series[new], shallow=False), f"{new} is not what the operator sent"
        # The catalog's store has its chunks compressed in its own way, and takes them as they are.
        size, changed = said["fetched_bytes"], operator.run("diff", old, new)["changed_bytes"]
        assert size <= changed + TALK_BYTES, f"{old} to {new}: a delta of {size} bytes for {changed} changed ones"
        assert size <= fetched <= size + TALK_BYTES, f"{old} to {new}: {fetched} bytes for a delta of {size}"
        assert said["digest"] == operator.digest(new)
    leftovers = {path.name for path in host.directory.iterdir()}
    assert leftovers == {"disk.raw"}


def test_a_host_may_keep_the_old_version(host, uploaded, operator, series):
    old, new = host.directory / "old.raw", host.directory / "new.raw"
    shutil.copy(series["v3"], old)
    fetched, _ = host.pull(uploaded["v4"], new, "--base", old, "--base-image", uploaded["v3"]["id"])
    assert filecmp.cmp(new, series["v4"], shallow=False) and filecmp.cmp(old, series["v3"], shallow=False)
    assert fetched <= operator.run("delta", "size", "v3", "v4")["bytes"] + TALK_BYTES


def test_a_host_that_holds_something_else_is_told_and_keeps_it(host, uploaded, series):
    disk = host.directory / "disk.raw"
    shutil.copy(series["other"], disk)
    environment = os.environ | {"OS_TOKEN": host.token}
    command = host.command(uploaded["v2"], disk, "--base", disk, "--base-image", uploaded["v1"]["id"])
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, timeout=60)
    assert done.returncode != 0 and done.stderr
    assert filecmp.cmp(disk, series["other"], shallow=False)


def test_a_pull_that_is_killed_again_and_again_ends_bit_exact(host, uploaded, operator, series):
    disk = host.directory / "disk.raw"
    shutil.copy(series["v1"], disk)
    arguments = (uploaded["v2"], disk, "--base", disk, "--base-image", uploaded["v1"]["id"])
    killed = 0
    chance = random.Random(4)
    for round_ in range(12):
        # The wire breaks off as well, farther on from time to time.
        host.proxy.cut_after = host.proxy.received + chance.randrange(20_000, 900_000)
        killed += host.killed_while_pulling(chance.uniform(0.02, 0.4), *arguments)
    host.proxy.cut_after = None
    host.pull(*arguments)
    assert filecmp.cmp(disk, series["v2"], shallow=False)
    assert killed >= 3, "the rounds were over before they were cut off"
    # All rounds together fetched the delta about once: what had come was not fetched again.
    size = operator.run("delta", "size", "v1", "v2")["bytes"]
    assert host.proxy.received < 2 * size + 13 * (TALK_BYTES + 300_000)


def test_a_pull_goes_on_after_the_server_was_killed(host, server, uploaded, series):
    """The server dies in the middle and comes back; the host's command is run again, or goes on by itself."""
    disk = host.directory / "disk.raw"
    host.proxy.cut_after = host.proxy.received + 1_000_000
    host.killed_while_pulling(1.0, uploaded["other"], disk)
    server.kill()
    server.start()
    host.proxy.cut_after = None
    host.pull(uploaded["other"], disk)
    assert filecmp.cmp(disk, series["other"], shallow=False)

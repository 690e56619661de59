"""The server is killed while it works. What it had acknowledged is there afterwards, whole; what it had not is there whole or
not at all; and the rest goes on as if nothing had been."""

import http.client
import json
import random
import threading
import time

import pytest
from support import disks
from support.http import PATCH_V21, SlowUpload

MIB = 1 << 20
ROUNDS = 6
GONE = (OSError, http.client.HTTPException)


@pytest.fixture
def victim(start_server):
    """A server to be killed."""
    server = start_server()
    yield server
    assert "panicked at" not in server.log()


def start_again(server):
    server.kill()
    server.start()


def until_killed(server, works, seed):
    """Runs each function in a thread until its connection breaks, kills the server after a while, and starts it again."""

    def run(work):
        try:
            work()
        except GONE:
            pass

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    server.kill()
    for thread in threads:
        thread.join()
    server.start()


def test_uploads_that_were_acknowledged_are_whole_and_the_others_have_left_no_trace(victim):
    acknowledged, begun = {}, {}
    for round_ in range(ROUNDS):

        def upload(worker, round_=round_):
            client = victim.client("alice")
            for number in range(1000):
                data = disks.noise(100_000 + 77 * number, 1000 * round_ + 100 * worker + number)
                image_id = client.create()["id"]
                begun[image_id] = data
                if client.upload(image_id, data).status == 204:
                    acknowledged[image_id] = data

        until_killed(victim, [lambda worker=worker: upload(worker) for worker in range(3)], round_)
        client = victim.client("alice")
        for image_id, data in list(begun.items())[-12:]:
            image = client.show(image_id)
            assert image["status"] in ("queued", "active"), image
            body = client.download(image_id).body
            if image["status"] == "active":
                assert body == data and image["size"] == len(data)
            else:
                assert image_id not in acknowledged, "an acknowledged upload is gone"
                assert body == b"" and image["size"] is None and image["checksum"] is None
                # The next may try.
                client.upload(image_id, data).expect(204)
                acknowledged[image_id] = data
                assert client.download(image_id).body == data
    assert acknowledged
    client = victim.client("alice")
    for image_id, data in acknowledged.items():
        assert client.download(image_id).expect(200).body == data
    assert {image["id"] for image in client.list("limit=1000&status=active")} >= set(acknowledged)
    assert {image["status"] for image in client.list("limit=1000")} <= {"queued", "active"}


@pytest.mark.parametrize("call", ["file", "stage"])
def test_an_upload_that_the_server_did_not_outlive_may_be_tried_again(victim, call):
    client = victim.client("alice")
    images = [client.create()["id"] for _ in range(5)]
    uploads = [
        SlowUpload(victim.port, client.token, image_id, 2 * MIB, disks.noise(sent, 3), call)
        for image_id, sent in zip(images, [0, 1, 65536, 65537, MIB])
    ]
    time.sleep(0.3)
    start_again(victim)
    for upload in uploads:
        upload.close()
    client = victim.client("alice")
    for image_id in images:
        assert client.show(image_id)["status"] == "queued"
        assert client.download(image_id).expect(204).body == b""
        client.upload(image_id, b"bytes").expect(204)
        assert client.download(image_id).body == b"bytes"


def test_what_was_staged_stays_staged(victim):
    client = victim.client("alice")
    image_id = client.create()["id"]
    client.stage(image_id, disks.noise(300_000)).expect(204)
    before = client.show(image_id)
    start_again(victim)
    assert victim.client("alice").show(image_id) == before


def test_changes_that_were_acknowledged_are_there_and_none_is_half_made(victim):
    client = victim.client("alice")
    ids = [client.create(a="0", b="0", tags=["0"])["id"] for _ in range(3)]
    done = dict.fromkeys(ids, 0)
    tried = dict.fromkeys(ids, 0)
    for round_ in range(ROUNDS):

        def change(image_id):
            mine = victim.client("alice")
            while True:
                number = tried[image_id] = max(tried[image_id], done[image_id]) + 1
                value = str(number)
                operations = [{"op": "replace", "path": f"/{name}", "value": value} for name in ("a", "name", "b")]
                operations.append({"op": "replace", "path": "/tags", "value": [value]})
                mine.patch(f"/v2/images/{image_id}", operations).expect(200)
                done[image_id] = number

        until_killed(victim, [lambda image_id=image_id: change(image_id) for image_id in ids], 50 + round_)
        client = victim.client("alice")
        for image_id in ids:
            image = client.show(image_id)
            assert image["a"] == image["b"] == image["name"] == image["tags"][0], f"half a change: {image}"
            assert done[image_id] <= int(image["a"]) <= tried[image_id]
    assert all(done.values())


def test_images_that_were_deleted_stay_deleted_and_the_others_whole(victim):
    alive, deleted, unsure = {}, set(), set()
    for round_ in range(ROUNDS):
        client = victim.client("alice")
        batch = {client.create_active(data, tags=["t"])["id"]: data for data in (disks.noise(70_000, n) for n in range(8))}
        alive |= batch

        def delete(part):
            mine = victim.client("alice")
            for image_id in part:
                unsure.add(image_id)
                mine.delete(f"/v2/images/{image_id}").expect(204)
                deleted.add(image_id)
            while True:
                mine.get("/v2/images?limit=1")

        ids = list(batch)
        until_killed(victim, [lambda part=part: delete(part) for part in (ids[:2], ids[2:4])], 90 + round_)
        client = victim.client("alice")
        for image_id in batch:
            status = client.get(f"/v2/images/{image_id}").status
            assert status == (404 if image_id in deleted else 200) or image_id in unsure - deleted
            if status == 404:
                del alive[image_id]
                client.download(image_id).expect(404)
                client.post("/v2/images", {"id": image_id}).expect(409)
    client = victim.client("alice")
    for image_id, data in alive.items():
        assert client.download(image_id).expect(200).body == data
    assert {image["id"] for image in client.list("limit=1000&tag=t")} == set(alive)


def test_members_and_tags_that_were_acknowledged_are_there(victim):
    alice, bob = victim.client("alice"), victim.client("bob")
    image_id = alice.create()["id"]
    path = f"/v2/images/{image_id}"
    alice.post(f"{path}/members", {"member": "beta"}).expect(200)
    bob.put(f"{path}/members/beta", {"status": "accepted"}).expect(200)
    alice.put(f"{path}/tags/blue").expect(204)
    start_again(victim)
    alice, bob = victim.client("alice"), victim.client("bob")
    assert alice.get(f"{path}/members/beta").json()["status"] == "accepted"
    assert [image["id"] for image in bob.list()] == [image_id]
    alice.delete(f"{path}/members/beta").expect(204)
    alice.delete(f"{path}/tags/blue").expect(204)
    start_again(victim)
    alice = victim.client("alice")
    alice.get(f"{path}/members/beta").expect(404)
    assert alice.show(image_id)["tags"] == []


def test_a_download_that_was_cut_off_says_so(victim):
    """A client must be able to tell: fewer bytes come than were announced."""
    client = victim.client("alice")
    image_id = client.create_active(disks.noise(16 * MIB))["id"]
    connection = http.client.HTTPConnection("127.0.0.1", victim.port, timeout=20)
    connection.request("GET", f"/v2/images/{image_id}/file", headers={"X-Auth-Token": client.token})
    answer = connection.getresponse()
    answer.read(100_000)
    start_again(victim)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    assert len(victim.client("alice").download(image_id).body) == 16 * MIB


# --- Changes at the same time -----------------------------------------------------------------------------------------


def at_once(functions):
    """Runs the functions in threads; raises what the first of them raised."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(function) for function in functions]]


def test_changes_at_the_same_time_are_each_made_whole(server):
    """Every writer sets two properties to one value; no reader ever sees them differ, and no other property is lost."""
    alice = server.client("alice")
    image_id = alice.create(a="-", b="-", kept="kept")["id"]
    path = f"/v2/images/{image_id}"
    ended = threading.Event()

    def write(writer):
        client = server.client("alice")
        for number in range(40):
            value = f"{writer}.{number}"
            operations = [
                {"op": "replace", "path": "/a", "value": value},
                {"op": "add", "path": f"/w{writer}", "value": value},
                {"op": "replace", "path": "/b", "value": value},
            ]
            client.patch(path, operations, PATCH_V21).expect(200)

    def read():
        client = server.client("alice")
        while not ended.is_set():
            image = client.show(image_id)
            assert image["a"] == image["b"] and image["kept"] == "kept"

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    at_once([lambda writer=writer: write(writer) for writer in range(6)])
    ended.set()
    for reader in readers:
        reader.join()
    image = alice.show(image_id)
    assert image["a"] == image["b"]
    assert [image[f"w{writer}"] for writer in range(6)] == [f"{writer}.39" for writer in range(6)]


def test_tags_at_the_same_time_are_all_kept(server):
    alice = server.client("alice")
    image_id = alice.create()["id"]

    def put(writer):
        client = server.client("alice")
        for number in range(15):
            client.put(f"/v2/images/{image_id}/tags/{writer}-{number}").expect(204)

    at_once([lambda writer=writer: put(writer) for writer in range(8)])
    assert len(alice.show(image_id)["tags"]) == 120


def test_of_many_that_make_the_same_image_one_does(server):
    import uuid

    image_id = str(uuid.uuid4())
    statuses = at_once(
        [lambda: server.client("alice").post("/v2/images", {"id": image_id}).status for _ in range(8)]
    )
    assert sorted(statuses) == [201] + [409] * 7


def test_of_many_that_delete_an_image_one_does(server):
    image_id = server.client("alice").create_active()["id"]
    statuses = at_once([lambda: server.client("alice").delete(f"/v2/images/{image_id}").status for _ in range(8)])
    assert sorted(statuses) == [204] + [404] * 7


def test_a_server_that_is_told_to_end_finishes_what_it_does(start_server):
    server = start_server()
    client = server.client("alice")
    image_id = client.create()["id"]
    upload = SlowUpload(server.port, client.token, image_id, MIB)
    time.sleep(0.2)
    server.process.terminate()
    time.sleep(0.3)
    assert upload.finish() == 204
    assert server.process.wait(30) == 0
    server.start()
    image = server.client("alice").show(image_id)
    assert (image["status"], image["size"]) == ("active", MIB), json.dumps(image)

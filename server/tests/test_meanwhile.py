"""What happens to an image, or to its parent, while its bytes are on their way in or out; and odd ways to send them."""

import hashlib
import http.client
import json
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import disks
from support.http import OCTETS, open_socket

MIB = 1 << 20
DELTA = "application/vnd.tegula.delta"
QCOW2 = "application/x-qcow2"


@pytest.fixture(scope="module")
def versions(alice):
    """A parent and its child, in the catalog, and the delta between them."""
    first = disks.noise(4 * MIB, 1)
    second = first[:MIB] + disks.noise(300_000, 2) + first[MIB + 300_000 :]
    parent = alice.create_active(first)
    child = alice.create(os_parent_id=parent["id"])
    alice.upload(child["id"], second).expect(204)
    delta = alice.get(f"/v2/images/{child['id']}/delta?base={parent['id']}", headers={"Accept": DELTA}).expect(200).body
    return {"parent": parent, "child": alice.show(child["id"]), "bytes": second, "delta": delta, "overlay": disks.qcow2(4 * MIB, backing=b"parent")}


def increments(alice, versions, kind):
    """An image that waits for its increment, and the increment."""
    image_id = alice.create(os_parent_id=versions["parent"]["id"])["id"]
    return image_id, versions[{DELTA: "delta", QCOW2: "overlay", OCTETS: "bytes"}[kind]]


def head(client, image_id, *lines, kind=OCTETS):
    """The head of a request that uploads, without the empty line."""
    lines = [
        f"PUT /v2/images/{image_id}/file HTTP/1.1",
        "Host: x",
        f"X-Auth-Token: {client.token}",
        f"Content-Type: {kind}",
        *lines,
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def answer(connection):
    """The status of the next answer, whose body is read."""
    found = http.client.HTTPResponse(connection)
    found.begin()
    found.read()
    return found.status


def eventually(holds, seconds=15):
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_queued(client, image_id):
    """The image is as if no bytes had ever been sent."""
    eventually(lambda: client.show(image_id)["status"] == "queued")
    shown = client.show(image_id)
    assert [shown[key] for key in ["size", "virtual_size", "checksum", "os_hash_value"]] == [None] * 4, shown
    assert "os_tree_hash" not in shown
    assert client.download(image_id).expect(204).body == b""


# --- In ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DELTA, QCOW2])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_increment_that_breaks_off_anywhere_leaves_no_trace(server, alice, versions, kind, chunked):
    image_id, data = increments(alice, versions, kind)
    if chunked:
        start = head(alice, image_id, "Transfer-Encoding: chunked", kind=kind) + b"\r\n"
        parts = [data[at : at + 50_000] for at in range(0, len(data), 50_000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        start, body = head(alice, image_id, f"Content-Length: {len(data)}", kind=kind) + b"\r\n", data
    step = max(len(body) // 15, 1)
    for cut in [0, 1, 2, 7, 100, *range(200, len(body), step), *range(len(body) - 7, len(body))]:
        connection = open_socket(server.port)
        connection.sendall(start + body[:cut])
        connection.close()
        assert_queued(alice, image_id)
    # The server may not have seen yet that the last one has ended.
    eventually(lambda: alice.upload(image_id, data, headers={"Content-Type": kind}).expect(204, 409).status == 204)
    due = versions["child"] if kind == DELTA else versions["parent"]
    assert alice.show(image_id)["os_tree_hash"] == due["os_tree_hash"]


@pytest.mark.parametrize("kind", [DELTA, QCOW2])
def test_an_image_that_is_deleted_while_its_increment_comes_is_gone(server, alice, versions, kind):
    image_id, data = increments(alice, versions, kind)
    connection = open_socket(server.port)
    connection.sendall(head(alice, image_id, f"Content-Length: {len(data)}", kind=kind) + b"\r\n" + data[:-1])
    eventually(lambda: alice.show(image_id)["status"] == "saving")
    alice.delete(f"/v2/images/{image_id}").expect(204)
    connection.sendall(data[-1:])
    assert answer(connection) in (404, 410)
    alice.get(f"/v2/images/{image_id}").expect(404)
    alice.download(image_id).expect(404)


@pytest.mark.parametrize("kind", [DELTA, QCOW2])
def test_an_increment_whose_parent_is_deleted_while_it_comes_is_whole_or_refused(server, alice, versions, kind):
    parent = alice.create_active(disks.noise(4 * MIB, 1))
    image_id = alice.create(os_parent_id=parent["id"])["id"]
    data = versions["delta" if kind == DELTA else "overlay"]
    connection = open_socket(server.port)
    connection.sendall(head(alice, image_id, f"Content-Length: {len(data)}", kind=kind) + b"\r\n" + data[:-1])
    eventually(lambda: alice.show(image_id)["status"] == "saving")
    alice.delete(f"/v2/images/{parent['id']}").expect(204)
    connection.sendall(data[-1:])
    status = answer(connection)
    if status == 204:
        due = versions["child"] if kind == DELTA else versions["parent"]
        assert alice.show(image_id)["os_tree_hash"] == due["os_tree_hash"]
    else:
        assert status == 409, "what it was to be an increment of is gone"
        assert_queued(alice, image_id)


def test_staged_bytes_of_an_image_that_is_deleted_meanwhile_are_gone(server, alice):
    image_id = alice.create()["id"]
    connection = open_socket(server.port)
    start = head(alice, image_id, "Content-Length: 100000").replace(b"/file", b"/stage")
    connection.sendall(start + b"\r\n" + b"x" * 99_999)
    eventually(lambda: alice.show(image_id)["status"] == "uploading")
    alice.delete(f"/v2/images/{image_id}").expect(204)
    connection.sendall(b"x")
    assert answer(connection) in (404, 410)
    alice.get(f"/v2/images/{image_id}").expect(404)


def test_trailers_are_not_bytes_and_change_nothing(server, alice):
    image_id = alice.create()["id"]
    trailers = "Content-Length: 3\r\nX-Auth-Token: wrong\r\nContent-MD5: nonsense\r\nX-Image-Meta-Store: none\r\n"
    connection = open_socket(server.port)
    start = head(alice, image_id, "Transfer-Encoding: chunked", "TE: trailers", "Trailer: Content-MD5")
    connection.sendall(start + b"\r\n5\r\nbytes\r\n0\r\n" + trailers.encode() + b"\r\n")
    assert answer(connection) == 204
    # The connection goes on after them.
    connection.sendall(f"GET /v2/images/{image_id}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {alice.token}\r\n\r\n".encode())
    assert answer(connection) == 200
    assert alice.show(image_id)["checksum"] == hashlib.md5(b"bytes").hexdigest()


def test_bytes_after_those_that_were_announced_are_not_the_image_nor_a_request(server, alice):
    image_id = alice.create()["id"]
    connection = open_socket(server.port)
    connection.sendall(head(alice, image_id, "Content-Length: 5") + b"\r\nbytes" + b"\x00more than was said" * 100)
    assert answer(connection) == 204
    connection.settimeout(10)
    rest = b""
    try:
        while part := connection.recv(65536):
            rest += part
    except ConnectionResetError:
        pass
    assert rest == b"" or rest.startswith(b"HTTP/1.1 400 "), rest[:200]
    assert alice.download(image_id).body == b"bytes"


@pytest.mark.parametrize("kind", [OCTETS, DELTA, QCOW2])
def test_who_waits_for_leave_and_then_leaves_has_left_no_trace(server, alice, versions, kind):
    image_id, data = increments(alice, versions, kind)
    start = head(alice, image_id, f"Content-Length: {len(data)}", "Expect: 100-continue", kind=kind) + b"\r\n"
    connection = open_socket(server.port)
    connection.sendall(start)
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.close()
    assert_queued(alice, image_id)
    connection = open_socket(server.port)
    connection.sendall(start)
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.sendall(data)
    assert answer(connection) in (204, 409), "the server may not have seen yet that the first has left"


def test_one_of_many_increments_at_once_wins(server, alice, versions):
    image_id, data = increments(alice, versions, DELTA)
    bodies = [(data, DELTA), (versions["overlay"], QCOW2), (versions["bytes"], OCTETS)] * 3

    def send(body):
        return alice.again().upload(image_id, body[0], headers={"Content-Type": body[1]}).status

    with ThreadPoolExecutor(len(bodies)) as threads:
        statuses = list(threads.map(send, bodies))
    assert statuses.count(204) == 1 and set(statuses) <= {204, 409}, statuses
    shown = alice.show(image_id)
    due = versions["parent"] if bodies[statuses.index(204)][1] == QCOW2 else versions["child"]
    assert shown["os_tree_hash"] == due["os_tree_hash"]


# --- Out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["deleted", "deactivated", "made private"])
@pytest.mark.parametrize("what", ["file", "delta"])
def test_who_is_reading_reads_to_the_end(server, alice, change, what):
    """Whoever was let in gets all the bytes, and the right ones; the next is asked anew."""
    data, base = disks.noise(24 * MIB, 7), disks.noise(MIB, 8)
    first = alice.create_active(base)
    image = alice.create(visibility="community")
    alice.upload(image["id"], data).expect(204)
    path = f"/v2/images/{image['id']}/" + ("file" if what == "file" else f"delta?base={first['id']}")
    whole = alice.get(path).expect(200).body
    connection = open_socket(server.port)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {alice.token}\r\n\r\n".encode())
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    received = answer.read(1000)
    match change:
        case "deleted":
            alice.delete(f"/v2/images/{image['id']}").expect(204)
        case "deactivated":
            alice.post(f"/v2/images/{image['id']}/actions/deactivate").expect(204)
        case "made private":
            alice.patch(f"/v2/images/{image['id']}", [{"op": "replace", "path": "/visibility", "value": "private"}]).expect(200)
    received += answer.read()
    assert answer.status == 200 and received == whole
    alice.get(path).expect({"deleted": 404, "deactivated": 403, "made private": 200}[change])


@pytest.mark.parametrize("kind", [DELTA, QCOW2])
def test_an_increment_that_the_server_did_not_outlive_may_be_tried_again(server, alice, versions, kind):
    waiting = [increments(alice, versions, kind) for _ in range(3)]
    for (image_id, data), sent in zip(waiting, [1, 100, -1]):
        connection = open_socket(server.port)
        connection.sendall(head(alice, image_id, f"Content-Length: {len(data)}", kind=kind) + b"\r\n" + data[:sent])
        eventually(lambda image_id=image_id: alice.show(image_id)["status"] == "saving")
    server.kill()
    server.start()
    for image_id, data in waiting:
        assert_queued(alice, image_id)
        alice.upload(image_id, data, headers={"Content-Type": kind}).expect(204)
        due = versions["child"] if kind == DELTA else versions["parent"]
        assert alice.show(image_id)["os_tree_hash"] == due["os_tree_hash"]


def test_what_is_read_while_it_is_deleted_is_there_or_is_not(server, alice, versions):
    """Between looking an image up and opening its bytes it may go, or what it is compared with: that is no failure of the server."""

    def ask(path):
        client = alice.again()
        for _ in range(6):
            response = client.get(path).expect(200, 400, 404)
            if path.endswith("/file") and response.status == 200:
                assert response.body == versions["bytes"][: 2 * MIB]

    with ThreadPoolExecutor(8) as threads:
        for _ in range(40):
            base = alice.create_active(b"something else")["id"]
            image_id = alice.create_active(versions["bytes"][: 2 * MIB])["id"]
            paths = [f"/v2/images/{image_id}/{what}" for what in ["file", f"delta?base={base}", f"extents?base={base}"]]
            asked = [threads.submit(ask, path) for path in paths * 2]
            alice.delete(f"/v2/images/{image_id}").expect(204)
            alice.delete(f"/v2/images/{base}").expect(204)
            for one in asked:
                one.result()


# --- What is left -----------------------------------------------------------------------------------------------------


def test_nothing_of_all_this_is_left(server, tegula):
    """After a start the store has just the images that the database says have bytes."""
    server.stop()
    server.start()
    command = [tegula, "--store", server.directory / "store", "--json", "ls"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    listed = listed["images"] if isinstance(listed, dict) else listed
    admin = server.client("admin")
    active = {image["id"].lower() for image in admin.list("limit=1000&visibility=all") if image["status"] in ("active", "deactivated")}
    assert {image["name"] for image in listed} == active
    odd = [path for path in server.directory.rglob("*") if "tmp" in path.name or path.name.endswith((".new", ".part"))]
    assert not [path for path in odd if path.is_file()], odd
    if not server.database.postgres:
        database = sqlite3.connect(f"file:{server.directory}/catalog.sqlite?mode=ro", uri=True)
        assert database.execute("SELECT count(*) FROM images WHERE status IN ('saving', 'importing')").fetchone() == (0,)

"""Bytes: how they are sent, what is refused, how they come back."""

import base64
import hashlib
import http.client
import json
import time

import pytest
from support import disks
from support.http import OCTETS, SlowUpload, open_socket
from support.images import Images

MIB = 1 << 20
DATA = disks.noise(3 * MIB + 12345)


@pytest.fixture(scope="module")
def settings():
    return {"quotas": {"image_bytes_max": 64 * MIB}}


@pytest.fixture(scope="module")
def image(alice):
    """An active image of DATA."""
    return alice.create_active(DATA)


def parts(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


# --- Sending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 511, 65535, 65536, 65537, 3 * MIB + 12345])
@pytest.mark.parametrize("way", ["sized", "chunked", "in small chunks", "with the size in a header"])
def test_bytes_come_back_as_they_were_sent(alice, way, length):
    data = DATA[:length]
    image_id = alice.create()["id"]
    if way == "sized":
        response = alice.upload(image_id, data)
    elif way == "chunked":
        response = alice.upload(image_id, parts(data, MIB), chunked=True)
    elif way == "in small chunks":
        response = alice.upload(image_id, parts(data[:70_000], 7), chunked=True)
        data = data[:70_000]
    else:
        response = alice.upload(image_id, parts(data, MIB), chunked=True, headers={"x-openstack-image-size": str(length)})
    response.expect(204)
    assert response.body == b""
    shown = alice.show(image_id)
    assert shown["status"] == "active"
    assert shown["size"] == len(data)
    assert (shown["virtual_size"] or 0) == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    downloaded = alice.download(image_id).expect(200)
    assert downloaded.body == data
    assert downloaded.headers["Content-Type"] == OCTETS
    assert downloaded.headers["Content-Length"] == str(len(data))
    assert downloaded.headers["Content-MD5"] == shown["checksum"]


@pytest.mark.parametrize("call", ["file", "stage"])
@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/json", "application/octet-stream; charset=x", "image/raw"])
def test_bytes_must_be_called_bytes(alice, call, kind):
    image_id = alice.create()["id"]
    alice.request("PUT", f"/v2/images/{image_id}/{call}", b"x", headers={"Content-Type": kind}).expect(415)
    assert alice.show(image_id)["status"] == "queued"


@pytest.mark.parametrize("call", ["file", "stage"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Range": "bytes 0-4/100"}, 400),
        ({"Content-Range": "bytes 5-9/10"}, 400),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Content-Encoding": "Identity"}, 204),
    ],
)
def test_a_part_and_packed_bytes_are_not_taken_for_the_image(alice, call, headers, status):
    image_id = alice.create()["id"]
    headers = {"Content-Type": OCTETS, **headers}
    alice.request("PUT", f"/v2/images/{image_id}/{call}", b"01234", headers=headers).expect(status)
    if status != 204:
        assert alice.show(image_id)["status"] == "queued"


def md5_headers(data):
    """The ways to say the MD5 of a body: RFC 1864's, and that of Glance's downloads."""
    digest = hashlib.md5(data)
    return [base64.b64encode(digest.digest()).decode(), digest.hexdigest(), digest.hexdigest().upper()]


@pytest.mark.parametrize("call", ["file", "stage"])
@pytest.mark.parametrize("data", [b"", b"01234", DATA[:MIB], DATA], ids=len)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_md5_that_is_announced_must_be_right(alice, call, data, chunked):
    """Glance does not look at it; who sends it wants to know."""
    image_id = alice.create()["id"]
    body = parts(data, 65_536) if chunked else data

    def send(md5):
        headers = {"Content-Type": OCTETS, "Content-MD5": md5}
        return alice.request("PUT", f"/v2/images/{image_id}/{call}", body, headers=headers, chunked=chunked)

    for wrong in md5_headers(data + b"x"):
        response = send(wrong).expect(400)
        assert hashlib.md5(data).hexdigest().encode() in response.body
        assert_untouched(alice, image_id)
    for nonsense in ["", "x", md5_headers(data)[0][:-1], md5_headers(data)[1] + "0"]:
        send(nonsense).expect(400)
        assert_untouched(alice, image_id)
    for right in md5_headers(data):
        send(right).expect(204)
        image_id = alice.create()["id"]


@pytest.mark.parametrize(
    ("said", "sent", "status"),
    [("5", 5, 204), ("4", 5, 400), ("6", 5, 400), ("0", 5, 400), ("0", 0, 204), ("x", 5, 400), ("-5", 5, 400), ("5.0", 5, 400), ("9" * 30, 5, 400)],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_size_that_is_announced_must_be_right(alice, said, sent, status, chunked):
    image_id = alice.create()["id"]
    body = [b"x" * sent] if chunked and sent else ([] if chunked else b"x" * sent)
    alice.upload(image_id, body, chunked=chunked, headers={"x-openstack-image-size": said}).expect(status)
    shown = alice.show(image_id)
    if status == 204:
        assert (shown["status"], shown["size"]) == ("active", sent)
    else:
        assert_untouched(alice, image_id)
        alice.upload(image_id, b"x" * 5).expect(204)


def assert_untouched(client, image_id):
    """The image is queued, nothing is known of bytes, and there are none."""
    shown = client.show(image_id)
    known = {name: shown[name] for name in ["status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"]}
    assert known == dict.fromkeys(known) | {"status": "queued"}
    response = client.download(image_id).expect(204)
    assert response.body == b""


def test_an_image_needs_its_formats_before_its_bytes(alice):
    for missing in ["disk_format", "container_format"]:
        image_id = alice.create(**{missing: None})["id"]
        alice.upload(image_id, b"x").expect(400)
        assert_untouched(alice, image_id)
        # Glance looks at what was staged when it is imported; to refuse it at once is as good.
        alice.stage(image_id, b"x").expect(204, 400)


def test_a_store_must_be_known(alice):
    image_id = alice.create()["id"]
    alice.upload(image_id, b"x", headers={"X-Image-Meta-Store": "nowhere"}).expect(400)
    assert_untouched(alice, image_id)
    store = alice.get("/v2/info/stores").json()["stores"][0]["id"]
    alice.upload(image_id, b"x", headers={"X-Image-Meta-Store": store}).expect(204)
    assert store in alice.show(image_id)["stores"].split(",")


@pytest.mark.parametrize("chunked", [False, True])
def test_there_is_a_largest_image(alice, chunked):
    largest = bytes(64 * MIB)
    for data, status in [(largest + b"x", 413), (largest, 204)]:
        image_id = alice.create()["id"]
        try:
            alice.upload(image_id, parts(data, MIB) if chunked else data, chunked=chunked).expect(status)
        except (BrokenPipeError, ConnectionResetError):
            # The answer may come, and the connection end, before all is sent.
            assert status == 413
            alice.close()
        if status == 413:
            assert_untouched(alice, image_id)


def test_bytes_that_nobody_may_send_are_refused(server, alice, alan, bob, carol):
    images = Images(server)
    alan.upload(images["queued"], b"x").expect(403)
    carol.upload(images["queued"], b"x").expect(404)
    bob.upload(images["shared"], b"x").expect(403)
    carol.upload(images["public"], b"x").expect(403)
    server.client().upload(images["queued"], b"x").expect(401)
    assert_untouched(alice, images["queued"])


def test_a_second_upload_is_refused_while_one_goes_on(server, alice):
    images = Images(server)
    image_id = alice.create()["id"]
    upload = images.begin_upload(image_id)
    alice.upload(image_id, b"other bytes").expect(409)
    alice.stage(image_id, b"other bytes").expect(409)
    assert upload.finish() == 204
    assert alice.show(image_id)["size"] == MIB
    alice.upload(image_id, b"other bytes").expect(409)
    assert alice.show(image_id)["size"] == MIB


def test_of_many_uploads_at_once_one_wins(server, alice):
    from concurrent.futures import ThreadPoolExecutor

    image_id = alice.create()["id"]
    payloads = [disks.noise(200_000, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda data: alice.again().upload(image_id, data).status, payloads))
    assert sorted(statuses)[0] == 204 and set(sorted(statuses)[1:]) <= {409, 410}, statuses
    assert alice.download(image_id).body == payloads[statuses.index(204)]


def test_an_image_that_is_deleted_during_its_upload_is_gone(server, alice):
    images = Images(server)
    image_id = alice.create()["id"]
    upload = images.begin_upload(image_id)
    alice.delete(f"/v2/images/{image_id}").expect(204)
    try:
        assert upload.finish() in (404, 410)
    except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
        pass  # it was told early
    alice.get(f"/v2/images/{image_id}").expect(404)
    alice.download(image_id).expect(404)


def test_equal_bytes_are_stored_once(server, alice):
    def stored():
        return sum(path.stat().st_blocks * 512 for path in server.directory.rglob("*") if path.is_file())

    data = disks.noise(8 * MIB, 77)
    alice.create_active(data)
    before = stored()
    for _ in range(5):
        assert alice.download(alice.create_active(data)["id"]).body == data
    assert stored() - before < 4 * MIB


# --- What the bytes are -----------------------------------------------------------------------------------------------

QCOW2 = disks.qcow2(10 * MIB)
CONTENT = [
    # What it is called, what it is in, what it is; the status, and the virtual size (None: the number of bytes).
    ("raw", "bare", DATA[:1000], 204, None),
    ("raw", "bare", b"", 204, None),
    ("raw", "bare", QCOW2, 204, None),
    ("raw", "bare", disks.qcow2(backing=b"/etc/passwd"), 415, None),
    ("raw", "bare", disks.mbr(0), 415, None),
    ("raw", "bare", disks.mbr(1), 204, None),
    ("qcow2", "bare", QCOW2, 204, 10 * MIB),
    ("qcow2", "bare", disks.qcow2(version=2), 204, MIB),
    ("qcow2", "bare", disks.qcow2(backing=b"/etc/passwd"), 415, None),
    ("qcow2", "bare", disks.qcow2(backing=b"json:{}"), 415, None),
    ("qcow2", "bare", disks.qcow2(incompatible=4), 415, None),
    ("qcow2", "bare", disks.qcow2(incompatible=1 << 40), 415, None),
    ("qcow2", "bare", disks.qcow2(version=4), 415, None),
    ("qcow2", "bare", b"", 415, None),
    ("qcow2", "bare", b"QFI\xfb", 415, None),
    ("qcow2", "bare", DATA[:100_000], 415, None),
    ("qcow2", "bare", disks.iso(), 415, None),
    ("vhd", "bare", QCOW2, 415, None),
    ("vmdk", "bare", disks.vmdk(), 204, MIB),
    ("vmdk", "bare", disks.vmdk("monolithicFlat"), 415, None),
    ("vmdk", "bare", disks.vmdk(extent="/etc/passwd"), 415, None),
    ("vmdk", "bare", DATA[:100_000], 415, None),
    ("vdi", "bare", DATA[:100_000], 415, None),
    ("vhdx", "bare", DATA[:100_000], 415, None),
    ("iso", "bare", disks.iso(), 204, MIB),
    ("iso", "bare", DATA[:100_000], 415, None),
    ("ami", "bare", DATA[:1000], 204, None),
    ("qcow2", "ovf", DATA[:1000], 204, None),
    ("raw", "docker", disks.qcow2(backing=b"/etc/passwd"), 204, None),
]


@pytest.mark.parametrize(("disk", "container", "data", "status", "virtual"), CONTENT, ids=map(str, range(len(CONTENT))))
@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_must_be_what_the_image_says(alice, disk, container, data, status, virtual, chunked):
    image_id = alice.create(disk_format=disk, container_format=container)["id"]
    body = parts(data, 1000) if chunked else data
    alice.upload(image_id, body, chunked=chunked).expect(status)
    if status == 415:
        assert_untouched(alice, image_id)
        # And it may be tried again: with what it said, or with another format.
        change = [{"op": "replace", "path": "/disk_format", "value": "raw"}]
        alice.patch(f"/v2/images/{image_id}", change).expect(200)
        alice.upload(image_id, b"plain bytes").expect(204)
        data = b"plain bytes"
    shown = alice.show(image_id)
    assert shown["size"] == len(data)
    if status == 204 and container == "bare":
        if disk == "ami":
            assert shown["virtual_size"] is None
        else:
            assert (shown["virtual_size"] or 0) == (len(data) if virtual is None else virtual)
    assert alice.download(image_id).body == data


# --- Reading ----------------------------------------------------------------------------------------------------------

SIZE = len(DATA)
RANGES = [
    ("bytes=0-0", 206, (0, 0)),
    ("bytes=0-", 206, (0, SIZE - 1)),
    ("bytes=1-65536", 206, (1, 65536)),
    ("bytes=65535-131073", 206, (65535, 131073)),
    (f"bytes={SIZE - 1}-", 206, (SIZE - 1, SIZE - 1)),
    (f"bytes={SIZE - 1}-{SIZE - 1}", 206, (SIZE - 1, SIZE - 1)),
    (f"bytes=5-{SIZE}", 206, (5, SIZE - 1)),
    (f"bytes=5-{2**64 - 1}", 206, (5, SIZE - 1)),
    ("bytes=-1", 206, (SIZE - 1, SIZE - 1)),
    ("bytes=-70000", 206, (SIZE - 70000, SIZE - 1)),
    (f"bytes=-{SIZE}", 206, (0, SIZE - 1)),
    (f"bytes=-{SIZE + 1}", 206, (0, SIZE - 1)),
    (f"bytes={SIZE}-", 416, None),
    (f"bytes={SIZE}-{SIZE + 1}", 416, None),
    ("bytes=5-4", 416, None),
    ("bytes=a-b", 416, None),
    ("bytes=-", 416, None),
    ("bytes=", 416, None),
    ("bytes=5", 416, None),
    ("bytes=0x1-5", 416, None),
    ("bytes=+1-5", 416, None),
    ("bytes=1--5", 416, None),
    ("bytes=-0", 416, None),
    ("bytes=1_0-20", 416, None),
    ("blocks=0-1", 416, None),
    ("0-1", 416, None),
    ("bytes=99999999999999999999999-", 416, None),
    ("bytes=0-1,3-4", 400, None),
    ("bytes=0-1,", (400, 416), None),
]


@pytest.mark.parametrize(("asked", "status", "span"), RANGES, ids=[row[0] for row in RANGES])
def test_a_range_is_answered_by_just_that(alice, image, asked, status, span):
    statuses = status if isinstance(status, tuple) else (status,)
    response = alice.download(image["id"], Range=asked).expect(*statuses)
    if span:
        first, last = span
        assert response.body == DATA[first : last + 1]
        assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
        assert response.headers["Content-Length"] == str(last - first + 1)
        assert response.headers["Content-MD5"] == image["checksum"]


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes 0-9/*", 206, (0, 9)),
        (f"bytes 5-9/{SIZE}", 206, (5, 9)),
        (f"bytes {SIZE}-{SIZE + 5}/*", 416, None),
        (f"bytes 0-{SIZE + 5}/*", 416, None),
        ("bytes x-y/*", 416, None),
    ],
)
def test_the_old_way_to_ask_for_a_range_works_too(alice, image, asked, status, span):
    response = alice.download(image["id"], Content_Range=asked).expect(status)
    if span:
        assert response.body == DATA[span[0] : span[1] + 1]


def test_an_empty_image_has_no_ranges(alice):
    image_id = alice.create_active(b"")["id"]
    assert alice.download(image_id).expect(200).body == b""
    for asked in ["bytes=0-", "bytes=0-0", "bytes=-1"]:
        alice.download(image_id, Range=asked).expect(416)


@pytest.mark.parametrize("state", ["queued", "saving", "uploading"])
def test_an_image_without_bytes_has_none_to_give(server, alice, state):
    images = Images(server)
    for headers in [{}, {"Range": "bytes=0-1"}]:
        response = alice.download(images[state], **headers).expect(204)
        assert response.body == b""
    images.close()


def test_one_may_prefer_a_store(alice, image):
    store = alice.get("/v2/info/stores").json()["stores"][0]["id"]
    assert alice.get(f"/v2/images/{image['id']}/file?prefer={store}").expect(200).body == DATA
    alice.get(f"/v2/images/{image['id']}/file?prefer=nowhere").expect(400)


def test_readers_may_look_but_not_download(alan, image):
    alan.show(image["id"])
    alan.download(image["id"]).expect(403)


def test_who_stops_reading_harms_nobody(server, alice, image):
    for length in [0, 1, 1000, 70_000]:
        connection = open_socket(server.port)
        connection.sendall(
            f"GET /v2/images/{image['id']}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {alice.token}\r\n\r\n".encode()
        )
        if length:
            connection.recv(length)
        connection.close()
    assert alice.download(image["id"]).body == DATA


# --- Staging ----------------------------------------------------------------------------------------------------------


def test_staged_bytes_are_not_the_image(alice):
    image_id = alice.create()["id"]
    response = alice.stage(image_id, DATA).expect(204)
    assert response.body == b""
    shown = alice.show(image_id)
    assert (shown["status"], shown["size"], shown["checksum"]) == ("uploading", SIZE, None)
    assert "os_glance_stage_host" not in json.dumps(shown)
    alice.download(image_id).expect(204)
    alice.stage(image_id, DATA).expect(409)
    alice.upload(image_id, DATA).expect(409)
    alice.delete(f"/v2/images/{image_id}").expect(204)


def test_staged_bytes_must_be_as_many_as_was_said(alice):
    image_id = alice.create(disk_format="qcow2")["id"]
    alice.stage(image_id, b"x" * 10, headers={"x-openstack-image-size": "9"}).expect(400)
    assert_untouched(alice, image_id)
    alice.upload(image_id, QCOW2).expect(204)


# --- Uploads that end early -------------------------------------------------------------------------------------------


def wait_until_untouched(client, image_id):
    """Waits until the image is as if nothing had been: the server may not yet have seen that the upload began, or ended."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return assert_untouched(client, image_id)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)


@pytest.mark.parametrize("call", ["file", "stage"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_breaks_off_anywhere_leaves_no_trace(server, alice, call, chunked):
    """The connection ends after every byte of the request for a while, then after many; each time the image is as before."""
    image_id = alice.create()["id"]
    data = disks.noise(150_000, 5)
    head = (
        f"PUT /v2/images/{image_id}/{call} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {alice.token}\r\nContent-Type: {OCTETS}\r\n"
    ).encode()
    if chunked:
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts(data, 50_000)) + b"0\r\n\r\n"
        request = head + b"Transfer-Encoding: chunked\r\n\r\n" + body
    else:
        request = head + f"Content-Length: {len(data)}\r\n\r\n".encode() + data
    start = request.index(b"\r\n\r\n") + 4
    cuts = [0, 1, 20, start - 1, start, start + 1, start + 2, start + 7, start + 65536, start + 65537]
    cuts += list(range(start + 3, len(request), 9973)) + list(range(len(request) - 7, len(request)))
    for cut in cuts:
        connection = open_socket(server.port)
        connection.sendall(request[:cut])
        connection.close()
        wait_until_untouched(alice, image_id)
    assert once_it_is_free(lambda: complete(server, request)) == 204
    if call == "file":
        assert alice.download(image_id).body == data


def complete(server, request):
    """Sends all of a request; returns the status of the answer."""
    connection = open_socket(server.port)
    connection.sendall(request)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    connection.close()
    return answer.status


def once_it_is_free(upload):
    """Tries an upload until the server has seen that the one before has ended; returns its status."""
    deadline = time.monotonic() + 10
    while (status := upload()) == 409 and time.monotonic() < deadline:
        time.sleep(0.005)
    return status


def test_a_withdrawn_upload_gives_its_place_to_the_next(server, alice):
    image_id = alice.create()["id"]
    for round_ in range(20):
        upload = SlowUpload(server.port, alice.token, image_id, sent=disks.noise(1000 * round_ + 1, round_))
        upload.close()
        wait_until_untouched(alice, image_id)
    assert once_it_is_free(lambda: alice.upload(image_id, DATA).status) == 204

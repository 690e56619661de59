"""Requests that no client sends: each gets the right status or none at all, its connection ends, and others are unharmed."""

import http.client
import re
import threading
import time

import pytest
from support.http import open_socket

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def settings():
    # Impatience, so that the tests of slow clients end soon.
    return {"limits": {"head_timeout_s": 2, "json_timeout_s": 2, "stall_timeout_s": 2}}


@pytest.fixture(scope="module")
def head(alice):
    """The lines that every well-formed request has."""
    return f"Host: x\r\nX-Auth-Token: {alice.token}\r\n".encode()


def answers(connection, seconds=10):
    """All that the server sends until it ends the connection; fails if it does not."""
    connection.settimeout(seconds)
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def statuses(received):
    """The statuses of the answers in what was received."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", received, re.MULTILINE)]


GET = b"GET /v2/images?limit=1 HTTP/1.1\r\n"
POST = b"POST /v2/images HTTP/1.1\r\n"
JSON = b"Content-Type: application/json\r\n"

# What is sent (`{head}` for the usual lines) and which statuses are due: of these, one; an empty one allows no answer at all.
# A second request that hides in the first must never be answered.
SMUGGLED = b"DELETE /v2/images/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
ABUSE = {
    "length and chunks": (POST + b"{head}" + JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, {400}),
    "chunks and length": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED, {400}),
    "two lengths": (POST + b"{head}" + JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}" + SMUGGLED, {400}),
    "two lengths in one line": (POST + b"{head}" + JSON + b"Content-Length: 2, 3\r\n\r\n{{}}" + SMUGGLED, {400}),
    "a signed length": (POST + b"{head}" + JSON + b"Content-Length: +2\r\n\r\n{{}}", {400}),
    "a negative length": (POST + b"{head}" + JSON + b"Content-Length: -2\r\n\r\n{{}}", {400}),
    "a hexadecimal length": (POST + b"{head}" + JSON + b"Content-Length: 0x2\r\n\r\n{{}}", {400}),
    "a length of 2^64": (POST + b"{head}" + JSON + b"Content-Length: 18446744073709551616\r\n\r\n{{}}", {400, 413}),
    "an empty length": (POST + b"{head}" + JSON + b"Content-Length: \r\n\r\n{{}}", {400}),
    "chunked and then something": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", {400, 501}),
    "nearly chunked": (POST + b"{head}" + JSON + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in chunks": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n", {400, 501}),
    "two hosts": (GET + b"{head}Host: y\r\n\r\n", {400}),
    "twice chunked": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", {400, 501}),
    "chunked in HTTP/1.0": (b"POST /v2/images HTTP/1.0\r\n{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 411, 505}),
    "a chunk of 2^64": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", {400, 413, None}),
    "a chunk of 2^64 - 1": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{{}}", {400, 408, 413, None}),
    "a chunk of no number": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n", {400, None}),
    "a chunk of a negative number": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{{}}\r\n0\r\n\r\n", {400, None}),
    "a chunk with a long note": (
        POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * MIB + b"\r\n{{}}\r\n0\r\n\r\n",
        {400, 413, None},
    ),
    "a chunk longer than it says": (POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n", {400, None}),
    "endless trailers": (
        POST + b"{head}" + JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n" + b"x: y\r\n" * 200_000,
        {400, 413, 431, None},
    ),
    "lines that end too simply": (b"GET /v2/nothing HTTP/1.1\nHost: x\n\n", {400, 401}),
    "a line that goes on in the next": (GET + b"{head}X-Long: a\r\n b\r\n\r\n", {400}),
    "a space before the colon": (POST + b"{head}" + JSON + b"Content-Length : 2\r\n\r\n{{}}", {400}),
    "a space before a header": (GET + b" Host: x\r\n\r\n", {400}),
    "a zero byte in a header": (GET + b"{head}X-Odd: a\0b\r\n\r\n", {400}),
    "a lone carriage return in a header": (GET + b"{head}X-Odd: a\rb\r\n\r\n", {400}),
    "a zero byte in the path": (b"GET /v2/ima\0ges HTTP/1.1\r\n{head}\r\n", {400}),
    "a header without a name": (GET + b"{head}: x\r\n\r\n", {400}),
    "a header without a colon": (GET + b"{head}nonsense\r\n\r\n", {400}),
    "10,000 headers": (GET + b"{head}" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n", {400, 431}),
    "a header of a megabyte": (GET + b"{head}X-Long: " + b"y" * MIB + b"\r\n\r\n", {400, 431}),
    "a path of a megabyte": (b"GET /v2/images?name=" + b"y" * MIB + b" HTTP/1.1\r\n{head}\r\n", {400, 414, 431}),
    "no host": (b"GET /healthcheck HTTP/1.1\r\n\r\n", {400}),
    "no host where the target has one": (b"GET http://x/healthcheck HTTP/1.1\r\n\r\n", {400}),
    "a host that is a path": (b"GET /healthcheck HTTP/1.1\r\nHost: x/y\r\n\r\n", {400}),
    "a host with a user": (b"GET /healthcheck HTTP/1.1\r\nHost: u@x\r\n\r\n", {400}),
    "two hosts in one line": (b"GET /healthcheck HTTP/1.1\r\nHost: x, y\r\n\r\n", {400}),
    "another version": (b"GET /v2/images HTTP/9.9\r\n{head}\r\n", {400, 505}),
    "an old version": (b"GET /v2/images\r\n", {400}),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), {400, 505, None}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400, None}),
    "noise": (bytes(range(256)) * 4, {400, None}),
    "no method": (b" /v2/images HTTP/1.1\r\n{head}\r\n", {400}),
    "a tunnel": (b"CONNECT x:80 HTTP/1.1\r\n{head}\r\n", {300, 400, 401, 404, 405, 501}),
}  # fmt: skip


@pytest.mark.parametrize("name", ABUSE)
def test_what_is_no_request_is_refused_and_the_connection_ends(server, alice, head, name):
    request, due = ABUSE[name]
    connection = open_socket(server.port)
    request = request.replace(b"{head}", head).replace(b"{{}}", b"{}")

    # The server may answer and close before it has read all: then sending fails, and the answer is there all the same.
    def send():
        try:
            connection.sendall(request)
        except OSError:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    received = answers(connection)
    sender.join()
    connection.close()
    found = statuses(received)
    assert len(found) <= 1, f"more than one answer: {received[:2000]!r}"
    assert (found[0] if found else None) in due | ({None} if len(request) > 100 * KIB else set()), received[:500]
    alice.get("/v2/images?limit=1").expect(200)


def test_a_refused_request_ends_its_connection(server, head):
    """Nothing after a request that was not understood is taken for another: the server closes, though the client does not."""
    for name in ["length and chunks", "two lengths", "a signed length", "a header without a colon", "10,000 headers"]:
        connection = open_socket(server.port)
        try:
            connection.sendall(ABUSE[name][0].replace(b"{head}", head).replace(b"{{}}", b"{}"))
        except OSError:
            pass
        assert len(statuses(answers(connection))) <= 1
        connection.close()


def test_the_whole_url_may_be_in_the_request(server, alice, head):
    """RFC 9112 §3.2.2: its host counts, not the header's; and it is only used in links."""
    connection = open_socket(server.port)
    connection.sendall(b"GET http://evil.example/v2/images?limit=1 HTTP/1.1\r\n" + head + b"Connection: close\r\n\r\n")
    assert statuses(answers(connection)) in ([200], [400])


def test_who_waits_for_leave_to_send_gets_it(server, alice, head):
    image_id = alice.create()["id"]
    connection = open_socket(server.port)
    connection.sendall(
        f"PUT /v2/images/{image_id}/file HTTP/1.1\r\n".encode()
        + head
        + b"Content-Type: application/octet-stream\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    )
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    connection.sendall(b"bytes")
    assert connection.recv(4096).startswith(b"HTTP/1.1 204 ")
    connection.close()


def test_who_may_not_send_is_told_before_it_does(server, alice, carol):
    """A refusal that needs no byte of the body comes without it."""
    image_id = alice.create()["id"]
    for token, image, status in [("wrong", image_id, 401), (carol.token, image_id, 404)]:
        connection = open_socket(server.port)
        connection.sendall(
            f"PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n"
            "Content-Type: application/octet-stream\r\nContent-Length: 5000000000\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        connection.close()


def test_a_thousand_requests_in_a_row_are_answered_in_order(server, head):
    connection = open_socket(server.port)
    requests = b"".join(b"GET /v2/images/%d HTTP/1.1\r\n%b\r\n" % (n, head) for n in range(999))
    requests += b"GET /versions HTTP/1.1\r\nConnection: close\r\n" + head + b"\r\n"
    sender = threading.Thread(target=connection.sendall, args=(requests,))
    sender.start()
    received = answers(connection, 30)
    sender.join()
    connection.close()
    assert statuses(received) == [404] * 999 + [200]


def test_a_client_that_only_writes_costs_no_memory(server, head):
    """A million answers that nobody reads would be a gigabyte: the server stops reading instead."""
    before = resident(server)
    connection = open_socket(server.port)
    connection.settimeout(1)
    request = b"GET /v2/schemas/image HTTP/1.1\r\n" + head + b"\r\n"
    sent = 0
    try:
        while sent < 64 * MIB:
            sent += connection.send(request * 100)
    except OSError:
        pass
    assert resident(server) - before < 32 * MIB
    connection.close()


def resident(server):
    """Bytes of memory that the server uses."""
    text = open(f"/proc/{server.process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * KIB


# --- Slow ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /v2/images HTTP/1.1\r\n", b"GET /v2/images HTTP/1.1\r\nHost: x\r\nX-A"])
def test_a_request_that_never_ends_is_given_up(server, sent):
    connection = open_socket(server.port)
    connection.sendall(sent)
    started = time.monotonic()
    assert statuses(answers(connection)) in ([], [408])
    assert time.monotonic() - started < 8
    connection.close()


def test_a_request_that_comes_byte_by_byte_is_given_up(server):
    """The head has a time as a whole: a byte now and then does not prolong it."""
    connection = open_socket(server.port)
    started = time.monotonic()
    try:
        connection.sendall(b"GET /v2/images HTTP/1.1\r\nX-Slow: ")
        while time.monotonic() - started < 8:
            connection.sendall(b"x")
            time.sleep(0.1)
    except OSError:
        pass
    assert time.monotonic() - started < 8
    connection.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_a_body_that_never_ends_is_given_up(server, head, framing):
    connection = open_socket(server.port)
    connection.sendall(POST + head + JSON + framing)
    started = time.monotonic()
    assert statuses(answers(connection)) in ([], [400], [408])
    assert time.monotonic() - started < 8
    connection.close()


def test_an_upload_that_stalls_is_given_up_and_leaves_no_trace(server, alice, head):
    image_id = alice.create()["id"]
    connection = open_socket(server.port)
    connection.sendall(
        f"PUT /v2/images/{image_id}/file HTTP/1.1\r\n".encode()
        + head
        + b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
        + b"x" * 1000
    )
    assert statuses(answers(connection)) in ([], [400], [408])
    connection.close()
    deadline = time.monotonic() + 5
    while alice.show(image_id)["status"] != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    alice.upload(image_id, b"bytes").expect(204)


def test_hundreds_of_slow_clients_do_not_slow_the_others(server, alice, head):
    image_id = alice.create_active(bytes(range(256)) * (8 * MIB // 256))["id"]
    before = resident(server)
    slow = []
    for number in range(300):
        connection = open_socket(server.port)
        # Some never end their request, some never read their answer.
        if number % 3 == 0:
            connection.sendall(b"GET /v2/images HTTP/1.1\r\nHost: x\r\n")
        elif number % 3 == 1:
            connection.sendall(f"GET /v2/images/{image_id}/file HTTP/1.1\r\n".encode() + head + b"\r\n")
        slow.append(connection)
    times = []
    for _ in range(100):
        started = time.monotonic()
        alice.show(image_id)
        times.append(time.monotonic() - started)
    used = resident(server) - before
    for connection in slow:
        connection.close()
    assert sorted(times)[98] < 0.5, f"{sorted(times)[98]:.3f} s for the slowest but one of 100"
    assert used < 256 * MIB, f"{used / MIB:.0f} MiB for 300 slow clients"
    assert alice.download(image_id).expect(200).body[:256] == bytes(range(256))


# --- What the log says ------------------------------------------------------------------------------------------------


def test_no_secret_and_no_line_of_a_caller_gets_into_the_log(server, alice):
    marker = "forged-line-marker"
    alice.post("/v2/images", {"name": f"x\r\n{marker}\x1b[31m"}).expect(201)
    alice.get(f"/v2/images?name=%0d%0a{marker}").expect(200)
    alice.get("/v2/images", headers={"X-Openstack-Request-Id": f"req-\x1b[31m{marker}"})
    alice.get("/v2/images", headers={"User-Agent": f"\x1b[31m{marker}"})
    time.sleep(0.2)
    log = server.log()
    assert alice.token not in log
    assert "\x1b" not in log
    assert not any(line.startswith(marker) for line in log.splitlines())
    assert "panicked" not in log

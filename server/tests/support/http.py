"""A plain HTTP/1.1 client: it sends what it is told, follows nothing, mends nothing, and keeps the connection open."""

import http.client
import json
import socket
from dataclasses import dataclass

PATCH_V21 = "application/openstack-images-v2.1-json-patch"
PATCH_V20 = "application/openstack-images-v2.0-json-patch"
OCTETS = "application/octet-stream"
TIMEOUT_S = 60


@dataclass
class Response:
    """What the server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    request: str

    def json(self):
        """The body, which must be JSON and say so."""
        kind = self.headers.get("Content-Type", "")
        assert kind.split(";")[0] == "application/json", f"{self}: Content-Type is {kind!r}"
        return json.loads(self.body)

    def expect(self, *statuses):
        """The response itself, if its status is one of those; else the test fails and shows it."""
        assert self.status in statuses, f"{self}, expected {' or '.join(map(str, statuses))}"
        return self

    def __str__(self):
        return f"{self.request}: {self.status} {self.body[:400].decode(errors='replace')!r}"


class Client:
    """One caller. Not for use by several threads: each takes its own, by `again`."""

    def __init__(self, port, token=None, **headers):
        self.port = port
        self.token = token
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection = None

    def again(self, **headers):
        """The same caller on a connection of its own, with these headers beside its own in every request."""
        return Client(self.port, self.token, **(self.headers | headers))

    def close(self):
        """Closes the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(self, method, path, body=None, *, json_body=None, headers=None, chunked=False):
        """Sends one request and reads the whole answer.

        `body` is bytes or an iterable of bytes; `json_body` is any value that JSON has. A header with the value None is not
        sent.
        """
        sent = dict(self.headers)
        if self.token is not None:
            sent["X-Auth-Token"] = self.token
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        sent = {name: value for name, value in sent.items() if value is not None}
        # A connection that was kept may have been closed by the server just now: that is no answer, and it is asked again.
        for last in (self._connection is None, True):
            try:
                return self._once(method, path, body, sent, chunked)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.close()
                if last or not (body is None or isinstance(body, bytes)):
                    raise

    def _once(self, method, path, body, headers, chunked):
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connection
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode() if isinstance(value, str) else value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "Content-Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        if isinstance(body, bytes):
            body = [body] if body else []
        connection.endheaders()
        for part in body or []:
            connection.send(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
        if chunked:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        response = Response(answer.status, answer.headers, answer.read(), f"{method} {path}")
        if answer.will_close:
            self.close()
        return response

    def get(self, path, **more):
        """GET."""
        return self.request("GET", path, **more)

    def post(self, path, json_body=None, **more):
        """POST, of a value as JSON unless a body is given."""
        return self.request("POST", path, json_body=json_body, **more)

    def put(self, path, json_body=None, **more):
        """PUT, of a value as JSON unless a body is given."""
        return self.request("PUT", path, json_body=json_body, **more)

    def delete(self, path, **more):
        """DELETE."""
        return self.request("DELETE", path, **more)

    def patch(self, path, operations, media_type=PATCH_V21, **more):
        """PATCH of an image, by default in the newer form."""
        body = operations if isinstance(operations, bytes) else json.dumps(operations).encode()
        return self.request("PATCH", path, body, headers={"Content-Type": media_type}, **more)

    # The calls that most tests begin with. They must succeed.

    def create(self, **fields):
        """Makes an image (raw and bare unless said otherwise) and returns it."""
        fields = {"disk_format": "raw", "container_format": "bare"} | fields
        return self.post("/v2/images", fields).expect(201).json()

    def upload(self, image_id, data, **more):
        """Sends the bytes of an image."""
        headers = {"Content-Type": OCTETS} | more.pop("headers", {})
        return self.request("PUT", f"/v2/images/{image_id}/file", data, headers=headers, **more)

    def stage(self, image_id, data, **more):
        """Stages the bytes of an image."""
        headers = {"Content-Type": OCTETS} | more.pop("headers", {})
        return self.request("PUT", f"/v2/images/{image_id}/stage", data, headers=headers, **more)

    def create_active(self, data=b"some bytes", **fields):
        """Makes an image with bytes and returns it as it then is."""
        image = self.create(**fields)
        self.upload(image["id"], data).expect(204)
        return self.show(image["id"])

    def show(self, image_id):
        """The image."""
        return self.get(f"/v2/images/{image_id}").expect(200).json()

    def list(self, query="", **more):
        """The images of a listing."""
        return self.get(f"/v2/images{'?' if query else ''}{query}", **more).expect(200).json()["images"]

    def download(self, image_id, **headers):
        """Asks for the bytes of an image."""
        return self.get(f"/v2/images/{image_id}/file", headers={k.replace("_", "-"): v for k, v in headers.items()})


def open_socket(port):
    """A connection, for requests that no client would send."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class SlowUpload:
    """An upload that was begun and not ended: the image is `saving` as long as it stands."""

    def __init__(self, port, token, image_id, total=1 << 20, sent=b"x" * 1024, call="file"):
        self.socket = open_socket(port)
        self.left = total - len(sent)
        self.socket.sendall(
            f"PUT /v2/images/{image_id}/{call} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Auth-Token: {token}\r\n"
            f"Content-Type: {OCTETS}\r\nContent-Length: {total}\r\n\r\n".encode()
            + sent
        )

    def finish(self):
        """Sends the rest; returns the status of the answer."""
        self.socket.sendall(b"x" * self.left)
        return self.status()

    def status(self):
        """The status of the answer."""
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        answer.read()
        return answer.status

    def close(self):
        """Ends the connection."""
        self.socket.close()

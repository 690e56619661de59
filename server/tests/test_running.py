"""The program around the API: its configuration, its first start, TLS, what it says, and how it ends."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import pytest
from support.http import Client
from support.server import free_port, toml

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("TEGULA")}


def run(tegulad, *arguments, environment=None, directory=None):
    """Runs the binary to its end."""
    return subprocess.run(
        [tegulad, *map(str, arguments)], env=CLEAN | (environment or {}), cwd=directory, capture_output=True, text=True, timeout=60
    )


def test_the_documented_configuration_is_good(tegulad, tmp_path):
    printed = run(tegulad, "--print-default-config")
    assert printed.returncode == 0
    (tmp_path / "tegulad.toml").write_text(printed.stdout)
    checked = run(tegulad, "--config", tmp_path / "tegulad.toml", "--check-config", directory=tmp_path)
    assert checked.returncode == 0, checked.stderr
    # Looking at a configuration makes nothing.
    assert [path.name for path in tmp_path.iterdir()] == ["tegulad.toml"]


RULE = "[x]\ncreate = @\nread = @\nupdate = @\ndelete = @\n"
BAD_CONFIGS = {
    "no TOML": ({}, "listen = [", ["tegulad.toml"]),
    "a key that does not exist": ({"listen": {"adress": "127.0.0.1:1"}}, "", ["adress"]),
    "an address that is none": ({"listen": {"address": "nowhere"}}, "", ["address"]),
    "a database of nobody": ({"database": {"url": "mysql://x/y"}}, "", ["url", "mysql"]),
    "a token hash that is none": ({"identity": {"providers": ["tokens"]}, "identity.tokens": [{"sha256": "x", "user": "u", "project": "p", "roles": []}]}, "", ["sha256"]),
    "rules that are not there": ({"property_protection": {"file": "absent.conf"}}, "", ["absent.conf"]),
    "a policy that is not there": ({"policy": {"file": "absent.yaml"}}, "", ["absent.yaml"]),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_configuration_that_is_wrong_is_refused_by_name(tegulad, tmp_path, name):
    tables, more, named = BAD_CONFIGS[name]
    (tmp_path / "tegulad.toml").write_text(toml(tables) + more)
    for arguments in [["--check-config"], []]:
        done = run(tegulad, "--config", tmp_path / "tegulad.toml", *arguments, directory=tmp_path)
        assert done.returncode != 0
        assert all(word in done.stderr for word in named), done.stderr


BAD_RULES = {
    "a pattern that is none": RULE.replace("x", "("),
    "a right that is not said": RULE.replace("update = @\n", ""),
    "everybody and nobody": RULE.replace("read = @", "read = @, !"),
    "no section": "create = @\n",
    "a word of nobody": RULE + "rename = @\n",
}


@pytest.mark.parametrize("rules", BAD_RULES.values(), ids=BAD_RULES)
def test_property_rules_that_are_wrong_keep_the_server_from_starting(tegulad, tmp_path, rules):
    (tmp_path / "rules.conf").write_text(rules)
    config = toml({"property_protection": {"file": str(tmp_path / "rules.conf")}})
    (tmp_path / "tegulad.toml").write_text(config)
    done = run(tegulad, "--config", tmp_path / "tegulad.toml", directory=tmp_path)
    assert done.returncode != 0 and "rules.conf" in done.stderr, done.stderr


def test_a_policy_that_is_wrong_keeps_the_server_from_starting(tegulad, tmp_path):
    for text in ['get_image: "role:"x"', '"get_image": "role:admin or"', '"get_image": "rule:absent"', '"get_image": "nonsense"']:
        (tmp_path / "policy.yaml").write_text(text)
        (tmp_path / "tegulad.toml").write_text(toml({"policy": {"file": str(tmp_path / "policy.yaml")}}))
        done = run(tegulad, "--config", tmp_path / "tegulad.toml", directory=tmp_path)
        assert done.returncode != 0 and "policy.yaml" in done.stderr, (text, done.stderr)


def test_without_a_configuration_it_serves_and_says_how_to_reach_it(tegulad, tmp_path):
    """As a first start: only the port is another, since the usual one may be taken."""
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [tegulad], cwd=tmp_path, env=CLEAN | {"TEGULAD_LISTEN__ADDRESS": f"127.0.0.1:{port}"}, stdout=output, stderr=output
        )
    try:
        wait_for(port)
        text = log.read_text()
        assert f"127.0.0.1:{port}" in text
        token = (tmp_path / "tegula-data/admin-token").read_text().strip()
        assert (tmp_path / "tegula-data/admin-token").stat().st_mode & 0o077 == 0
        client = Client(port, token)
        image = client.create_active(b"bytes", visibility="public")
        assert client.download(image["id"]).body == b"bytes"
        Client(port).get("/v2/images").expect(401)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()


def wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_tokens_are_made_by_the_program_itself(tegulad, start_server, server):
    made = run(tegulad, "token", "--user", "zoe", "--project", "zeta", "--role", "member")
    assert made.returncode == 0
    digest = re.search(r"\b[0-9a-f]{64}\b", made.stdout)[0]
    token = re.search(r"tegula_[0-9a-f]{64}", made.stdout)[0]
    assert digest != token.removeprefix("tegula_")
    entry = {"sha256": digest, "user": "zoe", "project": "zeta", "roles": ["member"]}
    other = type(server)(tegulad, server.directory / "other", None, {})
    config = other.config()
    config["identity.tokens"].append(entry)
    other.config = lambda: config
    other.start()
    try:
        assert Client(other.port, token).create()["owner"] == "zeta"
    finally:
        other.close()


def test_it_speaks_tls(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", directory / "key.pem", "-out", directory / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip

    server = start_server(
        ready=False, tls={"certificate": str(directory / "certificate.pem"), "key": str(directory / "key.pem")}
    )
    wait_for(server.port)
    context = ssl.create_default_context(cafile=directory / "certificate.pem")
    request = urllib.request.Request(
        f"https://127.0.0.1:{server.port}/v2/images", headers={"X-Auth-Token": server.client("alice").token}
    )
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        assert json.load(answer)["images"] == []
    with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/versions", context=context, timeout=20) as answer:
        assert json.load(answer)["versions"][0]["links"][0]["href"].startswith("https://")
    # Nothing is served to those who speak without it.
    plain = socket.create_connection(("127.0.0.1", server.port), 20)
    plain.sendall(b"GET /versions HTTP/1.1\r\nHost: x\r\n\r\n")
    plain.settimeout(20)
    assert b"versions" not in plain.recv(4096)
    # Old versions are refused.
    for version in [ssl.TLSVersion.TLSv1_1]:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(directory / "certificate.pem")
        old.minimum_version = old.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionResetError)), socket.create_connection(("127.0.0.1", server.port), 20) as raw:
            old.wrap_socket(raw, server_hostname="127.0.0.1")


def test_pages_of_allowed_origins_may_call(start_server):
    server = start_server(cors={"allowed_origins": ["https://dashboard.example"]})
    alice, nobody = server.client("alice"), server.client()
    asked = {
        "Origin": "https://dashboard.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "X-Auth-Token, Content-Type",
    }
    allowed = nobody.request("OPTIONS", "/v2/images/x/file", headers=asked).expect(200)
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://dashboard.example"
    assert "PUT" in allowed.headers["Access-Control-Allow-Methods"]
    assert "x-auth-token" in allowed.headers["Access-Control-Allow-Headers"].lower()
    answer = alice.get("/v2/images", headers={"Origin": "https://dashboard.example"}).expect(200)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://dashboard.example"
    refused = nobody.request("OPTIONS", "/v2/images", headers=asked | {"Origin": "https://evil.example"}).expect(200)
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert "Access-Control-Allow-Origin" not in alice.get("/v2/images", headers={"Origin": "https://evil.example"}).headers
    # Refusals may be read too.
    assert "Access-Control-Allow-Origin" in nobody.get("/v2/images", headers={"Origin": "https://dashboard.example"}).headers


def test_it_counts_what_it_does(server, alice):
    alice.create_active(b"counted")
    alice.get("/v2/images/absent").expect(404)
    text = server.client().get("/metrics").expect(200).body.decode()
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples and all(re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{.*\})? [0-9.eE+-]+|.*NaN|.*[+-]Inf", line) for line in samples)
    assert any("tegula" in line for line in samples)
    for secret in [alice.token, "alpha"]:
        assert secret not in text


def test_every_request_is_in_the_log_with_its_id(start_server):
    server = start_server(log={"format": "json", "access": True})
    request_id = server.client("alice").get("/v2/images").headers["X-Openstack-Request-Id"]
    deadline = time.monotonic() + 10
    while request_id not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)
    lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
    assert any(request_id in json.dumps(line) for line in lines)
    assert server.client("alice").token not in server.log()


def test_a_file_takes_the_server_out_of_service(start_server, tmp_path_factory):
    flag = tmp_path_factory.mktemp("health") / "out-of-service"
    server = start_server(health={"disable_file": str(flag)})
    server.client().get("/healthcheck").expect(200)
    flag.touch()
    server.client().get("/healthcheck").expect(503)
    server.client("alice").get("/v2/images").expect(200)
    flag.unlink()
    server.client().get("/healthcheck").expect(200)


def test_rules_are_read_again_when_told_and_kept_if_they_are_wrong(start_server, tmp_path_factory):
    directory = tmp_path_factory.mktemp("reload")
    policy = directory / "policy.yaml"
    policy.write_text('"get_images": "role:reader"\n')
    server = start_server(policy={"file": str(policy)})
    alice = server.client("alice")
    alice.get("/v2/images").expect(200)

    def reloaded(status):
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while alice.get("/v2/images").status != status:
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)

    policy.write_text('"get_images": "role:admin"\n')
    reloaded(403)
    server.client("admin").get("/v2/images").expect(200)
    policy.write_text('"get_images": "role:admin or"\n')
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    alice.get("/v2/images").expect(403)
    policy.write_text('"get_images": "@"\n')
    reloaded(200)
    # A change is noticed without a signal too.
    policy.write_text('"get_images": "role:admin"\n')
    deadline = time.monotonic() + 20
    while alice.get("/v2/images").status != 403:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def test_the_bytes_of_deleted_images_are_given_back(start_server):
    server = start_server(store={"collect_every_s": 1})
    alice = server.client("alice")
    segments = server.directory / "store" / "segments"
    kept, deleted = os.urandom(1 << 20), os.urandom(8 << 20)
    images = [alice.create_active(content) for content in (kept, deleted)]
    assert sum(file.stat().st_size for file in segments.iterdir()) > len(deleted)
    alice.delete(f"/v2/images/{images[1]['id']}").expect(204)
    deadline = time.monotonic() + 30
    while sum(file.stat().st_size for file in segments.iterdir()) > 2 * len(kept):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)
    assert alice.get(f"/v2/images/{images[0]['id']}/file").expect(200).body == kept


def test_two_servers_do_not_share_a_store(tegulad, server, tmp_path):
    """The second says why it does not start, and the first is unharmed."""
    config = server.config() | {"listen": {"address": f"127.0.0.1:{free_port()}"}}
    (tmp_path / "second.toml").write_text(toml(config))
    second = subprocess.Popen(
        [tegulad, "--config", tmp_path / "second.toml"], env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
    )
    timer = threading.Timer(4, second.terminate)
    timer.start()
    said = second.communicate()[0].decode()
    timer.cancel()
    # Ended by the timer's signal it would say 0: it must not have come so far.
    assert second.returncode == 1, said
    assert str(server.directory) in said and "another" in said, said
    server.client("alice").create_active(b"unharmed")


def test_a_port_that_is_taken_is_named(tegulad, server, tmp_path):
    config = {"listen": {"address": f"127.0.0.1:{server.port}"}}
    (tmp_path / "tegulad.toml").write_text(toml(config))
    done = run(tegulad, "--config", tmp_path / "tegulad.toml", directory=tmp_path)
    assert done.returncode != 0 and str(server.port) in done.stderr

"""The program itself: its command line, configuration, signals, TLS, and what it makes at its first start."""

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import time
import tomllib

import pytest
from support.http import Client, SlowUpload
from support.server import ROOT, START_S, free_port

TLS = ROOT / "server/identity/tests/tls"


@pytest.fixture
def run(tegulad, tmp_path):
    """Runs the program to its end in an empty directory."""

    def run(*arguments, **environment):
        return subprocess.run(
            [tegulad, *arguments],
            cwd=tmp_path,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    return run


@pytest.fixture
def begin(tegulad, tmp_path):
    """Starts the program in the same directory each time and waits until it listens; it is ended with the test."""
    processes = []

    def begin(*arguments, **environment):
        port = free_port()
        environment = {"TEGULAD_LISTEN__ADDRESS": f"127.0.0.1:{port}"} | environment
        process = subprocess.Popen(
            [tegulad, *arguments],
            cwd=tmp_path,
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "log").open("ab"),
            text=True,
        )
        processes.append(process)
        process.port = port
        process.first_line = process.stdout.readline()
        assert str(port) in process.first_line, (tmp_path / "log").read_text()
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def clean_environment(more):
    return {name: value for name, value in os.environ.items() if not name.startswith("TEGULA")} | more


def end(process):
    """Ends it and returns what else it has said."""
    process.send_signal(signal.SIGTERM)
    # Not communicate(): it would miss what was read ahead with the first line.
    said = process.stdout.read()
    assert process.wait(START_S) == 0
    return said


def wait_for(true):
    deadline = time.monotonic() + START_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- Without a configuration ------------------------------------------------------------------------------------------


def test_the_first_start_makes_a_token_that_later_ones_keep(begin, tmp_path):
    first = begin()
    said = end(first)
    token = next(word for word in said.split() if word.startswith("tegula_"))
    again = begin()
    client = Client(again.port, token)
    assert client.create(name="mine")["owner"] == "admin"
    assert [image["name"] for image in client.list()] == ["mine"]
    Client(again.port, token[:-1]).get("/v2/images").expect(401)
    Client(again.port).get("/v2/images").expect(401)
    assert token not in end(again), "it is shown once"
    assert token not in (tmp_path / "log").read_text()
    data = tmp_path / "tegula-data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "admin-token").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "tegula-data"], "nothing is made elsewhere"


def test_nobody_else_can_read_what_is_made_in_a_directory_that_was_there(begin, tmp_path):
    data = tmp_path / "tegula-data"
    data.mkdir(mode=0o755)
    server = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]')
    Client(server.port).create_active(b"not everybody's")
    made = [path for path in data.rglob("*") if path.exists()]
    assert any(path.suffix == ".seg" for path in made) and data / "catalog.sqlite" in made
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_a_second_server_on_the_same_port_does_not_start(begin, run):
    port = begin().port
    second = run(
        TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{port}", TEGULAD_STORE__PATH="another/store", TEGULAD_DATABASE__URL="sqlite:another/catalog"
    )
    assert second.returncode == 1 and f"127.0.0.1:{port}" in second.stderr


def test_a_second_server_on_the_same_store_does_not_start(begin, run):
    first = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]')
    client = Client(first.port)
    image = client.create()
    upload = SlowUpload(first.port, "", image["id"])
    wait_for(lambda: client.show(image["id"])["status"] == "saving")
    second = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}")
    assert second.returncode == 1 and "another tegulad" in second.stderr
    assert client.show(image["id"])["status"] == "saving", "the upload under way is not taken for one of a crash"
    assert upload.finish() == 204
    assert client.show(image["id"])["status"] == "active"


def test_a_database_and_a_store_that_do_not_belong_together_are_refused_and_unharmed(begin, run):
    """Whatever one of them does not know would be taken for what a crash left."""
    first = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]')
    client = Client(first.port)
    image = client.create_active(b"not to be lost")
    upload = SlowUpload(first.port, "", client.create()["id"])
    wait_for(lambda: "saving" in [listed["status"] for listed in client.list()])
    other_store = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}", TEGULAD_STORE__PATH="another/store")
    assert other_store.returncode == 1 and "`database.url`" in other_store.stderr and "another/store" in other_store.stderr
    assert upload.finish() == 204, "the upload under way is not taken for one of a crash"
    end(first)
    other_database = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}", TEGULAD_DATABASE__URL="sqlite:mistyped")
    assert other_database.returncode == 1 and "2 images" in other_database.stderr, other_database.stderr
    again = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]')
    assert Client(again.port).get(f"/v2/images/{image['id']}/file").expect(200).body == b"not to be lost"


def test_a_database_whose_images_moved_to_another_store_can_be_told_so(begin, run):
    end(begin())
    elsewhere = {"TEGULAD_STORE__PATH": "another/store"}
    refused = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}", **elsewhere)
    assert refused.returncode == 1 and "`tegulad db forget-store`" in refused.stderr, refused.stderr
    forgotten = run("db", "forget-store")
    assert forgotten.returncode == 0 and "is forgotten" in forgotten.stdout, forgotten.stderr
    assert "nothing to do" in run("db", "forget-store").stdout
    end(begin(**elsewhere))
    first_again = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}")
    assert first_again.returncode == 1 and "forget-store" in first_again.stderr, "the other one is noted now"


def test_a_database_whose_store_is_lost_takes_another_only_if_it_is_told_to(begin, run):
    server = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]')
    image = Client(server.port).create_active(b"lost")
    end(server)
    elsewhere = {"TEGULAD_STORE__PATH": "another/store"}
    run("db", "forget-store")
    refused = run(TEGULAD_LISTEN__ADDRESS=f"127.0.0.1:{free_port()}", **elsewhere)
    assert refused.returncode == 1 and image["id"] in refused.stderr and "`tegulad db take-store`" in refused.stderr, refused.stderr
    taken = run("db", "take-store", **elsewhere)
    assert taken.returncode == 0 and "is noted" in taken.stdout, taken.stderr
    server = begin(TEGULAD_IDENTITY__PROVIDERS='["open"]', **elsewhere)
    client = Client(server.port)
    assert client.show(image["id"])["status"] == "active", "it can still be looked at, and deleted"
    assert run("db", "take-store", **elsewhere).returncode == 1, "not while a server works with it"
    client.delete(f"/v2/images/{image['id']}").expect(204)
    client.create_active(b"new")
    end(server)
    # The first store has nothing but what this database does not know any more: it would be removed.
    refused = run("db", "take-store")
    assert refused.returncode == 1 and "1 images" in refused.stderr, refused.stderr


def test_open_access_needs_no_token_and_is_for_loopback_only(begin, run):
    providers = {"TEGULAD_IDENTITY__PROVIDERS": '["open"]'}
    server = begin(**providers)
    client = Client(server.port)
    assert client.create()["owner"] == "admin"
    client.get("/v2/images", headers={"X-Forwarded-For": "10.0.0.1"}).expect(401)
    client.get("/v2/images", headers={"Origin": "https://example.org"}).expect(401)
    client.get("/v2/images", headers={"Host": "example.org:9292"}).expect(401)
    client.get("/v2/images", headers={"X-Auth-Token": "x"}).expect(401)
    assert "open on loopback" in end(server)
    refused = run(**providers, TEGULAD_LISTEN__ADDRESS="0.0.0.0:1")
    assert refused.returncode == 1 and "loopback" in refused.stderr


# --- Configuration ----------------------------------------------------------------------------------------------------


def test_the_printed_configuration_is_one_and_is_good(run, tmp_path):
    text = run("--print-default-config").stdout
    assert tomllib.loads(text)["listen"]["address"] == "127.0.0.1:9292"
    (tmp_path / "all.toml").write_text(text)
    checked = run("--config", "all.toml", "--check-config")
    assert checked.returncode == 0 and "good" in checked.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["all.toml"], "a check makes nothing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[listen]\nadress = 'x'", ["line 2", "adress"]),
        ("[listen", ["line 1"]),
        ("[identity.keystone]\npassword = 'canary'\nno = 'canary'", ["line 3", "`no`"]),
        ("[limits]\npage_default = 5000", ["limits.page_default", "1000"]),
        ("[tls]\nkey = '/nonexistent'", ["tls.certificate"]),
        ("[policy]\nfile = '/nonexistent.yaml'", ["policy.file", "/nonexistent.yaml"]),
        ("[identity]\nproviders = ['keystone']", ["identity.keystone.url"]),
        ("[store]\nzstd_level = 99", ["store.zstd_level"]),
    ],
)
def test_a_bad_configuration_is_refused_by_place_and_name(run, tmp_path, text, said):
    (tmp_path / "bad.toml").write_text(text)
    for more in [["--check-config"], []]:
        refused = run("--config", "bad.toml", *more)
        assert refused.returncode == 1
        assert all(words in refused.stderr for words in said), refused.stderr
        assert "canary" not in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"], "nothing was made"


def test_the_environment_wins_over_the_file_and_unknown_variables_are_refused(run, tmp_path):
    (tmp_path / "t.toml").write_text("[limits]\npage_max = 10\npage_default = 5\n")
    assert run("--config", "t.toml", "--check-config").returncode == 0
    assert run("--check-config", TEGULAD_CONFIG="t.toml").returncode == 0
    refused = run("--config", "t.toml", "--check-config", TEGULAD_LIMITS__PAGE_MAX="4")
    assert "limits.page_default" in refused.stderr
    refused = run("--check-config", TEGULAD_LIMITS__PAGE="4")
    assert refused.returncode == 1 and "TEGULAD_LIMITS__PAGE" in refused.stderr


def test_a_token_that_is_made_works_with_its_entry(run, begin, tmp_path):
    made = run("token", "--user", "o'hara", "--project", "p \"1\"", "--role", "member").stdout
    token = next(word for word in made.split() if word.startswith("tegula_"))
    (tmp_path / "t.toml").write_text(f"[identity]\nproviders = ['tokens']\n{made}")
    server = begin("--config", "t.toml")
    assert Client(server.port, token).create()["owner"] == 'p "1"'
    Client(server.port, token).get("/v2/info/stores/detail").expect(403)


def test_the_database_is_looked_after_by_hand(run, begin):
    url = {"TEGULAD_DATABASE__URL": "sqlite:sub/catalog.sqlite", "TEGULAD_DATABASE__UPGRADE": "false"}
    started = run(**url)
    assert started.returncode == 1 and "catalog.sqlite" in started.stderr
    assert run("db", "upgrade", **url).returncode == 0
    assert "nothing to do" in run("db", "upgrade", **url).stdout
    assert "version" in run("db", "version", **url).stdout
    end(begin(**url))
    assert "0 images" in run("db", "check", **url).stdout


# --- Serving ----------------------------------------------------------------------------------------------------------


def test_rules_are_read_again_and_bad_ones_leave_the_old_in_force(begin, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("# nothing\n")
    server = begin(TEGULAD_POLICY__FILE=str(policy), TEGULAD_IDENTITY__PROVIDERS='["open"]')
    client, log = Client(server.port), tmp_path / "log"
    client.post("/v2/images", {}).expect(201)
    policy.write_text('"add_image": "!"\n')
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: client.post("/v2/images", {}).status == 403)
    policy.write_text('"add_image": "role:"\n')
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: "stay in force" in log.read_text())
    client.post("/v2/images", {}).expect(403)


def test_an_end_lets_connections_end_and_takes_no_more(begin):
    server = begin()
    idle = socket.create_connection(("127.0.0.1", server.port))
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.sendall(b"GET /versions HTTP/1.1\r\nHost: x\r\n")
    time.sleep(0.3)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=2)
    slow.sendall(b"\r\n")
    assert slow.recv(12) == b"HTTP/1.1 200"
    server.communicate(timeout=START_S)
    assert server.returncode == 0
    idle.close()
    slow.close()


def test_a_second_signal_ends_at_once(begin):
    server = begin()
    stuck = socket.create_connection(("127.0.0.1", server.port))
    stuck.sendall(b"GET /versions HTTP/1.1\r\n")
    time.sleep(0.3)
    server.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=5)
    assert server.returncode == 143
    stuck.close()


def test_over_tls_nothing_else_is_served(begin):
    server = begin(TEGULAD_TLS__CERTIFICATE=str(TLS / "server.pem"), TEGULAD_TLS__KEY=str(TLS / "server.key"))
    assert "https://" in server.first_line
    context = ssl.create_default_context(cafile=TLS / "ca.pem")
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
    connection.request("GET", "/versions")
    answer = connection.getresponse()
    assert answer.status == 200
    assert json.loads(answer.read())["versions"][0]["links"][0]["href"].startswith("https://")
    assert connection.sock.version() == "TLSv1.3"
    with pytest.raises((http.client.HTTPException, OSError)):
        Client(server.port).get("/versions")


def test_events_are_lines_of_json_if_that_is_wanted(begin, tmp_path):
    server = begin(TEGULAD_LOG__FORMAT="json")
    answer = Client(server.port).get("/v2/images?name=%0aforged").expect(401)
    end(server)
    events = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    [request] = [event for event in events if event.get("message") == "request"]
    assert answer.headers["X-Openstack-Request-Id"] in request["request_id"]
    assert request["status"] == 401


def test_the_service_manager_is_told_when_it_is_ready(begin, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(START_S)
        server = begin(NOTIFY_SOCKET=path)
        assert manager.recv(100) == b"READY=1"
        end(server)
        assert manager.recv(100) == b"STOPPING=1"

"""A database on a server that goes away, comes back, hangs. Only with `--postgres`: a file does none of that."""

import threading
import time

import pytest
from support.proxy import Proxy
from support.server import Database


@pytest.fixture(scope="module")
def proxy(postgres):
    """What stands between our server and that of the database."""
    proxy = Proxy(int(postgres.rsplit(":", 1)[1].split("/")[0]))
    yield proxy
    proxy.passing.set()
    proxy.close()


@pytest.fixture(scope="module")
def database(proxy, postgres, tmp_path_factory):
    database = Database(tmp_path_factory.mktemp("database"), postgres)
    yield database
    database.remove()


@pytest.fixture(scope="module")
def settings(proxy, database):
    before, _, after = database.url.rpartition(":")
    return {"database": {"url": f"{before}:{proxy.port}/{after.split('/', 1)[1]}"}}


def connections(database):
    """Which of the database's connections are ended."""
    return f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database.name}'"


def test_connections_that_are_ended_cost_no_request(server, database):
    """Reads, and changes that were not committed yet, are done again on another connection."""
    image_id = server.client("alice").create()["id"]
    statuses, stop = [], threading.Event()

    def ask(number):
        client = server.client("alice")
        change = [{"op": "add", "path": f"/x{number}", "value": "y"}]
        while not stop.is_set():
            statuses.append(client.get("/v2/images").status)
            statuses.append(client.get(f"/v2/images/{image_id}").status)
            if number == 0:
                # One that was being committed may fail: nobody knows whether it was.
                client.patch(f"/v2/images/{image_id}", change).expect(200, 503)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        database._sql(connections(database))
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    for _ in range(5):
        database._sql(connections(database))
        server.client().get("/healthcheck").expect(200)


def test_a_database_that_is_away_is_said_to_be(server, database, proxy):
    alice = server.client("alice")
    image_id = alice.create()["id"]
    target, proxy.target = proxy.target, 1  # nobody listens there
    database._sql(connections(database))
    for answer in [alice.get("/v2/images"), alice.get(f"/v2/images/{image_id}"), alice.post("/v2/images", {})]:
        assert b"database" in answer.expect(503).body
        assert str(proxy.port).encode() not in answer.body
    alice.get("/healthcheck").expect(503)
    proxy.target = target
    alice.get("/healthcheck").expect(200)
    assert alice.show(image_id)["id"] == image_id


def test_a_database_that_hangs_does_not_hold_up_the_check_of_health(server, proxy):
    client = server.client()
    client.get("/healthcheck").expect(200)
    proxy.passing.clear()
    for _ in range(2):
        asked = time.monotonic()
        client.get("/healthcheck").expect(503)
        assert time.monotonic() - asked < 20
    proxy.passing.set()
    deadline = time.monotonic() + 30
    while client.get("/healthcheck").status != 200:
        assert time.monotonic() < deadline

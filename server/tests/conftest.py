"""Fixtures of the tests of the catalog server.

They need the two binaries and, for a run on PostgreSQL, the URL of a server: tools/test passes both. By hand:

    cargo build --profile test --bin tegulad --bin tegula
    .venv/bin/python -m pytest server/tests
    tools/with-postgres .venv/bin/python -m pytest server/tests --postgres

Each file of tests has a server of its own, so what one file makes no other sees.
"""

import os
from pathlib import Path

import pytest
from support.server import ROOT, Server


def pytest_addoption(parser):
    parser.addoption("--tegulad", default=str(ROOT / "target/debug/tegulad"), help="the server")
    parser.addoption("--tegula", default=str(ROOT / "target/debug/tegula"), help="the command line of the engine")
    parser.addoption("--postgres", action="store_true", help="keep the catalog in the server of TEGULA_TEST_POSTGRES")


def pytest_ignore_collect(collection_path, config):
    """A database in a file does not go away: that file of tests is for one on a server."""
    return collection_path.name == "test_outages.py" and not config.getoption("--postgres") or None


def binary(request, name):
    path = Path(request.config.getoption(name)).resolve()
    assert path.is_file(), f"{path}: build it first"
    return str(path)


@pytest.fixture(scope="session")
def tegulad(request):
    """The path of the server's binary."""
    return binary(request, "--tegulad")


@pytest.fixture(scope="session")
def tegula(request):
    """The path of the engine's binary."""
    return binary(request, "--tegula")


@pytest.fixture(scope="session")
def postgres(request):
    """The URL of a PostgreSQL server, if the catalog is to be kept there."""
    return os.environ["TEGULA_TEST_POSTGRES"] if request.config.getoption("--postgres") else None


@pytest.fixture(scope="module")
def start_server(tegulad, postgres, tmp_path_factory):
    """Starts a server with these settings; it is ended with the file of tests. Without `ready` it is not waited for."""
    servers = []

    def start(ready=True, **settings):
        servers.append(Server(tegulad, tmp_path_factory.mktemp("tegulad"), postgres, settings))
        return servers[-1].start(ready)

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def settings():
    """What this file of tests wants in the server's configuration: nothing, if it does not say."""
    return {}


@pytest.fixture(scope="module")
def server(start_server, settings):
    """The server of this file of tests."""
    return start_server(**settings)


def person(name):
    @pytest.fixture(scope="module", name=name)
    def client(server):
        made = server.client(name)
        yield made
        made.close()

    return client


admin, alice, alan, anna, bob, bella, carol, service = map(
    person, ["admin", "alice", "alan", "anna", "bob", "bella", "carol", "service"]
)


@pytest.fixture(scope="module")
def nobody(server):
    """A client without a token."""
    return server.client()

"""The real binary, in a temporary directory, on a free port of the loopback interface."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

from .http import Client
from .people import PEOPLE

ROOT = Path(__file__).resolve().parents[3]
START_S = 30


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def toml(tables):
    """A TOML document of {table: {key: value}}; a list of tables becomes an array of tables."""
    lines = []
    for table, content in tables.items():
        for entry in content if isinstance(content, list) else [content]:
            lines.append(f"[[{table}]]" if isinstance(content, list) else f"[{table}]")
            # A string, number, boolean or list of strings is written the same in JSON and in TOML.
            lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
            lines.append("")
    return "\n".join(lines)


class Database:
    """Where the catalog is kept: a file, or a database of its own in the PostgreSQL server that the tests were given."""

    def __init__(self, directory, postgres=None):
        self.postgres = postgres
        if postgres:
            self.name = f"tegula_{uuid.uuid4().hex}"
            self.url = postgres.rsplit("/", 1)[0] + "/" + self.name
            self._sql(f"CREATE DATABASE {self.name}")
        else:
            self.url = f"sqlite:{directory}/catalog.sqlite"

    def remove(self):
        """Removes the database; one in a file goes with its directory."""
        if self.postgres:
            self._sql(f"DROP DATABASE {self.name} WITH (FORCE)")

    def _sql(self, command):
        subprocess.run(["psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", self.postgres, "-c", command], check=True)


class Server:
    """A running server. `settings` are tables of its configuration, laid over those below; lists are put in their place."""

    def __init__(self, binary, directory, postgres=None, settings=None):
        self.binary = binary
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.settings = settings or {}
        self.database = Database(self.directory, postgres)
        self.port = free_port()
        self.process = None
        self._log = None

    def config(self):
        """The configuration, as tables."""
        tables = {
            "listen": {"address": f"127.0.0.1:{self.port}"},
            "database": {"url": self.database.url},
            "store": {"path": str(self.directory / "store")},
            "identity": {"providers": ["tokens"]},
            "identity.tokens": [
                {
                    "sha256": hashlib.sha256(person.token.encode()).hexdigest(),
                    "user": person.name,
                    "project": person.project,
                    "roles": list(person.roles),
                }
                for person in PEOPLE.values()
            ],
        }
        for table, content in self.settings.items():
            tables[table] = content if isinstance(content, list) else tables.get(table, {}) | content
        return tables

    def start(self, ready=True):
        """Starts the server and, unless told otherwise, waits until it answers."""
        path = self.directory / "tegulad.toml"
        path.write_text(toml(self.config()))
        self._log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [self.binary, "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env={name: value for name, value in os.environ.items() if not name.startswith("TEGULA")},
        )
        deadline = time.monotonic() + START_S
        while ready:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log()}"
            try:
                self.client().get("/healthcheck").expect(200)
                ready = False
            except OSError:
                assert time.monotonic() < deadline, f"the server does not answer:\n{self.log()}"
                time.sleep(0.02)
        return self

    def client(self, person=None, **headers):
        """A client with the token of that person, or without one."""
        return Client(self.port, PEOPLE[person].token if person else None, **headers)

    def log(self):
        """What the server has said."""
        return (self.directory / "log").read_text(errors="replace")

    def kill(self):
        """Ends the server at once, as a failing machine would."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def stop(self):
        """Asks the server to end, and expects it to do so well."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(START_S)
        self._log.close()
        assert status == 0, f"the server ended with {status}:\n{self.log()[-4000:]}"
        assert "panicked at" not in self.log(), self.log()[-4000:]

    def close(self):
        """Ends the server, however it fares, and removes what it kept elsewhere."""
        try:
            if self.process and self.process.poll() is None:
                self.stop()
        finally:
            if self.process and self.process.poll() is None:
                self.kill()
            self.database.remove()

"""A real Keystone, from the package index, in a temporary directory, on free ports of the loopback interface."""

import grp
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

from .http import Client
from .server import free_port

ADMIN = "admin"
PASSWORD = "not-a-secret"
# It is slow to start where many things run at the same time.
START_S = 120
SERVE = Path(__file__).with_name("serve_keystone.py")

CONFIG = """\
[database]
connection = sqlite:///{directory}/keystone.sqlite
[token]
expiration = {expiration_s}
[fernet_tokens]
key_repository = {directory}/fernet-keys
[fernet_receipts]
key_repository = {directory}/fernet-keys
[credential]
key_repository = {directory}/credential-keys
[identity]
# Passwords that are no secrets need no slow hash.
password_hash_rounds = 4
[cache]
enabled = false
"""


class Keystone:
    """A running Keystone with an administrator. What is made of it by the other methods is never removed: it goes whole."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes = []
        self._log = (self.directory / "log").open("ab")

    def start(self):
        """Sets it up, starts it, and logs the administrator in."""
        config = self._configure("long", 3600)
        for repository in ["fernet-keys", "credential-keys"]:
            (self.directory / repository).mkdir(mode=0o700)
        manage = [Path(sys.executable).with_name("keystone-manage"), "--config-file", config / "keystone.conf"]
        # The keys are to belong to whoever runs the tests.
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        owner = ["--keystone-user", user, "--keystone-group", group]
        bootstrap = ["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "here"]
        for step in [
            ["db_sync"],
            ["fernet_setup", *owner],
            ["credential_setup", *owner],
            [*bootstrap, "--bootstrap-public-url", f"{self.url}/v3", "--bootstrap-internal-url", f"{self.url}/v3"],
        ]:
            done = subprocess.run([*manage, *step], stdout=self._log, stderr=subprocess.STDOUT, check=False)
            assert done.returncode == 0, f"keystone-manage {step[0]} failed:\n{self.log()[-4000:]}"
        self._serve(config, self.port)
        self.admin = Client(self.port, self.token(ADMIN, project="admin"))
        self.roles = {role["name"]: role["id"] for role in self._all("roles")}
        return self

    def start_of_short_lived_tokens(self, seconds):
        """A second process over the same data, whose tokens end after so long; returns its port."""
        port = free_port()
        self._serve(self._configure("short", seconds), port)
        return port

    def stop(self):
        """Ends its processes."""
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()

    def log(self):
        """What its processes have said."""
        return (self.directory / "log").read_text(errors="replace")

    # --- What is in it ------------------------------------------------------------------------------------------------

    def project(self, name):
        """Makes a project; returns its id."""
        return self._make("project", {"name": name, "domain_id": "default"})["id"]

    def user(self, name, **roles):
        """Makes a user, whose password is the same as everybody's, with roles in projects: `user(NAME, PROJECT_ID=ROLES)`."""
        user = self._make("user", {"name": name, "password": PASSWORD, "domain_id": "default"})["id"]
        for project, names in roles.items():
            for role in names.split():
                self.grant(user, f"projects/{project}", role)
        return user

    def grant(self, user, where, role):
        """Gives a user a role in `projects/ID`, `domains/ID` or `system`."""
        path = "/v3/system" if where == "system" else f"/v3/{where}"
        self.admin.put(f"{path}/users/{user}/roles/{self.roles[role]}").expect(204)

    def set_user(self, user, **fields):
        """Changes a user."""
        body = {"user": fields}
        self.admin.request("PATCH", f"/v3/users/{user}", json_body=body).expect(200)

    def endpoint(self, kind, url):
        """Enters a service into the catalog."""
        service = self._make("service", {"name": kind, "type": kind})["id"]
        for interface in ["public", "internal"]:
            self._make("endpoint", {"service_id": service, "interface": interface, "region_id": "here", "url": url})

    def application_credential(self, user, token, access_rules=None):
        """Makes one as that user, by a token of a project; returns a token of it."""
        rules = {} if access_rules is None else {"access_rules": access_rules}
        body = {"application_credential": {"name": f"c{time.monotonic_ns()}", **rules}}
        path = f"/v3/users/{user}/application_credentials"
        made = Client(self.port, token).post(path, body).expect(201).json()["application_credential"]
        method = {"id": made["id"], "secret": made["secret"]}
        return self._log_in({"methods": ["application_credential"], "application_credential": method}, None, self.port)

    def token(self, user, project=None, scope=None, port=None):
        """Logs a user in, into a project by name or another scope; returns the token."""
        domain = {"id": "default"}
        if project:
            scope = {"project": {"name": project, "domain": domain}}
        password = {"user": {"name": user, "domain": domain, "password": PASSWORD}}
        return self._log_in({"methods": ["password"], "password": password}, scope, port or self.port)

    def revoke(self, token):
        """Ends a token before its time."""
        self.admin.delete("/v3/auth/tokens", headers={"X-Subject-Token": token}).expect(204)

    # ------------------------------------------------------------------------------------------------------------------

    def _log_in(self, identity, scope, port):
        body = {"auth": {"identity": identity} | ({"scope": scope} if scope else {})}
        return Client(port).post("/v3/auth/tokens", body).expect(201).headers["X-Subject-Token"]

    def _make(self, kind, fields):
        return self.admin.post(f"/v3/{kind}s", {kind: fields}).expect(201).json()[kind]

    def _all(self, kinds):
        return self.admin.get(f"/v3/{kinds}").expect(200).json()[kinds]

    def _configure(self, name, expiration_s):
        directory = self.directory / name
        directory.mkdir()
        text = CONFIG.format(directory=self.directory, expiration_s=expiration_s)
        (directory / "keystone.conf").write_text(text)
        return directory

    def _serve(self, config, port):
        process = subprocess.Popen(
            # -P: what stands beside the script is not what Keystone imports.
            [sys.executable, "-P", str(SERVE), str(config), str(port)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._processes.append(process)
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, f"Keystone ended with {process.returncode}:\n{self.log()[-4000:]}"
            try:
                Client(port).get("/v3").expect(200)
                return
            except OSError:
                assert time.monotonic() < deadline, f"Keystone does not answer:\n{self.log()[-4000:]}"
                time.sleep(0.1)

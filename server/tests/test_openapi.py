"""The OpenAPI document, and what the server does with requests that are made from it: right ones, and nearly right ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = "/openapi.json"


@pytest.fixture(scope="module")
def document(nobody):
    """The document, as the server gives it."""
    return nobody.get(DOCUMENT).expect(200).json()


def test_the_document_names_every_route_and_method(document, alice):
    assert document["openapi"].startswith("3.")
    for path, item in document["paths"].items():
        methods = {method.upper() for method in item if method in ("get", "put", "post", "delete", "patch", "head")}
        if not path.startswith("/v2/"):
            continue
        response = alice.request("BREW", re.sub(r"\{[^}]*\}", "x", path))
        assert response.status == 405, f"{path}: {response}"
        assert {name.strip() for name in response.headers["Allow"].split(",")} == methods, path


def test_nothing_made_from_the_document_breaks_the_server(server, alice, tmp_path):
    image_id = alice.create_active(b"bytes")["id"]
    assert image_id
    program = Path(sys.executable).with_name("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    done = subprocess.run(
        [program, "--config-file", "/dev/null", "run", f"http://127.0.0.1:{server.port}{DOCUMENT}", "-H", f"X-Auth-Token: {alice.token}",
         "--checks", checks, "--max-examples", "8", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color",
         "--generation-database", "none", "--request-timeout", "20"],
        capture_output=True, text=True, cwd=tmp_path, timeout=110,
        env=os.environ | {"SCHEMATHESIS_HOOKS": "support.schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "panicked" not in server.log()
    # It did ask for something.
    assert len(json.dumps(alice.list("limit=1000"))) > 2

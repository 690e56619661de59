"""OpenStack's own clients, as they come from the package index: they must not notice that this is not Glance."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import glanceclient
import glanceclient.exc
import glanceclient.shell
import openstack
import openstackclient.shell
import pytest
from support import disks

DATA = disks.noise(2_000_000, 42)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """A file of DATA."""
    path = tmp_path_factory.mktemp("data") / "disk.raw"
    path.write_bytes(DATA)
    return path


class Terminal(io.StringIO):
    """A standard input that is a terminal: both command lines take any other for image data."""

    def isatty(self):
        return True


@contextlib.contextmanager
def as_command(monkeypatch):
    """Runs what follows as a command of its own would run; yields its standard output."""
    for name in os.environ:
        if name.startswith("OS_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "stdin", Terminal())
    output = io.StringIO()
    output.buffer = io.BytesIO()
    with contextlib.redirect_stdout(output):
        yield output


# --- openstackclient --------------------------------------------------------------------------------------------------


@pytest.fixture
def osc(server, monkeypatch):
    """`openstack ARGUMENTS` as that person. Returns what `-f json` printed, if it is given."""

    def run(who, *arguments, fails=False):
        options = ["--os-auth-type", "admin_token", "--os-endpoint", f"http://127.0.0.1:{server.port}/v2"]
        options += ["--os-token", server.client(who).token]
        with as_command(monkeypatch) as output:
            status = openstackclient.shell.main(options + list(map(str, arguments)))
        assert (status != 0) == fails, f"openstack {arguments}: exit status {status}: {output.getvalue()}"
        return json.loads(output.getvalue()) if "json" in arguments and not fails else output.getvalue()

    return run


def test_openstackclient(osc, data_file, tmp_path):
    show = ("-f", "json")
    image = osc(
        "alice", "image", "create", "from osc", "--disk-format", "raw", "--container-format", "bare", "--private",
        "--min-disk", 1, "--min-ram", 64, "--property", "os_distro=debian", "--property", "hw_disk_bus=virtio",
        "--tag", "blue", "--file", data_file, *show,
    )  # fmt: skip
    shown = osc("alice", "image", "show", image["id"], *show)
    assert (shown["status"], shown["size"], shown["visibility"], shown["min_disk"]) == ("active", len(DATA), "private", 1)
    assert shown["checksum"] == hashlib.md5(DATA).hexdigest()
    assert shown["properties"]["os_distro"] == "debian"
    assert shown["tags"] == ["blue"]
    assert osc("alice", "image", "show", "from osc", *show)["id"] == image["id"]
    assert [entry["ID"] for entry in osc("alice", "image", "list", *show)] == [image["id"]]
    listed = osc("alice", "image", "list", "--long", "--private", "--name", "from osc", "--status", "active", "--tag", "blue",
                 "--property", "os_distro=debian", "--sort", "name:asc", "--limit", 5, *show)  # fmt: skip
    assert [(entry["ID"], entry["Checksum"]) for entry in listed] == [(image["id"], shown["checksum"])]
    target = tmp_path / "saved.raw"
    osc("alice", "image", "save", "--file", target, image["id"])
    assert target.read_bytes() == DATA

    osc("alice", "image", "set", image["id"], "--name", "renamed", "--property", "os_version=12", "--tag", "red", "--protected",
        "--min-ram", 128, "--shared", "--hidden")  # fmt: skip
    shown = osc("alice", "image", "show", image["id"], *show)
    assert (shown["name"], shown["protected"], shown["min_ram"]) == ("renamed", True, 128)
    assert sorted(shown["tags"]) == ["blue", "red"]
    assert shown["properties"]["os_version"] == "12" and shown["properties"]["os_distro"] == "debian"
    assert osc("alice", "image", "list", *show) == []
    assert [entry["ID"] for entry in osc("alice", "image", "list", "--hidden", *show)] == [image["id"]]
    osc("alice", "image", "delete", image["id"], fails=True)
    osc("alice", "image", "set", image["id"], "--unprotected", "--unhidden")
    osc("alice", "image", "unset", image["id"], "--property", "os_version", "--tag", "red")
    shown = osc("alice", "image", "show", image["id"], *show)
    assert "os_version" not in shown["properties"] and shown["tags"] == ["blue"]

    # The command asks Keystone for a project of that name and takes the text for an id if it is told to.
    osc("alice", "image", "set", image["id"], "--deactivate")
    assert osc("alice", "image", "show", image["id"], *show)["status"] == "deactivated"
    osc("alice", "image", "save", "--file", tmp_path / "x", image["id"], fails=True)
    osc("alice", "image", "set", image["id"], "--activate")
    assert osc("alice", "image", "show", image["id"], *show)["status"] == "active"
    assert osc("alice", "image", "stores", "list", *show)
    osc("alice", "image", "delete", image["id"])
    osc("alice", "image", "show", image["id"], *show, fails=True)


def test_openstackclient_creates_first_and_stages_later(osc, data_file):
    show = ("-f", "json")
    image = osc("alice", "image", "create", "staged", "--disk-format", "raw", "--container-format", "bare", *show)
    assert image["status"] == "queued"
    osc("alice", "image", "stage", "--file", data_file, image["id"])
    assert osc("alice", "image", "show", image["id"], *show)["status"] == "uploading"
    osc("alice", "image", "delete", image["id"])


def test_openstackclient_as_a_program_of_its_own(server, data_file):
    program = Path(sys.executable).with_name("openstack")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    environment = clean | {
        "OS_AUTH_TYPE": "admin_token",
        "OS_ENDPOINT": f"http://127.0.0.1:{server.port}/v2",
        "OS_TOKEN": server.client("alice").token,
    }
    with data_file.open("rb") as standard_input:
        created = subprocess.run(
            [program, "image", "create", "from stdin", "--disk-format", "raw", "-f", "json"],
            stdin=standard_input, env=environment, capture_output=True, timeout=100,
        )  # fmt: skip
    assert created.returncode == 0, created.stderr.decode()
    image_id = json.loads(created.stdout)["id"]
    assert server.client("alice").download(image_id).body == DATA


# --- glanceclient -----------------------------------------------------------------------------------------------------


@pytest.fixture
def glance(server, monkeypatch):
    """`glance ARGUMENTS` as that person; returns what it printed."""

    def run(who, *arguments, fails=False):
        options = ["--os-auth-token", server.client(who).token, "--os-image-url", f"http://127.0.0.1:{server.port}"]
        with as_command(monkeypatch) as output:
            try:
                glanceclient.shell.OpenStackImagesShell().main(options + list(map(str, arguments)))
                failed = None
            except (glanceclient.exc.HTTPException, glanceclient.exc.CommandError, SystemExit) as error:
                failed = error
        assert (failed is not None) == fails, f"glance {arguments}: {failed}: {output.getvalue()}"
        return output.getvalue()

    return run


def table(printed):
    """The rows of a table of two columns, as a dictionary."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line.startswith("|")]
    return {row[0]: row[1] for row in rows}


def test_the_glance_command_line(glance, server, data_file, tmp_path):
    created = table(
        glance(
            "alice", "image-create", "--name", "from glance", "--disk-format", "raw", "--container-format", "bare",
            "--visibility", "shared", "--property", "os_distro=debian", "--tags", "blue", "--file", data_file,
        )  # fmt: skip
    )
    image_id = created["id"]
    shown = table(glance("alice", "image-show", image_id))
    assert (shown["status"], shown["size"], shown["os_distro"]) == ("active", str(len(DATA)), "debian")
    # The table breaks long lines.
    assert hashlib.sha512(DATA).hexdigest().startswith(shown["os_hash_value"])
    assert image_id in glance("alice", "image-list", "--property-filter", "os_distro=debian", "--sort-key", "name")
    target = tmp_path / "downloaded"
    glance("alice", "image-download", image_id, "--file", target)
    assert target.read_bytes() == DATA
    glance("alice", "image-update", image_id, "--name", "renamed", "--property", "a=b", "--min-ram", 5)
    glance("alice", "image-update", image_id, "--remove-property", "os_distro")
    shown = table(glance("alice", "image-show", image_id))
    assert (shown["name"], shown["a"], shown["min_ram"]) == ("renamed", "b", "5") and "os_distro" not in shown

    glance("alice", "member-create", image_id, "beta")
    assert "pending" in glance("alice", "member-list", "--image-id", image_id)
    assert "beta" in glance("bob", "member-get", image_id, "beta")
    assert image_id not in glance("bob", "image-list")
    glance("bob", "member-update", image_id, "beta", "accepted")
    assert image_id in glance("bob", "image-list")
    glance("alice", "member-delete", image_id, "beta")
    glance("bob", "image-show", image_id, fails=True)

    glance("alice", "image-tag-update", image_id, "red")
    assert "red" in glance("alice", "image-show", image_id)
    glance("alice", "image-tag-delete", image_id, "red")
    glance("alice", "image-deactivate", image_id)
    glance("alice", "image-download", image_id, "--file", target, fails=True)
    glance("alice", "image-reactivate", image_id)
    glance("alice", "stores-info")
    glance("alice", "import-info")
    glance("alice", "explain", "image")
    glance("alice", "image-delete", image_id)
    glance("alice", "image-show", image_id, fails=True)

    staged = table(glance("alice", "image-create", "--name", "s", "--disk-format", "raw", "--container-format", "bare"))["id"]
    glance("alice", "image-stage", staged, "--file", data_file)
    assert server.client("alice").show(staged)["status"] == "uploading"


def test_the_glance_library_as_nova_and_cinder_use_it(server):
    client = glanceclient.Client("2", endpoint=f"http://127.0.0.1:{server.port}", token=server.client("alice").token)
    schema = client.schemas.get("image")
    assert schema.raw()["properties"]["disk_format"]["enum"]
    assert not schema.is_base_property("os_distro") and schema.is_base_property("name")
    # Nova makes a snapshot: first the record, then its formats, then bytes of unknown number.
    image = client.images.create(
        name="snapshot", visibility="private", base_image_ref="", image_type="snapshot", instance_uuid=DATA[:16].hex(), min_disk=1
    )
    image = client.images.update(image.id, disk_format="raw", container_format="bare", image_state="available", owner_id="alpha")
    client.images.upload(image.id, io.BytesIO(DATA))
    image = client.images.get(image.id)
    assert (image.status, image.size, image.image_type) == ("active", len(DATA), "snapshot")
    # It checks what it downloads against the digest of the image.
    assert b"".join(client.images.data(image.id)) == DATA
    assert [entry.id for entry in client.images.list(page_size=1, filters={"image_type": "snapshot"})] == [image.id]
    client.images.update(image.id, remove_props=["image_state"], protected=True)
    assert "image_state" not in client.images.get(image.id)
    with pytest.raises(glanceclient.exc.HTTPForbidden):
        client.images.delete(image.id)
    client.images.update(image.id, protected=False)
    with pytest.raises(glanceclient.exc.HTTPConflict):
        client.images.upload(image.id, io.BytesIO(b"again"))
    client.images.deactivate(image.id)
    with pytest.raises(glanceclient.exc.HTTPForbidden):
        client.images.data(image.id)
    client.images.reactivate(image.id)
    client.image_tags.update(image.id, "t")
    client.image_tags.delete(image.id, "t")
    client.images.delete(image.id)
    with pytest.raises(glanceclient.exc.HTTPNotFound):
        client.images.get(image.id)
    with pytest.raises(glanceclient.exc.HTTPUnauthorized):
        list(glanceclient.Client("2", endpoint=f"http://127.0.0.1:{server.port}", token="wrong").images.list())
    # A volume-backed snapshot has no bytes at all.
    empty = client.images.create(name="volume", disk_format="raw", container_format="bare", block_device_mapping="[]")
    client.images.upload(empty.id, io.BytesIO(b""))
    assert client.images.get(empty.id).status == "active"
    many = [client.images.create(name=f"page {number}", visibility="private").id for number in range(7)]
    listed = [entry.id for entry in client.images.list(page_size=2, sort="name:asc", filters={"visibility": "private"})]
    assert [image_id for image_id in listed if image_id in many] == many


# --- openstacksdk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sdk(server):
    """A connection of openstacksdk as that person."""

    def connect(who):
        return openstack.connection.Connection(
            auth_type="admin_token",
            auth={"endpoint": f"http://127.0.0.1:{server.port}/v2", "token": server.client(who).token},
            image_api_version="2",
        )

    return connect


def test_openstacksdk(sdk, data_file, tmp_path):
    alice, bob = sdk("alice").image, sdk("bob").image
    image = alice.create_image(
        "from sdk", filename=str(data_file), disk_format="raw", container_format="bare", visibility="shared",
        tags=["blue"], min_ram=5, os_distro="debian", validate_checksum=True, wait=True,
    )  # fmt: skip
    image = alice.get_image(image.id)
    assert (image.status, image.size, image.min_ram, image.os_distro) == ("active", len(DATA), 5, "debian")
    assert image.tags == ["blue"] and image.hash_value == hashlib.sha512(DATA).hexdigest()
    # The same again is found to be there already.
    same = alice.create_image("from sdk", filename=str(data_file), disk_format="raw", container_format="bare", validate_checksum=True)
    assert same.id == image.id
    assert [entry.id for entry in alice.images(name="from sdk", limit=1)] == [image.id]
    assert alice.find_image("from sdk").id == image.id
    with (tmp_path / "target").open("wb") as target:
        alice.download_image(image, output=target)
    assert (tmp_path / "target").read_bytes() == DATA

    alice.update_image(image, name="renamed", os_version="12")
    image = alice.get_image(image.id)
    assert (image.name, image.os_version, image.os_distro, image.status) == ("renamed", "12", "debian", "active")
    alice.update_image(image.id, min_disk=3)
    assert alice.get_image(image.id).min_disk == 3

    alice.add_member(image.id, member_id="beta")
    assert [member.status for member in alice.members(image.id)] == ["pending"]
    bob.update_member("beta", image.id, status="accepted")
    assert [entry.id for entry in bob.images()] == [image.id]
    assert bob.download_image(image.id).content == DATA
    with pytest.raises(openstack.exceptions.ForbiddenException):
        bob.update_image(image.id, name="mine now")
    alice.remove_member("beta", image.id)
    with pytest.raises(openstack.exceptions.NotFoundException):
        bob.get_image(image.id)

    alice.add_tag(image.id, "red")
    assert sorted(alice.get_image(image.id).tags) == ["blue", "red"]
    alice.remove_tag(image.id, "red")
    alice.deactivate_image(image.id)
    # It takes the refusal for the image, and finds that it is not what it should be.
    with pytest.raises(openstack.exceptions.SDKException):
        alice.download_image(image.id)
    alice.reactivate_image(image.id)
    assert list(alice.stores())
    assert alice.get_import_info()
    assert alice.get_images_schema() and alice.get_image_schema() and alice.get_member_schema() and alice.get_members_schema()
    alice.delete_image(image.id)
    assert alice.find_image(image.id) is None

    staged = alice.create_image("staged", disk_format="raw", container_format="bare", allow_duplicates=True)
    alice.stage_image(staged, data=b"some bytes")
    assert alice.get_image(staged.id).status == "uploading"


def test_openstacksdk_pages_through_all_images(sdk, server):
    client = server.client("carol")
    made = {client.create(name=f"page {number}", visibility="private")["id"] for number in range(11)}
    assert {image.id for image in sdk("carol").image.images(limit=2)} == made

"""What each call does to an image in each state: the table of the states, as it is written down."""

import pytest
from support.http import OCTETS, PATCH_V21
from support.images import Images

# `importing` and `pending_delete` are states of calls that are not here yet.
STATES = ["queued", "saving", "uploading", "active", "deactivated", "deleted"]

#   call                  queued  saving  uploading  active  deactivated  deleted
TABLE = """
    PUT file                 204     409        409     409          409      404
    PUT stage                204     409        409     409          409      404
    PATCH disk_format        200     403        403     403          403      404
    PATCH container_format   200     403        403     403          403      404
    PATCH property           200     200        200     200          200      404
    PATCH name               200     200        200     200          200      404
    PUT tag                  204     204        204     204          204      404
    DELETE tag               404     404        404     404          404      404
    POST member              200     200        200     200          200      404
    GET members              200     200        200     200          200      404
    GET image                200     200        200     200          200      404
    GET file                 204     204        204     200          403      404
    GET file as operator     204     204        204     200          200      404
    deactivate               403     403        403     204          204      404
    reactivate               403     403        403     204          204      404
    DELETE image             204     204        204     204          204      404
    DELETE protected         403     403        403     403          403      404
"""

AFTER = {
    ("PUT file", "queued"): "active",
    ("PUT stage", "queued"): "uploading",
    ("deactivate", "active"): "deactivated",
    ("reactivate", "deactivated"): "active",
    **{("DELETE image", state): None for state in STATES},
}


def rows():
    for line in TABLE.strip().splitlines():
        *call, a, b, c, d, e, f = line.split()
        yield from ((" ".join(call), state, int(status)) for state, status in zip(STATES, (a, b, c, d, e, f)))


def send(call, images, image_id):
    alice, path = images.alice, f"/v2/images/{image_id}"
    octets = {"Content-Type": OCTETS}

    def patch(name, value):
        return alice.patch(path, [{"op": "add", "path": f"/{name}", "value": value}], PATCH_V21)

    match call:
        case "PUT file" | "PUT stage":
            return alice.request("PUT", f"{path}/{call[4:]}", b"bytes", headers=octets)
        case "PATCH disk_format":
            return patch("disk_format", "iso")
        case "PATCH container_format":
            return patch("container_format", "ovf")
        case "PATCH property":
            return patch("x", "y")
        case "PATCH name":
            return patch("name", "new")
        case "PUT tag" | "DELETE tag":
            return alice.request(call[:-4], f"{path}/tags/blue")
        case "POST member":
            return alice.post(f"{path}/members", {"member": "beta"})
        case "GET members":
            return alice.get(f"{path}/members")
        case "GET image":
            return alice.get(path)
        case "GET file":
            return alice.get(f"{path}/file")
        case "GET file as operator":
            return images.admin.get(f"{path}/file")
        case "deactivate" | "reactivate":
            return alice.post(f"{path}/actions/{call}")
        case "DELETE image":
            return alice.delete(path)
        case "DELETE protected":
            images.alice.patch(path, [{"op": "replace", "path": "/protected", "value": True}])
            return alice.delete(path)
    raise AssertionError(call)


@pytest.mark.parametrize(("call", "state", "status"), rows())
def test_each_call_in_each_state(server, call, state, status):
    images = Images(server)
    try:
        image_id = images[state]
        send(call, images, image_id).expect(status)
        after = AFTER.get((call, state), state)
        if state == "deleted" or after is None:
            images.admin.get(f"/v2/images/{image_id}").expect(404)
        else:
            assert images.admin.show(image_id)["status"] == after
    finally:
        images.close()

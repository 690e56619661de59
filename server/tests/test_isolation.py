"""Who may do what with whose image: every caller, call, visibility, state, protected or not, hidden or not.

The images are Alice's, of project alpha. Project beta is a member of each: it was made one while the image was shared, and what
it said of it differs from image to image. The tables are written by hand, after the rules of the Images API; nothing in them
is computed from the server.

What a caller gets is one of
    401  it is not known            404  for it there is no such image
    403  it may not do that         yes  what the state of the image says, in the second table
"""

import itertools

import pytest
from support.http import OCTETS, PATCH_V20, PATCH_V21
from support.images import Images

VISIBILITIES = ["private", "shared", "community", "public"]
STATES = ["queued", "saving", "uploading", "active", "deactivated", "deleted"]
MEMBERSHIPS = ["pending", "accepted", "rejected"]

# The calls of a column are written under it; the columns of a call are the visibilities: private, shared, community, public.
CALLS_LIKE = {
    "see": ["GET image"],
    "read": ["GET file", "GET file in part"],
    "change": ["PATCH name", "PATCH property", "PATCH nothing, in the older form", "PUT tag", "DELETE tag"],
    "fill": ["PUT file", "PUT stage"],
    "withdraw": ["deactivate", "reactivate"],
    "delete": ["DELETE image"],
    "members": ["GET members"],
    "member": ["GET member"],
    "share": ["POST member", "DELETE member"],
    "answer": ["PUT member"],
}

WHO_MAY = """
                     see               read              change            fill              withdraw
    nobody           401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401
    bad token        401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401
    owner, no role   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404
    owner, reader    yes yes yes yes   403 403 403 403   403 403 403 403   403 403 403 403   403 403 403 403
    owner, member    yes yes yes yes   yes yes yes yes   yes yes yes yes   yes yes yes yes   yes yes yes yes
    sharee, reader   404 yes yes yes   404 403 403 403   404 403 403 403   404 403 403 403   404 403 403 403
    sharee, member   404 yes yes yes   404 yes yes yes   404 403 403 403   404 403 403 403   404 403 403 403
    stranger         404 404 yes yes   404 404 yes yes   404 404 403 403   404 404 403 403   404 404 403 403
    service          404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404
    operator         yes yes yes yes   yes yes yes yes   yes yes yes yes   yes yes yes yes   yes yes yes yes

                     delete            members           member            share             answer
    nobody           401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401
    bad token        401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401   401 401 401 401
    owner, no role   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404
    owner, reader    403 403 403 403   403 yes 403 403   404 yes 404 404   403 403 403 403   403 403 403 403
    owner, member    yes yes yes yes   403 yes 403 403   404 yes 404 404   403 yes 403 403   403 403 403 403
    sharee, reader   404 403 403 403   404 yes 403 403   404 yes 404 404   404 403 403 403   404 403 403 403
    sharee, member   404 403 403 403   404 yes 403 403   404 yes 404 404   404 403 403 403   404 yes 403 403
    stranger         404 404 403 403   404 404 403 403   404 404 404 404   404 404 403 403   404 404 403 403
    service          404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404   404 404 404 404
    operator         yes yes yes yes   403 yes 403 403   404 yes 404 404   403 yes 403 403   403 yes 403 403
"""

CALLERS = {
    "nobody": None,
    "bad token": "bad",
    "owner, no role": "anna",
    "owner, reader": "alan",
    "owner, member": "alice",
    "sharee, reader": "bella",
    "sharee, member": "bob",
    "stranger": "carol",
    "service": "service",
    "operator": "admin",
}

#   call                               queued  saving  uploading  active  deactivated
IN_STATE = """
    GET image                             200     200        200     200          200
    GET file                              204     204        204     200          403
    GET file in part                      204     204        204     206          403
    PATCH name                            200     200        200     200          200
    PATCH property                        200     200        200     200          200
    PATCH nothing, in the older form      200     200        200     200          200
    PUT tag                               204     204        204     204          204
    DELETE tag                            204     204        204     204          204
    PUT file                              204     409        409     409          409
    PUT stage                             204     409        409     409          409
    deactivate                            403     403        403     204          204
    reactivate                            403     403        403     204          204
    DELETE image                          204     204        204     204          204
    GET members                           200     200        200     200          200
    GET member                            200     200        200     200          200
    POST member                           200     200        200     200          200
    DELETE member                         204     204        204     204          204
    PUT member                            200     200        200     200          200
"""
OPERATOR_IN_STATE = {("GET file", "deactivated"): 200, ("GET file in part", "deactivated"): 206}


def verdicts():
    """{(caller, call, visibility): verdict}"""
    table = {}
    for block in WHO_MAY.strip("\n").split("\n\n"):
        head, *lines = block.splitlines()
        columns = head.split()
        for line in lines:
            words = line[21:].split()
            assert len(words) == len(columns) * len(VISIBILITIES), line
            for (column, visibility), verdict in zip(itertools.product(columns, VISIBILITIES), words):
                for call in CALLS_LIKE[column]:
                    table[line[4:21].strip(), call, visibility] = verdict
    assert {key[0] for key in table} == set(CALLERS)
    return table


def states():
    """{(call, state): status}"""
    table = {}
    for line in IN_STATE.strip("\n").splitlines():
        *call, a, b, c, d, e = line.split()
        table.update({(" ".join(call), state): int(status) for state, status in zip(STATES, (a, b, c, d, e))})
    return table


VERDICTS = verdicts()
STATUSES = states()
CALLS = list(dict.fromkeys(call for call, _ in STATUSES))
DATA = b"bytes of alpha"


def expected(caller, call, visibility, state, protected):
    verdict = VERDICTS[caller, call, visibility]
    if verdict == "401":
        return 401
    if state == "deleted":
        return 404
    if verdict != "yes":
        return int(verdict)
    if call == "DELETE image" and protected:
        return 403
    if caller == "operator":
        return OPERATOR_IN_STATE.get((call, state), STATUSES[call, state])
    return STATUSES[call, state]


class Subject:
    """One image of Alice's, and the way to have it again after a call that changed it."""

    def __init__(self, images, visibility, state, protected, hidden, membership):
        self.images = images
        self.visibility, self.state = visibility, state
        self.protected, self.hidden, self.membership = protected, hidden, membership
        self.make()

    def make(self):
        alice, admin = self.images.alice, self.images.admin
        fields = {"os_hidden": self.hidden, "tags": ["blue"], "x": "y", "name": "subject"}
        self.id = alice.create(**fields)["id"]
        self.path = f"/v2/images/{self.id}"
        alice.post(f"{self.path}/members", {"member": "beta"}).expect(200)
        admin.put(f"{self.path}/members/beta", {"status": self.membership}).expect(200)
        changes = [{"op": "replace", "path": "/visibility", "value": self.visibility}]
        if self.protected and self.state != "deleted":
            changes.append({"op": "replace", "path": "/protected", "value": True})
        admin.patch(self.path, changes).expect(200)
        if self.state == "saving":
            self.images.begin_upload(self.id)
        elif self.state == "uploading":
            alice.stage(self.id, DATA).expect(204)
        elif self.state in ("active", "deactivated"):
            alice.upload(self.id, DATA).expect(204)
        elif self.state == "deleted":
            alice.delete(self.path).expect(204)
        self.set_state()

    def set_state(self):
        if self.state in ("active", "deactivated"):
            action = {"active": "reactivate", "deactivated": "deactivate"}[self.state]
            self.images.admin.post(f"{self.path}/actions/{action}").expect(204)

    def send(self, client, call):
        path = self.path

        def patch(operations, kind=PATCH_V21):
            return client.patch(path, operations, kind)

        match call:
            case "GET image":
                return client.get(path)
            case "GET file":
                return client.get(f"{path}/file")
            case "GET file in part":
                return client.get(f"{path}/file", headers={"Range": "bytes=1-2"})
            case "PATCH name":
                return patch([{"op": "replace", "path": "/name", "value": "subject"}])
            case "PATCH property":
                return patch([{"op": "add", "path": "/x", "value": "y"}])
            case "PATCH nothing, in the older form":
                return patch([], PATCH_V20)
            case "PUT tag" | "DELETE tag":
                return client.request(call[:-4], f"{path}/tags/blue")
            case "PUT file" | "PUT stage":
                return client.request("PUT", f"{path}/{call[4:]}", DATA, headers={"Content-Type": OCTETS})
            case "deactivate" | "reactivate":
                return client.post(f"{path}/actions/{call}")
            case "DELETE image":
                return client.delete(path)
            case "GET members":
                return client.get(f"{path}/members")
            case "GET member":
                return client.get(f"{path}/members/beta")
            case "POST member":
                return client.post(f"{path}/members", {"member": "delta"})
            case "DELETE member":
                return client.delete(f"{path}/members/beta")
            case "PUT member":
                return client.put(f"{path}/members/beta", {"status": self.membership})
        raise AssertionError(call)

    def restore(self, call):
        """Undoes a call that was carried out."""
        alice, admin = self.images.alice, self.images.admin
        match call:
            case "DELETE tag":
                alice.put(f"{self.path}/tags/blue").expect(204)
            case "POST member":
                alice.delete(f"{self.path}/members/delta").expect(204)
            case "DELETE member":
                alice.post(f"{self.path}/members", {"member": "beta"}).expect(200)
                admin.put(f"{self.path}/members/beta", {"status": self.membership}).expect(200)
            case "deactivate" | "reactivate":
                self.set_state()
            case "PUT file" | "PUT stage" | "DELETE image":
                self.make()


@pytest.fixture(scope="module")
def clients(server):
    made = {name: server.client(person) for name, person in CALLERS.items() if person != "bad"}
    return made | {"bad token": server.client(X_Auth_Token="of-somebody-else")}


@pytest.mark.parametrize("membership", MEMBERSHIPS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_nobody_does_more_or_less_than_the_table_says(server, clients, visibility, state, membership):
    images = Images(server)
    wrong, cells = [], 0
    for protected, hidden in itertools.product([False, True], repeat=2):
        subject = Subject(images, visibility, state, protected, hidden, membership)
        for caller, client in clients.items():
            for call in CALLS:
                status = expected(caller, call, visibility, state, protected)
                response = subject.send(client, call)
                cells += 1
                if response.status != status:
                    wrong.append(f"{caller}, protected={protected}, hidden={hidden}: {response}, expected {status}")
                    # What was carried out against the table would spoil the next cells.
                    subject.make()
                elif response.status < 300:
                    if call == "GET file":
                        assert response.body == (DATA if state in ("active", "deactivated") else b"")
                    subject.restore(call)
    images.close()
    assert not wrong, f"{len(wrong)} of {cells} cells are wrong:\n" + "\n".join(wrong)
    assert cells == 4 * len(CALLERS) * len(CALLS)


def test_an_image_that_one_may_not_see_is_like_one_that_never_was(server, carol):
    images = Images(server)
    for image_id in [images["private"], images["deleted"]]:
        for suffix in ["", "/file", "/members", "/members/gamma"]:
            unseen = carol.get(f"/v2/images/{image_id}{suffix}").expect(404)
            absent = carol.get(f"/v2/images/{images['absent']}{suffix}").expect(404)
            assert unseen.body == absent.body.replace(images["absent"].encode(), image_id.encode())
            ignored = {"X-Openstack-Request-Id", "Date", "Content-Length"}
            assert [h for h in unseen.headers.items() if h[0].title() not in map(str.title, ignored)] == [
                h for h in absent.headers.items() if h[0].title() not in map(str.title, ignored)
            ]


# --- Listings ---------------------------------------------------------------------------------------------------------

# Which of Alice's images a caller lists, by visibility: private, shared, community, public. `m`: if its membership has the
# status that is asked for (accepted, if none is).
LISTED = """
    caller           usual     all       private   shared    community public
    owner, reader    y y y y   y y y y   y - - -   - y - -   - - y -   - - - y
    owner, member    y y y y   y y y y   y - - -   - y - -   - - y -   - - - y
    sharee, reader   - m - y   - m y y   - - - -   - m - -   - - y -   - - - y
    sharee, member   - m - y   - m y y   - - - -   - m - -   - - y -   - - - y
    stranger         - - - y   - - y y   - - - -   - - - -   - - y -   - - - y
    operator         y y - y   y y y y   y - - -   - y - -   - - y -   - - - y
"""


def test_everybody_lists_what_the_table_says(start_server):
    server = start_server()
    images = Images(server)
    subjects = [
        Subject(images, visibility, state, False, hidden, membership)
        for visibility in VISIBILITIES
        for state in STATES
        for hidden in [False, True]
        for membership in MEMBERSHIPS
    ]
    head, *lines = LISTED.strip("\n").splitlines()
    wrong = []
    for line in lines:
        caller, signs = line[4:21].strip(), line[21:].split()
        client = server.client(CALLERS[caller])
        for column, asked in enumerate(head.split()[1:]):
            sign = dict(zip(VISIBILITIES, signs[4 * column : 4 * column + 4]))
            for hidden, wanted in itertools.product([None, "false", "true"], [None, "all", *MEMBERSHIPS]):
                query = "limit=1000" + (f"&visibility={asked}" if asked != "usual" else "")
                query += f"&os_hidden={hidden}" if hidden else ""
                query += f"&member_status={wanted}" if wanted else ""
                listed = {image["id"] for image in client.list(query)}
                due = {
                    subject.id
                    for subject in subjects
                    if subject.state != "deleted"
                    and subject.hidden == (hidden == "true")
                    and (
                        sign[subject.visibility] == "y"
                        or (sign[subject.visibility] == "m" and wanted in ("all", subject.membership))
                        or (sign[subject.visibility] == "m" and wanted is None and subject.membership == "accepted")
                    )
                }
                if listed != due:
                    wrong.append(f"{caller}: {query}: {len(listed - due)} too many, {len(due - listed)} missing")
    images.close()
    assert not wrong, "\n".join(wrong)


def test_flags_that_flip_during_a_request_let_nothing_through(server, alice, admin, carol):
    """A stranger reads an image that is public for moments: it gets all of it, or nothing; and nothing while it is private."""
    from concurrent.futures import ThreadPoolExecutor

    image_id = alice.create_active(b"secret " * 10_000, visibility="private")["id"]
    flip = admin.again()

    def read(_):
        client = carol.again()
        return [client.download(image_id) for _ in range(100)]

    def flips():
        for _ in range(60):
            for visibility in ["community", "private"]:
                flip.patch(f"/v2/images/{image_id}", [{"op": "replace", "path": "/visibility", "value": visibility}]).expect(200)
                if visibility == "private":
                    carol.download(image_id).expect(404)

    with ThreadPoolExecutor(4) as threads:
        flipping = threads.submit(flips)
        answers = [answer for batch in threads.map(read, range(3)) for answer in batch]
        flipping.result()
    for answer in answers:
        assert (answer.status, len(answer.body)) == (200, 70_000) or answer.status == 404, answer

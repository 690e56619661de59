"""Listings: what is asked for, in which order, in pages, and who is shown what."""

import time
import uuid
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from support.http import PATCH_V21

BYTES = {"one": 100, "two": 200, "three": 300}


@pytest.fixture(scope="module")
def made(alice, bob, carol, admin):
    """Images by name. `one` to `five` are made one after the other, with a second between `two` and `three`."""
    images = {}

    def make(client, name, **fields):
        images[name] = client.create(name=name, **fields)

    make(alice, "one", tags=["red", "blue"], min_ram=1, os_distro="debian", visibility="private")
    make(alice, "two", tags=["blue"], min_ram=2, disk_format="qcow2", **{"strange name": "a:b"})
    time.sleep(1.1)
    make(alice, "three", min_disk=3, container_format="ovf", protected=True)
    make(alice, "four: colon", disk_format="iso", visibility="community")
    make(alice, 'five, "comma"', tags=["red"])
    make(alice, "hidden", os_hidden=True)
    for name, length in BYTES.items():
        data = b"\0" * length
        if name == "two":
            continue
        alice.upload(images[name]["id"], data).expect(204)
    make(admin, "published", visibility="public", owner="operators")
    make(carol, "stranger's", visibility="private")
    make(carol, "stranger's community", visibility="community")
    for status in ["pending", "accepted", "rejected"]:
        make(bob, status)
        path = f"/v2/images/{images[status]['id']}/members"
        bob.post(path, {"member": "alpha"}).expect(200)
        alice.put(f"{path}/alpha", {"status": status}).expect(200)
    gone = alice.create(name="gone")
    alice.delete(f"/v2/images/{gone['id']}").expect(204)
    images["gone"] = gone
    return {name: admin.get(f"/v2/images/{image['id']}").json() if name != "gone" else gone for name, image in images.items()}


def names(client, query):
    return [image["name"] for image in client.list(query)]


OWN = ["one", "two", "three", "four: colon", 'five, "comma"']
USUAL = OWN + ["published", "accepted"]

FILTERS = {
    "": USUAL,
    # Texts.
    "name=one": ["one"],
    "name=eq:one": ["one"],
    "name=ONE": [],
    "name=nobody": [],
    "name=in:one,two,nobody": ["one", "two"],
    'name=in:"one",two': ["one", "two"],
    'name=in:"five, \\"comma\\"",one': ["one", 'five, "comma"'],
    "name=eq:four: colon": ["four: colon"],
    'name=in:"four: colon"': ["four: colon"],
    "status=active": ["one", "three", "published", "accepted"][:2],
    "status=in:queued,active": USUAL,
    "status=bogus": [],
    "disk_format=qcow2": ["two"],
    "disk_format=in:qcow2,iso": ["two", "four: colon"],
    "container_format=ovf": ["three"],
    "id={one}": ["one"],
    "id=in:{one},{two}": ["one", "two"],
    "owner=alpha": OWN,
    "owner=beta": ["accepted"],
    # Numbers.
    "size_min=100": ["one", "three"],
    "size_min=101": ["three"],
    "size_max=100": ["one"],
    "size_min=100&size_max=300": ["one", "three"],
    "size=300": ["three"],
    "min_ram=2": ["two"],
    "min_ram_min=1&owner=alpha": ["one", "two"],
    "min_disk_max=2&owner=alpha": ["one", "two", "four: colon", 'five, "comma"'],
    "checksum={one.checksum}": ["one"],
    "os_hash_value={one.os_hash_value}": ["one"],
    # Tags.
    "tag=red": ["one", 'five, "comma"'],
    "tag=red&tag=blue": ["one"],
    "tag=green": [],
    # Flags.
    "protected=true": ["three"],
    "protected=false&owner=alpha": ["one", "two", "four: colon", 'five, "comma"'],
    "os_hidden=true": ["hidden"],
    "os_hidden=TRUE": ["hidden"],
    "os_hidden=false": USUAL,
    # Properties.
    "os_distro=debian": ["one"],
    "os_distro=eq:debian": [],
    "strange name=a:b": ["two"],
    "no_such_property=x": [],
    # Times.
    "created_at=gte:{three.created_at}&owner=alpha": OWN[2:],
    "created_at=lt:{three.created_at}": OWN[:2],
    "created_at=lt:{three.created_at}&owner=alpha&created_at=gte:{one.created_at}": OWN[:2],
    "created_at=eq:{one.created_at}&name=one": ["one"],
    "created_at={one.created_at}&name=one": ["one"],
    "created_at=neq:{one.created_at}&name=one": [],
    "created_at=gt:2000-01-01T00:00:00Z&owner=alpha": OWN,
    "created_at=lte:2000-01-01T00:00:00Z": [],
    "updated_at=gte:2000-01-01&owner=alpha": OWN,
    # Several at once.
    "name=one&status=queued": [],
    "tag=red&status=active": ["one"],
    # Visibility.
    "visibility=public": ["published"],
    "visibility=private": ["one"],
    "visibility=shared": ["two", "three", 'five, "comma"', "accepted"],
    "visibility=community": ["four: colon", "stranger's community"],
    "visibility=all": USUAL + ["stranger's community"],
    "member_status=pending": OWN + ["published", "pending"],
    "member_status=rejected": OWN + ["published", "rejected"],
    "member_status=all": USUAL + ["pending", "rejected"],
    "member_status=all&visibility=shared": ["two", "three", 'five, "comma"', "accepted", "pending", "rejected"],
    "visibility=private&owner=gamma": [],
    # Not filters.
    "deleted=true": USUAL,
    "limit=1000": USUAL,
    "limit=100000": USUAL,
    "limit=99999999999999999999": USUAL,
}


def filled(query, made):
    """The query with `{name.key}` filled in, and what is not plain ASCII, or means something in a query, escaped."""

    class Values(dict):
        def __missing__(self, name):
            return type("Image", (), made[name])

    pairs = [pair.split("=", 1) for pair in query.split("&") if pair]
    values = Values()
    return "&".join(
        f"{quote(name)}={quote(value.replace('{one}', '{one.id}').replace('{two}', '{two.id}').format_map(values))}"
        for name, value in pairs
    )


@pytest.mark.parametrize("query", FILTERS)
def test_a_listing_holds_what_is_asked_for_and_nothing_else(alice, made, query):
    assert sorted(names(alice, filled(query, made))) == sorted(FILTERS[query])


REFUSED = [
    "limit=-1", "limit=x", "limit=1.5", "limit=",
    "marker=x", "marker={absent}", "marker={gone}", "marker={hidden_from_alice}",
    "sort=nothing", "sort=name:sideways", "sort=name:asc:desc", "sort=name,,id", "sort=os_distro", "sort=name&sort_key=id",
    "sort=name&sort_dir=asc", "sort_key=nothing", "sort_key=os_distro", "sort_dir=sideways",
    "sort_key=name&sort_dir=asc&sort_dir=desc", "sort_key=name&sort_key=id&sort_dir=asc&sort_dir=desc&sort_dir=asc",
    "visibility=secret", "visibility=", "member_status=maybe", "os_hidden=maybe", "protected=maybe", "protected=True",
    "name=gt:x", "status=neq:active", "name=in:\"x", "name=in:\"x\"y", "disk_format=foo:bar", "id=like:x",
    "created_at=x", "created_at=gt:x", "created_at=like:2000-01-01T00:00:00Z", "updated_at=gte:", "created_at=gt:2000-13-01T00:00:00Z",
    "size_min=x", "size_max=-", "size_min=1.5", "min_ram_min=x", "nothing_min=1", "name_max=1", "changes-since=2000-01-01T00:00:00Z",
]  # fmt: skip


@pytest.mark.parametrize("query", REFUSED)
def test_what_makes_no_sense_is_refused(alice, made, query):
    ids = {"absent": uuid.uuid4(), "gone": made["gone"]["id"], "hidden_from_alice": made["stranger's"]["id"]}
    alice.get("/v2/images?" + quote(query.format_map(ids), safe="=&")).expect(400)


def test_the_equals_form_finds_names_that_look_like_operators(alice, made):
    alice.get("/v2/images?name=" + quote("four: colon")).expect(400)
    assert names(alice, "name=" + quote("eq:four: colon")) == ["four: colon"]


def test_bytes_that_are_no_text_are_refused(alice):
    for query in ["name=%ff", "%ff=x", "tag=%ff", "name=%00"]:
        response = alice.get(f"/v2/images?{query}").expect(400, 200)
        if response.status == 200:
            assert response.json()["images"] == []


def test_operators_list_every_project_but_others_community(admin, made):
    everything = set(made) - {"gone", "hidden", "stranger's community", "four: colon"}
    assert set(names(admin, "limit=1000")) == everything
    assert set(names(admin, "limit=1000&visibility=all")) == everything | {"stranger's community", "four: colon"}
    assert set(names(admin, "visibility=community")) == {"stranger's community", "four: colon"}
    assert set(names(admin, "visibility=private")) == {"one", "stranger's"}
    assert set(names(admin, "os_hidden=true")) == {"hidden"}
    assert set(names(admin, "owner=gamma")) == {"stranger's"}


@pytest.mark.parametrize(("who", "status"), [("alan", 200), ("anna", 403), ("service", 403), (None, 401)])
def test_who_may_list(server, who, status):
    server.client(who).get("/v2/images").expect(status)


# --- Order and pages --------------------------------------------------------------------------------------------------

SORTED = [f"{letter}{digit}" for letter in "ab" for digit in "0123"]


@pytest.fixture(scope="module")
def sorted_images(carol):
    """Eight images of project gamma with names a0 to b3, every second of them twice as large; in order of their making."""
    images = []
    for number, name in enumerate(reversed(SORTED)):
        image = carol.create(name=name, tags=["sorted", "pages"], visibility="private", min_ram=number)
        carol.upload(image["id"], bytes(10 + 10 * (number % 2))).expect(204)
        images.append(carol.show(image["id"]))
    images.append(carol.create(name=None, tags=["sorted"], disk_format=None, visibility="private"))
    return images


def order(images, *keys):
    """The images' names in the order of keys `name:direction`; what is null comes as the empty text or 0."""
    images = list(images)
    for key in reversed(keys):
        name, direction = key.split(":")
        empty = 0 if name == "size" else ""
        images.sort(key=lambda image: image[name] if image[name] is not None else empty, reverse=direction == "desc")
    return [image["name"] for image in images]


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("", ["created_at:desc", "id:desc"]),
        ("sort=name", ["name:desc"]),
        ("sort=name:asc", ["name:asc"]),
        ("sort=size:asc,name:desc", ["size:asc", "name:desc"]),
        ("sort=status:desc,name", ["status:desc", "name:desc"]),
        ("sort=disk_format:asc,name:asc", ["disk_format:asc", "name:asc"]),
        ("sort=id:asc", ["id:asc"]),
        ("sort_key=name", ["name:desc"]),
        ("sort_key=name&sort_dir=asc", ["name:asc"]),
        ("sort_dir=asc", ["created_at:asc", "id:asc"]),
        ("sort_key=size&sort_key=name", ["size:desc", "name:desc"]),
        ("sort_key=size&sort_key=name&sort_dir=asc", ["size:asc", "name:asc"]),
        ("sort_key=size&sort_key=name&sort_dir=asc&sort_dir=desc", ["size:asc", "name:desc"]),
        ("sort_key=container_format", ["container_format:desc", "created_at:desc", "id:desc"]),
        ("sort_key=container_format&sort_dir=asc", ["container_format:asc", "created_at:asc", "id:asc"]),
        ("sort=updated_at:asc,id:asc", ["updated_at:asc", "id:asc"]),
        ("sort=created_at:asc,id:desc", ["created_at:asc", "id:desc"]),
    ],
)
@pytest.mark.parametrize("limit", [1, 3, 9, 25])
def test_pages_in_any_order_hold_everything_once(carol, sorted_images, query, keys, limit):
    found, pages = follow(carol, f"/v2/images?tag=sorted&limit={limit}" + (f"&{query}" if query else ""))
    # Times have a resolution of a second where they are shown, and a finer one where they are sorted: then the order in which
    # the images were made is the order of their times.
    by_time = {"created_at", "updated_at"} & {key.split(":")[0] for key in keys}
    if by_time and "id:asc" not in keys[:1]:
        position = {image["id"]: place for place, image in enumerate(sorted_images)}
        assert sorted(found, key=position.get) == [image["id"] for image in sorted_images]
        shown = [next(image for image in sorted_images if image["id"] == one) for one in found]
        key, direction = next(key.split(":") for key in keys if key.split(":")[0] in by_time)
        times = [image[key] for image in shown]
        assert times == sorted(times, reverse=direction == "desc")
    else:
        place = {image["id"]: image["name"] for image in sorted_images}
        assert [place[one] for one in found] == order(sorted_images, *keys)
    assert pages == -(-len(sorted_images) // limit) + (len(sorted_images) % limit == 0)


def follow(client, path):
    """All ids of a listing, page by page, and the number of pages."""
    found, pages = [], 0
    while path:
        page = client.get(path).expect(200).json()
        found += [image["id"] for image in page["images"]]
        path = page.get("next")
        pages += 1
        assert pages < 100
    return found, pages


def test_links_between_pages_keep_all_of_the_question(carol, sorted_images):
    query = "tag=sorted&tag=pages&sort_key=size&sort_key=name&sort_dir=asc&sort_dir=desc&limit=2&status=in%3Aactive%2Cqueued"
    page = carol.get(f"/v2/images?{query}").expect(200).json()
    asked = parse_qsl(query)
    assert page["schema"] == "/v2/schemas/images"
    first, following = urlsplit(page["first"]), urlsplit(page["next"])
    assert first.path == following.path == "/v2/images"
    assert sorted(parse_qsl(first.query)) == sorted(asked)
    marker = ("marker", page["images"][-1]["id"])
    assert sorted(parse_qsl(following.query)) == sorted(asked + [marker])
    second = carol.get(page["next"]).expect(200).json()
    assert sorted(parse_qsl(urlsplit(second["first"]).query)) == sorted(asked)
    # An escaped value stays escaped: the second page asks the same.
    odd = carol.get("/v2/images?limit=1&tag=sorted&status=" + quote('in:"active","a&b=c#d"', safe="")).expect(200).json()
    assert dict(parse_qsl(urlsplit(odd["next"]).query))["status"] == 'in:"active","a&b=c#d"'


def test_a_page_says_whether_there_may_be_more(carol, sorted_images):
    count = len(sorted_images)
    assert "next" in carol.get(f"/v2/images?tag=sorted&limit={count}").json()
    assert "next" not in carol.get(f"/v2/images?tag=sorted&limit={count + 1}").json()
    empty = carol.get("/v2/images?tag=sorted&limit=0").json()
    assert empty["images"] == [] and "next" not in empty


def test_a_page_has_25_images_unless_asked_otherwise(server, carol):
    for number in range(26):
        carol.create(name=f"many {number}", tags=["many"], visibility="private")
    page = carol.get("/v2/images?tag=many").json()
    assert len(page["images"]) == 25 and "next" in page
    assert len(carol.get("/v2/images?tag=many&limit=26").json()["images"]) == 26


def test_a_listing_goes_on_after_its_marker_was_changed(carol, sorted_images):
    ids = follow(carol, "/v2/images?tag=sorted&sort=name:asc")[0]
    change = [{"op": "add", "path": "/note", "value": "changed between two pages"}]
    carol.patch(f"/v2/images/{ids[3]}", change, PATCH_V21).expect(200)
    rest = follow(carol, f"/v2/images?tag=sorted&sort=name:asc&marker={ids[3]}")[0]
    assert rest == ids[4:]

"""Images in the state that a case asks for."""

import time
import uuid

from .http import SlowUpload


class Images:
    """Makes images by name, for paths such as `/v2/images/{queued}`: each is made when it is first named, and is Alice's.

    queued, saving, uploading, active, deactivated, deleted: her image in that status; absent: no image;
    protected: one that must not be deleted; formless: a queued one without formats;
    public, community, private, shared: an active one so visible, the last with project beta as a pending member;
    foreign: an active private one of project gamma.
    """

    def __init__(self, server):
        self.server = server
        self.alice = server.client("alice")
        self.admin = server.client("admin")
        self._ids = {}
        self._uploads = []

    def __getitem__(self, name):
        if name not in self._ids:
            self._ids[name] = getattr(self, f"_{name}")()
        return self._ids[name]

    def close(self):
        """Ends the uploads that keep images `saving`."""
        for upload in self._uploads:
            upload.close()

    def _queued(self):
        return self.alice.create()["id"]

    def _formless(self):
        return self.alice.create(disk_format=None, container_format=None)["id"]

    def _protected(self):
        return self.alice.create(protected=True)["id"]

    def _saving(self):
        image_id = self._queued()
        self.begin_upload(image_id)
        return image_id

    def begin_upload(self, image_id):
        """Begins an upload and waits until the image is `saving`."""
        self._uploads.append(SlowUpload(self.server.port, self.alice.token, image_id))
        deadline = time.monotonic() + 20
        while (image := self.alice.show(image_id))["status"] != "saving":
            assert time.monotonic() < deadline, image
            time.sleep(0.002)
        return self._uploads[-1]

    def _uploading(self):
        image_id = self._queued()
        self.alice.stage(image_id, b"staged").expect(204)
        return image_id

    def _active(self):
        return self.alice.create_active()["id"]

    def _deactivated(self):
        image_id = self._active()
        self.alice.post(f"/v2/images/{image_id}/actions/deactivate").expect(204)
        return image_id

    def _deleted(self):
        image_id = self._queued()
        self.alice.delete(f"/v2/images/{image_id}").expect(204)
        return image_id

    def _absent(self):
        return str(uuid.uuid4())

    def _visible(self, visibility):
        image_id = self._active()
        change = [{"op": "replace", "path": "/visibility", "value": visibility}]
        self.admin.patch(f"/v2/images/{image_id}", change).expect(200)
        return image_id

    def _public(self):
        return self._visible("public")

    def _community(self):
        return self._visible("community")

    def _private(self):
        return self._visible("private")

    def _shared(self):
        image_id = self._active()
        self.alice.post(f"/v2/images/{image_id}/members", {"member": "beta"}).expect(200)
        return image_id

    def _foreign(self):
        return self.server.client("carol").create_active(visibility="private")["id"]


class Case:
    """A row of a table: who asks for what, and which status is due.

    `fields` are those of `Client.request`; `before` is called with the images before the request.
    """

    def __init__(self, title, who, method, path, status, *, before=None, **fields):
        self.title = title
        self.who = who
        self.method = method
        self.path = path
        self.status = status
        self.before = before
        self.fields = fields

    def run(self, server):
        """Sends the request; returns the response, which has the status, and the images of the case."""
        images = Images(server)
        try:
            path = self.path.format_map(images)
            if self.before:
                self.before(images)
            response = server.client(self.who).request(self.method, path, **self.fields)
            response.expect(*(self.status if isinstance(self.status, tuple) else (self.status,)))
            return response, images
        finally:
            images.close()

    def __str__(self):
        return self.title


def cases(table):
    """The table as what `pytest.mark.parametrize` takes: one case a row, named by its title."""
    titles = [case.title for case in table]
    assert len(set(titles)) == len(titles), "two cases of one title"
    return {"argvalues": table, "ids": titles, "argnames": "case"}

"""What schemathesis has to be told: the media types of changes to images are JSON."""

import json

import schemathesis
from support.http import PATCH_V20, PATCH_V21


@schemathesis.serializer(PATCH_V20, PATCH_V21)
def json_patch(_context, value):
    """A list of changes, as it is sent."""
    return json.dumps(value).encode()

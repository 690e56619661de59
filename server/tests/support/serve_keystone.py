"""Serves a Keystone over HTTP: `serve_keystone.py CONFIG_DIRECTORY PORT`. Ends when its standard input does."""

import os
import sys
import threading

os.environ["OS_KEYSTONE_CONFIG_DIR"] = sys.argv[1]
sys.argv[1:], port = [], sys.argv[2]

import waitress  # noqa: E402
from keystone.wsgi.api import application  # noqa: E402


def end_with_input():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_input, daemon=True).start()
waitress.serve(application, listen=f"127.0.0.1:{port}", threads=4)

"""An S3-compatible object store on loopback whose answers fail on demand; a process of its own.

GDAL does not let go of Python's lock while it opens a file, so a thread could not answer it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BUCKET = "images"
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class ObjectStore:
    """Where the store is, and how to make it fail."""

    address: str
    """Host and port."""
    folder: Path
    """Holds what the server is told and what it tells."""

    @property
    def environment(self) -> dict[str, str]:
        """What GDAL has to know."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_S3_ENDPOINT": self.address,
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }

    def put(self, path: Path, key: str):
        """Store a file."""
        self._put(f"{BUCKET}/{key}", path.read_bytes())

    def fail(self, kinds: list[str], every: int = 3, key: str = ""):
        """Let one of so many requests for objects fail: "busy", "drop", "short" or "slow"."""
        orders = json.dumps({"kinds": kinds, "every": every, "key": key})
        (self.folder / "new").write_text(orders)
        (self.folder / "new").replace(self.folder / "orders")

    @property
    def failures(self) -> int:
        """How many requests have failed so far."""
        path = self.folder / "failures"
        return len(path.read_text()) if path.exists() else 0

    def _put(self, name: str, content: bytes = b""):
        kind = {"Content-Type": "image/tiff"}
        url = f"http://{self.address}/{name}"
        request = urllib.request.Request(url, content, kind, method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextmanager
def serve(folder: Path) -> Iterator[ObjectStore]:
    """Start a store with one bucket; `folder` is for what it is told."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, __file__, str(port), str(folder)]
    store = ObjectStore(f"127.0.0.1:{port}", folder)
    with (folder / "log").open("wb") as log, subprocess.Popen(line, stderr=log) as process:
        try:
            _wait_for(port, process)
            store._put(BUCKET)
            yield store
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the object store ended"
        time.sleep(0.1)
    raise AssertionError("the object store did not start")


class _Faulty:
    """The store, seen over a bad line."""

    def __init__(self, store, folder: Path):
        self._store, self._folder = store, folder
        self._lock = threading.Lock()
        self._seen = self._failed = 0

    def __call__(self, environ, start_response):
        kind = self._choose(environ)
        if kind == "slow":
            time.sleep(1.0)
        elif kind == "busy":
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        elif kind == "drop":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return [b""]
        elif kind == "short":
            # The header promises all, the line breaks after half of it.
            content = b"".join(self._store(environ, start_response))
            return self._break_off(environ, content)
        return self._store(environ, start_response)

    def _break_off(self, environ, content: bytes):
        yield content[: len(content) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

    def _choose(self, environ) -> str | None:
        orders = self._folder / "orders"
        is_object = environ["PATH_INFO"].endswith(".tif")
        if not orders.exists() or environ["REQUEST_METHOD"] != "GET" or not is_object:
            return None
        told = json.loads(orders.read_text())
        if told["key"] not in environ["PATH_INFO"] or not told["kinds"]:
            return None
        with self._lock:
            self._seen += 1
            if self._seen % told["every"]:
                return None
            self._failed += 1
            with (self._folder / "failures").open("a") as file:
                file.write("x")
            return told["kinds"][self._failed % len(told["kinds"])]


if __name__ == "__main__":
    from moto.server import create_backend_app
    from werkzeug.serving import run_simple

    store = create_backend_app("s3")
    # It ends by itself, should the tests die.
    timer = threading.Timer(LONGEST_SECONDS, os._exit, (1,))
    timer.daemon = True
    timer.start()
    run_simple("127.0.0.1", int(sys.argv[1]), _Faulty(store, Path(sys.argv[2])), threaded=True)

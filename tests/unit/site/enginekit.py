"""A fake container engine behind a real socket."""

from __future__ import annotations

import json
import shutil
import socketserver
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class Engine(socketserver.ThreadingUnixStreamServer):
    """A fake engine that answers by path; other paths are unknown."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.path = path
        self.status = 200
        self.known: dict[str, Any] = {
            "/info": {
                "ServerVersion": "26.1",
                "Driver": "overlay2",
                "DriverStatus": [["Backing Filesystem", "extfs"]],
                "DockerRootDir": "/var/lib/docker",
                "Name": "a-host",
            },
            "/containers/json": [],
            "/images/json": [],
        }

    def run(self, *containers: dict[str, Any]) -> None:
        """Set the containers that the engine shows."""
        self.known["/containers/json"] = [
            {"Id": one["Id"], "Labels": one["Config"]["Labels"], "ImageID": one["Image"]}
            for one in containers
        ]
        self.known |= {f"/containers/{one['Id']}/json": one for one in containers}


class Handler(BaseHTTPRequestHandler):
    """Handler for GET."""

    server: Engine

    def address_string(self) -> str:
        """Return an empty address: a Unix socket has none."""
        return ""

    def do_GET(self) -> None:
        """Answer by path."""
        path = urllib.parse.urlsplit(self.path).path
        said = self.server.known.get(path, {"message": f"no such thing: {path}"})
        body = json.dumps(said).encode()
        self.send_response(self.server.status if path in self.server.known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Discard the message."""


@contextmanager
def running() -> Iterator[Engine]:
    """Run an engine in a folder with a short path: a socket's path has at most 100 characters."""
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        with Engine(folder / "s") as engine:
            threading.Thread(target=engine.serve_forever, daemon=True).start()
            yield engine
            engine.shutdown()
    finally:
        shutil.rmtree(folder)

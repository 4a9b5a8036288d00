"""A source that answers when the test allows it, so that a job stays in progress."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run a server until the block ends."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class Gate:
    """Server whose `/hold` answers once the gate is open, and whose `/fail` answers 500."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.asked = 0
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.asked += 1
                if self.path == "/hold":
                    opened = gate.opened
                    gate.waiting.release()
                    opened.wait(30)
                body = b'["good", "bad"]'
                self.send_response(500 if self.path == "/fail" else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Self]:
        gate = cls()
        with serving(gate.server):
            try:
                yield gate
            finally:
                gate.opened.set()

    def close(self) -> None:
        """Hold requests again, and forget earlier waiters."""
        self.opened.set()
        self.opened = threading.Event()
        while self.waiting.acquire(blocking=False):
            pass

    def trigger(self, path: str = "/hold") -> dict[str, Any]:
        """Return the body of a request for a job on this source."""
        return {"source_type": "api", "config": {"url": f"http://{self.address}{path}"}}

    def wait_for_request(self) -> None:
        """Wait until a worker has started to read this source."""
        assert self.waiting.acquire(timeout=20), "no worker took the job"


def allow(gate: Gate) -> dict[str, str]:
    """Return the setting that lets the service use a gate."""
    return {"API_SOURCES_ALLOWED": json.dumps([gate.address])}

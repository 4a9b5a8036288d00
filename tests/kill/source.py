"""The HTTP source that the jobs of a run collect from: slow, flaky, broken or changing."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.unit.app.gate import serving

SLOW_SECONDS = 0.8


class Source:
    """`/slow`, `/flaky/N` (fails the first time), `/fail`, `/changing/N` (one record more each
    time; from the second time on it answers once `hold` is set)."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.hold = threading.Event()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, records = source.answer(self.path)
                body = json.dumps(records).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_arguments: Any) -> None:
                """Ignore broken connections: killed workers leave them."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, list[str]]:
        """The status and the records for one request."""
        self.asked[path] += 1
        times = self.asked[path]
        if path == "/fail" or (path.startswith("/flaky/") and times == 1):
            return 500, []
        if path == "/slow":
            time.sleep(SLOW_SECONDS)
        if path.startswith("/changing/"):
            if times > 1:
                self.hold.wait(30)
            return 200, ["good"] * times
        return 200, ["good", "bad"]

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Self]:
        """Serve until the block ends."""
        source = cls()
        with serving(source.server):
            try:
                yield source
            finally:
                source.hold.set()

"""A read-only image registry over the blob store, on loopback.

Hosts reach it through an SSH reverse tunnel and pull by digest; the engine checks what it gets.
A digest identifies an image, so any repository name serves any image.
"""

from __future__ import annotations

import json
import os
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import BinaryIO

from bundle.core.files import open_regular
from bundle.jumphost import readers

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MAX_MANIFEST = 4 << 20
IDLE_SECONDS = 120
_PATH = re.compile(r"/v2/[a-z0-9/._-]+/(manifests|blobs)/sha256:([0-9a-f]{64})")
# Bounded: Python refuses to read very long numbers, and no file is that long.
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
_TLS_HANDSHAKE = b"\x16"


class RegistryServer:
    """A registry that serves `store/blobs/sha256` until it is stopped.

    >>> server = RegistryServer(Path("/opt/airlift/store"))
    >>> port = server.start()          # docker pull 127.0.0.1:PORT/airlift/app@sha256:…
    >>> server.stop()
    """

    def __init__(
        self,
        store: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.store = store
        self.blobs = store / "blobs" / "sha256"
        self.log = log
        self._wanted = (address, port)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._sent = 0
        self._reading = -1

    @property
    def bytes_sent(self) -> int:
        """Return the bytes of blobs and manifests that were sent so far."""
        return self._sent

    def start(self) -> int:
        """Listen; return the port. From now on prune is locked out.

        Raises:
            AirliftError: a prune is in progress.
        """
        self._reading = readers.begin(self.store)
        try:
            self._server = _Server(self._wanted, self)
        except BaseException:
            os.close(self._reading)
            raise
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="registry", daemon=True
        )
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening; running answers end with the process."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            with self._lock:
                self._server = None
                os.close(self._reading)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Lock prune out until this answer was sent, even if `stop` comes first.

        Raises:
            ConnectionAbortedError: the server was stopped before.
        """
        with self._lock:
            if self._server is None:
                raise ConnectionAbortedError
            reading = os.dup(self._reading)
        try:
            yield
        finally:
            os.close(reading)

    def __enter__(self) -> RegistryServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Return the port on which it listens."""
        if self._server is None:
            message = "the registry was not started"
            raise RuntimeError(message)
        return int(self._server.server_address[1])

    def count(self, sent: int) -> None:
        """Add to the bytes sent."""
        with self._lock:
            self._sent += sent


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], registry: RegistryServer) -> None:
        self.registry = registry
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore it: a client that disconnects is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "airlift-registry"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        """Serve a client; answer one that speaks TLS with an error that engines understand."""
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first == _TLS_HANDSHAKE:
            self._refuse_tls()
        elif first:
            super().handle()

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self._answer(body=False)

    def _refuse_tls(self) -> None:
        """Answer in HTTP/1.x, after which an engine that tried TLS first continues without it."""
        body = b"Client sent an HTTPS request to an HTTP server.\n"
        self.connection.sendall(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        # Closing with unread bytes would send a reset, which can arrive before the answer.
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2)
            while self.connection.recv(4096):
                pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path in ("/v2", "/v2/"):
            self._send(200, b"{}", "application/json", body=body)
            return
        match = _PATH.fullmatch(path)
        if match is None:
            manifest = "/manifests/" in path
            code = "MANIFEST_UNKNOWN" if manifest else "NAME_UNKNOWN"
            hint = "pull by digest: this registry has no tags" if manifest else "nothing here"
            self._error(404, code, hint, body=body)
            return
        kind, sha256 = match.groups()
        try:
            with self.server.registry.answering():
                if kind == "manifests":
                    self._manifest(sha256, body=body)
                else:
                    self._blob(sha256, body=body)
        except FileNotFoundError:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            self._error(404, code, f"sha256:{sha256} is not in the store", body=body)

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return open_regular(self.server.registry.blobs / sha256, None)
        except OSError as error:
            raise FileNotFoundError(sha256) from error

    def _manifest(self, sha256: str, *, body: bool) -> None:
        media_type = None
        with self._open(sha256) as stream:
            data = stream.read(MAX_MANIFEST + 1)
        if len(data) <= MAX_MANIFEST:
            with suppress(ValueError, RecursionError):
                parsed = json.loads(data)
                if isinstance(parsed, dict) and parsed.get("schemaVersion") == 2:
                    media_type = parsed.get("mediaType", MANIFEST_TYPES[0])
        if media_type not in MANIFEST_TYPES:
            raise FileNotFoundError(sha256)
        if body:
            self.server.registry.count(len(data))
        self._send(200, data, media_type, body=body, digest=sha256)

    def _blob(self, sha256: str, *, body: bool) -> None:
        with self._open(sha256) as stream:
            size = stream.seek(0, 2)
            start, end = _parse_range(self.headers, size)
            if start >= max(end, 1):
                self._send(416, b"", None, body=body, headers={"Content-Range": f"bytes */{size}"})
                return
            partial = (start, end) != (0, size)
            self.send_response(206 if partial else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Docker-Content-Digest", f"sha256:{sha256}")
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()
            if body and end > start:
                self.wfile.flush()
                stream.seek(start)
                try:
                    self.connection.sendfile(stream, start, end - start)
                finally:
                    # Count what was sent before a client disconnected as well.
                    self.server.registry.count(stream.tell() - start)

    def _send(
        self,
        status: int,
        data: bytes,
        media_type: str | None,
        *,
        body: bool,
        digest: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        if media_type:
            self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if digest:
            self.send_header("Docker-Content-Digest", f"sha256:{digest}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _error(self, status: int, code: str, message: str, *, body: bool) -> None:
        data = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._send(status, data, "application/json", body=body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - inherited
        """Pass one line per request to the log, if there is one."""
        if self.server.registry.log is not None:
            self.server.registry.log(f"{self.address_string()} {format % args}")


def _parse_range(headers: Message, size: int) -> tuple[int, int]:
    """Return the first byte and the one after the last; an empty range if there is none."""
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return 0, size
    return int(first), min(size, int(last) + 1 if last else size)

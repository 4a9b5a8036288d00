"""A scripted site for the load generator's tests, which keeps all requests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

STATUS = {"/items": 201, "/api/v1/jobs/trigger": 202}


@dataclass
class Request:
    """A request that the site received; ``before`` counts earlier requests on its connection."""

    line: str
    headers: dict[str, str]
    body: dict[str, Any]
    before: int
    body_seconds: float


@dataclass
class Reply:
    status: int = 0
    headers: str = ""
    wait: float = 0.0


@dataclass
class Site:
    """A server in its own thread. If ``behave`` returns ``None``, it closes the connection.

    It also closes a connection that is idle for ``idle`` seconds after a request, always without
    notice.
    """

    behave: Callable[[Request], Reply | None] = lambda _request: Reply()
    idle: float | None = None
    requests: list[Request] = field(default_factory=list)
    address: tuple[str, int] = ("127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def items(self) -> list[str]:
        return [r.body["name"] for r in self.requests if r.line == "POST /items HTTP/1.1"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        before = 0
        with contextlib.suppress(EOFError, OSError, TimeoutError):
            while True:
                idle = self.idle if before else None
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle)
                began = time.monotonic()
                line, *rest = head.decode().strip().split("\r\n")
                headers = {k.lower(): v for k, _, v in (h.partition(": ") for h in rest)}
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                spent = time.monotonic() - began
                request = Request(line, headers, json.loads(raw or b"{}"), before, spent)
                self.requests.append(request)
                before += 1
                reply = self.behave(request)
                if reply is None:
                    break
                await asyncio.sleep(reply.wait)
                said = {"colour": "blue", "release": "1", "job_id": f"job-{len(self.requests)}"}
                body = json.dumps(said | request.body).encode()
                status = reply.status or STATUS.get(line.split()[1], 200)
                top = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{reply.headers}\r\n"
                writer.write(top.encode() + body)
        writer.close()


@contextlib.contextmanager
def running(site: Site, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a site; yield its URL."""
    ready, over = threading.Event(), threading.Event()

    async def work() -> None:
        server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
        site.address = server.sockets[0].getsockname()
        ready.set()
        await asyncio.to_thread(over.wait)
        server.close()
        await asyncio.sleep(0.05)  # let a new connection get its handler
        for writer in site.writers:
            writer.transport.abort()

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    ready.wait()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{site.address[1]}"
    finally:
        over.set()
        thread.join()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server's context for 127.0.0.1, and the file of its certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "site")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    formats = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *formats))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context, folder / "ca.pem"

"""The loopback registry: requests of engines and of strangers."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import Kind
from bundle.jumphost.registry import RegistryServer
from tests.unit.bundle.bundlekit import sha

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def _put(store: Path, data: bytes) -> dict[str, Any]:
    folder = store / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sha(data)).write_bytes(data)
    return {"digest": f"sha256:{sha(data)}", "size": len(data)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def image(store: Path) -> str:
    """Return the digest of an image with one layer of one file."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        body = os.urandom(100_000)
        info = tarfile.TarInfo("hello")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    layer = _put(store, gzip.compress(tar.getvalue(), mtime=0)) | {"mediaType": LAYER_TYPE}
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(tar.getvalue())}"]},
        }
    ).encode()
    described = _put(store, config) | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    found = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described}
    return str(_put(store, json.dumps({**found, "layers": [layer]}).encode())["digest"])


@pytest.fixture
def server(store: Path, image: str) -> Iterator[RegistryServer]:
    with RegistryServer(store) as running:
        yield running


class Client:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def __call__(
        self, path: str, method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request(method, path, headers=headers)
        answer = self.connection.getresponse()
        return answer, answer.read()


@pytest.fixture
def client(server: RegistryServer) -> Client:
    return Client(server.port)


def test_version_check(client: Client) -> None:
    answer, body = client("/v2/")
    assert (answer.status, body, answer.version) == (200, b"{}", 11)


@pytest.mark.parametrize("name", ["airlift/x", "x", "a/b/c-d_e.f"])
def test_manifest(name: str, client: Client, image: str, store: Path) -> None:
    answer, body = client(f"/v2/{name}/manifests/{image}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == MANIFEST_TYPE
    assert answer.headers["Docker-Content-Digest"] == image == f"sha256:{sha(body)}"
    head, nothing = client(f"/v2/{name}/manifests/{image}", "HEAD")
    assert (head.headers["Content-Length"], nothing) == (str(len(body)), b"")


def _layer(client: Client, image: str) -> tuple[str, int]:
    layer = json.loads(client(f"/v2/x/manifests/{image}")[1])["layers"][0]
    return f"/v2/x/blobs/{layer['digest']}", layer["size"]


def test_blob_whole_and_on_one_connection(
    client: Client, image: str, server: RegistryServer
) -> None:
    path, size = _layer(client, image)
    before = server.bytes_sent
    for _ in range(3):
        answer, body = client(path)
        assert (answer.status, len(body)) == (200, size)
        assert path.endswith(sha(body))
    assert client(path, "HEAD")[0].headers["Content-Length"] == str(size)
    assert server.bytes_sent - before == 3 * size


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=5-99999999", 5, None),
    ],
)
def test_ranges(text: str, start: int, end: int | None, client: Client, image: str) -> None:
    path, size = _layer(client, image)
    whole = client(path)[1]
    answer, body = client(path, Range=text)
    assert (answer.status, body) == (206, whole[start:end])
    first = start if start >= 0 else size + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{size}"


def test_ranges_that_cannot_be_met(client: Client, image: str) -> None:
    path, size = _layer(client, image)
    answer, _ = client(path, Range=f"bytes={size}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
    assert client(path, Range="bytes=9-3")[0].status == 200
    assert client(path, Range="lines=1-2")[0].status == 200
    # Python refuses to parse so many digits.
    assert client(path, Range=f"bytes={'9' * 5000}-")[0].status == 200
    assert client(path, Range=f"bytes={'9' * 19}-")[0].status == 416


def test_bytes_of_a_transfer_that_broke_are_counted(server: RegistryServer, store: Path) -> None:
    big = _put(store, bytes(50_000_000))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"GET /v2/x/blobs/{big['digest']} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        raw.recv(1000)
    for _ in range(100):
        if server.bytes_sent:
            break
        time.sleep(0.05)
    assert 0 < server.bytes_sent < big["size"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/x/tags/list",
        "/v2/_catalog",
        "/v2/x/manifests/latest",
        "/v2/x/blobs/sha256:" + "0" * 64,
        "/v2/x/blobs/sha256:../../../etc/passwd",
        "/v2/x/blobs/sha256:..%2f..%2fetc%2fpasswd",
        "/v2/../../etc/passwd",
        "/store/accepted/1.json",
    ],
)
def test_nothing_else_is_served(path: str, client: Client) -> None:
    answer, body = client(path)
    assert answer.status == 404
    assert json.loads(body)["errors"][0]["message"]


def test_a_layer_is_not_a_manifest(client: Client, image: str) -> None:
    path, _ = _layer(client, image)
    assert client(path.replace("blobs", "manifests"))[0].status == 404


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_it_is_read_only(method: str, server: RegistryServer, image: str, store: Path) -> None:
    answer, _ = Client(server.port)(f"/v2/x/manifests/{image}", method)
    assert answer.status == 501
    assert (store / "blobs" / "sha256" / image.removeprefix("sha256:")).is_file()


def test_a_tls_hello_gets_an_http_answer(server: RegistryServer) -> None:
    """Engines fall back to plain HTTP only if the refusal begins with HTTP/1."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(outgoing.read())
        answer = b""
        while data := raw.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"HTTPS request to an HTTP server.\n")


def test_clients_that_say_nothing_do_not_block_others(
    server: RegistryServer, client: Client
) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    try:
        assert client("/v2/")[0].status == 200
    finally:
        for connection in idle:
            connection.close()


def test_many_at_once(server: RegistryServer, image: str) -> None:
    path, _ = _layer(Client(server.port), image)
    good: list[bool] = []

    def pull() -> None:
        client = Client(server.port)
        good.extend(path.endswith(sha(client(path)[1])) for _ in range(5))

    threads = [threading.Thread(target=pull) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 50


def test_it_listens_on_the_loopback_only_and_stops(store: Path, image: str) -> None:
    server = RegistryServer(store)
    port = server.start()
    assert server._server is not None
    assert server._server.server_address[0] == "127.0.0.1"
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    again = RegistryServer(store, port=port)
    assert again.start() == port
    again.stop()


DOCKER = next(
    (p for p in ("/usr/bin/docker", shutil.which("docker")) if p and Path(p).exists()), ""
)


def test_the_command_serves_until_it_is_told_to_stop(store: Path, image: str) -> None:
    command = [sys.executable, "-m", "bundle", "serve", "--store", str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().decode().strip().rpartition(":")[2])
        assert Client(port)(f"/v2/x/manifests/{image}")[0].status == 200
        taken = subprocess.run(
            [*command, "--port", str(port)], capture_output=True, text=True, check=False
        )
        assert taken.returncode == Kind.HOME.exit_code
        assert "cannot listen" in taken.stderr
        process.terminate()
        assert process.wait(10) == 0
    none = [*command[:-1], str(store / "none")]
    assert subprocess.run(none, capture_output=True, check=False).returncode == Kind.HOME.exit_code


@pytest.mark.docker
def test_a_real_engine_pulls_by_digest(server: RegistryServer, image: str) -> None:
    if not DOCKER or subprocess.run([DOCKER, "info"], capture_output=True, check=False).returncode:
        pytest.skip("no container engine on this machine")
    reference = f"127.0.0.1:{server.port}/airlift/x@{image}"
    try:
        done = subprocess.run(
            [DOCKER, "pull", "-q", reference], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        shown = subprocess.run(
            [DOCKER, "image", "inspect", reference], capture_output=True, text=True, check=True
        )
        assert json.loads(shown.stdout)[0]["RepoDigests"] == [reference.replace(":latest", "")]
    finally:
        subprocess.run([DOCKER, "rmi", "-f", reference], capture_output=True, check=False)

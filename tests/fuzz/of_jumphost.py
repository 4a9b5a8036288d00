"""Fuzz rows for what `bundle/` reads on a jump host: records, requests, documents, programs."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import sys
from typing import Any

from bundle.errors import Kind
from bundle.jumphost import environment, registry, store
from bundle.review import diff, diff_text, documents, dossier
from tests.fuzz.mutate import (
    Json,
    Lines,
)
from tests.fuzz.of_bundle import small
from tests.fuzz.of_trust import SIGNER
from tests.fuzz.parser import Case, Kit, fuzzed


@fuzzed(
    "acceptance record",
    "bundle.jumphost.store.Home.acceptances",
    "bundle/jumphost/store.py",
    form=Json(),
    kinds=(Kind.HOME,),
)
def of_acceptance(kit: Kit) -> Case:
    """A record that is read can be written again, and has a usable time."""
    home = store.Home(kit.folder / "home")
    home.create()
    record = store.Acceptance(3, "1.0.0", store.now(), "0" * 64, "1" * 64, (SIGNER,))
    home.accept(record)
    (place,) = home.accepted.iterdir()

    def check(data: bytes) -> None:
        place.write_bytes(data)
        (found,) = home.acceptances()
        assert found.time > -(10**12)
        json.dumps(found.as_dict())
        assert home.acceptance_of(found.manifest_sha256) == found

    return Case([place.read_bytes()], check)


HTTP = [b"GET /v2/ HTTP/1.1", b"HEAD /v2/x/blobs/sha256:", b"Range: bytes=", b"0-", b"-1", b"5-2"]
HTTP += [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close", b"manifests"]
HTTP += [
    b"Expect: 100-continue",
    b"HTTP/0.9",
    b"%2e%2e%2f",
    b"sha256:" + b"0" * 64,
    b"\x16\x03\x01",
]


@fuzzed(
    "registry request",
    "bundle.jumphost.registry.RegistryServer",
    "bundle/jumphost/registry.py",
    form=Lines(HTTP, end=b"\r\n"),
    refusals=(ConnectionError,),
    slow=True,
)
def of_registry(kit: Kit) -> Case:
    """Each answer is complete, and the server sends nothing but blobs of the store."""
    home = store.Home(kit.folder / "home")
    home.create()
    blob = bytes(range(256)) * 8
    name = "a" * 64
    home.blob(name).write_bytes(blob)
    home.blob("b" * 64).write_bytes(b'{"schemaVersion": 2}')
    (home.store / "secret").write_bytes(b"SECRET OF THE STORE")
    server = registry.RegistryServer(home.store)
    address = ("127.0.0.1", server.start())
    kit.later.callback(server.stop)
    wrong: list[BaseException] = []

    def noted(*_: object) -> None:
        """Keep errors that the server would log as a lost client."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            wrong.append(error)

    kit.patch.setattr(registry._Server, "handle_error", noted)
    where = b"/v2/airlift/app/blobs/sha256:" + name.encode()
    head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    seeds = [
        b"GET " + where + head + b"Range: bytes=5-20\r\n\r\n",
        b"GET " + where + head + b"Range: bytes=-7\r\nConnection: close\r\n\r\n",
        b"HEAD " + where + head + b"\r\nGET /v2/" + head + b"\r\n",
        b"GET /v2/airlift/app/manifests/sha256:" + b"b" * 64 + head + b"\r\n",
        b"GET /v2/airlift/app/manifests/latest?x=1" + head + b"\r\n",
    ]

    def check(data: bytes) -> None:
        answer = b""
        with socket.create_connection(address, timeout=30) as mine:
            mine.sendall(data[: 1 << 15] or b"x")
            mine.shutdown(socket.SHUT_WR)
            while piece := mine.recv(1 << 16):
                answer += piece
        if wrong:
            raise AssertionError from wrong.pop()
        _check_answers(data, answer, blob)

    return Case(seeds, check)


def _check_answers(request: bytes, answer: bytes, blob: bytes) -> None:
    assert b"SECRET" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    if request.startswith(b"GET ") and head.startswith(b"HTTP/1.1 20") and b"octet" in head:
        assert length is not None
        size = int(length[1])
        assert len(body) >= size, (len(body), size)
        assert body[:size] in blob


SETTING = {"default": "x", "type": "str", "description": "A name.", "required": False}
FINDING = {"id": "CVE-2026-1", "component": "app", "package": "libc6", "version": "2.36"}
FINDING |= {"severity": "low", "fixed_in": "2.37"}
ABOUT: dict[str, Any] = {
    "migrations": {"migrations": [{"revision": "0001", "title": "first"}]},
    "settings": {"settings": {"site_name": SETTING}, "renamed": {"a": "b"}},
    "sbom": {"components": [{"purl": "pkg:deb/debian/libc6@2.36?arch=amd64"}]},
    "vulnerabilities": {
        "scanned": True,
        "reason": None,
        "scanner": "x",
        "findings": [FINDING],
    },
}


@fuzzed(
    "documents of a bundle",
    "bundle.review.diff.compare, diff_text.render; bundle.review.dossier",
    *("bundle/review/documents.py", "bundle/review/diff.py", "bundle/review/dossier.py"),
    form=Json(),
    kinds=(Kind.MANIFEST, Kind.BUILD_INPUT, Kind.UNREADABLE),
)
def of_documents(kit: Kit) -> Case:
    """Two releases are compared and rendered, or the comparison says which document is wrong."""
    paths = {name: document.path for name, document in documents.DOCUMENTS.items()}
    home = store.Home(kit.folder / "home")

    def side(version: str, serial: int, words: str) -> diff.Side:
        """Return a release with other content in each document."""
        files = {path: json.dumps({**ABOUT[n], "x": words}).encode() for n, path in paths.items()}
        path = small(kit, version=version, serial=serial, files={"verify.pyz": b"v", **files})
        return diff.load(path, trust=None, home=home)

    a, b = side("1.0.0", 1, "a"), side("1.1.0", 2, "b")
    known = {name: json.dumps(data).encode() for name, data in ABOUT.items()}

    def check(data: bytes) -> None:
        other = dataclasses.replace(b, documents=dict.fromkeys(paths.values(), data))
        for pair in ((a, other), (other, a)):
            found = diff.compare(*pair)
            json.dumps(found)
            for line in diff_text.render(found, verbose=True).split("\n"):
                assert line.isprintable(), line
        dossier._read(lambda _: data, {})

    return Case(list(known.values()), check)


PROGRAM = """#!{folder}/bin/python
import sys
from tool.main import run
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(run())
"""


@fuzzed(
    "program of a venv",
    "bundle.jumphost.environment._check_program",
    "bundle/jumphost/environment.py",
    form=Lines([b"#!", b"/bin/sh", b"'''exec'", b"(" * 300, b"-" * 9000, b"1j", b"\0", b"lambda:"]),
    kinds=(Kind.RELEASE_ALTERED,),
)
def of_program(kit: Kit) -> Case:
    """Only the program that pip writes is accepted, even if Python would run another one."""
    seed = PROGRAM.format(folder=kit.folder).encode()
    whole = _tokens(seed)

    def check(data: bytes) -> None:
        path = kit.file("tool", data)
        environment._check_program(kit.folder, path, "tool.main:run")
        assert _tokens(data) == whole

    return Case([seed], check)


def _tokens(data: bytes) -> Any:
    """Return the code that Python would run."""
    code = compile(data.partition(b"\n")[2], "tool", "exec")
    return (code.co_code, code.co_names, [c for c in code.co_consts if c is not None])

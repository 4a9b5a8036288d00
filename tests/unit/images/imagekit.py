"""Tiny images, a stand-in engine, and a registry on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OCI = "application/vnd.oci.image"

# A static program for Linux on amd64 that exits with 0.
_CODE = bytes.fromhex("b83c00000031ff0f05")
TRUE = (
    struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0),
    )
    + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 129, 129, 4096)
    + _CODE
)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@dataclass
class TinyImage:
    """An image of a few layers, each a tar file."""

    layers: list[bytes]
    env: list[str] = field(default_factory=list)
    architecture: str = "amd64"

    @property
    def diff_ids(self) -> list[str]:
        return [sha256(layer) for layer in self.layers]

    @property
    def config(self) -> bytes:
        # Use another format than the project's own JSON: these bytes must stay unchanged.
        return json.dumps(
            {
                "os": "linux",
                "architecture": self.architecture,
                "config": {"Env": self.env},
                "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            },
            indent=2,
        ).encode()

    @property
    def id(self) -> str:
        return sha256(self.config)


class StandInEngine:
    """A `docker` that answers `image inspect` and `save` from files and counts its calls."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        directory.mkdir()
        program = directory / "docker"
        program.write_text(_STAND_IN.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("AIRLIFT_DOCKER", str(program))

    def holds(self, images: dict[str, TinyImage], archive: bytes, ids: dict[str, str]) -> None:
        known = {
            name: {"Id": ids.get(name, image.id), "RootFS": {"Layers": image.diff_ids}}
            for name, image in images.items()
        }
        (self.directory / "images.json").write_text(json.dumps(known))
        (self.directory / "save.tar").write_bytes(archive)

    @property
    def saves(self) -> int:
        log = self.directory / "calls"
        return log.read_text().count("save ") if log.exists() else 0


_STAND_IN = """#!{python}
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as log:
    print(*sys.argv[1:], file=log)
known = json.loads((here / "images.json").read_text())
if sys.argv[1:3] == ["image", "inspect"]:
    print(json.dumps([known[name] for name in sys.argv[3:] if name in known]))
    if set(sys.argv[3:]) - known.keys():
        sys.exit("no such image")
elif sys.argv[1] == "save":
    with (here / "save.tar").open("rb") as saved:
        shutil.copyfileobj(saved, sys.stdout.buffer)
else:
    sys.exit("not known here")
"""


def saved_classic(images: list[TinyImage]) -> bytes:
    """Return the output of `docker save` up to version 24."""
    files: dict[str, bytes] = {}
    entries = []
    for image in images:
        name = image.id.removeprefix("sha256:")
        files[f"{name}.json"] = image.config
        paths = [f"{one.removeprefix('sha256:')[:12]}/layer.tar" for one in image.diff_ids]
        files.update(zip(paths, image.layers, strict=True))
        entries.append({"Config": f"{name}.json", "RepoTags": None, "Layers": paths})
    return tar({**files, "manifest.json": encode(entries)})


def saved_oci(images: list[TinyImage], *, packed: bool = False) -> tuple[bytes, list[str]]:
    """Return `docker save` of newer engines and image ids; `packed` for the containerd store."""
    files: dict[str, bytes] = {}
    ids = []
    for image in images:
        blobs = [gzip.compress(one, mtime=0) if packed else one for one in image.layers]
        manifest = encode(
            {
                "schemaVersion": 2,
                "config": {"digest": image.id, "size": len(image.config)},
                "layers": [{"digest": sha256(blob), "size": len(blob)} for blob in blobs],
            }
        )
        for blob in [*blobs, image.config, manifest]:
            files[f"blobs/sha256/{sha256(blob).removeprefix('sha256:')}"] = blob
        ids.append(sha256(manifest) if packed else image.id)
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return tar(files), ids


def write_index(layout: Path, images: list[TinyImage]) -> str:
    """Write an OCI layout with one multi-architecture index and return the index's digest."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes) -> dict[str, Any]:
        (blobs / sha256(data).removeprefix("sha256:")).write_bytes(data)
        return {"digest": sha256(data), "size": len(data)}

    entries = []
    for image in images:
        layers = [gzip.compress(layer, mtime=0) for layer in image.layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": {"mediaType": f"{OCI}.config.v1+json", **put(image.config)},
            "layers": [{"mediaType": f"{OCI}.layer.v1.tar+gzip", **put(one)} for one in layers],
        }
        platform = {"os": "linux", "architecture": image.architecture}
        entry = {"mediaType": f"{OCI}.manifest.v1+json", **put(encode(manifest))}
        entries.append({**entry, "platform": platform})
    index = {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": entries}
    described = put(encode(index))
    top = {
        "mediaType": f"{OCI}.index.v1+json",
        **described,
        "annotations": {"org.opencontainers.image.ref.name": "it"},
    }
    (layout / "index.json").write_bytes(encode({"schemaVersion": 2, "manifests": [top]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return str(described["digest"])


class Registry:
    """Debian's docker-registry on a loopback port."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.host = f"127.0.0.1:{port}"

    def push(self, repository: str, tag: str, images: list[TinyImage]) -> str:
        """Push an index of images and return its digest."""
        layout = self.directory / "layouts" / f"{repository.replace('/', '_')}-{tag}"
        shutil.rmtree(layout, ignore_errors=True)
        digest = write_index(layout, images)
        subprocess.run(
            [
                *("skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"),
                *("--dest-tls-verify=false", f"oci:{layout}:it"),
                f"docker://{self.host}/{repository}:{tag}",
            ],
            check=True,
        )
        return digest

    def untag(self, repository: str, tag: str) -> None:
        """Remove a tag; its image stays."""
        top = self.directory / "data" / "docker" / "registry" / "v2" / "repositories"
        shutil.rmtree(top / repository / "_manifests" / "tags" / tag)

    def blob(self, digest: str) -> Path:
        """Return the file in which the registry stores a blob."""
        value = digest.removeprefix("sha256:")
        root = self.directory / "data" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return root / value[:2] / value / "data"


@contextmanager
def running_registry(directory: Path) -> Iterator[Registry]:
    for program in ("docker-registry", "skopeo"):
        if not shutil.which(program):
            pytest.fail(f"{program} is missing: apt-get install docker-registry skopeo")
    port = free_port()
    (directory / "config.yml").write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log
        )
        try:
            _wait_for(port)
            yield Registry(directory, port)
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("docker-registry did not start")


def snapshot(directory: Path) -> dict[str, str]:
    """Return the hash of each file below a directory."""
    return {
        os.fspath(path.relative_to(directory)): sha256(path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }

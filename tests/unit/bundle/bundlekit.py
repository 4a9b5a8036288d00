"""Small real bundles for the tests: real keys, the real ssh-keygen, little content."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build, verifier_pyz
from bundle.builder.collected import Collected
from bundle.builder.hosts import systems
from bundle.errors import AirliftError
from bundle.format import manifest
from bundle.jumphost import importer, installed, venv
from bundle.jumphost.importer import Imported
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust
from bundle.verify import checks
from tests.unit.bundle import debkit

TREE = Path(__file__).resolve().parents[3]
#: `make soak` kills at every step, not every fifth, and tries twenty times as many examples.
SOAK = os.environ.get("AIRLIFT_SOAK") == "1"
VERIFIER = verifier_pyz.make(TREE / "bundle")
IDENTITY = "release@airlift.example"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Keys:
    """A signing key, its line of the list, and a second signer."""

    folder: Path

    def key(self, name: str = "release") -> Path:
        path = self.folder / name
        if not path.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
            subprocess.run(command, check=True)
        return path

    def line(self, name: str = "release", identity: str = IDENTITY, options: str = "") -> str:
        wanted = options or f'namespaces="{sshsig.NAMESPACE}"'
        return f"{identity} {wanted} {sshsig.public_key(self.key(name))}\n"

    def signers(self, *lines: str) -> Path:
        text = "".join(lines) or self.line()
        path = self.folder / f"allowed-{sha(text.encode())[:12]}"
        path.write_text(text)
        return path

    def trust(self, *lines: str, **options: Any) -> Trust:
        if isinstance(revoked := options.get("revoked"), Path):
            options["revoked"] = (revoked,)
        return Trust(self.signers(*lines), **options)


def image(name: str, layers: Collection[bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a component of the manifest and its blobs; layers are stored uncompressed."""
    blobs = {sha(layer): layer for layer in layers}
    diff_ids = [f"sha256:{digest}" for digest in blobs]
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}, "name": name})
    blobs[sha(config.encode())] = config.encode()
    media = "application/vnd.oci.image.layer.v1.tar"
    described = [
        {"mediaType": media, "digest": f"sha256:{d}", "size": len(blobs[d.removeprefix("sha256:")])}
        for d in (diff_id.removeprefix("sha256:") for diff_id in diff_ids)
    ]
    body = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{sha(config.encode())}",
                "size": len(config),
            },
            "layers": described,
        }
    ).encode()
    blobs[sha(body)] = body
    component = {
        "version": "1.2.3",
        "repository": f"airlift/{name}",
        "manifest_digest": f"sha256:{sha(body)}",
        "config_digest": f"sha256:{sha(config.encode())}",
        "diff_ids": diff_ids,
        "layers": [
            {"digest": x["digest"], "size": x["size"], "media_type": x["mediaType"]}
            for x in described
        ],
        "unpacked_size": sum(map(len, layers)),
        "pinned": f"registry.example/{name}:1.2.3@sha256:{'0' * 64}",
        "drift": None,
        "probe": [name, "--version"],
    }
    return component, blobs


BASE_LAYER = b"shared base layer " * 300


def default_components(
    app_layer: bytes = b"", base_layer: bytes = BASE_LAYER
) -> tuple[dict[str, Any], dict[str, bytes]]:
    components, blobs = dict[str, Any](), dict[str, bytes]()
    for name in ("app", "redis"):
        layer = (name == "app" and app_layer) or f"layer of {name} ".encode() * 100
        components[name], new = image(name, [base_layer, layer])
        blobs |= new
    return components, blobs


@dataclass
class Recipe:
    """The content of a crafted bundle; change any field before `make`."""

    version: str = "1.0.0"
    serial: int = 1
    files: dict[str, bytes] = field(default_factory=dict)
    # Changes the manifest before it is signed.
    edit: Callable[[dict[str, Any]], None] | None = None
    # Changes the manifest's bytes before they are signed.
    edit_raw: Callable[[bytes], bytes] | None = None
    keys: tuple[str, ...] = ("release",)
    # The app's own layer, if it is not the default one.
    app_layer: bytes = b""
    # Components to omit.
    without: tuple[str, ...] = ()
    # Make a delta that omits what this recipe's bundle has.
    since: Recipe | None = None

    def make(self, path: Path, keys: Keys) -> Path:
        components, files = self._contents()
        bases, left_out = self._leave_out(files)
        data = {
            "format": 1,
            "product": "airlift",
            "version": self.version,
            "serial": self.serial,
            "created": "2026-01-02T03:04:05Z",
            "architecture": "amd64",
            "revision": "unknown",
            "upgrade": {"minimum_version": "1.0.0", "required_stops": []},
            "schema": {"head": 1, "lowest_compatible": 1},
            "image_source": "debian",
            "components": components,
            "absent": {"grafana": {"reason": "not in Debian"}},
            "zones": {"app": {"bytes": 1000}, "data": {"bytes": 2000}},
            "bases": bases,
            "left_out": left_out,
            "members": [
                {"path": name, "size": len(body), "sha256": sha(body)}
                for name, body in files.items()
            ],
        }
        if self.edit:
            self.edit(data)
        raw = manifest.encode(data)
        if self.edit_raw:
            raw = self.edit_raw(raw)
        signatures = [sshsig.sign(raw, keys.key(name)) for name in self.keys]
        path.unlink(missing_ok=True)
        build.write(path, raw, signatures, [(n, b, len(b)) for n, b in files.items()])
        return path

    def _contents(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        components, blobs = default_components(self.app_layer)
        for name in self.without:
            components.pop(name)
        needed = json.dumps(components)
        blobs = {digest: data for digest, data in blobs.items() if digest in needed}
        return components, {
            "verify.pyz": VERIFIER,
            "content/ansible.cfg": b"[defaults]\n",
            "content/bundle/__init__.py": b"",
            "content/playbooks/install.yml": b"[]\n",
            "content/requirements/controller.txt": b"",
            "oci/index.json": b"{}",
            "oci/oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            **{f"blobs/sha256/{digest}": data for digest, data in sorted(blobs.items())},
            **self.files,
        }

    def _leave_out(self, files: dict[str, bytes]) -> tuple[list[Any], list[Any]]:
        """Remove the members that the base has, and adapt the manifest."""
        if self.since is None:
            return [], []
        base, found = self.since, []
        for path, data in sorted(base._contents()[1].items()):
            if files.get(path) == data and manifest.may_be_left_out(path):
                row = {"path": path, "sha256": sha(data), "base": base.version}
                found.append({**row, "size": len(files.pop(path))})
        named = {"version": base.version, "serial": base.serial, "release_sha256": "0" * 64}
        return [named], found


@dataclass
class Record:
    """One member of a tar, header and data apart."""

    header: bytes
    data: bytes

    @property
    def name(self) -> str:
        name, prefix = (self.header[a:b].rstrip(b"\0").decode() for a, b in ((0, 100), (345, 500)))
        return f"{prefix}/{name}" if prefix else name

    def changed(self, start: int, value: bytes) -> Record:
        """Return a copy with other header bytes and a valid checksum."""
        head = bytearray(self.header)
        head[start : start + len(value)] = value
        head[148:156] = b" " * 8
        head[148:156] = f"{sum(head):06o}\0 ".encode()
        return Record(bytes(head), self.data)


def records(raw: bytes) -> list[Record]:
    """Split a well-formed tar into its members."""
    found, offset = [], 0
    while any(raw[offset : offset + 512]):
        size = int(raw[offset + 124 : offset + 135], 8)
        end = offset + 512 + size + -size % 512
        found.append(Record(raw[offset : offset + 512], raw[offset + 512 : end]))
        offset = end
    return found


def join(parts: Iterable[Record], end: bytes = bytes(1024)) -> bytes:
    return b"".join(part.header + part.data for part in parts) + end


def wheel(
    name: str, version: str, files: dict[str, bytes], about: tuple[str, ...] = ()
) -> tuple[str, bytes]:
    """Return a pure Python wheel's file name and bytes; `about`: more metadata lines."""
    info = f"{name}-{version}.dist-info"
    lines = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *about)
    body = {
        **files,
        f"{info}/METADATA": "".join(f"{line}\n" for line in lines).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    writer = csv.writer(record, lineterminator="\n")
    for path, data in body.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        writer.writerow([path, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    body[f"{info}/RECORD"] = record.getvalue().encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, data in body.items():
            # Use a fixed date: the current one would change the wheel's hash every two seconds.
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


@functools.cache
def wheelhouse() -> tuple[dict[str, bytes], bytes]:
    """Return a wheelhouse with this environment's pip and one small package, and its requirements.

    It is packed once per process; callers must not change it.
    """
    pip = importlib.metadata.distribution("pip")
    root = Path(str(pip.locate_file("")))
    files = {
        str(path): (root / path).read_bytes()
        for path in pip.files or ()
        if str(path).startswith("pip/") and path.suffix != ".pyc"
    }
    tool = wheel("pip", pip.version, files)
    name, data = wheel("airlifttiny", "1.0", {"airlifttiny.py": b"ANSWER = 42\n"})
    # Omit pip from the requirements: its installation would take most of a test's time.
    requirements = f"airlifttiny==1.0 --hash=sha256:{sha(data)}\n".encode()
    return {name: data, tool[0]: tool[1]}, requirements


class FakeSuppliers:
    """Stand-ins for registries, Debian and the package index."""

    absent: Mapping[str, dict[str, str]] = {"grafana": {"reason": "not in Debian"}}

    def __init__(self, extra_layer: bytes = b"") -> None:
        self.wheelhouse = wheelhouse()
        self.app_layer = extra_layer
        self.base_layer = BASE_LAYER

    def settle(
        self, lock: Path, source: str, log: Callable[[str], None]
    ) -> tuple[str, dict[str, dict[str, str]]]:
        return ("debian" if source == "auto" else source), dict(self.absent)

    def images(
        self, lock: Path, source: str, version: str, layout: Path, log: Callable[[str], None]
    ) -> Collected:
        components, blobs = default_components(self.app_layer, self.base_layer)
        folder = layout / "blobs" / "sha256"
        folder.mkdir(parents=True)
        for digest, data in blobs.items():
            (folder / digest).write_bytes(data)
        # Leave a blob that no image needs.
        (folder / sha(b"stray")).write_bytes(b"stray")
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (layout / "index.json").write_text("{}")
        return Collected("debian", components, dict(self.absent))

    def packages(self, dest: Path, log: Callable[[str], None]) -> dict[str, dict[str, str]]:
        debkit.repository(dest / "debian-13")
        return {"packages-debian-12": {"reason": "no network"}}

    def wheels(self, requirements: Path, dest: Path, log: Callable[[str], None]) -> None:
        dest.mkdir(parents=True)
        for name, data in self.wheelhouse[0].items():
            (dest / name).write_bytes(data)

    def zones(self, lock: Path) -> dict[str, tuple[str, ...]]:
        return {"app": ("app",), "redis": ("data",), "grafana": ("monitor",)}


#: One system that each build has, and one that may be absent.
SYSTEMS = """format: 1
systems:
  - {id: debian, version: "13", name: Debian 13, tested: true, required: true, format: deb,
     distro: trixie, base: {suite: trixie}, engine: [docker.io], support: [iptables]}
  - {id: debian, version: "12", name: Debian 12, tested: false, required: false, format: deb,
     distro: bookworm, base: {suite: bookworm}, engine: [docker.io], support: [iptables]}
"""


#: Components that the stand-ins cannot supply.
ABSENT = "allow_absent: [grafana, packages-debian-12]"


def make_tree(folder: Path, requirements: bytes) -> Path:
    """Create a small checkout: the real bundle package and minimal content of everything else."""
    ignore = shutil.ignore_patterns("__pycache__", "recipes")
    shutil.copytree(TREE / "bundle", folder / "bundle", ignore=ignore)
    for name, text in {
        "CHANGELOG.md": "# Changes\n",
        "LICENSE": "Apache-2.0\n",
        "README.md": "# Airlift\n",
        "ansible.cfg": "[defaults]\n",
        "docs/TRUST.md": "# Trust\n",
        "inventories/example/hosts.yml": "all: {}\n",
        "playbooks/install.yml": "[]\n",
        "roles/site/defaults/main.yml": "site_name: x\n",
        systems.NAME: SYSTEMS,
        "roles/site/__pycache__/x.pyc": "no",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    settings = folder / "bundle" / "release.yml"
    text = settings.read_text()
    for there, here in (("source: registry", "source: debian"), ("allow_absent: []", ABSENT)):
        assert there in text
        text = text.replace(there, here)
    settings.write_text(text)
    (folder / "requirements").mkdir()
    (folder / "requirements" / "controller.txt").write_bytes(requirements)
    return folder


def check(path: Path, trust: Trust, home: Home | None = None) -> checks.Opened:
    with checks.opened(path, trust=trust, home=home) as bundle:
        checks.check_members(bundle)
        return bundle


def refused(path: Path, trust: Trust, home: Home | None = None) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        check(path, trust, home)
    error = caught.value
    assert all((error.what, error.where, error.fix))
    assert "\n" not in error.what
    return error


def fake_venv(release: Path, manifest_sha256: str) -> None:
    """Stand in for a real virtual environment, which takes seconds."""
    (release / "venv" / "bin").mkdir(parents=True, exist_ok=True)
    python = release / "venv" / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to("/bin/true")
    packages = release / "venv" / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (release / "venv" / "pyvenv.cfg").write_text("include-system-site-packages = false\n")
    (release / "venv" / venv.MARKER).write_text(manifest_sha256)


def run_import(path: Path, trust: Trust, home: Home) -> Imported:
    return importer.run(path, trust=trust, home=home, log=lambda _: None, progress=lambda _: None)


def everything(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def assert_finished(home: Home, path: Path, trust: Trust, base: Path | None = None) -> None:
    """Check that an import left exactly its files, a delta's base included."""
    releases, blobs = set(), set()
    for one in (path, base) if base else (path,):
        with checks.opened(one, trust=trust, home=None) as bundle:
            releases.add(bundle.manifest.version)
            blobs |= {m.sha256 for m in bundle.manifest.contents if m.is_blob}
    with checks.opened(path, trust=trust, home=home) as bundle:
        found = bundle.manifest
        assert bundle.accepted is not None
        assert installed.is_complete(home, home.release(found.version), bundle.raw_manifest, found)
    installed.check(home.current, trust=trust, home=home)
    assert str(home.current.readlink()) == f"releases/{found.version}"
    assert {p.name for p in home.blobs.iterdir()} == blobs
    assert list(home.incoming.iterdir()) == []
    assert {p.name for p in home.releases.iterdir()} == releases
    assert not list(home.root.rglob("*.part"))


def arguments(command: str, path: Path, keys: Keys, home: Home) -> list[str]:
    signers = str(keys.signers())
    return [command, str(path), "--allowed-signers", signers, "--home", str(home.root)]


@contextmanager
def disk_of(folder: Path, options: str) -> Iterator[Path]:
    """Mount a real file system on a new folder, such as one of `size=120m`."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "airlift-test", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

"""Releases to make deltas of, and the check that a refused import changes nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build, content
from bundle.errors import AirliftError
from bundle.format.manifest import Manifest
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import FakeSuppliers, Keys, check, run_import, wheel

NEW_LAYER = b"the new layer of app " * 100


class Suppliers(FakeSuppliers):
    """Suppliers whose images are most of a bundle, like real ones."""

    def __init__(self, app_layer: bytes = b"") -> None:
        super().__init__(app_layer)
        name, data = wheel("airlifttiny", "1.0", {"airlifttiny.py": b"ANSWER = 42\n"})
        self.wheelhouse = {name: data}, b""
        self.base_layer = random.Random(1).randbytes(3 << 20)


@dataclasses.dataclass(frozen=True)
class Dist:
    """A folder with release 1.0.0, and release 1.1.0 in full and as a delta."""

    base: Path
    full: Path
    delta: Path

    def named(self, kind: str) -> Path:
        found: Path = getattr(self, kind)
        return found


def options(tree: Path, out: Path, keys: Keys, **more: Any) -> build.Options:
    return build.Options(tree=tree, out=out, keys=(keys.key(),), identity="x@y", **more)


def run_build(options: build.Options, suppliers: FakeSuppliers) -> build.Built:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "COLLECTIONS", ())
        patch.setenv("SOURCE_DATE_EPOCH", "1767225600")
        return build.build(options, suppliers, log=lambda _: None)


def make_dist(out: Path, tree: Path, keys: Keys) -> Dist:
    base = run_build(options(tree, out, keys), Suppliers())
    full = run_build(options(tree, out, keys, version="1.1.0"), Suppliers(NEW_LAYER))
    since = (base.path,)
    delta = run_build(options(tree, out, keys, version="1.1.0", since=since), Suppliers(NEW_LAYER))
    return Dist(base.path, full.path, delta.path)


def manifest_of(path: Path, keys: Keys) -> Manifest:
    return check(path, keys.trust()).manifest


def refused_unchanged(path: Path, keys: Keys, home: Home) -> AirliftError:
    """Check that an import is refused and changes nothing, not even a time or a directory."""
    before = snapshot(home.root.parent)
    with pytest.raises(AirliftError) as caught:
        run_import(path, keys.trust(), home)
    assert snapshot(home.root.parent) == before
    assert caught.value.fix
    return caught.value


def snapshot(root: Path) -> dict[str, tuple[int, int, bytes]]:
    def each() -> Iterator[tuple[str, tuple[int, int, bytes]]]:
        for path in sorted(root.rglob("*")):
            status = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            yield str(path), (status.st_mode, status.st_mtime_ns, data)

    return dict(each())

"""`bundle lock`: resolves the tags of `images.lock.yml` at the registries and updates the file.

Only `digest` and `platforms` are written; order, comments and everything else are kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

from bundle.builder.images import lockfile
from bundle.builder.images.lockfile import Platform, Upstream
from bundle.builder.images.upstream import require, resolve
from bundle.builder.problems import Problem
from bundle.core import locks
from bundle.core.files import write_atomic
from bundle.errors import AirliftError, Kind

_AT_ONCE = 4
_WIDTH = 4096  # a folded digest is hard to compare


@dataclass(frozen=True)
class Finding:
    """The registry's answer for one pin."""

    name: str
    pinned: Upstream
    digest: str
    platforms: dict[str, Platform]

    @property
    def moved(self) -> bool:
        """Return whether the tag names another image than the lock."""
        return self.digest != self.pinned.digest

    @property
    def news(self) -> str:
        """Return what writing the lock would change: `moved`, `completed` or nothing."""
        if self.moved:
            return "moved"
        return "completed" if self.platforms != self.pinned.platforms else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding for `--json`."""
        return {
            "name": self.name,
            "image": f"{self.pinned.image}:{self.pinned.tag}",
            "pinned": self.pinned.digest,
            "found": self.digest,
            "platforms": sorted(self.platforms),
            "news": self.news,
        }


def ask(path: Path, names: Iterable[str] = ()) -> list[Finding]:
    """Resolve the tags of all pins, or of the named ones, at the registries; change nothing."""
    pins = dict(_pins(lockfile.load(path)))
    chosen = set(names) or set(pins)
    if unknown := sorted(chosen - set(pins)):
        raise Problem(
            f"{path} pins no image named {', '.join(unknown)}",
            fix=f"name one or more of: {', '.join(sorted(pins))}",
        )
    require()
    wanted = {name: pins[name] for name in pins if name in chosen}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(resolve, wanted.values())
        return [
            Finding(name, pin, digest, platforms)
            for (name, pin), (digest, platforms) in zip(wanted.items(), found, strict=True)
        ]


def write(path: Path, findings: Iterable[Finding]) -> None:
    """Write the findings into the lock: all of them or none."""
    with locks.folder(path.parent):
        _write(path, findings)


def _write(path: Path, findings: Iterable[Finding]) -> None:
    yaml = _yaml()
    tree = yaml.load(path.read_bytes())
    for finding in findings:
        table = "bases" if finding.name in tree["bases"] else "images"
        entry = tree[table][finding.name]
        entry["digest"] = Quoted(finding.digest)
        platforms = _platforms(finding.platforms)
        if "platforms" in entry:
            entry["platforms"] = platforms
        else:
            entry.insert(list(entry).index("digest") + 1, "platforms", platforms)
    out = io.BytesIO()
    yaml.dump(tree, out)
    write_atomic(path, out.getvalue())
    lockfile.load(path)


def refuse_moved(findings: Iterable[Finding], path: Path) -> None:
    """Fail if a tag names another image than the lock."""
    moved = [one for one in findings if one.moved]
    if moved:
        changes = "; ".join(
            f"{one.pinned.image}:{one.pinned.tag} is {one.digest} now, "
            f"{one.pinned.digest} in the lock"
            for one in moved
        )
        raise AirliftError(
            Kind.MOVED,
            f"{len(moved)} of the locked tags moved: {changes}",
            where=str(path),
            fix="check what changed upstream, then accept it: python -m bundle lock "
            + " ".join(one.name for one in moved),
        )


def _pins(lock: lockfile.ImageLock) -> Iterator[tuple[str, Upstream]]:
    for name, (upstream, _) in lock.bases.items():
        yield name, upstream
    for name, pin in lock.images.items():
        if pin.upstream:
            yield name, pin.upstream


def _platforms(platforms: dict[str, Platform]) -> CommentedMap:
    table = CommentedMap()
    for architecture, platform in sorted(platforms.items()):
        layers = CommentedSeq(Quoted(one) for one in platform.diff_ids)
        table[architecture] = CommentedMap(
            manifest=Quoted(platform.manifest), config=Quoted(platform.config), diff_ids=layers
        )
    return table


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml

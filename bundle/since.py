"""The bundles that a delta builds on: checked, and searched for what need not travel again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bundle.errors import AirliftError, Kind
from bundle.manifest import Manifest
from bundle.release import Release
from bundle.verify import opened


@dataclass(frozen=True)
class Base:
    """A bundle that a client has imported."""

    path: Path
    manifest: Manifest
    blobs: frozenset[str]

    @property
    def version(self) -> str:
        """The version of its release."""
        return self.manifest.version

    @property
    def serial(self) -> int:
        """The serial of its release."""
        return self.manifest.serial

    def as_dict(self) -> dict[str, Any]:
        """What the delta's manifest says of it."""
        return {
            "version": self.version,
            "serial": self.serial,
            "release_sha256": self.manifest.release_sha256,
        }


def load(paths: Sequence[Path], wanted: Release, architecture: str) -> list[Base]:
    """Read the manifests of the bases and refuse what cannot be one, before any work is done.

    Who signed them does not matter: a jump host checks every blob that is left out.
    """
    bases = newest_first(_read(path) for path in paths)
    for base in bases:
        found = base.manifest.data["architecture"]
        if found != architecture:
            _refuse(base, f"it is for {found}, this build for {architecture}")
        if base.serial >= wanted.serial or base.version == wanted.version:
            _refuse(
                base,
                f"it is release {base.version} with serial {base.serial}, "
                f"not older than {wanted.version} with serial {wanted.serial}",
                fix="name bundles of earlier releases; version and serial of this one are in "
                "bundle/release.yml",
            )
    for newer, older in itertools.combinations(bases, 2):
        if newer.serial == older.serial or newer.version == older.version:
            _refuse(older, f"{newer.path} has its version or serial too", fix="name one of them")
    return bases


def check_source(bases: Iterable[Base], source: str) -> None:
    """Refuse a delta that would take a site from one image source to the other."""
    for base in bases:
        found = base.manifest.data["image_source"]
        if found != source:
            _refuse(
                base,
                f"its images are from {found}, those of this build from {source}; "
                "a site keeps its image source",
                fix=f"--source {found}, or build a full bundle: leave --since out",
            )


def left_out(bases: Sequence[Base], paths: Iterable[str]) -> dict[str, Base]:
    """Which members need not travel, each with the newest base that has it."""
    found = {
        path: base for base in reversed(bases) for path in sorted(base.blobs.intersection(paths))
    }
    if bases and not found:
        _refuse(bases[0], "it has no blob of this build: a delta would carry everything")
    return found


def newest_first(bases: Iterable[Base]) -> list[Base]:
    """In the order in which a manifest names them."""
    return sorted(bases, key=lambda base: -base.serial)


def _read(path: Path) -> Base:
    try:
        with opened(path, trust=None, home=None) as bundle:
            parsed = bundle.manifest
    except AirliftError as error:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"a base of the delta cannot be used: {error.what}",
            where=f"--since {path}",
            fix="name a bundle as `bundle build` made it",
        ) from error
    # A site that took a delta has what that one left out, too.
    return Base(path, parsed, frozenset(m.path for m in parsed.contents if m.is_blob))


def _refuse(base: Base, what: str, *, fix: str = "") -> NoReturn:
    raise AirliftError(
        Kind.BUILD_INPUT,
        f"a base of the delta cannot be used: {what}",
        where=f"--since {base.path}",
        fix=fix or "name another base, or build a full bundle: leave --since out",
    )

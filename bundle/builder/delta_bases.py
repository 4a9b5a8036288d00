"""The bases of a delta: bundles and site receipts, which decide what the delta omits.

A bundle means that every site that gets the delta has imported it. A receipt lists what one site
has. So a site has the members of its receipt and of all bundles, and the delta omits what every
site has. docs/DELTAS.md has the rule for people.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bundle.builder.release import Release
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import may_be_left_out
from bundle.jumphost import receipt
from bundle.verify.checks import opened


@dataclass(frozen=True)
class Base:
    """A release that a site has: all of it, or the part that a receipt lists."""

    path: Path
    version: str
    serial: int
    release_sha256: str
    architecture: str
    image_source: str
    # Path: SHA-256 of the members that may be omitted.
    members: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return its entry in the delta's manifest."""
        return {
            "version": self.version,
            "serial": self.serial,
            "release_sha256": self.release_sha256,
        }


@dataclass(frozen=True)
class Bases:
    """All named bases; without receipts, they stand for one site that has all bundles."""

    bundles: tuple[Base, ...] = ()
    receipts: tuple[tuple[Base, ...], ...] = ()
    # A line for each receipt: its site, time and signer.
    lines: tuple[str, ...] = ()

    @property
    def all(self) -> list[Base]:
        """Return every base, the newest first."""
        return newest_first([*self.bundles, *itertools.chain(*self.receipts)])

    @property
    def sites(self) -> list[list[Base]]:
        """Return the bases of each site."""
        return [[*self.bundles, *site] for site in self.receipts or [()]]


def load(
    paths: Sequence[Path], wanted: Release, architecture: str, receipt_signers: Path | None = None
) -> Bases:
    """Read the bases; refuse unsuitable ones before any work is done.

    The signer of a bundle does not matter, because a jump host checks every omitted member. A
    receipt must be signed, because a false one would make a delta that its site cannot import.
    """
    receipts = [receipt.read(p, receipt_signers) for p in paths if receipt.is_receipt(p)]
    bases = Bases(
        tuple(_read(path) for path in paths if not receipt.is_receipt(path)),
        tuple(_releases(one) for one in receipts),
        tuple(f"{r.path}: {r.host} at {r.created}, signed by {r.signer}" for r in receipts),
    )
    for base in bases.all:
        if base.architecture != architecture:
            _refuse(base, f"it is for {base.architecture}, this build for {architecture}")
        if base.serial >= wanted.serial or base.version == wanted.version:
            _refuse(
                base,
                f"it is release {base.version} with serial {base.serial}, "
                f"not older than {wanted.version} with serial {wanted.serial}",
                fix="name bundles of earlier releases, or receipts of sites without a newer one; "
                "bundle/release.yml has version and serial of this release",
            )
    for one, other in itertools.combinations(bases.all, 2):
        same = one.as_dict() == other.as_dict() and not {one.path, other.path} <= {
            base.path for base in bases.bundles
        }
        if not same and (one.serial == other.serial or one.version == other.version):
            _refuse(other, f"{one.path} has the same version or serial", fix="name one of them")
    return bases


def check_source(bases: Bases, source: str) -> None:
    """Refuse a delta that would change a site's image source."""
    for base in bases.all:
        if base.image_source != source:
            _refuse(
                base,
                f"its images are from {base.image_source}, those of this build from {source}; "
                "a site keeps its image source",
                fix=f"use --source {base.image_source}, or build a full bundle: omit --since",
            )


def left_out(bases: Bases, entries: Mapping[str, str]) -> dict[str, Base]:
    """Return the members (path: SHA-256) to omit, each with the newest base that has it.

    A file must be in the same release at every site, because a jump host takes it from that
    directory. A blob may be in different releases, because they share the store.
    """
    found: dict[str, Base] = {}
    for path, digest in entries.items():
        if not may_be_left_out(path):
            continue
        holders = [[b for b in site if b.members.get(path) == digest] for site in bases.sites]
        if not all(holders):
            continue
        everywhere = set.intersection(*({b.version for b in site} for site in holders))
        any_of_them = [b for b in itertools.chain(*holders) if b.version in everywhere]
        if not everywhere and path.startswith("blobs/"):
            any_of_them = list(itertools.chain(*holders))
        if any_of_them:
            found[path] = newest_first(any_of_them)[0]
    if bases.all and not found:
        _refuse(bases.all[0], "it has no member of this build: a delta would carry everything")
    return found


def notes(bases: Bases, found: Mapping[str, Base]) -> list[str]:
    """Return notes about bases that are not needed."""
    used = {base.version for base in found.values()}
    return [
        f"{base.path} is not needed: newer bases have all its members of this build"
        for base in bases.bundles
        if base.version not in used
    ]


def newest_first(bases: Iterable[Base]) -> list[Base]:
    """Return the bases in the order of a manifest."""
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
            fix="name a bundle of `bundle build`, or a receipt of `bundle receipt`",
        ) from error
    return Base(
        path,
        parsed.version,
        parsed.serial,
        parsed.release_sha256,
        parsed.data["architecture"],
        parsed.data["image_source"],
        # A site that imported a delta also has the members that the delta omitted.
        {member.path: member.sha256 for member in parsed.contents},
    )


def _releases(one: receipt.Receipt) -> tuple[Base, ...]:
    return tuple(
        Base(
            one.path,
            release["version"],
            release["serial"],
            release["release_sha256"],
            release["architecture"],
            release["image_source"],
            {member["path"]: member["sha256"] for member in release["members"]},
        )
        for release in one.releases
    )


def _refuse(base: Base, what: str, *, fix: str = "") -> NoReturn:
    raise AirliftError(
        Kind.BUILD_INPUT,
        f"a base of the delta cannot be used: {what}",
        where=f"--since {base.path}",
        fix=fix or "name another base, or build a full bundle: omit --since",
    )

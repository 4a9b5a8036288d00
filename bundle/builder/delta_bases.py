"""What a delta builds on: bundles and site receipts, searched for what need not travel again.

A bundle says: every site that gets the delta has imported this one. A receipt says what one site
has. So a site's holdings are those of its receipt and of all bundles together, and what is left out
is what each site holds. docs/DELTAS.md has the rule for people.
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
    """A release that is at the site: all of it, or the part that a receipt lists."""

    path: Path
    version: str
    serial: int
    release_sha256: str
    architecture: str
    image_source: str
    # Path: SHA-256 of what may be left out.
    members: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """What the delta's manifest says of it."""
        return {
            "version": self.version,
            "serial": self.serial,
            "release_sha256": self.release_sha256,
        }


@dataclass(frozen=True)
class Bases:
    """Everything that was named; without receipts, one site that has all bundles."""

    bundles: tuple[Base, ...] = ()
    receipts: tuple[tuple[Base, ...], ...] = ()
    # For each receipt, whose it is and of when.
    said: tuple[str, ...] = ()

    @property
    def all(self) -> list[Base]:
        """Every base, the newest first."""
        return newest_first([*self.bundles, *itertools.chain(*self.receipts)])

    @property
    def sites(self) -> list[list[Base]]:
        """The holdings of each site."""
        return [[*self.bundles, *site] for site in self.receipts or [()]]


def load(
    paths: Sequence[Path], wanted: Release, architecture: str, receipt_signers: Path | None = None
) -> Bases:
    """Read the bases and refuse what cannot be one, before any work is done.

    Who signed a bundle does not matter: a jump host checks every member that is left out. A
    receipt must be signed: a false one would make a delta that its site cannot import.
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
                fix="name bundles of earlier releases, or receipts of sites that have no newer "
                "one; version and serial of this one are in bundle/release.yml",
            )
    for one, other in itertools.combinations(bases.all, 2):
        same = one.as_dict() == other.as_dict() and not {one.path, other.path} <= {
            base.path for base in bases.bundles
        }
        if not same and (one.serial == other.serial or one.version == other.version):
            _refuse(other, f"{one.path} has its version or serial too", fix="name one of them")
    return bases


def check_source(bases: Bases, source: str) -> None:
    """Refuse a delta that would take a site from one image source to the other."""
    for base in bases.all:
        if base.image_source != source:
            _refuse(
                base,
                f"its images are from {base.image_source}, those of this build from {source}; "
                "a site keeps its image source",
                fix=f"--source {base.image_source}, or build a full bundle: leave --since out",
            )


def left_out(bases: Bases, entries: Mapping[str, str]) -> dict[str, Base]:
    """Which of the members (path: SHA-256) need not travel, each with the newest base that has it.

    A file must be in the same release at every site: a jump host takes it from that directory. A
    blob may be in another one at each: the store is one for all releases.
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
        _refuse(bases.all[0], "nothing of this build is there: a delta would carry everything")
    return found


def notes(bases: Bases, found: Mapping[str, Base]) -> list[str]:
    """What was named for nothing."""
    used = {base.version for base in found.values()}
    return [
        f"{base.path} is not needed: newer bases have what it has of this build"
        for base in bases.bundles
        if base.version not in used
    ]


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
            fix="name a bundle as `bundle build` made it, or a receipt as `bundle receipt` did",
        ) from error
    return Base(
        path,
        parsed.version,
        parsed.serial,
        parsed.release_sha256,
        parsed.data["architecture"],
        parsed.data["image_source"],
        # A site that took a delta has what that one left out, too.
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
        fix=fix or "name another base, or build a full bundle: leave --since out",
    )

"""Frees a jump host's disk: removes releases and blobs that no kept release needs.

It keeps the newest accepted releases, at least two; `current` with its previous release; and those
that the operator names. Acceptance records stay, because they block old bundles.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.core.files import fsync_directory, remove
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, versions
from bundle.format.manifest import Manifest
from bundle.jumphost import installed, readers
from bundle.jumphost.store import REPLACED, Acceptance, Home

#: The active release and its rollback target.
MINIMUM = 2
_GOING = ".pruned-"


@dataclass(frozen=True)
class Plan:
    """What is kept and what is removed."""

    kept: tuple[Acceptance, ...]
    # Releases to remove.
    releases: tuple[Acceptance, ...]
    # Of an interrupted prune or import.
    leftovers: tuple[Path, ...]
    blobs: tuple[Path, ...]
    # Below releases/, but never accepted: kept.
    unknown: tuple[Path, ...]
    # Bytes on the disk; removing a file that a kept release shares frees nothing.
    freed: int


def plan(home: Home, *, keep: int = MINIMUM, also: Sequence[str] = ()) -> Plan:
    """Return what may be removed; refuse if the needs of a kept release are unknown."""
    records = home.accepted_releases()
    kept = _kept(home, records, max(keep, MINIMUM), also)
    needed = {
        member.sha256
        for record in kept
        for member in _manifest_of(home, record).contents
        if member.is_blob
    }
    stay = {record.version for record in kept}
    gone = [r for r in records if r.version not in stay and home.release(r.version).is_dir()]
    known = {record.version for record in records}
    others = [path for path in sorted(home.releases.iterdir()) if path.name not in known]
    leftovers = [path for path in others if _left(home, path)]
    # Nothing in it is trusted yet, and while prune has the lock no import needs it.
    unfinished = sorted(home.incoming.iterdir()) if home.incoming.is_dir() else []
    blobs = [path for path in sorted(home.blobs.iterdir()) if path.name not in needed]
    folders = [*(home.release(record.version) for record in gone), *leftovers, *unfinished]
    return Plan(
        kept=tuple(kept),
        releases=tuple(gone),
        leftovers=(*leftovers, *unfinished),
        blobs=tuple(blobs),
        unknown=tuple(path for path in others if path not in leftovers),
        freed=_freed(folders, blobs),
    )


def apply(home: Home, *, keep: int = MINIMUM, also: Sequence[str] = ()) -> Plan:
    """Remove what `plan` returns. After an interruption the store is valid and this continues.

    A release is renamed before its files are removed, so that no release is ever incomplete. Blobs
    are removed last, when no release needs them any more. This is refused while hosts are served
    from the store.
    """
    with home.lock(), readers.nobody(home.store):
        found = plan(home, keep=keep, also=also)
        going = list(found.leftovers)
        for record in found.releases:
            away = home.releases / f"{_GOING}{record.version}"
            if away.exists():
                shutil.rmtree(away)
                going.remove(away)
            home.release(record.version).rename(away)
            going.append(away)
        fsync_directory(home.releases)
        for path in going:
            remove(path)
        for blob in found.blobs:
            blob.unlink()
        fsync_directory(home.blobs)
        return found


def _left(home: Home, path: Path) -> bool:
    """Return whether an interrupted run left it.

    A replaced release counts only if its replacement exists, because it may be the only copy.
    """
    name = path.name
    return name.startswith(_GOING) or (
        name.startswith(REPLACED) and home.release(name.removeprefix(REPLACED)).is_dir()
    )


def _kept(
    home: Home, records: Sequence[Acceptance], keep: int, also: Sequence[str]
) -> list[Acceptance]:
    current = _current(home)
    versions = {record.version for record in records}
    if not records or current not in versions:
        raise AirliftError(
            Kind.HOME,
            f"{home.current} names no release that was accepted here",
            where=str(home.root),
            fix="finish the import of the newest bundle, or name Airlift's directory with --home",
        )
    # Others were pruned, or their import never finished. That of the newest must be finished first.
    newest = records[-1].version
    here = [
        r for r in records if r.version in {newest, current} or home.release(r.version).exists()
    ]
    _check_named(also, versions, {record.version for record in here})
    place = next(i for i, record in enumerate(here) if record.version == current)
    wanted = {*also, *(r.version for r in here[-keep:])}
    wanted |= {r.version for r in here[max(place - 1, 0) : place + 1]}
    return [record for record in here if record.version in wanted]


def _check_named(also: Sequence[str], accepted: set[str], here: set[str]) -> None:
    for version in also:
        if version not in here:
            pruned = version in accepted
            raise AirliftError(
                Kind.USAGE,
                f"release {version} was {'pruned' if pruned else 'never accepted'} here",
                where="--keep-release",
                fix=f"name one of: {', '.join(sorted(here, key=versions.order))}",
            )


def _current(home: Home) -> str:
    try:
        return home.current.readlink().name
    except OSError:
        return ""


def _manifest_of(home: Home, record: Acceptance) -> Manifest:
    """Return the manifest of a kept release; without it, no blob may be removed."""
    folder = home.release(record.version)
    try:
        parsed = manifest.parse(installed.read(folder)[0])
    except AirliftError as error:
        what = f"the blobs that release {record.version} needs are unknown: {error.what}"
        raise _unclear(home, record, what) from error
    if parsed.release_sha256 != record.release_sha256:
        what = f"the manifest of {record.version} is not the one that was accepted"
        raise _unclear(home, record, what)
    return parsed


def _unclear(home: Home, record: Acceptance, what: str) -> AirliftError:
    newest = record == home.accepted_releases()[-1]
    return AirliftError(
        Kind.RELEASE_ALTERED,
        f"nothing was pruned: {what}",
        where=str(home.release(record.version)),
        fix=f"import the bundle of release {record.version} again: its import may be unfinished"
        if newest
        else "restore this directory from a backup; or prune after a newer release was imported, "
        f"when {record.version} is no longer kept",
    )


def _freed(folders: Iterable[Path], blobs: Iterable[Path]) -> int:
    """Return the bytes of disk blocks; a file with several names counts if all are removed."""
    seen: Counter[tuple[int, int]] = Counter()
    total = 0
    for path in (*blobs, *(path for folder in folders for path in _walk(folder))):
        status = path.lstat()
        inode = status.st_dev, status.st_ino
        seen[inode] += 1
        if (path.is_dir() and not path.is_symlink()) or seen[inode] == status.st_nlink:
            total += status.st_blocks * 512
    return total


def _walk(folder: Path) -> Iterable[Path]:
    yield folder
    for base, folders, files in os.walk(folder):
        yield from (Path(base, name) for name in (*folders, *files))

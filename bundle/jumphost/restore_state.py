"""Restore a saved state on a jump host: all checks first, then each part in one step.

The trust of this jump host only grows stricter, records are only added, and a site's folder appears
as a whole. Killed at any step, the same command finishes the work. A living state is replaced only
if the operator says so, and then it is kept beside the new one.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bundle.core.failures import os_failure
from bundle.core.files import (
    create,
    exchange,
    fsync_directory,
    read_file,
    remove,
    sync_filesystem,
    write_atomic,
)
from bundle.errors import AirliftError, Kind
from bundle.jumphost import kept_trust, saved_state
from bundle.jumphost.owners import Owners
from bundle.jumphost.saved_state import (
    ACCEPTED,
    CUSTODY,
    LARGEST,
    OWN,
    REPLACED,
    RESTORING,
    SITES,
    TRUST,
    Item,
    State,
)
from bundle.jumphost.store import Home, now
from bundle.trust import allowed_signers

Items = Mapping[str, Item]
#: As many differences of a site are named.
_NAMED = 3


class Restored(NamedTuple):
    """What was done, as (part, outcome); and where replaced parts are kept."""

    parts: list[tuple[str, str]]
    kept: list[Path]
    #: Owners that this user could not give back, or that do not exist here.
    owners: list[str]


class _Place(NamedTuple):
    """A directory that comes to its place in one step."""

    name: str
    target: Path
    items: Items


def restore(home: Home, state: State, *, replace: bool) -> Restored:
    """Bring a saved state into this jump host.

    Raises:
        AirliftError: it differs from a living state here, and `replace` is not set.
    """
    home.create()
    with home.lock(), _unpacked(home, state) as other:
        trust = _trust_differs(home, other)
        _check_history(home, other)
        logs, torn = _logs(home, state)
        places, living = _places(home, state)
        if (found := [*trust, *torn, *living]) and not replace:
            raise _refused(home, found)
        owners = Owners(home.root)
        kept_trust.take_in(home, other.trust)
        added = [record for record in other.acceptances() if _is_new(home, record.manifest_sha256)]
        for record in added:
            home.accept(record)
        for path, item in logs.items():
            write_atomic(path, item.data, mode=item.mode)
        owners.like_their_folders((home.trust, home.accepted), logs)
        kept = list(_sweep(home, state))
        kept += [old for place in places if (old := _put(place, owners)) is not None]
        parts = [("trust", "replaced" if trust else "as strict as both")]
        parts.append(("accepted", f"{len(added)} of {len(other.acceptances())} records added"))
        parts += [("custody log", path.name) for path in logs]
        put = {place.target for place in places}
        for whole, own in _all_places(home, state):
            done = "restored" if whole.target in put else "was here already"
            parts.append((whole.name, f"{OWN} restored" if own.target in put else done))
        return Restored(parts, kept, owners.missed)


@contextmanager
def _unpacked(home: Home, state: State) -> Iterator[Home]:
    """Yield the lists and records of a state as a directory of their own."""
    folder = home.root / RESTORING
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
        other = Home(folder)
        other.accepted.mkdir(parents=True)
        for top, place in ((TRUST, other.trust), (ACCEPTED, other.accepted)):
            place.mkdir(exist_ok=True)
            for path, item in state.below(top).items():
                if path and item.kind == tarfile.DIRTYPE:
                    (place / path).mkdir()
                elif path:
                    (place / path).write_bytes(item.data)
        yield other
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trust_differs(home: Home, other: Home) -> list[str]:
    """Check every list that will be kept; return the list of signers if it is not the saved one."""
    for path in kept_trust.revocations(other):
        allowed_signers.load_revoked(path)
    kept_trust.required_signers(other)
    mine, new = home.trust / "allowed_signers", other.trust / "allowed_signers"
    if not new.exists():
        return []
    saved = allowed_signers.load(new).raw
    differs = mine.exists() and allowed_signers.load(mine).raw != saved
    return ["the list of allowed signers"] if differs else []


def _check_history(home: Home, other: Home) -> None:
    """Refuse records of other releases with the same number or name: one of both is forged."""
    mine = home.acceptances()
    for new in other.acceptances():
        for old in mine:
            same = new.serial == old.serial or new.version == old.version
            if same and new.release_sha256 != old.release_sha256:
                raise AirliftError(
                    Kind.CONFLICT,
                    f"release {new.version} (serial {new.serial}) of the saved state contradicts "
                    f"release {old.version} (serial {old.serial}), which was accepted here with "
                    "other content",
                    where=f"accepted on {old.accepted}, {home.accepted}",
                    fix="find out which of both is the vendor's; nothing was restored",
                )


def _is_new(home: Home, manifest_sha256: str) -> bool:
    return home.acceptance_of(manifest_sha256) is None


def _logs(home: Home, state: State) -> tuple[dict[Path, Item], list[str]]:
    """Return the custody logs to write, and those that continue differently here."""
    write, differ = dict[Path, Item](), list[str]()
    for name, item in state.below(CUSTODY).items():
        path = home.root / name
        mine = read_file(path, LARGEST) if path.exists() else b""
        if not mine.startswith(item.data):
            write[path] = item
            if not item.data.startswith(mine):
                differ.append(f"the custody log {name}")
    return write, differ


def _places(home: Home, state: State) -> tuple[list[_Place], list[str]]:
    """Return what must come to its place, and which of it would replace something living."""
    places, living = list[_Place](), list[str]()
    for whole, own in _all_places(home, state):
        if not whole.target.exists() or not any(whole.target.iterdir()):
            places.append(whole)
            continue
        found = _read_here(whole.target)
        differ = [
            path for path, item in whole.items.items() if path and _differs(found, path, item)
        ]
        living_own = [path for path, item in found.items() if _is_own(path) and _is_file(item)]
        differ += [path for path in living_own if path not in whole.items and own.items]
        names = sorted(differ, key=lambda path: (not _is_own(path), path))
        said = f"{whole.name} ({', '.join(names[:_NAMED])})"
        if not all(map(_is_own, differ)):
            places.append(whole)
            living.append(said)
        elif differ:
            places.append(own)
            living += [said] if living_own else []
    return places, living


def _all_places(home: Home, state: State) -> Iterator[tuple[_Place, _Place]]:
    """Yield each site's folder, and in it the part that Airlift keeps."""
    for name in state.sites:
        items, folder = state.below(f"{SITES}/{name}"), home.sites / name
        own = {path[len(OWN) + 1 :]: item for path, item in items.items() if _is_own(path)}
        yield _Place(f"site {name}", folder, items), _Place(OWN, folder.resolve() / OWN, own)


def _is_own(path: str) -> bool:
    return path == OWN or path.startswith(f"{OWN}/")


def _differs(found: Items, path: str, item: Item) -> bool:
    return path not in found or found[path].content != item.content


def _is_file(item: Item) -> bool:
    return item.kind != tarfile.DIRTYPE


def _read_here(top: Path) -> dict[str, Item]:
    """Return what a directory of this jump host has; reports do not count."""
    top = top.resolve()
    names = {path.relative_to(top).as_posix(): path for path in saved_state.walk(top)}
    return {name: saved_state.read_item(name, path) for name, path in names.items()}


def _refused(home: Home, found: list[str]) -> AirliftError:
    return AirliftError(
        Kind.STATE,
        f"nothing was restored: this jump host differs from the saved state: {'; '.join(found)}",
        where=str(home.root),
        fix="compare both (`state show`); to put the saved state in the place of what is here, add "
        f"--replace: replaced folders are kept in {home.sites / REPLACED}",
    )


def _sweep(home: Home, state: State) -> Iterator[Path]:
    """Clean up what a killed restore left; yield where a living state is kept that was in it."""
    for places in _all_places(home, state):
        for place in places:
            base = place.target.parent / RESTORING
            part, whole = base / f"{place.target.name}.part", base / place.target.name
            if part.exists():
                shutil.rmtree(part)
            if os.path.lexists(whole) and (kept := _keep(place, whole)) is not None:
                yield kept
            if base.is_dir() and not any(base.iterdir()):
                base.rmdir()


def _put(place: _Place, owners: Owners) -> Path | None:
    """Bring a directory to its place; return where a living one that was there is kept."""
    target, kept = place.target, None
    base = target.parent / RESTORING
    part, whole = base / f"{target.name}.part", base / target.name
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(part, place.items, owners)
    sync_filesystem(part)
    part.rename(whole)
    if not os.path.lexists(target):
        whole.rename(target)
        fsync_directory(target.parent)
    else:
        try:
            exchange(whole, target)
        except OSError as error:
            failure = os_failure(error, target, Kind.STATE, does="exchange")
            failure.fix = f"mv {target} {target}.before, then run the same command again"
            raise failure from error
        kept = _keep(place, whole)
    base.rmdir()
    return kept


def _keep(place: _Place, left: Path) -> Path | None:
    """Keep a living directory; remove one that the saved state still has, or that has nothing."""
    found = {} if left.is_symlink() else _read_here(left)
    files = {path: item for path, item in found.items() if _is_file(item)}
    if not left.is_symlink() and not any(_differs(place.items, *one) for one in files.items()):
        remove(left)
        return None
    folder = left.parent.parent / REPLACED
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = now().replace("-", "").replace(":", "")
    target = folder / f"{left.name.lstrip('.')}-{stamp}-{os.urandom(2).hex()}"
    left.rename(target)
    fsync_directory(folder)
    return target


def _write(top: Path, items: Items, owners: Owners) -> None:
    """Write a directory that nobody else can enter until it is complete."""
    top.mkdir(mode=0o700)
    for path, item in items.items():
        place = top / path
        if item.kind == tarfile.SYMTYPE:
            place.symlink_to(item.link)
        elif item.kind == tarfile.DIRTYPE:
            place.mkdir(mode=0o700, exist_ok=True)
        else:
            with create(place, 0o600) as stream:
                stream.write(item.data)
    # The deepest first: a directory may allow its owner no change.
    for path, item in sorted(items.items(), reverse=True):
        owners.give(top / path, item)

"""Checks an imported release again: still signed, still what was accepted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from bundle import manifest, sshsig
from bundle.errors import AirliftError, Kind
from bundle.manifest import Manifest, Member
from bundle.sshsig import Trust, Verdict
from bundle.store import Acceptance, Home
from bundle.verify import BUFFER, Progress, authenticate


def read(folder: Path) -> tuple[bytes, list[bytes]]:
    """The manifest and its signatures as they were imported."""
    try:
        raw = (folder / manifest.MANIFEST).read_bytes()
        signatures = [(folder / manifest.SIGNATURE).read_bytes()]
    except OSError as error:
        raise AirliftError(
            Kind.UNREADABLE,
            f"this directory is not an imported release: {error.strerror}",
            where=str(error.filename or folder),
            fix="name a bundle file, or a directory below /opt/airlift/releases",
        ) from error
    while len(signatures) < sshsig.MAX_SIGNATURES:
        path = folder / f"{manifest.SIGNATURE}.{len(signatures) + 1}"
        if not path.is_file():
            break
        signatures.append(path.read_bytes())
    return raw, signatures


def check(
    folder: Path, *, trust: Trust, home: Home, progress: Progress | None = None
) -> tuple[Manifest, Verdict, Acceptance | None]:
    """Compare every file of a release, and every blob it needs, with its signed manifest."""
    raw, signatures = read(folder)
    accepted, verdict = authenticate(raw, signatures, trust, home)
    parsed = manifest.parse(raw)
    if unlisted := next(_unlisted(folder, parsed, len(signatures)), None):
        _altered(unlisted, "is not part of the release")

    def compare(member: Member) -> None:
        _compare(place(home, folder, member), member, progress)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 4)) as pool:
        for _ in pool.map(compare, parsed.members):
            pass
    return parsed, verdict, accepted


def place(home: Home, folder: Path, member: Member) -> Path:
    """Where a member lies after import."""
    return home.blob(member.sha256) if member.is_blob else folder / member.release_path


def is_complete(home: Home, folder: Path, raw: bytes, parsed: Manifest) -> bool:
    """Whether everything is there in full length: quick, without reading contents."""
    try:
        if (folder / manifest.MANIFEST).read_bytes() != raw:
            return False
        return all(
            place(home, folder, member).stat().st_size == member.size for member in parsed.members
        )
    except OSError:
        return False


def _unlisted(folder: Path, parsed: Manifest, signatures: int) -> Iterator[Path]:
    known = {member.release_path for member in parsed.members if not member.is_blob}
    known |= {manifest.MANIFEST, manifest.SIGNATURE}
    known |= {f"{manifest.SIGNATURE}.{number}" for number in range(2, signatures + 1)}
    for root, folders, files in os.walk(folder):
        base = Path(root)
        if base == folder:
            # Made here, not carried.
            folders[:] = [name for name in folders if name != "venv"]
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        names = [*files, *(name for name in folders if (base / name).is_symlink())]
        for name in sorted(names):
            if (base / name).relative_to(folder).as_posix() not in known:
                yield base / name


def _compare(path: Path, member: Member, progress: Progress | None) -> None:
    digest = hashlib.sha256()
    try:
        if path.is_symlink():
            _altered(path, "is a symbolic link")
        with path.open("rb") as stream:
            while data := stream.read(BUFFER):
                digest.update(data)
                if progress is not None:
                    progress(len(data))
    except OSError as error:
        _altered(path, f"cannot be read ({error.strerror})")
    if digest.hexdigest() != member.sha256:
        _altered(path, "was altered: its SHA-256 is not the one that was signed")


def _altered(path: Path, what: str) -> NoReturn:
    raise AirliftError(
        Kind.RELEASE_ALTERED,
        f"{path.name} {what}",
        where=str(path),
        fix="find out who changed it; remove it and import the same bundle again to restore",
    )

"""Checks an imported release again: its signatures, and that its files were not altered."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from bundle.core.events import Progress
from bundle.core.files import is_file_of, open_regular, read_file
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, tar
from bundle.format.manifest import Manifest, Member
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust, Verdict
from bundle.verify.checks import BUFFER, Accepted, authenticate

RESTORE = "import the same bundle again to restore"


def read(folder: Path) -> tuple[bytes, list[bytes]]:
    """Return the manifest and its signatures as they were imported."""
    try:
        raw = read_file(folder / manifest.MANIFEST, manifest.MAX_BYTES)
        signatures = [read_file(folder / manifest.SIGNATURE, tar.MAX_SIGNATURE)]
    except OSError as error:
        raise AirliftError(
            Kind.UNREADABLE,
            f"this directory is not an imported release: {error.strerror}",
            where=str(error.filename or folder),
            fix="name a bundle file, or a directory below /opt/airlift/releases",
        ) from error
    while len(signatures) < sshsig.MAX_SIGNATURES:
        path = folder / manifest.signature_name(len(signatures) + 1)
        if not os.path.lexists(path):
            break
        try:
            signatures.append(read_file(path, tar.MAX_SIGNATURE))
        except OSError as error:
            _altered(path, f"cannot be read ({error.strerror})", RESTORE)
    return raw, signatures


class Known(NamedTuple):
    """An imported release whose manifest was read, and authenticated if it has a verdict."""

    folder: Path
    manifest: Manifest
    raw_manifest: bytes
    signatures: tuple[bytes, ...]
    verdict: Verdict | None


def known(folder: Path, *, trust: Trust | None, home: Home) -> Known:
    """Read and authenticate a release's manifest; its files are not read yet."""
    raw, signatures = read(folder)
    verdict = authenticate(raw, signatures, trust, home)[1] if trust else None
    return Known(folder, manifest.parse(raw), raw, tuple(signatures), verdict)


def file_of(release: Known, home: Home, member: Member) -> Path:
    """Return the path of a member, after its hash was compared."""
    path = place(home, release.folder, member)
    compare([(path, member)], progress=None)
    return path


def check(
    folder: Path, *, trust: Trust, home: Home, progress: Progress | None = None
) -> tuple[Manifest, Verdict, Accepted | None]:
    """Compare every file of a release, and every blob it needs, with its signed manifest.

    This includes the members that a delta omitted.
    """
    raw, signatures = read(folder)
    accepted, verdict = authenticate(raw, signatures, trust, home)
    parsed = manifest.parse(raw)
    place_of_it = folder.resolve()
    if place_of_it.parent == home.releases.resolve() and place_of_it.name != parsed.version:
        _altered(folder, f"holds release {parsed.version}", RESTORE)
    if unlisted := next(_unlisted(folder, parsed, len(signatures)), None):
        _altered(unlisted, "is not part of the release", RESTORE)
    places = [(place(home, folder, member), member) for member in parsed.members]
    compare(places, progress=progress)
    places = [(place(home, folder, member), member) for member in parsed.left_out]
    compare(places, progress=progress, restore=f"import {parsed.full_name}, which has everything")
    return parsed, verdict, accepted


def compare(
    files: Iterable[tuple[Path, Member]],
    *,
    progress: Progress | None,
    restore: str = RESTORE,
) -> None:
    """Hash files, several at a time; refuse the first that is not what was signed."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to load

    def each(file: tuple[Path, Member]) -> None:
        _compare(*file, progress, restore)

    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 4)) as pool:
        for _ in pool.map(each, files):
            pass


def place(home: Home, folder: Path, member: Member) -> Path:
    """Return the path of a member after import."""
    return home.blob(member.sha256) if member.is_blob else folder / member.release_path


def is_complete(home: Home, folder: Path, raw: bytes, parsed: Manifest) -> bool:
    """Return whether every file exists in full length; quick, because contents are not read."""
    try:
        if read_file(folder / manifest.MANIFEST, manifest.MAX_BYTES) != raw:
            return False
        return all(
            is_file_of(place(home, folder, member), member.size) for member in parsed.contents
        )
    except OSError:
        return False


def is_whole(home: Home, folder: Path, raw: bytes, parsed: Manifest) -> bool:
    """Return whether the directory has what was signed and nothing else; blobs are ignored."""
    try:
        found, signatures = read(folder)
        files = [(place(home, folder, m), m) for m in parsed.contents if not m.is_blob]
        compare(files, progress=None)
    except AirliftError:
        return False
    return found == raw and next(_unlisted(folder, parsed, len(signatures)), None) is None


def _unlisted(folder: Path, parsed: Manifest, signatures: int) -> Iterator[Path]:
    known = {member.release_path for member in parsed.contents if not member.is_blob}
    known |= {manifest.MANIFEST, manifest.SIGNATURE}
    known |= {manifest.signature_name(number) for number in range(2, signatures + 1)}
    for root, folders, files in os.walk(folder):
        base = Path(root)
        if base == folder:
            # Made on the jump host, so the manifest does not list it.
            folders[:] = [name for name in folders if name != "venv"]
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        names = [*files, *(name for name in folders if (base / name).is_symlink())]
        for name in sorted(names):
            if (base / name).relative_to(folder).as_posix() not in known:
                yield base / name


def _compare(path: Path, member: Member, progress: Progress | None, restore: str) -> None:
    digest = hashlib.sha256()
    try:
        with open_regular(path, member.size) as stream:
            while data := stream.read(BUFFER):
                digest.update(data)
                if progress is not None:
                    progress(len(data))
    except OSError as error:
        if error.errno == errno.ELOOP:
            _altered(path, "is a symbolic link", restore)
        if error.errno == errno.EFBIG:
            _altered(path, "was altered: it is longer than what was signed", restore)
        _altered(path, f"cannot be read ({error.strerror})", restore)
    if digest.hexdigest() != member.sha256:
        _altered(path, "was altered: its SHA-256 is not the one that was signed", restore)


def _altered(path: Path, what: str, restore: str) -> NoReturn:
    raise AirliftError(
        Kind.RELEASE_ALTERED,
        f"{path.name} {what}",
        where=str(path),
        fix=f"find out who changed it; remove it and {restore}",
    )

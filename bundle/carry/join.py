"""Joins the parts of a bundle, which are not changed; continues an interrupted join."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundle.core.events import Log, Progress
from bundle.core.files import fsync_directory, open_own, read_file
from bundle.core.output import check_space, flush, writes_to
from bundle.errors import AirliftError, Kind
from bundle.format import tar
from bundle.format.parts import (
    BAD,
    SUFFIX,
    Index,
    Piece,
    bad_parts,
    index_of,
    pieces,
    read_index,
    sha256_of,
    signature_of,
    wrong_size,
)
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust, Verdict


@dataclass(frozen=True)
class Joined:
    """The bundle that `join` made, and how many parts an earlier run had joined."""

    path: Path
    index: Index
    kept_parts: int
    verdict: Verdict | None


def join(
    paths: Sequence[Path], *, out: Path, trust: Trust | None, log: Log, progress: Progress
) -> Joined:
    """Make the bundle from its parts, which may be in several directories.

    Every missing or bad part is named. `NAME.partial` keeps what was joined, so that the next run
    reads only the other parts from the drive.
    """
    place, folders = _find(paths)
    index = read_index(place)
    verdict = _check_signature(place, index, trust, log)
    target = out / index.bundle.name
    with writes_to(out):
        out.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _check_existing(target, index)
            return Joined(target, index, len(index.parts), verdict)
        with _Partial.opened(target.with_name(f"{target.name}.partial"), index) as partial:
            kept = partial.resume(progress)
            if kept:
                log(f"reading {len(index.parts) - kept} parts: {kept} were joined before")
            check_space(index.bundle.size - partial.size, out, "joining")
            problems = {}
            for number, part in enumerate(index.parts[kept:], kept + 1):
                problem = _take(partial, part, folders, progress)
                if problem:
                    problems[number] = problem
            if problems:
                raise bad_parts(index, place.parent, problems)
            partial.finish(target, place)
    return Joined(target, index, kept, verdict)


class _Partial:
    """The beginning of the bundle: complete parts, each of them checked."""

    def __init__(self, path: Path, index: Index, stream: BinaryIO) -> None:
        self._path = path
        self._index = index
        self._stream = stream
        self._whole = hashlib.sha256()
        self._broken = False
        self.size = 0

    @classmethod
    @contextmanager
    def opened(cls, path: Path, index: Index) -> Iterator[_Partial]:
        """Open or make the file, for one process only; remove it if it stays empty."""
        with open_own(path) as stream:
            fd = stream.fileno()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, another join may have renamed it.
                mine = path.exists() and os.path.samestat(path.stat(), os.fstat(fd))
            except BlockingIOError:
                mine = False
            if not mine:
                raise AirliftError(
                    Kind.LOCKED,
                    "another join of this bundle is in progress",
                    where=str(path),
                    fix="wait for it and run this command again",
                )
            partial = cls(path, index, stream)
            try:
                yield partial
            finally:
                if os.fstat(fd).st_size == 0:
                    path.unlink(missing_ok=True)

    def resume(self, progress: Progress) -> int:
        """Hash what an earlier run joined; remove what is not a complete, valid part."""
        kept = 0
        with tar.Source(self._path) as source:
            for part in self._index.parts:
                if self.size + part.size > source.size:
                    break
                whole, good = self._hashed(source, self.size, part, progress)
                if not good:
                    break
                self._whole = whole
                self.size += part.size
                kept += 1
        self.back()
        return kept

    def take(self, part: Piece, place: Path, progress: Progress) -> str:
        """Append a part; return its problem, or ''."""
        if not place.exists():
            return "is missing"
        with tar.Source(place) as source:
            if source.size != part.size:
                return wrong_size(source, part)
            keep = None if self._broken else self._stream
            whole, good = self._hashed(source, 0, part, progress, keep)
        if not good:
            self.back()
            return BAD
        if not self._broken:
            flush(self._stream)
            self._whole = whole
            self.size += part.size
        return ""

    def back(self) -> None:
        """Remove what follows the last complete, valid part."""
        self._stream.truncate(self.size)
        self._stream.seek(self.size)

    def stop_joining(self) -> None:
        """Only check further parts, after one is missing or bad."""
        self._broken = True

    def finish(self, target: Path, place: Path) -> None:
        """Give the bundle its name, if its hash is right."""
        if self._whole.hexdigest() != self._index.bundle.sha256:
            raise AirliftError(
                Kind.PART,
                "each part fits the index, but the joined bundle does not",
                where=str(place),
                fix="copy the index again; if it fails again, have the bundle split again",
            )
        self._path.replace(target)
        fsync_directory(target.parent)

    def _hashed(
        self,
        source: tar.Source,
        start: int,
        part: Piece,
        progress: Progress,
        out: BinaryIO | None = None,
    ) -> tuple[hashlib._Hash, bool]:
        """Return the bundle's hash up to this part, and whether the part fits the index."""
        whole, alone = self._whole.copy(), hashlib.sha256()
        for piece in pieces(source, start, part.size):
            whole.update(piece)
            alone.update(piece)
            progress(len(piece))
            if out is not None:
                _write_all(out, piece)
        return whole, alone.hexdigest() == part.sha256


def _write_all(out: BinaryIO, piece: memoryview) -> None:
    while piece:
        piece = piece[out.write(piece) :]


def _find(paths: Sequence[Path]) -> tuple[Path, list[Path]]:
    """Return the index of the named paths, and the directories that may have parts."""
    indexes = {}
    for path in paths:
        index = index_of(path)
        if index is None:
            raise AirliftError(
                Kind.USAGE,
                f"{path.name} is neither a part nor an index of parts",
                where=str(path),
                fix=f"name the index airlift-VERSION-amd64.tar{SUFFIX}, or the parts",
            )
        indexes[index] = index.name
    if len(set(indexes.values())) > 1:
        raise AirliftError(
            Kind.USAGE,
            "these are parts of different bundles",
            where=", ".join(sorted(set(indexes.values()))),
            fix="name the parts of one bundle",
        )
    found = next((index for index in indexes if index.exists()), next(iter(indexes)))
    return found, [index.parent for index in indexes]


def _take(partial: _Partial, part: Piece, folders: Sequence[Path], progress: Progress) -> str:
    """Append a part from the first directory with a valid copy; return the problem, or ''."""
    places = [folder / part.name for folder in folders]
    places = [place for place in places if place.exists()] or places[:1]
    problems = []
    for place in places:
        try:
            problem = partial.take(part, place, progress)
        except AirliftError as error:
            if error.kind is not Kind.UNREADABLE or place == places[-1]:
                raise
            # A drive failed in the middle of a part, but another drive has the part as well.
            partial.back()
            problem = error.what
        if not problem:
            return ""
        problems.append(problem)
    partial.stop_joining()
    return problems[0]


def _check_signature(place: Path, index: Index, trust: Trust | None, log: Log) -> Verdict | None:
    """Return who signed the index; None if it is not signed, or there is no trust."""
    signature = signature_of(place)
    if not signature.exists():
        log("note: the index is not signed; `import` checks the bundle's own signature")
        return None
    if trust is None:
        log("note: the index's signature is not checked; to check it: --allowed-signers FILE")
        return None
    # One is enough here: the number that a site requires is checked for the manifest.
    trust = trust._replace(required=1)
    try:
        raw = read_file(signature, tar.MAX_SIGNATURE)
    except OSError as error:
        raise AirliftError(
            Kind.UNSIGNED,
            f"cannot read the signature of the index: {error.strerror}",
            where=str(signature),
            fix=f"copy {signature.name} again",
        ) from error
    return sshsig.verify(index.encode(), [(signature.name, raw)], trust)


def _check_existing(target: Path, index: Index) -> None:
    with tar.Source(target) as source:
        if source.size == index.bundle.size and sha256_of(source) == index.bundle.sha256:
            return
    raise AirliftError(
        Kind.OUTPUT,
        f"{target.name} exists already and differs from the joined parts",
        where=str(target),
        fix="move it away, or name another -o DIR",
    )

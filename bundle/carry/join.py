"""Joins the parts of a bundle. They are only read; an interrupted join is continued."""

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
    """What `join` made, and how much of it an earlier run had made."""

    path: Path
    index: Index
    kept_parts: int
    verdict: Verdict | None


def join(
    paths: Sequence[Path], *, out: Path, trust: Trust | None, log: Log, progress: Progress
) -> Joined:
    """Make the bundle from its parts, which may lie in several directories.

    Every part that is missing or bad is named. What was joined stays in `NAME.partial`, so that
    the next run reads from the stick only what is not joined yet.
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
                log(f"{kept} of {len(index.parts)} parts were joined before: only the rest is read")
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
    """The beginning of the bundle: whole parts, each of which was good."""

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
        """Open or make the file, for one process only; an empty one does not stay."""
        with open_own(path) as stream:
            fd = stream.fileno()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, another join may have given it its final name.
                mine = path.exists() and os.path.samestat(path.stat(), os.fstat(fd))
            except BlockingIOError:
                mine = False
            if not mine:
                raise AirliftError(
                    Kind.LOCKED,
                    "another join of this bundle is running",
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
        """Hash what an earlier run joined; cut off what is not a whole good part."""
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
        """Append a part; what is wrong with it, if anything is."""
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
        """Cut off what is not a whole good part."""
        self._stream.truncate(self.size)
        self._stream.seek(self.size)

    def give_up(self) -> None:
        """A part is not to be had: the others are only looked at."""
        self._broken = True

    def finish(self, target: Path, place: Path) -> None:
        """Give it its name."""
        if self._whole.hexdigest() != self._index.bundle.sha256:
            raise AirliftError(
                Kind.PART,
                "each part is as the index says, but not the bundle that they make",
                where=str(place),
                fix="copy the index again; if it stays so, ask whoever split the bundle",
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
        """The whole's hash with this part, and whether the part is what the index says."""
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
    """The index that the paths mean, and the directories in which parts may lie."""
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
    """Append a part from the first place where it is good; what is wrong with it, if none is."""
    places = [folder / part.name for folder in folders]
    places = [place for place in places if place.exists()] or places[:1]
    problems = []
    for place in places:
        try:
            problem = partial.take(part, place, progress)
        except AirliftError as error:
            if error.kind is not Kind.UNREADABLE or place == places[-1]:
                raise
            # A stick that fails in the middle of a part; another one has it, too.
            partial.back()
            problem = error.what
        if not problem:
            return ""
        problems.append(problem)
    partial.give_up()
    return problems[0]


def _check_signature(place: Path, index: Index, trust: Trust | None, log: Log) -> Verdict | None:
    """Who signed the index, if it is signed and somebody is trusted."""
    signature = signature_of(place)
    if not signature.exists():
        log("note: the index is not signed; the bundle is, and `import` checks that")
        return None
    if trust is None:
        log("note: the index's signature was not checked: name the signers, --allowed-signers FILE")
        return None
    # One is enough here: what a site demands of a bundle is asked of its manifest.
    trust = trust._replace(required=1)
    try:
        raw = read_file(signature, tar.MAX_SIGNATURE)
    except OSError as error:
        raise AirliftError(
            Kind.UNSIGNED,
            f"the signature of the index cannot be read: {error.strerror}",
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
        f"{target.name} is there already, and is not what the parts make",
        where=str(target),
        fix="move it away, or name another -o DIR",
    )

"""The order of checks, as `docs/TRUST.md` gives it: nothing is used before it is trusted."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from bundle.core.events import Progress, Searching, unseen
from bundle.errors import COPY_AGAIN, AirliftError, Kind
from bundle.format import manifest, parts, tar
from bundle.format.layer_size import Unpacked
from bundle.format.manifest import Manifest, Member
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust, Verdict

BUFFER = 1 << 20


class Accepted(Protocol):
    """The record of a bundle that this host accepted before."""

    @property
    def serial(self) -> int:
        """Return the release's serial."""

    @property
    def accepted(self) -> str:
        """Return the time of acceptance, in UTC."""

    @property
    def time(self) -> float:
        """Return the time of acceptance in seconds since 1970."""


class History(Protocol):
    """A host's records of the bundles that it accepted."""

    def acceptance_of(self, manifest_sha256: str) -> Accepted | None:
        """Return the record of exactly this manifest."""

    def check_history(self, serial: int, version: str, release_sha256: str) -> None:
        """Refuse a release that is older than, or contradicts, what was accepted."""


class Output(Protocol):
    """A place for a member while it is hashed; used only after all are valid."""

    def write(self, data: memoryview) -> None:
        """Take a piece."""

    def commit(self) -> None:
        """Keep the member: all pieces came and the hash is right."""

    def abort(self) -> None:
        """Discard the pieces."""


Sink = Callable[[Member], Output | None]
#: Whether this host has a member already, complete and hashed, so that it need not be read.
Have = Callable[[Member], bool]


class Opened(NamedTuple):
    """A bundle whose manifest was read, and authenticated if it has a verdict."""

    source: tar.Source
    manifest: Manifest
    raw_manifest: bytes
    signatures: tuple[bytes, ...]
    verdict: Verdict | None
    accepted: Accepted | None
    offsets: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Return the manifest's hash, which identifies the bundle."""
        return hashlib.sha256(self.raw_manifest).hexdigest()


def read_preamble(source: tar.Source) -> tar.Preamble:
    """Read the manifest and its signatures; nothing is trusted yet."""
    return tar.read_preamble(
        source,
        manifest=manifest.MANIFEST,
        signature=manifest.signature_name,
        limit=manifest.MAX_BYTES,
        signatures=sshsig.MAX_SIGNATURES,
        next_member=manifest.VERIFIER,
    )


@contextmanager
def opened(
    path: Path,
    *,
    trust: Trust | None,
    home: History | None,
    to_use: bool = True,
    searching: Searching = unseen,
) -> Iterator[Opened]:
    """Authenticate the manifest and check the archive's structure; members are not read yet.

    Without `trust` no signature is checked: that is enough to inspect a bundle, but not to use it.
    With `to_use`, a release that is older than what was accepted here is refused.
    """
    with parts.open_source(path) as source, _explained(source, searching):
        preamble = read_preamble(source)
        raw = preamble.manifest
        accepted, verdict = None, None
        if trust is not None:
            accepted, verdict = authenticate(raw, preamble.signatures, trust, home)
        parsed = manifest.parse(raw)
        if to_use and trust is not None and home is not None and accepted is None:
            home.check_history(parsed.serial, parsed.version, parsed.release_sha256)
        offsets = tar.locate(source, parsed.members, preamble.end)
        yield Opened(source, parsed, raw, preamble.signatures, verdict, accepted, tuple(offsets))


@contextmanager
def _explained(source: tar.Source, searching: Searching) -> Iterator[None]:
    """Replace an error with one that names the bad part, if the bundle is in parts."""
    try:
        yield
    except AirliftError as error:
        better = source.blame(error, searching)
        if better is error:
            raise
        raise better from error


def authenticate(
    raw: bytes, signatures: Sequence[bytes], trust: Trust, home: History | None
) -> tuple[Accepted | None, Verdict]:
    """Check who signed, with key validity at the time when this host accepted the manifest."""
    accepted = home.acceptance_of(hashlib.sha256(raw).hexdigest()) if home else None
    if accepted is not None:
        trust = trust._replace(at=accepted.time)
    names = [manifest.signature_name(number) for number in range(1, len(signatures) + 1)]
    return accepted, sshsig.verify(raw, list(zip(names, signatures, strict=True)), trust)


def check_members(
    bundle: Opened,
    *,
    only: str | None = None,
    sink: Sink | None = None,
    have: Have | None = None,
    progress: Progress | None = None,
) -> None:
    """Read every member (or `only` one) that the caller does not have, and compare its hash.

    It uses one thread per core, because hashing takes the time and members are independent. The
    largest come first, so that the cores finish together.
    """
    members = zip(bundle.manifest.members, bundle.offsets, strict=True)
    places = [
        _Place(number, member, offset)
        for number, (member, offset) in enumerate(members)
        if only in (None, member.path)
    ]
    _Pool(bundle, sink, have, progress).run(places)


def _layers(found: Manifest) -> dict[str, int]:
    """Map the SHA-256 of each layer to the size limit of the smallest image that has it."""
    most: dict[str, int] = {}
    for component in found.components.values():
        for layer in component["layers"]:
            sha256, limit = layer["digest"].removeprefix("sha256:"), component["unpacked_size"]
            most[sha256] = min(limit, most.get(sha256, limit))
    return most


class _Place(NamedTuple):
    """A member, its number, and where its data begin."""

    number: int
    member: Member
    offset: int

    @property
    def end(self) -> int:
        """Return where they end."""
        return self.offset + self.member.size


# Members in a row that are read at once.
_Run = list[_Place]


def _jobs(places: Sequence[_Place]) -> list[list[_Run]]:
    """Return the jobs of the threads, largest first: one large member, or all small ones.

    For hundreds of small files, system calls and changes of threads cost more than their hashes. So
    one thread reads many of them at once.
    """
    runs: list[_Run] = []
    for place in places:
        if runs and place.end - runs[-1][0].offset <= BUFFER:
            runs[-1].append(place)
        else:
            runs.append([place])
    jobs = [[run] for run in runs if len(run) == 1]
    if small := [run for run in runs if len(run) > 1]:
        jobs.append(small)
    return sorted(jobs, key=lambda job: -sum(run[-1].end - run[0].offset for run in job))


class _Pool:
    """Worker threads over one list of jobs; the first error in archive order is raised."""

    def __init__(
        self,
        bundle: Opened,
        sink: Sink | None,
        have: Have | None,
        progress: Progress | None,
    ) -> None:
        self._source = bundle.source
        self._layers = _layers(bundle.manifest)
        self._sink = sink
        self._have = have
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: list[tuple[int, BaseException]] = []
        # Checked members by number: a thread that dies reports nothing.
        self._good: dict[int, int] = {}

    def run(self, places: Sequence[_Place]) -> None:
        """Check all members; fail if one was not checked to its end."""
        count = min(len(os.sched_getaffinity(0)), 4)
        left = iter(_jobs(places))
        started: list[threading.Thread] = []
        try:
            for _ in range(count):
                thread = threading.Thread(target=self._work, args=(left,), daemon=True)
                if not self._start(thread, places, alone=not started):
                    break
                started.append(thread)
            for thread in started:
                thread.join()
        except BaseException:
            self._stop.set()
            raise
        if self._errors:
            first = min(self._errors, key=lambda item: item[0])[1]
            if isinstance(first, AirliftError | KeyboardInterrupt | OSError):
                raise first
            raise self._cut_off(places, str(first) or type(first).__name__) from first
        if self._good != {place.number: place.member.size for place in places}:
            raise self._cut_off(places, "a thread ended before its work")

    def _start(self, thread: threading.Thread, places: Sequence[_Place], *, alone: bool) -> bool:
        """Start a thread; if it cannot start, the others do its work."""
        try:
            thread.start()
        except RuntimeError as error:
            if alone:
                raise self._cut_off(places, str(error)) from error
            return False
        return True

    def _cut_off(self, places: Sequence[_Place], why: str) -> AirliftError:
        total = sum(place.member.size for place in places)
        return AirliftError(
            Kind.UNREADABLE,
            f"the check ended early ({why}): {len(self._good)} of {len(places)} members, "
            f"{sum(self._good.values())} of {total} bytes were hashed",
            where=str(self._source.path),
            fix="free memory on this machine and run the same command again",
        )

    def _work(self, jobs: Iterator[list[_Run]]) -> None:
        try:
            self._take(jobs)
        except BaseException as error:
            # Record every error: a lost one would make the member look valid.
            self._errors.append((len(self._good), error))
            self._stop.set()

    def _take(self, jobs: Iterator[list[_Run]]) -> None:
        buffer = memoryview(bytearray(BUFFER))
        while not self._stop.is_set():
            with self._lock:
                job = next(jobs, None)
            if job is None:
                return
            for run in job:
                if not self._stop.is_set():
                    self._check_run(run, buffer)

    def _check_run(self, run: _Run, buffer: memoryview) -> None:
        place = run[0]
        start = place.offset
        try:
            if len(run) == 1:
                self._check(place, self._pieces(place, buffer))
                return
            self._fill(start, buffer[: run[-1].end - start])
            for place in run:
                self._check(place, [buffer[place.offset - start : place.end - start]])
        except BaseException as error:
            self._errors.append((place.number, error))
            self._stop.set()

    def _fill(self, offset: int, view: memoryview) -> None:
        """Fill the view; the bundle is long enough, because its length was checked."""
        done = 0
        while done < len(view):
            done += self._source.readinto(offset + done, view[done:])

    def _pieces(self, place: _Place, buffer: memoryview) -> Iterator[memoryview]:
        """Yield a member's data, until another thread has an error."""
        offset = place.offset
        while offset < place.end and not self._stop.is_set():
            count = self._source.readinto(offset, buffer[: min(place.end - offset, BUFFER)])
            yield buffer[:count]
            offset += count

    def _check(self, place: _Place, pieces: Iterable[memoryview]) -> None:
        member = place.member
        if self._have is not None and self._have(member):
            self._good[place.number] = member.size
            self._report(member.size)
            return
        digest = hashlib.sha256()
        limit = self._layers.get(member.sha256) if member.is_blob else None
        unpacked = None if limit is None else Unpacked(member.path, limit)
        output = self._sink(member) if self._sink else None
        try:
            left = member.size
            for piece in pieces:
                digest.update(piece)
                if unpacked is not None:
                    unpacked.feed(piece)
                if output is not None:
                    output.write(piece)
                left -= len(piece)
                self._report(len(piece))
            if left:
                return
            if digest.hexdigest() != member.sha256:
                raise AirliftError(
                    Kind.ALTERED,
                    f"{member.path} was altered: its SHA-256 is not the one that was signed",
                    where=f"{self._source.path}, bytes {place.offset} to {place.end}",
                    fix=COPY_AGAIN,
                )
            if unpacked is not None:
                unpacked.check(lambda at, size: self._again(place, at, size))
            if output is not None:
                output.commit()
                output = None
            self._good[place.number] = member.size - left
        finally:
            if output is not None:
                output.abort()

    def _again(self, place: _Place, at: int, size: int) -> bytes:
        """Read a section of a member again."""
        return self._source.read(place.offset + at, min(size, place.member.size - at))

    def _report(self, count: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress(count)

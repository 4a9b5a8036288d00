"""The order of checks, as `docs/TRUST.md` gives it: nothing is used before it is trusted."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from bundle import archive, manifest, parts, sshsig
from bundle.errors import COPY_AGAIN, AirliftError, Kind
from bundle.manifest import Manifest, Member
from bundle.sshsig import Trust, Verdict
from bundle.store import Acceptance, Home

BUFFER = 1 << 20
Progress = Callable[[int], None]


class Output(Protocol):
    """Somewhere to put a member while it is hashed; used only after all are good."""

    def write(self, data: memoryview) -> None:
        """Take a piece."""

    def commit(self) -> None:
        """All pieces came and the hash is right."""

    def abort(self) -> None:
        """Forget the pieces."""


Sink = Callable[[Member], Output | None]
#: Whether a member lies here already, whole and hashed: the bundle's copy need not be read.
Have = Callable[[Member], bool]


class Opened(NamedTuple):
    """A bundle whose manifest is known, and trusted if `verdict` is there."""

    source: archive.Source
    manifest: Manifest
    raw_manifest: bytes
    signatures: tuple[bytes, ...]
    verdict: Verdict | None
    accepted: Acceptance | None
    offsets: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """The manifest's own hash: the bundle's identity."""
        return hashlib.sha256(self.raw_manifest).hexdigest()


def read_preamble(source: archive.Source) -> archive.Preamble:
    """Read the manifest and its signatures; nobody is believed yet."""
    return archive.read_preamble(
        source,
        manifest=manifest.MANIFEST,
        signature=manifest.SIGNATURE,
        limit=manifest.MAX_BYTES,
        signatures=sshsig.MAX_SIGNATURES,
        next_member=manifest.VERIFIER,
    )


@contextmanager
def opened(path: Path, *, trust: Trust | None, home: Home | None) -> Iterator[Opened]:
    """Authenticate the manifest and check the archive's structure; members are not read yet.

    Without `trust` nobody is asked who signed: good enough to look, never to use.
    """
    with parts.open_source(path) as source, _explained(source):
        preamble = read_preamble(source)
        raw = preamble.manifest
        accepted, verdict = None, None
        if trust is not None:
            accepted, verdict = authenticate(raw, preamble.signatures, trust, home)
        parsed = manifest.parse(raw)
        if trust is not None and home is not None and accepted is None:
            home.check_history(parsed.serial, parsed.version, parsed.release_sha256)
        offsets = archive.locate(source, parsed.members, preamble.end)
        yield Opened(source, parsed, raw, preamble.signatures, verdict, accepted, tuple(offsets))


@contextmanager
def _explained(source: archive.Source) -> Iterator[None]:
    """Let a source in parts say which of them is bad."""
    try:
        yield
    except AirliftError as error:
        better = source.blame(error)
        if better is error:
            raise
        raise better from error


def authenticate(
    raw: bytes, signatures: Sequence[bytes], trust: Trust, home: Home | None
) -> tuple[Acceptance | None, Verdict]:
    """Find out who signed; keys are judged at the time when this host accepted the manifest."""
    accepted = home.acceptance_of(hashlib.sha256(raw).hexdigest()) if home else None
    if accepted is not None:
        trust = trust._replace(at=accepted.time)
    names = [
        manifest.SIGNATURE if i == 0 else f"{manifest.SIGNATURE}.{i + 1}"
        for i in range(len(signatures))
    ]
    return accepted, sshsig.verify(raw, list(zip(names, signatures, strict=True)), trust)


def check_members(
    bundle: Opened,
    *,
    only: str | None = None,
    sink: Sink | None = None,
    have: Have | None = None,
    progress: Progress | None = None,
) -> None:
    """Read every member (or `only` one), but what the caller has, and compare its hash.

    Several at a time.

    One thread a core: hashing is what takes the time, and the members are independent. The largest
    come first so that the cores finish together.
    """
    members = enumerate(zip(bundle.manifest.members, bundle.offsets, strict=True))
    jobs = sorted(
        (job for job in members if only in (None, job[1][0].path)),
        key=lambda job: (-job[1][0].size, job[0]),
    )
    _Pool(bundle.source, jobs, sink, have, progress).run()


class _Pool:
    """Worker threads over one list of jobs; the first error in archive order is raised."""

    def __init__(
        self,
        source: archive.Source,
        jobs: list[tuple[int, tuple[Member, int]]],
        sink: Sink | None,
        have: Have | None,
        progress: Progress | None,
    ) -> None:
        self._source = source
        self._jobs = iter(jobs)
        self._sink = sink
        self._have = have
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: list[tuple[int, BaseException]] = []

    def run(self) -> None:
        """Do all jobs."""
        count = min(len(os.sched_getaffinity(0)), 4)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop.set()
            raise
        if self._errors:
            raise min(self._errors, key=lambda item: item[0])[1]

    def _work(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        while not self._stop.is_set():
            with self._lock:
                job = next(self._jobs, None)
            if job is None:
                return
            index, (member, offset) = job
            try:
                self._check(member, offset, buffer)
            except BaseException as error:
                self._errors.append((index, error))
                self._stop.set()

    def _check(self, member: Member, offset: int, buffer: memoryview) -> None:
        if self._have is not None and self._have(member):
            self._report(member.size)
            return
        digest = hashlib.sha256()
        output = self._sink(member) if self._sink else None
        try:
            left = member.size
            while left and not self._stop.is_set():
                count = self._source.readinto(offset, buffer[: min(left, BUFFER)])
                piece = buffer[:count]
                digest.update(piece)
                if output is not None:
                    output.write(piece)
                offset += count
                left -= count
                self._report(count)
            if left:
                return
            if digest.hexdigest() != member.sha256:
                raise AirliftError(
                    Kind.ALTERED,
                    f"{member.path} was altered: its SHA-256 is not the one that was signed",
                    where=f"{self._source.path}, bytes {offset - member.size} to {offset}",
                    fix=COPY_AGAIN,
                )
            if output is not None:
                output.commit()
                output = None
        finally:
            if output is not None:
                output.abort()

    def _report(self, count: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._progress(count)

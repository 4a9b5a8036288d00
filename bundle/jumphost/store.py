"""The jump host's directory: blobs by content, acceptance records, and durable small writes."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bundle.core.failures import os_failure
from bundle.core.files import is_file_of, open_own, read_file, write_atomic
from bundle.errors import AirliftError, Kind
from bundle.trust.sshsig import Signer

DEFAULT_HOME = "/opt/airlift"
#: How a damaged release is called while the whole one takes its place.
REPLACED = ".replaced-"
#: What a path may have beside letters and digits: nothing that a shell or a list of paths parts.
_PLAIN = "/._-+@=,~"
_MAX_RECORD = 1 << 16


class Acceptance(NamedTuple):
    """The record of one bundle that was trusted here."""

    serial: int
    version: str
    accepted: str
    manifest_sha256: str
    # The same for a release's full bundle and its deltas; see `Manifest.release_sha256`.
    release_sha256: str
    signers: tuple[Signer, ...]

    @property
    def time(self) -> float:
        """Seconds since 1970 at which it was accepted."""
        return seconds(self.accepted)

    def as_dict(self) -> dict[str, Any]:
        """What is written to the record."""
        return {
            "format": 1,
            "serial": self.serial,
            "version": self.version,
            "accepted": self.accepted,
            "manifest_sha256": self.manifest_sha256,
            "release_sha256": self.release_sha256,
            "signers": [signer.as_dict() for signer in self.signers],
        }


class Home:
    """`/opt/airlift`, or wherever an operator wants it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "store"
        self.blobs = self.store / "blobs" / "sha256"
        self.accepted = self.store / "accepted"
        self.incoming = self.store / "incoming"
        self.releases = root / "releases"
        self.current = root / "current"
        self.trust = root / "trust"
        self.sites = root / "sites"

    def check_can_run(self) -> None:
        """Refuse a place from which a release could not be run, before anything is accepted.

        Python's environments and Ansible lead through shells, lists of paths and the first lines
        of scripts: a path that one of them cuts in two is found by none.
        """
        for path in (self.root, self.root.resolve()):
            if odd := next((char for char in str(path) if not _is_plain(char)), ""):
                raise AirliftError(
                    Kind.HOME,
                    f"Airlift's directory has {odd!r} in its path, which the programs of a release "
                    "cannot have there",
                    where=str(path),
                    fix=f"a path of letters, digits and {_PLAIN}, such as --home {DEFAULT_HOME}",
                )
        place = self.root.resolve()
        while not place.exists():
            place = place.parent
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            while not place.is_mount():
                place = place.parent
            raise AirliftError(
                Kind.HOME,
                f"the file system at {place} is mounted noexec: no program of a release can run "
                "there",
                where=str(self.root),
                fix=f"sudo mount -o remount,exec {place}, or --home DIR on another file system",
            )

    def create(self) -> None:
        """Make the directories that import owns; `sites/` is the operator's."""
        try:
            for path in (self.blobs, self.accepted, self.incoming, self.releases, self.trust):
                path.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError as error:
            raise AirliftError(
                Kind.HOME,
                f"Airlift's directory cannot be made: {error.strerror}",
                where=str(error.filename or self.root),
                fix=f'sudo install -d -o "$USER" {shlex.quote(str(self.root))}',
            ) from error

    def blob(self, sha256: str) -> Path:
        """Where a blob lies once it is trusted."""
        return self.blobs / sha256

    def has_blob(self, sha256: str, size: int) -> bool:
        """Whether a trusted blob is there in full length."""
        try:
            return is_file_of(self.blob(sha256), size)
        except FileNotFoundError:
            return False

    def release(self, version: str) -> Path:
        """The directory of a release."""
        return self.releases / version

    def acceptances(self) -> list[Acceptance]:
        """Every manifest that was accepted here, by serial, the first of a release first.

        Whatever a record's name is: the first releases of Airlift named it after the serial.
        """
        if not self.accepted.is_dir():
            self._check_never_used()
            return []
        names = (p for p in self.accepted.iterdir() if p.suffix == ".json")
        found = (_read_acceptance(path) for path in names)
        return sorted(found, key=lambda one: (one.serial, one.time, one.manifest_sha256))

    def accepted_releases(self) -> list[Acceptance]:
        """Every release that was accepted here, by serial, whichever bundles brought it."""
        first = dict[str, Acceptance]()
        for record in self.acceptances():
            first.setdefault(record.release_sha256, record)
        return list(first.values())

    def _check_never_used(self) -> None:
        """Refuse to take a jump host that lost its records for one that never had any."""
        if self.releases.is_dir() and any(self.releases.iterdir()):
            raise AirliftError(
                Kind.HOME,
                "releases are here, and the records of what was accepted are gone",
                where=str(self.accepted),
                fix="restore this directory from a backup; without it old bundles could be played "
                "again",
            )

    def acceptance_of(self, manifest_sha256: str) -> Acceptance | None:
        """The record of exactly this manifest, if it was accepted here."""
        for record in self.acceptances():
            if record.manifest_sha256 == manifest_sha256:
                return record
        return None

    def check_history(self, serial: int, version: str, release_sha256: str) -> None:
        """Refuse what is older than, or contradicts, what was accepted here.

        A release may come again in another bundle, whatever was accepted since: a delta first, the
        full one for a repair.
        """
        records = self.acceptances()
        if any(record.release_sha256 == release_sha256 for record in records):
            return
        for record in records:
            if record.serial == serial or record.version == version:
                raise AirliftError(
                    Kind.CONFLICT,
                    f"release {version} (serial {serial}) contradicts release {record.version} "
                    f"(serial {record.serial}), which was accepted here with other content",
                    where=f"accepted on {record.accepted}, {self.accepted}",
                    fix="a release is never changed: ask the vendor for one with a new version and "
                    "a higher serial",
                )
        if records and serial < records[-1].serial:
            newest = records[-1]
            raise AirliftError(
                Kind.OLDER,
                f"release {version} has serial {serial}; release {newest.version} with serial "
                f"{newest.serial} was accepted here already",
                where=f"accepted on {newest.accepted}, {self.accepted}",
                fix="use the newest bundle; to go back to a release that was installed, "
                "run the rollback",
            )

    def accept(self, record: Acceptance) -> None:
        """Write an acceptance record, durably; none takes another's place.

        A release comes as a full bundle and as deltas. Each has a manifest of its own, and was
        accepted at a time of its own, by which keys are judged from then on.
        """
        text = json.dumps(record.as_dict(), indent=1, sort_keys=True) + "\n"
        write_atomic(self.accepted / f"{record.manifest_sha256}.json", text.encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one import or prune in; the lock dies with its process."""
        path = self.store / "lock"
        try:
            stream = open_own(path)
        except OSError as error:
            raise os_failure(error, path, Kind.HOME, does="open") from error
        with stream:
            fd = stream.fileno()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
                raise AirliftError(
                    Kind.LOCKED,
                    f"another import or prune is running: {holder or 'it just began'}",
                    where=str(path),
                    fix="wait for it and run this command again",
                ) from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}, since {now()}\n".encode(), 0)
            yield


def _is_plain(char: str) -> bool:
    return char.isalnum() or char in _PLAIN


def now() -> str:
    """The time, in UTC, as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def seconds(moment: str) -> float:
    """The same time in seconds since 1970.

    Raises:
        ValueError: it is no time.
    """
    from datetime import datetime  # noqa: PLC0415 - only where something was accepted

    return datetime.fromisoformat(moment).timestamp()


def _read_acceptance(path: Path) -> Acceptance:
    try:
        data = json.loads(read_file(path, _MAX_RECORD))
        signers = tuple(
            Signer(s["identity"], s["fingerprint"], s["key_type"]) for s in data["signers"]
        )
        record = Acceptance(
            int(data["serial"]),
            str(data["version"]),
            str(data["accepted"]),
            str(data["manifest_sha256"]),
            str(data["release_sha256"]),
            signers,
        )
        seconds(record.accepted)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AirliftError(
            Kind.HOME,
            f"an acceptance record cannot be read: {error}",
            where=str(path),
            fix="restore it from a backup of /opt/airlift/store/accepted; without it old bundles "
            "could be played again",
        ) from error
    return record

"""The jump host's directory: blobs by hash, releases, acceptance records, and its lock."""

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
#: The prefix of a damaged release while its replacement is moved into place.
REPLACED = ".replaced-"
#: What a path may contain beside letters and digits: nothing that a shell or PATH splits at.
_PLAIN = "/._-+@=,~"
_MAX_RECORD = 1 << 16


class Acceptance(NamedTuple):
    """The record of one bundle that was trusted here."""

    serial: int
    version: str
    accepted: str
    manifest_sha256: str
    # One value for a release's full bundle and all its deltas; see `Manifest.release_sha256`.
    release_sha256: str
    signers: tuple[Signer, ...]

    @property
    def time(self) -> float:
        """Return the time of acceptance in seconds since 1970."""
        return seconds(self.accepted)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the record's file."""
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
    """Airlift's directory: `/opt/airlift`, or the one that an operator names."""

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
        """Refuse a directory from which a release cannot be run, before anything is accepted.

        Python's environments and Ansible pass paths through shells, PATH and the first lines of
        scripts. A path that one of these splits is not found.
        """
        for path in (self.root, self.root.resolve()):
            if odd := next((char for char in str(path) if not _is_plain(char)), ""):
                raise AirliftError(
                    Kind.HOME,
                    f"Airlift's directory has {odd!r} in its path, and the programs of a release "
                    "do not run from such a path",
                    where=str(path),
                    fix=f"use letters, digits and {_PLAIN} only, such as --home {DEFAULT_HOME}",
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
                fix=f"sudo mount -o remount,exec {place}, or use --home DIR on another file system",
            )

    def create(self) -> None:
        """Make the directories that import owns; `sites/` belongs to the operator."""
        try:
            for path in (self.blobs, self.accepted, self.incoming, self.releases, self.trust):
                path.mkdir(parents=True, exist_ok=True, mode=0o755)
        except OSError as error:
            raise AirliftError(
                Kind.HOME,
                f"cannot make Airlift's directory: {error.strerror}",
                where=str(error.filename or self.root),
                fix=f'sudo install -d -o "$USER" {shlex.quote(str(self.root))}',
            ) from error

    def blob(self, sha256: str) -> Path:
        """Return the path of a blob after it is trusted."""
        return self.blobs / sha256

    def has_blob(self, sha256: str, size: int) -> bool:
        """Return whether a trusted blob exists in full length."""
        try:
            return is_file_of(self.blob(sha256), size)
        except FileNotFoundError:
            return False

    def release(self, version: str) -> Path:
        """Return the directory of a release."""
        return self.releases / version

    def acceptances(self) -> list[Acceptance]:
        """Return every accepted manifest, by serial; the first of a release comes first.

        The name of a record's file does not matter: early releases of Airlift used the serial.
        """
        if not self.accepted.is_dir():
            self._check_never_used()
            return []
        names = (p for p in self.accepted.iterdir() if p.suffix == ".json")
        found = (_read_acceptance(path) for path in names)
        return sorted(found, key=lambda one: (one.serial, one.time, one.manifest_sha256))

    def accepted_releases(self) -> list[Acceptance]:
        """Return every accepted release, by serial, whichever bundles brought it."""
        first = dict[str, Acceptance]()
        for record in self.acceptances():
            first.setdefault(record.release_sha256, record)
        return list(first.values())

    def _check_never_used(self) -> None:
        """Refuse a jump host that lost its records, which would look like a new one."""
        if self.releases.is_dir() and any(self.releases.iterdir()):
            raise AirliftError(
                Kind.HOME,
                "there are releases, but the records of what was accepted are missing",
                where=str(self.accepted),
                fix="restore this directory from a backup; without it, old bundles are accepted",
            )

    def acceptance_of(self, manifest_sha256: str) -> Acceptance | None:
        """Return the record of exactly this manifest; None if it was not accepted here."""
        for record in self.acceptances():
            if record.manifest_sha256 == manifest_sha256:
                return record
        return None

    def check_history(self, serial: int, version: str, release_sha256: str) -> None:
        """Refuse a release that is older than, or contradicts, what was accepted here.

        An accepted release may come again in another bundle: a delta first, the full one for a
        repair.
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
                    fix="ask the vendor for a release with a new version and a higher serial; a "
                    "release is never changed",
                )
        if records and serial < records[-1].serial:
            newest = records[-1]
            raise AirliftError(
                Kind.OLDER,
                f"release {version} has serial {serial}, but release {newest.version} with serial "
                f"{newest.serial} was accepted here before",
                where=f"accepted on {newest.accepted}, {self.accepted}",
                fix="use the newest bundle; to go back to the previous release, roll back",
            )

    def accept(self, record: Acceptance) -> None:
        """Write an acceptance record durably, without replacing another.

        A release comes as a full bundle and as deltas. Each has its own manifest and its own time
        of acceptance, at which key validity is checked from then on.
        """
        text = json.dumps(record.as_dict(), indent=1, sort_keys=True) + "\n"
        write_atomic(self.accepted / f"{record.manifest_sha256}.json", text.encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock out other imports and prunes; the kernel frees the lock with its process."""
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
                    f"another import or prune is in progress: {holder or 'it just began'}",
                    where=str(path),
                    fix="wait for it and run this command again",
                ) from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}, since {now()}\n".encode(), 0)
            yield


def _is_plain(char: str) -> bool:
    return char.isalnum() or char in _PLAIN


def now() -> str:
    """Return the time in UTC, in the form of the records."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def seconds(moment: str) -> float:
    """Return such a time in seconds since 1970.

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
            f"cannot read an acceptance record: {error}",
            where=str(path),
            fix="restore it from a backup of /opt/airlift/store/accepted; without it, old bundles "
            "are accepted again",
        ) from error
    return record

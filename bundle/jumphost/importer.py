"""Imports a bundle: verifies and stores it in one pass, then makes the release usable.

`docs/TRUST.md` has the order of steps. After an interrupted import, the same command continues.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bundle.core.events import Log, Progress, Searching, unseen
from bundle.core.failures import os_failure
from bundle.core.files import (
    create,
    free_bytes,
    fsync_directory,
    is_file_of,
    link_atomic,
    remove,
    sha256,
    sync_filesystem,
)
from bundle.core.output import flush
from bundle.core.text import size
from bundle.errors import AirliftError, Kind
from bundle.format import manifest
from bundle.format.manifest import Member
from bundle.jumphost import bases, installed, kept_trust, venv
from bundle.jumphost.store import REPLACED, Acceptance, Home, now
from bundle.trust.sshsig import Signer, Trust
from bundle.verify.checks import Opened, Output, authenticate, check_members, opened

MARGIN = 64 << 20
#: Refusals of the file itself: nothing of it is kept. An interrupted import keeps what it stored.
BAD_BUNDLE = (Kind.CUT_SHORT, Kind.ALTERED, Kind.STRUCTURE)


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    version: str
    serial: int
    release: Path
    signers: tuple[Signer, ...]
    ignored: tuple[str, ...]
    accepted: str
    already: bool
    # An older accepted release was repaired; it does not become `current`.
    restored: bool
    new_bytes: int


def run(
    path: Path,
    *,
    trust: Trust,
    home: Home,
    log: Log,
    progress: Progress,
    searching: Searching = unseen,
) -> Imported:
    """Import a bundle, or finish an import that was interrupted."""
    try:
        home.check_can_run()
        with opened(path, trust=trust, home=home, searching=searching) as bundle:
            _check_base(bundle, home, log, progress)
            # Only now, so that a refused bundle leaves not even an empty directory behind.
            home.create()
            with home.lock():
                # Another import may have made this jump host stricter in the meantime.
                trust = kept_trust.as_strict(trust, home)
                _, verdict = authenticate(bundle.raw_manifest, bundle.signatures, trust, home)
                bundle = bundle._replace(verdict=verdict)  # noqa: PLW2901 - the same, checked again
                return _Import(bundle, trust, home, log, progress).run()
    except OSError as error:
        again = "run the same command again; it continues"
        raise os_failure(error, home.root, Kind.HOME, does="write", again=again) from error


def _check_base(bundle: Opened, home: Home, log: Log, progress: Progress) -> None:
    """Refuse a delta if this jump host does not have the members that it omits.

    Each of them is hashed, once per release: it was valid when it was imported, maybe years ago.
    """
    parsed = bundle.manifest
    if not parsed.left_out or _is_complete(bundle, home):
        return
    bases.check_present(parsed, home)
    log(f"hashing {len(parsed.left_out)} members that this jump host has already")
    bases.check_contents(parsed, home, progress)


def _is_complete(bundle: Opened, home: Home) -> bool:
    """Return whether the bundle was accepted here and its release is complete."""
    release = home.release(bundle.manifest.version)
    return home.acceptance_of(bundle.sha256) is not None and installed.is_complete(
        home, release, bundle.raw_manifest, bundle.manifest
    )


class _Import:
    def __init__(
        self, bundle: Opened, trust: Trust, home: Home, log: Log, progress: Progress
    ) -> None:
        self.bundle = bundle
        self.trust = trust
        self.home = home
        self.log = log
        self.progress = progress
        self.manifest = bundle.manifest
        # Read again under the lock: another import may have accepted it since it was opened.
        self.accepted = home.acceptance_of(bundle.sha256)
        self.release = home.release(bundle.manifest.version)
        self.staged = home.incoming / bundle.sha256
        self.staged_release = self.staged / "release"
        self.staged_blobs = self.staged / "blobs"

    def run(self) -> Imported:
        """Do the steps that are not done yet."""
        # `opened` allows any release that was accepted before; import requires the newest.
        restored = self._is_older()
        if not restored:
            self.home.check_history(
                self.manifest.serial, self.manifest.version, self.manifest.release_sha256
            )
        self._check_disks()
        self._restore_replaced()
        venv.check_python(m.path for m in self._wheels)
        complete = _is_complete(self.bundle, self.home)
        ready = venv.is_complete(self.release, self.bundle.sha256)
        already = complete and ready and (restored or self._current() == self.release)
        new_bytes = 0
        if not complete:
            # Again under the lock: a prune may have run in the meantime.
            bases.check_present(self.manifest, self.home)
            new_bytes = self._check_space()
            self._store()
        record = self._accept()
        if not complete and not self._is_whole():
            self._publish()
            ready = False
        if not ready:
            self.log("making the virtual environment, offline")
            venv.make(self.release, self.bundle.sha256)
            sync_filesystem(self.release)
        if restored:
            self.log(f"release {self.manifest.version} is complete again; current stays newer")
        elif not already:
            link_atomic(os.path.relpath(self.release, self.home.root), self.home.current)
        self._clean()
        verdict = self.bundle.verdict
        assert verdict is not None  # noqa: S101 - `opened` was given a trust
        return Imported(
            self.manifest.version,
            self.manifest.serial,
            self.release,
            verdict.signers,
            verdict.ignored,
            record.accepted,
            already,
            restored,
            new_bytes,
        )

    def _is_older(self) -> bool:
        """Return whether this is an older accepted release, which is only repaired.

        A rollback needs it. The repairing bundle may be another one than the first.
        """
        records = self.home.acceptances()
        known = any(one.release_sha256 == self.manifest.release_sha256 for one in records)
        return known and self.manifest.serial < records[-1].serial

    def _check_disks(self) -> None:
        """Refuse directories on several file systems, between which nothing can be renamed."""
        folders = (self.home.incoming, self.home.releases, self.home.blobs)
        if len({folder.stat().st_dev for folder in folders}) > 1:
            raise AirliftError(
                Kind.HOME,
                "Airlift's directory is on several file systems; it must be on one",
                where=", ".join(map(str, folders)),
                fix=f"mount one file system at {self.home.root}, or use --home",
            )

    def _restore_replaced(self) -> None:
        """Restore a release after `_publish` was interrupted between its two renames."""
        for old in self.home.releases.glob(f"{REPLACED}*"):
            release = self.home.release(old.name.removeprefix(REPLACED))
            if not release.exists():
                old.rename(release)

    def _current(self) -> Path | None:
        try:
            return self.home.root / self.home.current.readlink()
        except OSError:
            return None

    def _check_space(self) -> int:
        new = [m for m in self.manifest.members if self._stored(m) is None]
        new_bytes = sum(member.size for member in new)
        # All wheels are unpacked into the environment, whether carried or omitted.
        wheels = sum(m.size for m in self._wheels)
        blocks = 4096 * len(new)
        needed = new_bytes + blocks + wheels * venv.GROWTH + MARGIN
        free = free_bytes(self.home.root)
        if free < needed:
            raise AirliftError(
                Kind.NO_SPACE,
                f"import needs {size(needed)}, but only {size(free)} are free",
                where=str(self.home.root),
                fix=f"free {size(needed - free)} there, or use --home on a larger disk",
            )
        return new_bytes

    @property
    def _wheels(self) -> list[Member]:
        return [m for m in self.manifest.contents if m.path.startswith("wheels/")]

    def _stored(self, member: Member) -> Path | None:
        """Return where this blob exists in full length: in the store, or staged."""
        if not member.is_blob:
            return None
        for path in (self.home.blob(member.sha256), self.staged_blobs / member.sha256):
            with suppress(FileNotFoundError):
                if is_file_of(path, member.size):
                    return path
        return None

    def _have(self, member: Member) -> bool:
        """Return whether this jump host has a valid copy, which is hashed here."""
        path = self._stored(member)
        if path is None:
            return False
        good = sha256(path) == member.sha256
        if not good:
            self.log(f"replacing {path} from the bundle: it was damaged on this disk")
        return good

    def _store(self) -> None:
        """Hash every member and stage new ones; then move the blobs, which are all valid."""
        for leftover in self.home.incoming.iterdir():
            if leftover != self.staged:
                remove(leftover)
        shutil.rmtree(self.staged_release, ignore_errors=True)
        self.staged_blobs.mkdir(parents=True, exist_ok=True)
        for folder in {(self.staged_release / m.release_path).parent for m in self._release_files}:
            folder.mkdir(parents=True, exist_ok=True)
        self.log(f"verifying and storing {len(self.manifest.members)} members")
        if here := [m for m in self.manifest.members if self._stored(m)]:
            count = size(sum(m.size for m in here))
            self.log(f"hashing {len(here)} of them ({count}) here, where they exist already")
        try:
            check_members(self.bundle, sink=self._sink, have=self._have, progress=self.progress)
        except AirliftError as error:
            # Keep it for a bundle in parts: one part can be copied again, and this continues.
            if error.kind in BAD_BUNDLE and self.bundle.source.whole:
                self._clean()
            raise
        bases.link_left_out(self.manifest, self.home, self.staged_release)
        (self.staged_release / manifest.MANIFEST).write_bytes(self.bundle.raw_manifest)
        for number, signature in enumerate(self.bundle.signatures, 1):
            (self.staged_release / manifest.signature_name(number)).write_bytes(signature)
        sync_filesystem(self.staged)
        for blob in sorted(self.staged_blobs.iterdir()):
            if blob.suffix != ".part":
                blob.replace(self.home.blob(blob.name))
        fsync_directory(self.home.blobs)

    @property
    def _release_files(self) -> list[Member]:
        return [member for member in self.manifest.contents if not member.is_blob]

    def _sink(self, member: Member) -> Output:
        if member.is_blob:
            return _File(self.staged_blobs / member.sha256, durable=True)
        return _File(self.staged_release / member.release_path, durable=False)

    def _accept(self) -> Acceptance:
        """Record the acceptance, and keep the lists of signers that it is based on."""
        verdict = self.bundle.verdict
        assert verdict is not None  # noqa: S101 - `opened` was given a trust
        kept_trust.keep(self.home, self.trust, verdict, self.log)
        if self.accepted is not None:
            return self.accepted
        record = Acceptance(
            serial=self.manifest.serial,
            version=self.manifest.version,
            accepted=now(),
            manifest_sha256=self.bundle.sha256,
            release_sha256=self.manifest.release_sha256,
            signers=verdict.signers,
        )
        self.home.accept(record)
        return record

    def _is_whole(self) -> bool:
        """Return whether only blobs were damaged: this import may run from the release."""
        if not installed.is_whole(self.home, self.release, self.bundle.raw_manifest, self.manifest):
            return False
        shutil.rmtree(self.staged_release)
        return True

    def _publish(self) -> None:
        """Move the release directory into place: all of it or nothing."""
        old = self.release.with_name(REPLACED + self.release.name)
        shutil.rmtree(old, ignore_errors=True)
        if self.release.exists():
            # Accepted before, but damaged since, so it is replaced as a whole.
            self.release.rename(old)
        self.staged_release.rename(self.release)
        fsync_directory(self.home.releases)
        shutil.rmtree(old, ignore_errors=True)

    def _clean(self) -> None:
        shutil.rmtree(self.staged, ignore_errors=True)


class _File:
    """A staged file; it gets its final name only if its hash is right."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        # No member's name begins with a dot, so this name is free.
        self._part = path.with_name(f".{path.name}.part")
        self._out = create(self._part, 0o644)

    def write(self, data: memoryview) -> None:
        """Write a piece."""
        self._out.write(data)

    def commit(self) -> None:
        """Give the file its name. Blobs are flushed first, so that a later run can keep them."""
        if self._durable:
            flush(self._out)
        self._out.close()
        self._part.replace(self._path)

    def abort(self) -> None:
        """Remove the file."""
        # Closing writes what is still in memory, which may fail on a full disk.
        with suppress(OSError):
            self._out.close()
        self._part.unlink(missing_ok=True)

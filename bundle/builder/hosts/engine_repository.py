"""Check the upstream repository of the engine and its pinned key."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import urllib.request
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

from bundle.builder.hosts.systems import Repository, System
from bundle.builder.problems import Problem

_SECONDS = 3
_KEY_LIMIT = 1 << 20


class UnreachableError(Problem):
    """No connection; a build omits the system if it is not required."""


class WrongKeyError(Problem):
    """A key other than the pinned one, which always fails a build."""


def files(repository: Repository, system: System) -> dict[str, bytes]:
    """Return the recipe's files: the checked key, and the repository's entry for apt or dnf."""
    key = _fetch(repository.key)
    check(key, repository)
    if system.format == "deb":
        place = " ".join((repository.url, repository.suite, *repository.components))
        line = f"deb [signed-by=/recipe/upstream.asc] {place}\n"
        return {"upstream.asc": key, "upstream.list": line.encode()}
    text = (
        f"[upstream]\nname=upstream repository of the engine\nbaseurl={repository.url}\n"
        "enabled=1\ngpgcheck=1\ngpgkey=file:///recipe/upstream.asc\n"
    )
    return {"upstream.asc": key, "upstream.repo": text.encode()}


def check(key: bytes, repository: Repository) -> None:
    """Refuse anything but this one key, in ASCII armour."""
    found = _fingerprints(key) if key.startswith(b"-----BEGIN PGP PUBLIC KEY") else []
    if found != [repository.fingerprint]:
        raise WrongKeyError(
            f"the key of {repository.url} is {', '.join(found) or 'no key'}, "
            f"not {repository.fingerprint}",
            where=repository.key,
            fix="check the upstream repository's own documentation; if it confirms a new key, "
            "change `fingerprint` in bundle/systems.yml",
        )


def _fetch(url: str) -> bytes:
    """Read a small file, or fail within seconds."""
    answer: Future[bytes] = Future()

    def work() -> None:
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as stream:  # noqa: S310 - http(s)
                answer.set_result(stream.read(_KEY_LIMIT))
        except Exception as error:
            answer.set_exception(error)

    # A daemon thread, because a name lookup has no timeout.
    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(timeout=_SECONDS)
    except (OSError, ValueError) as error:  # TimeoutError and urllib's errors are OSErrors
        raise UnreachableError(
            f"{urlsplit(url).netloc} could not be reached where this bundle was built",
            where=f"{url}: {error or 'no answer'}",
        ) from error


def _fingerprints(key: bytes) -> list[str]:
    """Return the fingerprints of a file's primary keys, as gpg reads them."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "key"
        file.write_bytes(key)
        command = ["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Problem(
                "gpg, which checks the upstream repository's key, is not installed",
                fix="apt-get install gpg (scripts/dev-setup.sh does it)",
            ) from None
    rows = [line.split(":") for line in done.stdout.splitlines()]
    # The first `fpr` after each `pub` is the primary key's.
    return [
        next(row[9] for row in rows[at:] if row[0] == "fpr")
        for at, row in enumerate(rows)
        if row[0] == "pub"
    ]

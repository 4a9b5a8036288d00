"""The repository of the engine's maker: can it be reached, and is its key the one meant?"""

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
    """No connection: a system that a build need not have is left out."""


class WrongKeyError(Problem):
    """Somebody else's key; never a reason to go on without a word."""


def files(repository: Repository, system: System) -> dict[str, bytes]:
    """Return what the recipe needs: the checked key, and apt's or dnf's description."""
    key = _fetch(repository.key)
    check(key, repository)
    if system.format == "deb":
        place = " ".join((repository.url, repository.suite, *repository.components))
        line = f"deb [signed-by=/recipe/maker.asc] {place}\n"
        return {"maker.asc": key, "maker.list": line.encode()}
    text = (
        f"[maker]\nname=maker of the engine\nbaseurl={repository.url}\n"
        "enabled=1\ngpgcheck=1\ngpgkey=file:///recipe/maker.asc\n"
    )
    return {"maker.asc": key, "maker.repo": text.encode()}


def check(key: bytes, repository: Repository) -> None:
    """Refuse anything but this one key, in ASCII armour."""
    found = _fingerprints(key) if key.startswith(b"-----BEGIN PGP PUBLIC KEY") else []
    if found != [repository.fingerprint]:
        raise WrongKeyError(
            f"the key of {repository.url} is {', '.join(found) or 'no key'}, "
            f"not {repository.fingerprint}",
            where=repository.key,
            fix="do not go on before the maker's own documentation confirms a new key; "
            "then change `fingerprint` in bundle/systems.yml",
        )


def _fetch(url: str) -> bytes:
    """Read a small file, within seconds whether it is there or not."""
    answer: Future[bytes] = Future()

    def work() -> None:
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as stream:  # noqa: S310 - http(s)
                answer.set_result(stream.read(_KEY_LIMIT))
        except Exception as error:
            answer.set_exception(error)

    # A daemon thread, because looking up a name has no time-out of its own.
    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(timeout=_SECONDS)
    except (OSError, ValueError) as error:  # TimeoutError and urllib's errors are OSErrors
        raise UnreachableError(
            f"{urlsplit(url).netloc} could not be reached where this bundle was built",
            where=f"{url}: {error or 'no answer'}",
        ) from error


def _fingerprints(key: bytes) -> list[str]:
    """Return the fingerprints of the primary keys of a file, as gpg reads them."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "key"
        file.write_bytes(key)
        command = ["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise Problem(
                "gpg, which checks the key of the engine's maker, is not installed",
                fix="apt-get install gpg (scripts/dev-setup.sh does it)",
            ) from None
    rows = [line.split(":") for line in done.stdout.splitlines()]
    # The first `fpr` after each `pub` is the primary key's.
    return [
        next(row[9] for row in rows[at:] if row[0] == "fpr")
        for at, row in enumerate(rows)
        if row[0] == "pub"
    ]

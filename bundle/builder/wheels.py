"""Wheels for machines without a network: those of a lock, for given Pythons."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bundle.builder import cache, machine
from bundle.builder.problems import Problem
from bundle.core.events import Log

#: The jump host's Python: Debian 12 has 3.11, Ubuntu 24.04 and RHEL 9 3.12, Debian 13 3.13.
CONTROLLER_PYTHONS = ("3.11", "3.12", "3.13")
#: The app image's Python, with both sources.
APP_PYTHONS = ("3.13",)

# Up to glibc 2.34, RHEL 9's, the oldest of the jump hosts. pip wants each level named.
_GLIBC_MINORS = (34, 31, 28, 27, 26, 24, 17)


def collect(requirements: Path, dest: Path, *, log: Log | None = None) -> None:
    r"""Fill `dest` with the jump host's wheelhouse: every wheel of the lock, pip's own among them.

    On a host whose Python has no ensurepip, and no network:

        python3 -m venv --without-pip VENV
        PIP=$(echo WHEELS/pip-*.whl)
        VENV/bin/python "$PIP/pip" install --no-index --find-links WHEELS \
            --no-deps --require-hashes -r controller.txt
        VENV/bin/python "$PIP/pip" check
    """
    _fill(requirements.read_text(), CONTROLLER_PYTHONS, dest, log)


def collect_app(
    requirements: Path, controller: Path, dest: Path, *, log: Log | None = None
) -> None:
    """Fill `dest` with the app's wheels, and with pip's, pinned where the jump host's pip is."""
    text = requirements.read_text()
    if not re.search(r"^pip==", text, re.MULTILINE):
        text += "\n" + _block(controller, "pip")
    _fill(text, APP_PYTHONS, dest, log)


def _fill(lock: str, pythons: tuple[str, ...], dest: Path, log: Log | None) -> None:
    name = cache.key([lock, pythons, _GLIBC_MINORS, machine.wheel_architecture()])

    def fill(folder: Path) -> None:
        for python in pythons:
            if log:
                log(f"downloading wheels for CPython {python}")
            _download(lock, python, folder)

    cache.take("wheels", name, fill, dest)


def download(lock: str, folder: Path, *options: str) -> str | None:
    """Fetch exactly what a lock names into `folder`; return pip's error message if it fails."""
    wanted = folder.with_name(f"{folder.name}.txt")
    wanted.write_text(lock)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet"),
                # The lock is complete, so pip resolves nothing and takes only what is in it.
                *("--no-deps", "--require-hashes", "--requirement", str(wanted)),
                *("--dest", str(folder), *options),
            ],
            capture_output=True,
            text=True,
            # A constraint file of the user could only refuse locked versions.
            env={
                **os.environ,
                "PIP_CONSTRAINT": os.devnull,
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PIP_NO_INPUT": "1",
            },
            check=False,
        )
    finally:
        wanted.unlink()
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
    return "\n".join(lines[-8:])


def _download(lock: str, python: str, folder: Path) -> None:
    built_on = machine.wheel_architecture()
    platforms = [f"--platform=manylinux_2_{minor}_{built_on}" for minor in _GLIBC_MINORS]
    platforms += [f"--platform=manylinux2014_{built_on}"]
    pythons = ("--python-version", python, "--implementation", "cp")
    problem = download(lock, folder, "--only-binary=:all:", *platforms, *pythons)
    if problem is not None:
        raise Problem(
            f"downloading wheels for CPython {python} failed:\n{problem}",
            fix="change a package without a wheel for this Python in requirements/*.in; otherwise "
            "check the connection to the package index",
        )


def _block(lock: Path, package: str) -> str:
    """Return one requirement of a lock with its hashes."""
    found = re.search(
        rf"^{re.escape(package)}==[^\n\\]*(?:\\\n[^\n\\]*)*", lock.read_text(), re.MULTILINE
    )
    if not found:
        raise Problem(f"{lock} has no {package}; the wheelhouse cannot install itself without it")
    return found.group(0) + "\n"

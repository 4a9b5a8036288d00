"""Makes a release's virtual environment, offline, from its own hash-pinned wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bundle.core.files import read_file
from bundle.errors import AirliftError, Kind

REQUIREMENTS = "requirements/controller.txt"
MARKER = ".airlift-complete"
MINIMUM = (3, 11)
# The system's Python, even if the release's own runs this: that one is removed and made again.
PYTHON = os.path.realpath(sys.executable)
# The pip of a killed import must not write into the directory of the next one. This is not a
# `preexec_fn`, because Python's fork hooks can lose a Ctrl-C that comes while one runs.
_DIE_WITH_PARENT = """
import contextlib, ctypes, os, signal, sys
with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""
# Wheels grow when they are unpacked and compiled: measured 4.7 times, for three Pythons.
GROWTH = 7


def check_python(wheels: Iterable[str]) -> None:
    """Refuse a Python that the wheelhouse has no wheels for, before anything is written."""
    tags = {tag for name in wheels for tag in re.findall(r"-cp(3\d+)-cp3\d+-", name)}
    here = f"{sys.version_info.major}{sys.version_info.minor}"
    if tags and here not in tags:
        names = ", ".join(f"{tag[0]}.{tag[1:]}" for tag in sorted(tags, key=int))
        raise AirliftError(
            Kind.PYTHON,
            f"this is Python {here[0]}.{here[1:]}; the bundle brings wheels for {names}",
            where=sys.executable,
            fix=f"run the same command with one of these, such as python3.{min(tags, key=int)[1:]}",
        )
    try:
        import venv  # noqa: F401, PLC0415 - Debian can split it off
    except ImportError as error:
        raise AirliftError(
            Kind.PYTHON,
            "this Python has no venv module",
            where=sys.executable,
            fix="install the distribution's whole python3 (python3-minimal is not enough)",
        ) from error


def is_complete(release: Path, manifest_sha256: str) -> bool:
    """Return whether the environment is complete for this manifest and its Python runs."""
    try:
        if read_file(release / "venv" / MARKER, 100).decode("ascii") != manifest_sha256:
            return False
        command = [_python(release), "-I", "-c", "import bundle"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except (OSError, ValueError):
        return False


def make(release: Path, manifest_sha256: str) -> None:
    """Make the environment; remove an incomplete one first."""
    venv = release / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    wheels = release / "wheels"
    pip = sorted(wheels.glob("pip-*.whl"))
    if len(pip) != 1:
        raise AirliftError(
            Kind.BOOTSTRAP,
            f"the wheelhouse holds {len(pip)} pip wheels, not one",
            where=str(wheels),
            fix="ask the vendor for a complete bundle",
        )
    _run([PYTHON, "-I", "-m", "venv", "--without-pip", str(venv)], release)
    # Debian without python3-venv has no ensurepip, so pip runs from its own wheel. It is unpacked,
    # because Python keeps no compiled code of what is in a zip, and pip starts twice.
    with tempfile.TemporaryDirectory(prefix="pip-", dir=venv) as folder:
        shutil.unpack_archive(pip[0], folder, "zip")
        tool = [_python(release), "-I", f"{folder}/pip"]
        _run(
            [
                *tool,
                "install",
                "--quiet",
                "--no-deps",
                "--no-index",
                "--no-cache-dir",
                "--find-links",
                str(wheels),
                "--only-binary=:all:",
                "--require-hashes",
                "--requirement",
                str(release / REQUIREMENTS),
            ],
            release,
        )
        _run(
            [*tool, "check"],
            release,
            what="the wheels of this release do not fit together",
            fix="ask the vendor for a complete bundle",
        )
    packages = next((venv / "lib").glob("python3.*/site-packages"))
    (packages / "airlift.pth").write_text(paths(release), encoding="utf-8")
    _run([_python(release), "-I", "-m", "compileall", "-q", str(release / "bundle")], release)
    _run([_python(release), "-I", "-c", "import bundle"], release)
    (venv / MARKER).write_text(manifest_sha256, encoding="ascii")


def paths(release: Path) -> str:
    """Return what the environment's Python reads when it starts; see `start`."""
    return f"{release}\nimport bundle.jumphost.start; bundle.jumphost.start.prepare()\n"


def _python(release: Path) -> str:
    return str(release / "venv" / "bin" / "python")


def _run(
    command: list[str],
    release: Path,
    *,
    what: str = "cannot make the virtual environment",
    fix: str = "run the same command again; if it fails again, send this output to the vendor",
) -> None:
    """Run a step, without environment variables that could redirect pip or Python."""
    outside = ("PIP_", "PYTHON", "VIRTUAL_ENV", "__PYVENV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
    env |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    }
    # pip unpacks into TMPDIR: /tmp may be small.
    (release / "venv").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=release / "venv") as folder:
        result = subprocess.run(
            [PYTHON, "-I", "-c", _DIE_WITH_PARENT, *command],
            env={**env, "TMPDIR": folder},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise AirliftError(
            Kind.BOOTSTRAP,
            f"{what}: {lines[-1] if lines else 'no message'}",
            where=" ".join(command[:6]),
            fix=f"{fix}:\n" + "\n".join(f"    {line}" for line in lines[-15:]),
        )

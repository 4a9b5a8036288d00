"""Checks a release's virtual environment against its signed wheels, and every compiled file.

Wheels are members of the bundle. Their files are compared with the hashes in their RECORD. Files
that pip writes itself are compared by content. Python runs compiled files (`.pyc`), so each one in
the release is compared with its source.
"""

from __future__ import annotations

import ast
import base64
import csv
import errno
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from bundle.core.files import open_regular, read_file
from bundle.errors import AirliftError, Kind
from bundle.jumphost.venv import MARKER, paths

#: Outside of the release, or never run by it.
NOT_CHECKED = ("the system's Python and its standard library", "bin/activate*")

# A program that pip writes: it runs one function and does nothing else.
_PROGRAM = """
import sys
from {module} import {function}
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit({call}())
"""
# If the path of Python is too long or has blanks, pip starts Python through a shell.
_LONG = re.compile(r"#!/bin/sh\n'''exec' (\"?)([^\n\"]+)\1 \"\$0\" \"\$@\"\n' '''\n")
#: The most bytes that a file of a wheel may have; those of a bundle are far smaller.
_LIMIT = 1 << 30
_BY_PIP = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")
_COMPILED = re.compile(r"(?P<stem>.+?)\.(?P<tag>[a-z]+-\d+)(?:\.opt-(?P<level>[12]))?\.pyc")

# Runs in its own process, because a damaged file can crash its reader. It opens no file.
_COMPARE = """
import importlib.util, marshal, sys
take = sys.stdin.buffer.read
while head := take(50):
    level, *sizes = (int(head[at:at + 10]) for at in range(0, 50, 10))
    compiled, source, raw, text = (take(size) for size in sizes)
    source = source.decode()
    code = compile(text, source, "exec", dont_inherit=True, optimize=int(level))
    same = raw[:4] == importlib.util.MAGIC_NUMBER
    try:
        same = same and marshal.loads(raw[16:]) == code
    except (EOFError, TypeError, ValueError):
        same = False
    if not same:
        print(compiled.decode())
        break
else:
    print("good")
"""


class Checked(NamedTuple):
    """What was checked, and what was not."""

    files: int
    compiled: int
    not_checked: tuple[str, ...]


def check(release: Path) -> Checked:
    """Compare the environment with the wheels, and compiled files with their sources.

    The wheels and the other members must have been compared with the manifest before.

    Raises:
        AirliftError: a file is missing, was altered, or belongs to no wheel.
    """
    venv = release / "venv"
    if not (venv / MARKER).is_file():
        compiled, others = _check_compiled(release)
        return Checked(0, compiled, (*others, "the environment, which was not made yet"))
    packages = _packages(venv)
    known = _of_wheels(release, venv, packages)
    for path, digest in known.items():
        _compare(venv, path, digest)
    programs = dict(_programs(packages, known))
    for path in _files(venv):
        if path not in known and not _is_made(path, release, packages, programs):
            _wrong(venv, path, "is not part of the environment: no wheel of this release has it")
    for name, function in programs.items():
        _check_program(venv, venv / "bin" / name, function)
    compiled, others = _check_compiled(release)
    return Checked(len(known), compiled, (*others, *NOT_CHECKED))


def _packages(venv: Path) -> Path:
    found = [path for path in (venv / "lib").glob("python3.*/site-packages") if path.is_dir()]
    if len(found) != 1:
        _wrong(venv, venv / "lib", f"holds {len(found)} directories of packages, not one")
    return found[0]


def _of_wheels(release: Path, venv: Path, packages: Path) -> dict[Path, str | None]:
    """Map each file of the wheels to its hash; None for a file that pip rewrites."""
    places = sorted((release / "wheels").glob("*.whl"))
    wheels = [zipfile.ZipFile(open_regular(path, _LIMIT)) for path in places]
    known: dict[Path, str | None] = {}
    for info in sorted(packages.glob("*.dist-info")):
        wheel = _wheel_of(info, wheels)
        if wheel is None:
            _wrong(venv, info, "is not part of the environment: no wheel of this release has it")
        rows = csv.reader(io.StringIO(wheel.read(f"{info.name}/RECORD").decode()))
        for name, digest, _ in rows:
            place, is_script = _place(name, venv, packages)
            known[place] = None if is_script or not digest else digest
    return known


def _wheel_of(info: Path, wheels: list[zipfile.ZipFile]) -> zipfile.ZipFile | None:
    """Return the wheel that was installed; if there are several, the one for this Python."""
    try:
        mine = read_file(info / "WHEEL", _LIMIT)
    except OSError:
        return None
    name = f"{info.name}/WHEEL"
    fits = (one for one in wheels if name in one.namelist() and one.read(name) == mine)
    return next(fits, None)


def _place(name: str, venv: Path, packages: Path) -> tuple[Path, bool]:
    """Return where pip puts a wheel's file, and whether pip writes its first line (a script)."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return packages / name, False
    scheme, _, inner = rest.partition("/")
    roots = {"purelib": packages, "platlib": packages, "scripts": venv / "bin", "data": venv}
    return roots.get(scheme, venv / "include") / inner, scheme == "scripts"


def _programs(packages: Path, known: Mapping[Path, str | None]) -> Iterator[tuple[str, str]]:
    """Yield (name, function) of each program that pip writes because a wheel declares it."""
    for info in packages.glob("*.dist-info"):
        path = info / "entry_points.txt"
        if path not in known:
            continue
        section = ""
        for line in _read(packages.parents[2], path).decode().splitlines():
            if line.startswith("["):
                section = line.strip("[] ")
            elif section == "console_scripts" and "=" in line:
                name, _, function = line.partition("=")
                yield name.strip(), function.partition("[")[0].strip()
                if name.strip() == "pip":
                    version = f"{sys.version_info.major}.{sys.version_info.minor}"
                    yield f"pip{version}", function.strip()


def _is_made(path: Path, release: Path, packages: Path, programs: Mapping[str, str]) -> bool:
    """Return whether Python's venv, pip or the import made a file.

    Those of them that can be run are checked elsewhere.
    """
    venv = release / "venv"
    if path.parent.name == "__pycache__":
        return True
    if path.parent.suffix == ".dist-info" and path.parent.parent == packages:
        return path.name in _BY_PIP
    if path == packages / "airlift.pth":
        # A release that an earlier one imported has the first line only.
        return _read(venv, path).decode(errors="replace") in (f"{release}\n", paths(release))
    if path.parent == venv / "bin":
        if path.is_symlink():
            return re.fullmatch(r"python(3(\.\d+)?)?", path.name) is not None
        return path.name in programs or path.name.lower().startswith("activate")
    if path == venv / "pyvenv.cfg":
        # Otherwise Python would import the system's packages first.
        return b"include-system-site-packages = false\n" in _read(venv, path)
    # Python 3.13 tells git to ignore an environment.
    return path in {venv / MARKER, venv / "lib64", venv / ".gitignore"}


def _files(venv: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(venv):
        base = Path(root)
        yield from (base / name for name in [*files, *folders] if (base / name).is_symlink())
        yield from (base / name for name in sorted(files) if not (base / name).is_symlink())


def _read(venv: Path, path: Path) -> bytes:
    try:
        return read_file(path, _LIMIT)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _wrong(venv, path, "is a symbolic link")
        _wrong(venv, path, f"cannot be read ({error.strerror})")


def _compare(venv: Path, path: Path, digest: str | None) -> None:
    raw = _read(venv, path)
    if digest is None:
        return
    kind, _, wanted = digest.partition("=")
    found = base64.urlsafe_b64encode(hashlib.new(kind, raw).digest()).rstrip(b"=").decode()
    if found != wanted:
        _wrong(venv, path, "was altered: its hash is not the one in its wheel")


def _check_program(venv: Path, path: Path, function: str) -> None:
    module, _, name = function.partition(":")
    wanted = _PROGRAM.format(module=module, function=name.partition(".")[0], call=name)
    try:
        text = read_file(path, _LIMIT).decode()
    except (OSError, ValueError):
        _wrong(venv, path, "cannot be read")
    first, _, rest = text.partition("\n")
    python = first.removeprefix("#!")
    if long := _LONG.match(text):
        python, rest = long[2], text[long.end() :]
    try:
        # A program that Python warns of, or cannot parse, was not written by pip.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same = ast.dump(ast.parse(rest)) == ast.dump(ast.parse(wanted))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        same = False
    if not same or Path(python) != venv / "bin" / Path(python).name or "python" not in python:
        _wrong(venv, path, "was altered: it is not the program that pip writes")


def _check_compiled(release: Path) -> tuple[int, tuple[str, ...]]:
    """Compare compiled files with their sources; return their number, and what was not checked."""
    found: list[tuple[int, Path, Path]] = []
    strange = 0
    for folder in sorted(release.rglob("__pycache__")):
        for path in sorted(folder.iterdir()):
            match = _COMPILED.fullmatch(path.name)
            source = folder.parent / f"{match['stem']}.py" if match else None
            if match is None or source is None or not source.is_file() or path.is_symlink():
                _foreign(path)
            if match["tag"] == sys.implementation.cache_tag:
                found.append((int(match["level"] or 0), path, source))
            else:
                strange += 1
    command = [sys.executable, "-I", "-S", "-c", _COMPARE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        # The process ends at the first file that differs, and then reads no more.
        with suppress(BrokenPipeError):
            for level, path, source in found:
                process.stdin.write(_pair(level, path, source))
        answer = os.fsdecode(process.communicate()[0]).strip()
    if answer != "good":
        _foreign(Path(answer) if answer else release)
    others = (f"{strange} files compiled for another Python",) if strange else ()
    return len(found), others


def _pair(level: int, path: Path, source: Path) -> bytes:
    """Return a compiled file and its source in the form that the comparing process reads."""
    try:
        raw, text = read_file(path, _LIMIT), read_file(source, _LIMIT)
    except OSError:
        _foreign(path)
    names = os.fsencode(path), os.fsencode(source)
    parts = (*names, raw, text)
    head = b"".join(b"%010d" % number for number in (level, *map(len, parts)))
    return head + b"".join(parts)


def _foreign(path: Path) -> NoReturn:
    raise AirliftError(
        Kind.RELEASE_ALTERED,
        f"{path.name} was altered: compiling its source gives another file",
        where=str(path),
        fix=f"find out who wrote it; then: rm {shlex.quote(str(path))}",
    )


def _wrong(venv: Path, path: Path, what: str) -> NoReturn:
    raise AirliftError(
        Kind.RELEASE_ALTERED,
        f"{path.name} {what}",
        where=str(path),
        # The command is last: `rm` would take a word after it for one more path.
        fix="find out who changed it; import the same bundle again, after this: "
        f"rm -r {shlex.quote(str(venv))}",
    )

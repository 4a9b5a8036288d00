"""The site's folder on the jump host: of one operator, or shared by a group of operators.

It is shared if its group can write to it and new files in it get that group: mode 2770.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bundle.core.accounts import group_name, user_name

SHARED = stat.S_ISGID | stat.S_IRWXG
#: As many paths are named.
NAMED = 3


def is_shared(folder: Path) -> bool:
    """Return whether a group shares this folder."""
    return folder.is_dir() and folder.stat().st_mode & SHARED == SHARED


def look(folder: str, state: str) -> dict[str, Any]:
    """Return modes and group of private files, and why this user cannot work here."""
    top = Path(folder)
    shared = is_shared(top)
    wrong = list(_unusable(Path(state)))
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return {
        "directory_mode": "2770" if shared else "0700",
        "file_mode": "0660" if shared else "0600",
        "group": str(top.stat().st_gid) if shared else "",
        "problem": f"{_user(os.geteuid())} cannot use it: {'; '.join(wrong[:NAMED])}{more}"
        if wrong
        else "",
        "fix": _fix(top, shared=shared) if wrong else "",
    }


def make(folder: Path) -> None:
    """Make a folder for this user, or for the group that shares the one above."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_shared(folder.parent):
        folder.chmod(0o2770)


def write(path: Path, text: str) -> None:
    """Replace a file, also one of another operator of the group."""
    make(path.parent)
    if path.exists() and not path.is_file():  # such as /dev/null
        path.write_text(text, encoding="utf-8")
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        if is_shared(path.parent):
            draft.chmod(0o660)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_report(
    path: Path, report: Mapping[str, Any], option: str, warn: Callable[[str], None]
) -> None:
    """Write a report for machines; warn if that is impossible. `option` names another file."""
    try:
        write(path, json.dumps(report, indent=1, sort_keys=True) + "\n")
    except OSError as error:
        warn(
            f"the JSON report could not be written: {error}; choose another file with "
            f"-e {option}=FILE"
        )


def _unusable(place: Path) -> Iterator[str]:
    """Yield what this user cannot use of what Airlift keeps, or where it will keep it."""
    if os.path.lexists(place):
        yield from _below(place)
        return
    while not place.is_dir():
        place = place.parent
    yield from _wrong(place)


def _below(path: Path) -> Iterator[str]:
    yield from _wrong(path)
    if path.is_dir() and not path.is_symlink():
        with suppress(OSError):
            for one in sorted(path.iterdir()):
                yield from _below(one)


def _wrong(path: Path) -> Iterator[str]:
    """Yield a path with its owner; a file is replaced by a rename, so its folder counts."""
    need = os.R_OK | os.W_OK | os.X_OK if path.is_dir() else os.R_OK
    if not os.access(path, need):
        status = path.lstat()
        owner = f"{_user(status.st_uid)}:{_group(status.st_gid)}"
        yield f"{path} belongs to {owner}, mode {stat.S_IMODE(status.st_mode):04o}"


def _fix(top: Path, *, shared: bool) -> str:
    group = _group(top.stat().st_gid) if shared else "airlift"
    place = shlex.quote(str(top))
    steps = (
        f"sudo chgrp -R {group} {place}",
        f"sudo chmod -R g+rwX,o= {place}",
        f"sudo find {place} -type d -exec chmod g+s {{}} +",
    )
    return f"share it with a group that all operators are in: {' && '.join(steps)}"


def _user(number: int) -> str:
    return user_name(number) or str(number)


def _group(number: int) -> str:
    return group_name(number) or str(number)

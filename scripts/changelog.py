"""Check CHANGELOG.md against bundle/release.yml and the tag, or print a release's notes.

    python3 scripts/changelog.py check            check the form, and that the next release is first
    python3 scripts/changelog.py release [TAG]    also check that this commit is dated and tagged
    python3 scripts/changelog.py notes [VERSION]  print the notes of a version, for its release page

Standard library only, because a runner calls this before anything is set up.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sys
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import version as versions
from scripts.version import VersionError

UNRELEASED = "unreleased"
HEAD = re.compile(r"## (?P<version>\S+) \((?P<date>[^,)]+), serial (?P<serial>\d+)\)")


class Section(NamedTuple):
    """The section of one release."""

    version: str
    date: str
    serial: int
    text: str
    line: int


class ChangelogError(Exception):
    """A problem with the file, in sentences."""


def sections(path: Path) -> list[Section]:
    """Read the releases, the newest first."""
    found: list[Section] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            head = HEAD.fullmatch(line)
            if head is None:
                raise ChangelogError(
                    f"line {number}: {line!r} is not the heading of a release; write "
                    "`## 1.1.0 (2026-12-01, serial 2)`, or `unreleased` for the date"
                )
            found.append(Section(head["version"], head["date"], int(head["serial"]), "", number))
        elif found:
            found[-1] = found[-1]._replace(text=f"{found[-1].text}{line}\n")
    return found


def problems(found: list[Section], version: str, serial: int) -> list[str]:
    """Return the problems of the file, whether or not a release is due."""
    wrong = []
    if not found:
        return ["it has no section of a release: write one"]
    for one in found:
        if not re.search(r"^- \S", one.text, re.MULTILINE):
            wrong.append(f"line {one.line}: {one.version} lists no change: write what changed")
        if one.date != UNRELEASED and not is_date(one.date):
            wrong.append(f"line {one.line}: {one.date!r} is not a date such as 2026-12-01")
    for newer, older in itertools.pairwise(found):
        if versions.order(newer.version) <= versions.order(older.version):
            wrong.append(f"line {older.line}: {older.version} is not older than {newer.version}")
        if newer.serial <= older.serial:
            wrong.append(
                f"line {newer.line}: serial {newer.serial} of {newer.version} is not above "
                f"{older.serial} of {older.version}: clients would refuse it"
            )
        if older.date == UNRELEASED:
            wrong.append(f"line {older.line}: {older.version} is unreleased below a newer release")
        elif is_date(newer.date) and newer.date < older.date:
            wrong.append(f"line {newer.line}: {newer.version} is dated before {older.version}")
    first = found[0]
    if (first.version, first.serial) != (version, serial):
        wrong.append(
            f"line {first.line}: the first section is {first.version}, serial {first.serial}; "
            f"bundle/release.yml has {version}, serial {serial}"
        )
    return wrong


def is_date(text: str) -> bool:
    """Return whether a text is a date in the form of a heading."""
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def unready(first: Section, now: versions.Version, tag: str, today: dt.date) -> list[str]:
    """Return the reasons not to release this commit."""
    wrong = []
    if first.date == UNRELEASED:
        wrong.append(f"line {first.line}: {first.version} is {UNRELEASED}: write today's date")
    elif is_date(first.date) and dt.date.fromisoformat(first.date) > today:
        wrong.append(f"line {first.line}: {first.date} is in the future")
    wanted = f"v{now.version}"
    if tag and tag != wanted:
        wrong.append(f"the tag is {tag}, but bundle/release.yml has {now.version}")
    elif not now.release:
        wrong.append(f"this commit has no tag: git tag -s {wanted} -m {wanted}")
    return wrong


def main(words: list[str], tree: Path = versions.ROOT) -> int:
    """Check, or print notes; return the exit code."""
    verb, rest = (words or [""])[0], words[1:]
    if verb not in ("check", "release", "notes") or len(rest) > (verb != "check"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        version, serial = versions.declared(tree)
        found = sections(tree / "CHANGELOG.md")
        if verb == "notes":
            wanted = rest[0].removeprefix("v") if rest else version
            text = [one.text.strip() for one in found if one.version == wanted]
            if not text:
                raise ChangelogError(f"it has no section of {wanted}")
            print(text[0])
            return 0
        wrong = problems(found, version, serial)
        if verb == "release" and found:
            today = dt.datetime.now(dt.timezone.utc).date()  # noqa: UP017 - Python 3.9 and later
            wrong += unready(found[0], versions.of(tree), rest[0] if rest else "", today)
    except (ChangelogError, VersionError, OSError) as error:
        wrong = [str(error)]
    for one in wrong:
        print(f"CHANGELOG.md: {one}", file=sys.stderr)
    if not wrong:
        print(f"CHANGELOG.md: {version}, serial {serial}: no problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

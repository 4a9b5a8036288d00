"""The name of this commit: a SemVer version and the commit, for images, pipelines and people.

    python3 scripts/version.py            print every name, as NAME=VALUE lines

A commit with the tag `v1.1.0` is release 1.1.0, and its image is `1.1.0-g983e757c0def`. Any other
commit comes before the next release: `1.1.0-dev.12.g983e757c0def`, 12 commits after the last tag.
Each name contains the commit, so none ever moves, and there is no `latest`. Standard library only,
because a runner calls this before anything is set up.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from bundle.format import versions  # noqa: E402

SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
DIGITS = 12


class VersionError(Exception):
    """The tree has no clear version; problem and fix in one sentence."""


class Version(NamedTuple):
    """The names of a commit."""

    #: As in bundle/release.yml.
    version: str
    serial: int
    #: The whole commit.
    revision: str
    #: Unique and never moved.
    image_tag: str
    #: Whether the commit has the tag of its version.
    release: bool

    def lines(self) -> list[str]:
        """Return NAME=VALUE lines."""
        values = self._replace(release=str(self.release).lower())._asdict()  # type: ignore[arg-type]
        return [f"{name}={value}" for name, value in values.items()]


def git(tree: Path, *words: str) -> str:
    """Return the output of a git command in a tree."""
    done = subprocess.run(
        ["git", "-C", str(tree), *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise VersionError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def declared(tree: Path) -> tuple[str, int]:
    """Return version and serial of bundle/release.yml, which is read without a YAML library."""
    path = tree / "bundle" / "release.yml"
    text = path.read_text(encoding="utf-8")
    version = re.search(r"^version: *(\S+)", text, re.MULTILINE)
    serial = re.search(r"^serial: *(\d+)", text, re.MULTILINE)
    if not version or not serial or not SEMVER.fullmatch(version[1]):
        raise VersionError(f"{path} has no version and serial: write both, such as 1.1.0 and 2")
    return version[1], int(serial[1])


def order(version: str) -> versions.Order:
    """Return a key that sorts versions as SemVer does."""
    if not SEMVER.fullmatch(version):
        raise VersionError(
            f"{version!r} is not a SemVer version: use MAJOR.MINOR.PATCH, such as 1.1.0"
        )
    return versions.order(version)


def tags(tree: Path, *words: str) -> list[str]:
    """Return the versions of the tree's tags."""
    found = git(tree, "tag", "--list", "v*", *words).splitlines()
    return [tag[1:] for tag in found if SEMVER.fullmatch(tag[1:])]


def of(tree: Path = ROOT) -> Version:
    """Return the names of the checked-out commit."""
    version, serial = declared(tree)
    revision = git(tree, "rev-parse", "HEAD")
    if git(tree, "rev-parse", "--is-shallow-repository") == "true":
        raise VersionError("this clone has no history to count: git fetch --unshallow --tags")
    short = f"g{revision[:DIGITS]}"
    here = tags(tree, "--points-at", "HEAD")
    if here:
        if here != [version]:
            names = ", ".join(f"v{one}" for one in here)
            raise VersionError(
                f"this commit has the tag {names}, but bundle/release.yml has {version}: "
                f"move the tag to the commit that has its version, or correct the file"
            )
        return Version(version, serial, revision, f"{version}-{short}", release=True)
    before = tags(tree, "--merged", "HEAD")
    if before:
        last = max(before, key=order)
        count = git(tree, "rev-list", "--count", f"v{last}..HEAD")
    else:
        last, count = "", git(tree, "rev-list", "--count", "HEAD")
    return Version(
        version, serial, revision, f"{upcoming(version, last)}.{count}.{short}", release=False
    )


def upcoming(version: str, last: str) -> str:
    """Return the start of the names of commits after a tag, which sort between the releases.

    After `1.1.0-rc.1`: `1.1.0-rc.1.dev`. After 1.0.0: `1.1.0-dev`, or `1.0.1-dev` while release.yml
    does not have the next version yet.
    """
    numbers, _, before = version.partition("-")
    if last.startswith(f"{numbers}-"):
        return f"{last}.dev"
    if last == version and not before:
        major, minor, patch = numbers.split(".")
        numbers = f"{major}.{minor}.{int(patch) + 1}"
    return f"{numbers}-dev"


def main() -> int:
    """Print the names of this commit."""
    try:
        print("\n".join(of().lines()))
    except (VersionError, OSError) as error:
        print(f"version: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

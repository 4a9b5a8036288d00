"""The version of a commit: SemVer from the tag, with the commit in it, never a moving name."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import version as versions
from scripts.version import VersionError


class Clone:
    """A git repository of its own."""

    def __init__(self, root: Path, version: str = "1.0.0", serial: int = 1) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A Person")
        self.git("config", "user.email", "person@example.org")
        self.commit(version, serial)

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.root, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, version: str, serial: int) -> None:
        """Commit a bundle/release.yml with this version and serial."""
        (self.root / "bundle").mkdir(exist_ok=True)
        text = f"# What the next bundle is.\nversion: {version}\nserial: {serial}\n"
        (self.root / "bundle" / "release.yml").write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", f"{version}")

    def tag(self, name: str) -> None:
        self.git("tag", "-a", name, "-m", name)

    @property
    def short(self) -> str:
        return f"g{self.git('rev-parse', 'HEAD')[:12]}"

    @property
    def image(self) -> str:
        return versions.of(self.root).image_tag


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_tagged_commit_is_that_release(clone: Clone) -> None:
    clone.tag("v1.0.0")
    found = versions.of(clone.root)
    assert found.release
    assert found.image_tag == f"1.0.0-{clone.short}"
    assert found.revision == clone.git("rev-parse", "HEAD")
    assert found.lines()[-1] == "release=true"


def test_before_the_first_tag_commits_are_counted_from_the_beginning(clone: Clone) -> None:
    clone.commit("1.0.0", 1)
    assert clone.image == f"1.0.0-dev.2.{clone.short}"


def test_after_a_release_the_next_patch_is_on_its_way_until_it_has_a_name(clone: Clone) -> None:
    clone.tag("v1.0.0")
    clone.commit("1.0.0", 1)
    assert clone.image == f"1.0.1-dev.1.{clone.short}"
    clone.commit("1.1.0", 2)
    assert clone.image == f"1.1.0-dev.2.{clone.short}"


def test_names_sort_in_the_order_in_which_they_were_made(clone: Clone) -> None:
    found = []
    for version in ("1.0.0", "1.1.0-rc.1", "1.1.0-rc.2", "1.1.0", "1.2.0"):
        clone.commit(version, 2)
        found.append(clone.image)
        clone.tag(f"v{version}")
        clone.commit(version, 2)
        found.append(clone.image)
    assert [name.rpartition(".g")[0] for name in found[2:5]] == [
        "1.1.0-dev.2",
        "1.1.0-rc.1.dev.1",
        "1.1.0-rc.1.dev.2",
    ]
    assert found == sorted(found, key=versions.order)


def test_every_commit_has_a_name_of_its_own_and_none_is_latest(clone: Clone) -> None:
    names = []
    for number in range(4):
        clone.commit("1.1.0", number)
        names.append(clone.image)
    assert len(set(names)) == 4
    assert not [name for name in names if "latest" in name]


def test_a_tag_that_is_not_the_files_version_is_refused(clone: Clone) -> None:
    clone.tag("v1.0.1")
    with pytest.raises(VersionError, match=r"has the tag v1\.0\.1, but bundle/release\.yml has 1"):
        versions.of(clone.root)


def test_two_versions_on_one_commit_are_refused(clone: Clone) -> None:
    clone.tag("v1.0.0")
    clone.tag("v1.0.1")
    with pytest.raises(VersionError, match=r"v1\.0\.0, v1\.0\.1"):
        versions.of(clone.root)


def test_other_tags_are_none_of_a_release(clone: Clone) -> None:
    for name in ("nightly", "v1", "vendor-1.0.0"):
        clone.tag(name)
    assert not versions.of(clone.root).release


def test_a_clone_without_its_history_is_refused(clone: Clone, tmp_path: Path) -> None:
    clone.commit("1.0.0", 1)
    copy = tmp_path / "copy"
    clone.git("clone", "--quiet", "--depth", "1", f"file://{clone.root}", str(copy))
    with pytest.raises(VersionError, match="git fetch --unshallow --tags"):
        versions.of(copy)


def test_semver_order() -> None:
    """The example in section 11 of the SemVer specification."""
    listed = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11"
    found = [*listed.split(), "1.0.0-rc.1", "1.0.0", "1.0.10", "1.2.0"]
    assert sorted(found, key=versions.order) == found


def test_make_and_the_program_say_the_same_of_this_tree() -> None:
    words = [sys.executable, "scripts/version.py"]
    direct = subprocess.run(words, cwd=versions.ROOT, capture_output=True, text=True, check=False)
    made = subprocess.run(
        ["make", "version"], cwd=versions.ROOT, capture_output=True, text=True, check=False
    )
    assert made.stdout == direct.stdout
    # A clone without history reports that in both.
    assert made.stderr.startswith(direct.stderr)
    if direct.returncode == 0:
        assert [line.partition("=")[0] for line in direct.stdout.splitlines()] == [
            *("version", "serial", "revision", "image_tag", "release")
        ]

"""Two builds at the same time on one machine share a cache and a folder of results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import cache, sums
from bundle.trust import sshsig
from bundle.verify.checks import opened
from tests.unit.bundle.bundlekit import TREE, Keys, Recipe, make_tree, sha

FILES = 300
VERSIONS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")

TAKE = """
import sys
from pathlib import Path
from bundle.builder import cache
name, made, dest = sys.argv[1:]
def fill(folder):
    with Path(made).open("a") as log:
        log.write("made\\n")
    for number in range(300):
        (folder / f"{number}.whl").write_bytes(b"good")
BEGIN
cache.take("wheels", name, fill, Path(dest))
"""
BUILD = """
import sys
from pathlib import Path
from bundle.builder import build, content
from tests.unit.bundle.test_bundle_repeat import Light
version, serial, tree, out, key = sys.argv[1:]
content.COLLECTIONS = ()
wanted = build.Options(
    tree=Path(tree), out=Path(out), keys=(Path(key),), identity="x@y",
    version=version, serial=int(serial), allow_dirty=True,
)
BEGIN
print(build.build(wanted, Light(), log=lambda _: None).sha256)
"""
SIGN = """
import sys
from pathlib import Path
from bundle.builder import countersign
bundle, key = map(Path, sys.argv[1:])
BEGIN
countersign.add(bundle, key=key, signature=None)
"""


def started(code: str, *given: object) -> subprocess.Popen[str]:
    """Start Python code in its own process, which stops at the line BEGIN."""
    stop = "print('ready', flush=True); sys.stdin.readline()\n"
    return subprocess.Popen(
        [sys.executable, "-c", code.replace("BEGIN\n", stop), *map(str, given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TREE,
    )


def at_once(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let all processes begin together; return the output of each."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    failed = [said for one, (_, said) in zip(processes, answers, strict=True) if one.returncode]
    assert not failed, failed[0]
    return [printed.strip() for printed, _ in answers]


def waits_or_ended(process: subprocess.Popen[str]) -> bool:
    waiting = [line for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(f" {process.pid} " in line for line in waiting) or process.poll() is not None


def test_builds_that_need_the_same_files_make_them_once_and_copy_all(tmp_path: Path) -> None:
    made = tmp_path / "made"
    copies = [tmp_path / f"copy-{number}" for number in range(4)]
    at_once([started(TAKE, "same", made, copy) for copy in copies])
    assert [len(list(copy.iterdir())) for copy in copies] == [FILES] * 4
    assert made.read_text() == "made\n"


def test_a_build_does_not_take_a_folder_away_under_the_copy_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other build finds the folder damaged while this one copies it."""
    first, second = tmp_path / "first", tmp_path / "second"
    other: list[subprocess.Popen[str]] = []

    def fill(folder: Path) -> None:
        for number in range(FILES):
            (folder / f"{number}.whl").write_bytes(b"good")

    def copy(source: str, dest: str) -> str:
        if not other:
            # A folder whose list does not match it counts as damaged.
            (cache.root() / "wheels" / "damaged.json").write_text("{}")
            code = TAKE.replace("BEGIN\n", "")
            other.append(started(code, "damaged", tmp_path / "made", second))
            while not waits_or_ended(other[0]):
                pass
        Path(dest).write_bytes(Path(source).read_bytes())
        return dest

    monkeypatch.setattr("shutil.copyfile", copy)
    cache.take("wheels", "damaged", fill, first)
    assert other[0].communicate() == ("", "")
    assert [len(list(folder.iterdir())) for folder in (first, second)] == [FILES, FILES]
    assert (tmp_path / "made").read_text() == "made\n"


def test_what_a_killed_build_left_half_made_goes_with_the_next(tmp_path: Path) -> None:
    half = cache.root() / "wheels" / ".part-left-abc"
    half.mkdir(parents=True)
    other = half.with_name(".part-another-abc")
    other.mkdir()
    cache.take("wheels", "left", lambda folder: (folder / "one").touch(), tmp_path / "copy")
    assert not half.exists()
    assert other.exists(), "another build may be using it"


def test_builds_of_several_releases_into_one_folder_are_all_listed_and_signed(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    tree, out = make_tree(tmp_path / "tree", b"airlifttiny==1.0\n"), tmp_path / "dist"
    builds = [
        started(BUILD, version, serial, tree, out, keys.key())
        for serial, version in enumerate(VERSIONS, 1)
    ]
    printed = at_once(builds)
    raw = (out / sums.NAME).read_bytes()
    sshsig.check_fits(raw, (out / f"{sums.NAME}.sig").read_bytes())
    names = [f"airlift-{version}-amd64.tar" for version in VERSIONS]
    assert raw.decode() == "".join(
        f"{total}  {name}\n" for name, total in zip(names, printed, strict=True)
    )
    for name, total in zip(names, printed, strict=True):
        assert sha((out / name).read_bytes()) == total
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*names, sums.NAME, f"{sums.NAME}.sig"]
    )


def test_the_signatures_of_all_who_sign_at_once_are_in_the_bundle(
    craft: Callable[[Recipe], Path], keys: Keys
) -> None:
    bundle = craft(Recipe())
    at_once([started(SIGN, bundle, keys.key(name)) for name in ("second", "third", "fourth")])
    with opened(bundle, trust=None, home=None) as found:
        assert len(found.signatures) == 4


USE = """
import sys
from bundle.builder import cache
with cache.in_use():
    BEGIN
"""


def test_nothing_is_tidied_while_a_build_runs_anywhere() -> None:
    done: list[str] = []
    other = started(USE.replace("    BEGIN\n", "    print('ready', flush=True); input()\n"))
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    with cache.in_use():
        cache.when_unused(lambda: done.append("while both run"))
        assert not done
    assert not done, "another build is running"
    assert other.communicate("\n")[1] == ""
    with cache.in_use():
        cache.when_unused(lambda: done.append("at the end"))
        with cache.in_use():
            pass
        assert not done, "this build is running"
    assert done == ["at the end"]

"""Builds are reproducible on any machine, and a killed build leaves nothing."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import build, content
from bundle.verify import checks
from tests.unit.bundle.bundlekit import (
    SOAK,
    TREE,
    FakeSuppliers,
    Keys,
    make_tree,
    records,
    wheel,
)
from tests.unit.bundle.test_bundle_kill import STEPS, in_dying_child

LINE = b"airlifttiny==1.0\n"


class Light(FakeSuppliers):
    """A wheelhouse of one small wheel: the result is not installed here."""

    def __init__(self, *, backwards: bool = False) -> None:
        super().__init__()
        name, data = wheel("airlifttiny", "1.0", {"airlifttiny.py": b"ANSWER = 42\n"})
        many = {name.replace("1.0", f"1.{n}"): data + bytes([n]) for n in range(9)}
        self.wheelhouse = dict(sorted(many.items(), reverse=backwards)), LINE


# Umask, time zone, language and hash seed belong to a process, so use one of its own.
BUILD = """
import os, sys
from pathlib import Path
from bundle.builder import build, content
from tests.unit.bundle.test_bundle_repeat import Light
umask, backwards, tree, out, key = sys.argv[1:]
os.umask(int(umask, 8))
content.COLLECTIONS = ()
wanted = build.Options(tree=Path(tree), out=Path(out), keys=(Path(key),), identity="x@y")
print(build.build(wanted, Light(backwards=backwards == "1"), log=print).path)
"""


def _other_order(tree: Path, copy: Path) -> Path:
    """Copy the files in another order, with other dates and modes."""
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    random.Random(7).shuffle(files)
    for file in files:
        new = copy / file.relative_to(tree)
        new.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(file.read_bytes())
        new.chmod(0o600)
        os.utime(new, (1e9, 1e9))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_two_builds_are_equal(kind: str, tmp_path: Path) -> None:
    """They differ in folder, umask, time zone, language, hash seed and directory order."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)], check=True)
    here = make_tree(tmp_path / "here", LINE)
    there = _other_order(here, tmp_path / "some where else" / "tree")
    assert list(os.walk(here)) != list(os.walk(there))
    found = []
    for number, (tree, umask, env) in enumerate(
        (
            (here, "022", {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"}),
            (there, "077", {"TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}),
        )
    ):
        out = tmp_path / f"out {number}"
        command = [sys.executable, "-c", BUILD, umask, str(number), str(tree), str(out), str(key)]
        variables = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600", **env}
        done = subprocess.run(
            command, cwd=TREE, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(Path(done.stdout.splitlines()[-1]).read_bytes())
    one, other = (records(raw) for raw in found)
    assert [part.name for part in one] == [part.name for part in other]
    different = [a.name for a, b in zip(one, other, strict=True) if a != b]
    # Only ECDSA uses random numbers for each signature.
    assert different == ([] if kind == "ed25519" else ["manifest.sig"])
    assert (found[0] == found[1]) is (kind == "ed25519")


def killed_at(step: int, wanted: build.Options) -> int | None:
    """Build in a child killed at its n-th step; return None, or the steps left if it survived."""
    return in_dying_child(
        step,
        lambda: build.build(wanted, Light(), log=lambda _: None),
        steps=[*STEPS, (os, "sendfile")],
        prepare=lambda: None,
    )


@pytest.fixture
def options(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], build.Options]:
    monkeypatch.setattr(content, "COLLECTIONS", ())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    tree = make_tree(tmp_path / "tree", LINE)
    return lambda out: build.Options(tree=tree, out=out, keys=(keys.key(),), identity="x@y")


@pytest.mark.slow
def test_a_build_killed_anywhere_is_done_by_the_same_command(
    tmp_path: Path, keys: Keys, options: Callable[[Path], build.Options]
) -> None:
    left = killed_at(1_000_000, options(tmp_path / "whole"))
    assert left is not None
    steps = 1_000_000 - left
    assert steps > 60
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert sorted(whole) == ["SHA256SUMS", "SHA256SUMS.sig", "airlift-1.0.0-amd64.tar"]
    seen = set()
    for step in sorted({*range(1, steps, 1 if SOAK else steps // 5), *range(steps - 5, steps + 1)}):
        out = tmp_path / f"out-{step}"
        assert killed_at(step, options(out)) is None or step > steps - 3
        path = out / "airlift-1.0.0-amd64.tar"
        seen.add((path.exists(), bool(list(out.glob(".build-*"))) if out.exists() else False))
        if path.exists():
            # A file with its final name is complete.
            with checks.opened(path, trust=keys.trust(), home=None) as bundle:
                checks.check_members(bundle)
        build.build(options(out), Light(), log=lambda _: None)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
        shutil.rmtree(out)
    assert {(False, True), (True, True)} <= seen or {(False, True), (True, False)} <= seen


def test_a_build_leaves_that_of_another_process_alone(
    tmp_path: Path, options: Callable[[Path], build.Options]
) -> None:
    """Two versions may be built into one folder at the same time."""
    out = tmp_path / "out"
    out.mkdir()
    code = "import sys; from pathlib import Path; from bundle.builder.workspace import workspace\n"
    code += "with workspace(Path(sys.argv[1])) as folder:\n    print(folder, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        cwd=TREE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        folder = Path(other.stdout.readline().strip())
        build.build(options(out), Light(), log=lambda _: None)
        assert folder.is_dir()
        other.kill()
        other.wait()
        assert folder.is_dir()
    build.build(options(out), Light(), log=lambda _: None)
    assert not folder.exists()

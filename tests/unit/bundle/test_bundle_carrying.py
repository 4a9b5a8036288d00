"""The commands of docs/CARRYING.md, and of docs/TRUST.md about parts, run as written."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli.answer import Answer
from bundle.cli.custody import recorded
from bundle.errors import Kind
from bundle.jumphost.store import Home
from bundle.trust import custody
from tests.unit.bundle.bundlekit import TREE, Keys, assert_finished

CARRYING = (TREE / "docs" / "CARRYING.md").read_text()
TRUST = (TREE / "docs" / "TRUST.md").read_text()
NAME = "airlift-1.0.0-amd64.tar"


def block(title: str, text: str = CARRYING) -> str:
    found = re.search(rf"<!-- {re.escape(title)} -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert found, title
    return found[1]


@pytest.fixture
def desk(tmp_path: Path, full: build.Built, keys: Keys) -> Path:
    """Return a folder with a checkout's `dist/`, an empty USB drive, and separate lists."""
    shutil.copytree(full.path.parent, tmp_path / "work" / "dist")
    (tmp_path / "usb").mkdir()
    line = keys.line("bob", "bob@airlift.example", f'namespaces="{custody.NAMESPACE}"')
    (tmp_path / "people").write_text(line)
    (tmp_path / ".ssh").mkdir()
    shutil.copy(keys.key("bob"), tmp_path / ".ssh" / "id_ed25519")
    return tmp_path / "work"


@pytest.fixture
def settings(desk: Path, keys: Keys) -> dict[str, str]:
    top = desk.parent
    return {
        **os.environ,
        "NAME": NAME,
        "USB": str(top / "usb"),
        "DESK": str(top / "carried"),
        "SIGNERS": str(keys.signers()),
        "SIGNER": "release@airlift.example",
        "PEOPLE": str(top / "people"),
        "PARTS": str(top / "usb" / f"{NAME}.parts"),
        "FIRST": str(top / "usb" / f"{NAME}.part-01"),
        "HOME": str(top),
        "AIRLIFT_HOME": str(top / "opt" / "airlift"),
        "AIRLIFT_SIGNING_KEY": str(keys.key()),
        "PYTHONPATH": str(TREE),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def shell(script: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    # Use small parts, because the test's bundle is small.
    script = script.replace("--size 3900M", "--size 600k")
    return subprocess.run(
        ["bash", "-c", script], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )


def good(title: str, env: dict[str, str], cwd: Path, text: str = CARRYING) -> str:
    done = shell(block(title, text), env, cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_the_settings_are_those_that_the_tests_replace(settings: dict[str, str]) -> None:
    for title, text in (("settings", CARRYING), ("settings for parts", TRUST)):
        names = re.findall(r"^(\w+)=", block(title, text), re.MULTILINE)
        assert names
        assert set(names) <= set(settings)


@pytest.mark.slow
def test_the_way_of_a_bundle(
    settings: dict[str, str], desk: Path, full: build.Built, keys: Keys
) -> None:
    """Split, check, import from the parts without Airlift, keep the log, join in both ways.

    The verifier comes from part 1, and runs only after its signer is known.
    """
    assert "index signed" in good("split", settings, desk)
    parts = sorted((desk.parent / "usb").glob("*.part-*"))
    assert len(parts) > 3
    assert good("check by hand", settings, desk).count(": OK\n") == len(parts)
    assert good("the index of the parts, by hand", settings, desk, TRUST).count(": OK\n") > 3
    out = good("by hand, in parts", settings, desk, TRUST)
    assert 'Good "airlift-bundle" signature for release@airlift.example' in out
    assert "verify.pyz: OK" in out
    assert "is imported and current" in out
    assert_finished(Home(Path(settings["AIRLIFT_HOME"])), full.path, keys.trust())
    assert "is already imported" in good("import", settings, desk)
    assert "VALID" in good("custody", settings, desk)
    shown = good("inspect", settings, desk)
    assert "bob@airlift.example" in shown
    assert "seal 4711 unbroken" in shown
    good("join", settings, desk)
    joined = Path(settings["DESK"], NAME)
    assert joined.read_bytes() == full.path.read_bytes()
    joined.unlink()
    assert good("join by hand", settings, desk) == f"{NAME}: OK\n"
    assert joined.read_bytes() == full.path.read_bytes()


def test_by_hand_a_bad_part_is_seen(settings: dict[str, str], desk: Path) -> None:
    good("split", settings, desk)
    flip(desk.parent / "usb" / f"{NAME}.part-02")
    done = shell(block("check by hand"), settings, desk)
    assert (done.returncode, f"{NAME}.part-02: FAILED" in done.stdout) == (1, True)
    assert done.stdout.count("OK") == done.stdout.count("\n") - 1
    assert shell(block("join by hand"), settings, desk).returncode == 1
    index = "the index of the parts, by hand"
    assert shell(block(index, TRUST), settings, desk).returncode == 1


@pytest.mark.parametrize("where", [700, 40_000])
def test_by_hand_an_altered_first_part_runs_nothing(
    where: int, settings: dict[str, str], desk: Path
) -> None:
    """The alteration is in the manifest, or in the verifier."""
    good("split", settings, desk)
    first = Path(settings["FIRST"])
    raw = bytearray(first.read_bytes())
    raw[where] ^= 1
    first.write_bytes(raw)
    done = shell(block("by hand, in parts", TRUST), settings, desk)
    assert done.returncode != 0
    assert "imported" not in done.stdout
    assert not Path(settings["AIRLIFT_HOME"]).exists()


def test_an_index_that_somebody_else_signed(
    settings: dict[str, str], desk: Path, keys: Keys
) -> None:
    done = shell(block("split"), settings | {"AIRLIFT_SIGNING_KEY": str(keys.key("mallory"))}, desk)
    assert done.returncode == 0
    index = block("the index of the parts, by hand", TRUST)
    assert shell(index, settings, desk).returncode != 0
    assert shell(block("join"), settings, desk).returncode == Kind.UNKNOWN_SIGNER.exit_code


def test_a_build_begins_the_log(full: build.Built, tmp_path: Path) -> None:
    """`build --who` writes entry 1 beside the finished bundle."""
    path = Path(shutil.copy(full.path, tmp_path / NAME))
    arguments = argparse.Namespace(
        command="build", who="Ann", custody=None, note="", sign=None, output=tmp_path
    )
    answer = recorded(lambda _: Answer("built", {"bundle": str(path)}), arguments)
    (entry,) = custody.parse((tmp_path / f"{NAME}.custody").read_bytes()).entries
    assert (entry.data["done"], entry.data["who"]) == ("build", "Ann")
    assert entry.data["bundle"]["sha256"] == full.sha256
    assert entry.data["bundle"]["manifest_sha256"] == full.manifest_sha256
    assert answer.data["custody"]["entry"] == 1


def test_the_readers_shell_stays_where_it_was(settings: dict[str, str], desk: Path) -> None:
    """A reader who copies one block after another names files as before, such as dist/NAME."""
    good("split", settings, desk)
    for title, text in (
        ("check by hand", CARRYING),
        ("join by hand", CARRYING),
        ("the index of the parts, by hand", TRUST),
        ("the plain way, for the tar as a whole", TRUST),
    ):
        env = settings | {"BUNDLE": str(desk / "dist" / NAME)}
        done = shell(f"{block(title, text)}echo $? && pwd", env, desk)
        assert done.stdout.splitlines()[-2:] == ["0", str(desk)], done.stderr

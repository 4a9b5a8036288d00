"""docs/TRUST.md: its commands run as written, and its table matches the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.builder import build, sums
from bundle.errors import Kind
from bundle.jumphost.store import Home
from scripts.page_parts import blocks
from tests.unit.bundle.bundlekit import TREE, Keys, join, records
from tests.unit.docs.shown import is_shown, page

TEXT = (TREE / "docs" / "TRUST.md").read_text()


def block(title: str) -> str:
    found = re.search(rf"<!-- {re.escape(title)} -->\n```sh\n(.*?)```", TEXT, re.DOTALL)
    assert found, title
    return found[1]


@pytest.fixture
def stick(full: build.Built, tmp_path: Path, keys: Keys) -> dict[str, str]:
    """Return a USB drive, a separately received list, and the document's open settings."""
    folder = tmp_path / "media" / "usb"
    shutil.copytree(full.path.parent, folder)
    return {
        **os.environ,
        "BUNDLE": str(folder / full.path.name),
        "SIGNERS": str(keys.signers()),
        "SIGNER": "release@airlift.example",
        "AIRLIFT_HOME": str(tmp_path / "opt" / "airlift"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def shell(script: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    # A person's shell has no `set -e`.
    return subprocess.run(
        ["bash", "-c", script], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    path = tmp_path / "desk"
    path.mkdir()
    return path


def test_the_settings_are_those_that_the_test_replaces() -> None:
    names = re.findall(r"^(\w+)=", block("settings"), re.MULTILINE)
    assert names == ["BUNDLE", "SIGNERS", "SIGNER"]


@pytest.mark.slow
def test_by_hand_then_by_the_installed_verifier(stick: dict[str, str], desk: Path) -> None:
    done = shell(block("by hand"), stick, desk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Good "airlift-bundle" signature for release@airlift.example' in done.stdout
    assert "verify.pyz: OK" in done.stdout
    home = Home(Path(stick["AIRLIFT_HOME"]))
    # INSTALL.md shows operators this output.
    seen = blocks(page("INSTALL.md"), "text")["output of the import"]
    assert is_shown(seen.replace("/opt/airlift", stick["AIRLIFT_HOME"]), done.stdout), done.stdout
    assert home.current.is_symlink()
    command = block("by the installed verifier")
    assert "/opt/airlift/" in command
    again = shell(command.replace("/opt/airlift", stick["AIRLIFT_HOME"]), stick, desk)
    assert again.returncode == 0, again.stderr
    assert "already imported" in again.stdout


def test_the_plain_way(stick: dict[str, str], desk: Path) -> None:
    done = shell(block("the plain way, for the tar as a whole"), stick, desk)
    assert done.returncode == 0, done.stderr
    assert "airlift-1.0.0-amd64.tar: OK" in done.stdout
    with Path(stick["BUNDLE"]).open("r+b") as stream:
        stream.seek(100_000)
        byte = stream.read(1)[0]
        stream.seek(100_000)
        stream.write(bytes([byte ^ 1]))
    done = shell(block("the plain way, for the tar as a whole"), stick, desk)
    assert done.returncode != 0


def test_the_plain_way_asks_for_this_bundle_only(
    stick: dict[str, str], desk: Path, keys: Keys
) -> None:
    """The vendor's folder had more bundles than the drive: a full one and deltas."""
    folder = Path(stick["BUNDLE"]).parent
    other = folder / "airlift-1.1.0-since-1.0.0-amd64.tar"
    other.write_bytes(b"x")
    sums.write(folder, other.name, keys.key())
    other.unlink()
    done = shell(block("the plain way, for the tar as a whole"), stick, desk)
    assert done.returncode == 0, done.stderr
    assert "airlift-1.0.0-amd64.tar: OK" in done.stdout
    # An unlisted file is not accepted.
    unlisted = Path(stick["BUNDLE"]).rename(folder / "airlift-9.9.9-amd64.tar")
    done = shell(
        block("the plain way, for the tar as a whole"), stick | {"BUNDLE": str(unlisted)}, desk
    )
    assert done.returncode != 0


@pytest.mark.parametrize("member", ["manifest.json", "manifest.sig", "verify.pyz"])
def test_by_hand_an_altered_bundle_runs_nothing(
    member: str, stick: dict[str, str], desk: Path
) -> None:
    path = Path(stick["BUNDLE"])
    parts = records(path.read_bytes())
    changed = next(part for part in parts if part.name == member)
    middle = int(changed.header[124:135], 8) // 2
    data = bytearray(changed.data)
    data[middle] ^= 1
    changed.data = bytes(data)
    path.write_bytes(join(parts))
    done = shell(block("by hand"), stick, desk)
    assert done.returncode != 0
    assert "imported" not in done.stdout
    assert not Path(stick["AIRLIFT_HOME"]).exists()


def test_by_hand_a_second_manifest_or_verifier_changes_nothing(
    stick: dict[str, str], desk: Path
) -> None:
    """tar -xO prints every member of this name, so the sum or the signature fails."""
    path = Path(stick["BUNDLE"])
    raw = path.read_bytes()
    parts = records(raw)
    for index in (0, 2):
        path.write_bytes(join([*parts, parts[index]]))
        done = shell(block("by hand"), stick, desk)
        assert done.returncode != 0
        assert not Path(stick["AIRLIFT_HOME"]).exists()


def test_by_hand_the_wrong_person(stick: dict[str, str], desk: Path, keys: Keys) -> None:
    done = shell(block("by hand"), stick | {"SIGNER": "someone@else.example"}, desk)
    assert done.returncode != 0
    signers = str(keys.signers(keys.line("stranger")))
    done = shell(block("by hand"), stick | {"SIGNERS": signers}, desk)
    assert done.returncode != 0
    assert not Path(stick["AIRLIFT_HOME"]).exists()


def test_exit_codes() -> None:
    table = TEXT.split("<!-- exit codes -->")[1]
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| (.+) \|$", table, re.MULTILINE)
    assert rows == [(str(kind.exit_code), kind.label, kind.meaning) for kind in Kind]
    assert len({kind.exit_code for kind in Kind}) == len(Kind)

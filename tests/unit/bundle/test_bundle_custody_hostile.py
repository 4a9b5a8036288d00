"""Hostile custody logs, keys and places, or ones named by mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundle.cli.custody import evidence
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import Home
from bundle.trust import custody
from bundle.verify import checks
from tests.unit.bundle.bundlekit import Keys, Recipe, arguments, sha
from tests.unit.bundle.test_bundle_custody import NAME, facts


@pytest.fixture
def bundle(keys: Keys, tmp_path: Path) -> Path:
    (tmp_path / "usb").mkdir()
    return Recipe(files={"packages/debian-13/a.deb": bytes(300_000)}).make(
        tmp_path / "usb" / NAME, keys
    )


def test_a_log_of_nothing_but_faults_is_told_in_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    custody.append(log, facts(1), key=None)
    entry = log.read_bytes()
    for raw in (b"\n" * custody.MAX_BYTES, entry * 5000, b'{"%s":1}\n' % (b"x" * 1_000_000)):
        chain = custody.parse(raw)
        assert 0 < len(chain.problems) <= custody.MAX_PROBLEMS + 1
        assert len("; ".join(chain.problems)) < 10_000
    log.write_bytes(b"\n" * custody.MAX_BYTES)
    assert main(["inspect", "--custody", str(log)]) == Kind.CUSTODY.exit_code
    shown = capsys.readouterr().err
    assert "line 1 was altered" in shown
    assert custody.MORE in shown
    assert len(shown) < 10_000


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(AirliftError, match="not a regular file") as caught:
        custody.read(path)
    assert caught.value.kind is Kind.CUSTODY
    assert evidence(path)["sha256"] is None
    index = path.rename(tmp_path / f"{NAME}.parts")
    assert evidence(index)["parts"] == []


def test_a_part_that_never_ends_is_null(stick: Path) -> None:
    part = min(stick.parent.glob("*.part-*"))
    part.unlink()
    os.mkfifo(part)
    found = evidence(stick)
    assert (found["sha256"], found["parts"][0], found["parts"][1] is None) == (None, None, False)


def test_a_directory_is_not_a_log(
    bundle: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--custody", str(bundle.parent)]
    for words in (
        ["inspect", *where],
        [*arguments("verify", bundle, keys, home), "--who", "Ann", *where],
    ):
        assert main(words) == Kind.USAGE.exit_code
        assert "this is a directory" in capsys.readouterr().err


def test_a_place_that_is_not_there_is_refused_before_the_work(
    bundle: Path, keys: Keys, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "no dir" / "log"
    words = [*arguments("verify", bundle, keys, home), "--who", "Ann", "--custody", str(log)]
    assert main(words) == Kind.OUTPUT.exit_code
    shown = capsys.readouterr()
    assert "VALID" not in shown.out
    assert "its directory does not exist" in shown.err
    assert f"mkdir -p '{log.parent}'" in shown.err
    # `split` creates the directory itself.
    split = ["split", str(bundle), "--size", "400k", "-o", str(log.parent), "--who", "Bob"]
    assert main([*split, "--custody", str(log)]) == 0
    assert len(custody.parse(log.read_bytes()).entries) == 1


def test_an_entry_that_cannot_be_written_after_the_work(  # noqa: PLR0917 - fixtures
    bundle: Path,
    keys: Keys,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The work is done and must not be repeated."""
    place = tmp_path / "gone"
    place.mkdir()
    check = checks.check_members

    def pulled(*words: Any, **more: Any) -> None:
        check(*words, **more)
        shutil.rmtree(place)

    monkeypatch.setattr(checks, "check_members", pulled)
    words = [*arguments("verify", bundle, keys, home), "--who", "Ann O"]
    assert main([*words, "--custody", str(place / "log"), "--json"]) == Kind.OUTPUT.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["what"].startswith("verify was done, but not its custody log entry: ")
    options = f"--who 'Ann O' --home {home.root} --allowed-signers {keys.signers()}"
    assert error["fix"].endswith(f"bundle verify {bundle} {options}")


def test_the_key_that_signed_is_named(
    bundle: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that does not match its key is reported at once, not at the next check."""
    words = [*arguments("verify", bundle, keys, home), "--who", "ann@example.org"]
    assert main([*words, "--sign", str(keys.key("bob")), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["custody"]
    assert told["key"].startswith("SHA256:")
    assert main([*words, "--sign", str(keys.key("bob"))]) == 0
    assert f"signed with key {told['key']}" in capsys.readouterr().out
    log = str(bundle.with_name(f"{NAME}.custody"))
    vendors = ["--allowed-signers", str(keys.signers())]
    assert main(["inspect", "--custody", log, *vendors]) == Kind.CUSTODY.exit_code
    shown = capsys.readouterr().err
    assert shown.count("check that this is the list of people (namespace airlift-custody)") == 1


def test_evidence_of_a_file_is_that_of_its_bytes(bundle: Path) -> None:
    found = evidence(bundle)
    assert found["sha256"] == sha(bundle.read_bytes())
    assert found["bytes"] == bundle.stat().st_size

"""Entries that commands write into a custody log, and when they refuse to write."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import Kind
from bundle.jumphost.store import Home
from bundle.trust import custody, sshsig
from tests.unit.bundle.bundlekit import Keys, Recipe, arguments, everything, sha
from tests.unit.bundle.test_bundle_custody import NAME, facts


@pytest.fixture
def stick(keys: Keys, tmp_path: Path) -> Path:
    folder = tmp_path / "usb"
    folder.mkdir()
    recipe = Recipe(files={"packages/debian-13/a.deb": bytes(300_000)})
    return recipe.make(folder / NAME, keys)


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    """Return an unsigned log of five entries."""
    for number in range(1, 6):
        custody.append(tmp_path / "plain", facts(number), key=None)
    return (tmp_path / "plain").read_bytes()


@pytest.fixture
def log(stick: Path) -> Path:
    return stick.with_name(f"{NAME}.custody")


def test_verify_and_import_write_what_came_of_it(  # noqa: PLR0917 - fixtures
    stick: Path,
    log: Path,
    keys: Keys,
    home: Home,
    quick: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    who = ["--who", "Zoë Ångström", "--note", "sealed, at the gate"]
    assert main([*arguments("verify", stick, keys, home), *who]) == 0
    signer = ["--who", "ann@example.org", "--sign", str(keys.key("ann")), "--json"]
    capsys.readouterr()
    assert main([*arguments("import", stick, keys, home), *signer]) == 0
    answer = json.loads(capsys.readouterr().out)["custody"]
    chain = custody.parse(log.read_bytes())
    assert chain.problems == ()
    key = sshsig.parse(chain.entries[1].data["signature"].encode(), "x").fingerprint
    assert answer == {"log": str(log), "entry": 2, "sha256": chain.head, "key": key}
    first, second = (entry.data for entry in chain.entries)
    assert (first["who"], first["note"]) == ("Zoë Ångström", "sealed, at the gate")
    assert first["host"] == socket.gethostname()
    assert (first["done"], second["done"]) == ("verify", "import")
    assert first["bundle"]["sha256"] == sha(stick.read_bytes())
    record = json.loads(next(home.accepted.iterdir()).read_bytes())
    assert first["bundle"]["manifest_sha256"] == record["manifest_sha256"]
    line = keys.line("ann", "ann@example.org", f'namespaces="{custody.NAMESPACE}"')
    inspect = ["inspect", "--custody", str(log)]
    assert main([*inspect, "--allowed-signers", str(keys.signers(line))]) == 0
    shown = capsys.readouterr().out
    assert "Zoë Ångström" in shown
    assert "2 entries; SHA-256 of the last: " + chain.head in shown
    assert [row.split()[-1] for row in shown.splitlines() if "import" in row] == ["yes"]


def test_a_refusal_is_written_down_too(
    stick: Path, log: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = stick.read_bytes()
    stick.write_bytes(raw[:-2000])
    command = [*arguments("verify", stick, keys, home), "--who", "Ann"]
    assert main(command) == Kind.CUT_SHORT.exit_code
    stick.unlink()
    assert main(command) == Kind.UNREADABLE.exit_code
    cut, gone = (entry.data for entry in custody.parse(log.read_bytes()).entries)
    assert cut["result"]["kind"] == "cut-short"
    assert cut["bundle"]["sha256"] == sha(raw[:-2000])
    assert cut["bundle"]["manifest_sha256"] is not None
    assert (gone["result"]["kind"], gone["bundle"]["sha256"]) == ("unreadable", None)
    capsys.readouterr()
    assert main(["inspect", "--custody", str(log)]) == 0
    assert "cut-short" in capsys.readouterr().out


def test_split_and_join_take_the_log_along(stick: Path, log: Path, tmp_path: Path) -> None:
    custody.append(log, facts(1), key=None)
    usb, desk = tmp_path / "usb2", tmp_path / "desk"
    command = ["split", str(stick), "--size", "400k", "-o", str(usb), "--who", "Bob"]
    assert main(command) == 0
    index = usb / f"{NAME}.parts"
    assert main(["join", str(index), "-o", str(desk), "--who", "Cy"]) == 0
    chain = custody.parse((desk / log.name).read_bytes())
    assert chain.problems == ()
    assert [entry.data["done"] for entry in chain.entries] == ["verify", "split", "join"]
    parts = chain.entries[1].data["bundle"]["parts"]
    assert parts == [sha(path.read_bytes()) for path in sorted(usb.glob("*.part-*"))]
    assert chain.entries[1].data["bundle"]["sha256"] == sha(stick.read_bytes())
    # A part that cannot be read is null, and so is the whole bundle.
    sorted(usb.glob("*.part-*"))[1].unlink()
    assert main(["join", str(index), "-o", str(usb), "--who", "Cy"]) == Kind.PART.exit_code
    last = custody.parse((usb / log.name).read_bytes()).entries[-1].data
    assert (last["bundle"]["parts"][1], last["bundle"]["sha256"]) == (None, None)
    assert last["bundle"]["parts"][0] == parts[0]


@pytest.mark.parametrize("damage", ["torn", "removed", "altered"])
def test_a_log_that_is_not_sound_is_not_continued(  # noqa: PLR0917 - fixtures
    damage: str,
    stick: Path,
    log: Path,
    plain: bytes,
    keys: Keys,
    home: Home,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is detected before the work begins, and the log is unchanged."""
    raw = plain
    bad = {
        "torn": raw[:-10],
        "removed": plain.split(b"\n", 1)[1],
        "altered": raw.replace(b"ann@", b"ahn@"),
    }[damage]
    log.write_bytes(bad)
    command = [*arguments("verify", stick, keys, home), "--who", "Ann"]
    assert main(command) == Kind.CUSTODY.exit_code
    assert damage in capsys.readouterr().err
    assert main(["inspect", "--custody", str(log)]) == Kind.CUSTODY.exit_code
    captured = capsys.readouterr()
    assert damage in captured.err
    assert "cy@example.org" in captured.err
    assert log.read_bytes() == bad
    # The message says how to continue with the bundle.
    other = log.with_name("other.custody")
    assert main([*command, "--custody", str(other)]) == 0
    assert other.exists()


def test_wrong_use(stick: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    verify = arguments("verify", stick, keys, home)
    before = everything(stick.parent)
    for options, code in (
        (["--note", "x"], Kind.USAGE),
        (["--who", ""], Kind.USAGE),
        (["--who", "a\x1b[2Jb"], Kind.USAGE),
        (["--who", "x" * 1001], Kind.USAGE),
        (["--who", "Ann", "--sign", "/nowhere"], Kind.SIGNING),
        (["--who", "Ann", "--custody", "/nowhere/log"], Kind.OUTPUT),
    ):
        assert main([*verify, *options]) == code.exit_code, options
    assert everything(stick.parent) == before
    folder = arguments("verify", stick.parent, keys, home)
    assert main([*folder, "--who", "Ann"]) == Kind.USAGE.exit_code
    assert main(["inspect", "--custody", str(stick.parent / "none")]) == Kind.CUSTODY.exit_code
    assert "there is no entry" in capsys.readouterr().err

"""Parts: split, joined, read as one bundle; each missing or bad part is named."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.carry import join as joining
from bundle.carry import split as splitting
from bundle.carry.join import Joined, _Partial
from bundle.carry.split import parse_size
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.format import parts, tar
from bundle.format.parts import Index
from bundle.jumphost.store import Home
from bundle.verify import checks
from tests.unit.bundle.bundlekit import (
    VERIFIER,
    Keys,
    Recipe,
    arguments,
    assert_finished,
    check,
    everything,
    refused,
    run_import,
)

NAME = "airlift-1.0.0-amd64.tar"
SIZE = 400_000


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Path:
    """Return a bundle of five parts, most of it in one blob."""
    recipe = Recipe(
        app_layer=random.Random(1).randbytes(1_300_000),
        files={"packages/debian-13/a.deb": random.Random(2).randbytes(200_000)},
    )
    return recipe.make(tmp_path_factory.mktemp("vendor") / NAME, keys)


def split(path: Path, out: Path, key: Path | None = None, size: int = SIZE) -> Index:
    return splitting.split(
        path, size=size, out=out, key=key, log=lambda _: None, progress=lambda _: None
    )


def join(*paths: Path, out: Path, keys: Keys | None = None) -> Joined:
    trust = keys.trust() if keys else None
    return joining.join(paths, out=out, trust=trust, log=lambda _: None, progress=lambda _: None)


def failed(action: Callable[[], object]) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        action()
    assert caught.value.where
    assert caught.value.fix
    assert "\n" not in caught.value.what
    return caught.value


def flip(path: Path, offset: int = 5000) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 1]))


@pytest.fixture
def stick(bundle: Path, tmp_path: Path, keys: Keys) -> Path:
    """Return the index of the parts on a USB drive."""
    split(bundle, tmp_path / "usb", keys.key())
    return tmp_path / "usb" / f"{NAME}.parts"


def test_split_and_join_give_the_same_bytes(
    stick: Path, bundle: Path, tmp_path: Path, keys: Keys
) -> None:
    before = everything(stick.parent)
    numbers = [f"{NAME}.part-0{number}" for number in range(1, 6)]
    assert sorted(before) == [*numbers, f"{NAME}.parts", f"{NAME}.parts.sig"]
    assert {len(before[name]) for name in numbers[:-1]} == {SIZE}
    done = join(stick, out=tmp_path / "desk", keys=keys)
    assert done.path.read_bytes() == bundle.read_bytes()
    assert done.verdict is not None
    assert done.verdict.signers[0].identity == "release@airlift.example"
    # The parts themselves can be named, too; a second join changes nothing.
    assert join(*stick.parent.glob("*.part-*"), out=tmp_path / "desk").kept_parts == 5
    assert [path.name for path in done.path.parent.iterdir()] == [NAME]
    assert everything(stick.parent) == before


def test_every_way_of_naming_it_verifies(stick: Path, keys: Keys) -> None:
    first = stick.with_name(f"{NAME}.part-01")
    assert check(stick, keys.trust()).sha256 == check(first, keys.trust()).sha256
    error = failed(lambda: check(stick.with_name(NAME), keys.trust()))
    assert (error.kind, ".parts" in error.fix) == (Kind.UNREADABLE, True)


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_each_bad_part_is_named(
    number: int, damage: str, stick: Path, keys: Keys, tmp_path: Path
) -> None:
    path = stick.with_name(f"{NAME}.part-0{number}")
    if damage == "flip":
        # The first part holds the manifest, whose signature then fails.
        flip(path, 700 if number == 1 else 5000)
    elif damage == "cut":
        os.truncate(path, 1000)
    else:
        path.unlink()
    for error in (
        refused(stick, keys.trust()),
        failed(lambda: join(stick, out=tmp_path / "desk")),
    ):
        assert error.kind is Kind.PART
        assert f"part {number} " in error.what
        assert f"copy part {number} again" in error.what
        assert error.what.count("copy part") == 1
        assert f"cp FROM/{path.name} {stick.parent}/" in error.fix


def test_all_bad_parts_are_named_at_once(stick: Path, tmp_path: Path) -> None:
    flip(stick.with_name(f"{NAME}.part-02"))
    flip(stick.with_name(f"{NAME}.part-05"))
    stick.with_name(f"{NAME}.part-04").unlink()
    error = failed(lambda: join(stick, out=tmp_path / "desk"))
    for sentence in ("part 2 is bad", "part 4 is missing", "part 5 is bad"):
        assert sentence in error.what
    assert "part 3" not in error.what
    assert not (tmp_path / "desk" / NAME).exists()


def test_a_bundle_that_was_bad_before_it_was_split_is_not_blamed_on_a_part(
    bundle: Path, tmp_path: Path, keys: Keys
) -> None:
    bad = shutil.copy(bundle, tmp_path / NAME)
    flip(Path(bad), 900_000)
    assert failed(lambda: split(Path(bad), tmp_path / "usb")).kind is Kind.ALTERED
    assert not list((tmp_path / "usb").iterdir())
    # Split by other means, with a matching index.
    index = split(bundle, tmp_path / "usb")
    part = tmp_path / "usb" / f"{NAME}.part-04"
    flip(part, 5000)
    pieces = list(index.parts)
    with tar.Source(part) as source:
        pieces[3] = parts.Piece(part.name, SIZE, parts.sha256_of(source))
    place = tmp_path / "usb" / index.name
    place.write_bytes(Index(index.bundle, tuple(pieces)).encode())
    error = refused(place, keys.trust())
    assert (error.kind, "copying does not help" in error.fix) == (Kind.ALTERED, True)
    error = failed(lambda: join(place, out=tmp_path / "desk"))
    assert "the joined bundle does not" in error.what


def test_parts_on_several_sticks(stick: Path, bundle: Path, tmp_path: Path) -> None:
    """The drives can also come one after the other: joined parts are kept."""
    other = tmp_path / "usb2"
    other.mkdir()
    for number in (4, 5):
        name = f"{NAME}.part-0{number}"
        stick.with_name(name).rename(other / name)
    done = join(stick, other / f"{NAME}.part-04", out=tmp_path / "both")
    assert done.path.read_bytes() == bundle.read_bytes()
    error = failed(lambda: join(stick, out=tmp_path / "one"))
    assert "part 4 is missing" in error.what
    shutil.copy(stick, other)
    for number in (1, 2, 3):
        stick.with_name(f"{NAME}.part-0{number}").unlink()
    done = join(other / stick.name, out=tmp_path / "one")
    assert (done.kept_parts, done.path.read_bytes()) == (3, bundle.read_bytes())


@pytest.mark.parametrize("bad", ["altered", "cut", "unreadable"])
def test_a_whole_copy_on_another_stick_is_found(
    bad: str, stick: Path, bundle: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(stick.parent, tmp_path / "usb2") / stick.name
    part = stick.with_name(f"{NAME}.part-02")
    if bad == "altered":
        flip(part)
    elif bad == "cut":
        os.truncate(part, 1000)
    else:
        part.unlink()
        part.mkdir()
    done = join(stick, other, out=tmp_path / "desk")
    assert done.path.read_bytes() == bundle.read_bytes()
    flip(other.with_name(f"{NAME}.part-02"))
    assert "part 2" in failed(lambda: join(stick, other, out=tmp_path / "none")).what


def test_what_was_joined_is_checked_again(stick: Path, bundle: Path, tmp_path: Path) -> None:
    """A partial file that was damaged since is valid only up to the damage."""
    flip(stick.with_name(f"{NAME}.part-05"))
    failed(lambda: join(stick, out=tmp_path))
    partial = tmp_path / f"{NAME}.partial"
    assert partial.stat().st_size == 4 * SIZE
    flip(stick.with_name(f"{NAME}.part-05"))
    flip(partial, 2 * SIZE + 7)
    done = join(stick, out=tmp_path)
    assert (done.kept_parts, done.path.read_bytes()) == (2, bundle.read_bytes())
    assert not partial.exists()


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run in a child killed before its n-th change of the disk; return whether it was."""
    child = os.fork()
    if child == 0:
        left = step

        def wrap(real: Callable[..., object]) -> Callable[..., object]:
            def dying(*args: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return dying

        for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
            setattr(os, name, wrap(getattr(os, name)))
        with contextlib.suppress(BaseException):
            action()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("command", ["join", "split"])
def test_killed_anywhere_the_same_command_finishes(
    command: str, stick: Path, bundle: Path, tmp_path: Path
) -> None:
    """A result with its final name is always complete."""
    index = split(bundle, tmp_path / "whole")
    wanted = everything(tmp_path / "whole")
    last = f"{NAME}.parts"
    if command == "join":
        wanted, last = {NAME: bundle.read_bytes()}, NAME
    kept, step = set(), 1
    while True:
        out = tmp_path / f"out-{step}"

        def action(out: Path = out) -> object:
            return split(bundle, out) if command == "split" else join(stick, out=out)

        if not killed_at(step, action):
            break
        # A completed split is not repeated, but a join may be.
        if command == "join" or not (out / last).exists():
            result = action()
            assert result == index or isinstance(result, Joined)
            kept.add(getattr(result, "kept_parts", 0))
        assert everything(out) == wanted
        shutil.rmtree(out)
        step += 1
    # Kills came after each part, before its first byte and after its last rename.
    assert step > len(index.parts) + 2
    assert kept == ({0, 1, 2, 3, 4, 5} if command == "join" else {0})


def test_an_existing_file_is_not_replaced(stick: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("mine")
    assert failed(lambda: join(stick, out=tmp_path)).kind is Kind.OUTPUT
    assert (tmp_path / NAME).read_text() == "mine"
    error = failed(lambda: split(bundle, stick.parent))
    assert error.kind is Kind.OUTPUT
    # The printed fix works.
    subprocess.run(["sh", "-c", error.fix.split("or: ")[1].split(";")[0]], check=True)
    split(bundle, stick.parent, size=500_000)
    assert sorted(everything(stick.parent)) == [
        *(f"{NAME}.part-0{number}" for number in range(1, 5)),
        f"{NAME}.parts",
    ]


def test_sizes(bundle: Path, tmp_path: Path) -> None:
    assert parse_size("3900M") == 3_900_000_000 < parts.FAT_LIMIT
    assert [parse_size(text) for text in ("7", "7k", "7G")] == [7, 7000, 7 * 10**9]
    for text in ("", "0", "-1", "1.5G", "4GB", "3900m", "\u0661k"):
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(text)
    error = failed(lambda: split(bundle, tmp_path, size=100_000))
    assert (error.kind, "must hold the verifier" in error.what) == (Kind.USAGE, True)
    smallest = parse_size(error.fix.split()[2])
    split(bundle, tmp_path / "smallest", size=smallest)
    first = tmp_path / "smallest" / f"{NAME}.part-01"
    command = ["tar", "--occurrence=1", "-xOf", str(first), "verify.pyz"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == VERIFIER
    assert main(["split", str(bundle), "--size", "4GB"]) == Kind.USAGE.exit_code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"format": 1', '"format": 1, "more": 1'),
        ("part-02", "part-03"),
        ("part-02", "../p-02"),
        ('"bytes": 400000', '"bytes": 400001'),
        ("\n  {", "\n   {"),
    ],
)
def test_an_altered_index_is_refused(
    old: str, new: str, stick: Path, tmp_path: Path, keys: Keys
) -> None:
    text = stick.read_text()
    assert old in text
    stick.write_text(text.replace(old, new, 1))
    assert refused(stick, keys.trust()).kind is Kind.PART
    assert failed(lambda: join(stick, out=tmp_path)).kind is Kind.PART


def test_the_signature_of_the_index(stick: Path, tmp_path: Path, keys: Keys) -> None:
    """A list of signers makes it checked; a stranger's index is refused."""
    stranger = keys.trust(keys.line("stranger"))
    with pytest.raises(AirliftError) as caught:
        joining.join(
            [stick], out=tmp_path, trust=stranger, log=lambda _: None, progress=lambda _: None
        )
    assert caught.value.kind is Kind.UNKNOWN_SIGNER
    # Another well-formed index, as anybody could make it.
    text = stick.read_text()
    digest = text.split('"sha256": "')[-1][:64]
    stick.write_text(text.replace(digest, "0" * 64))
    assert failed(lambda: join(stick, out=tmp_path, keys=keys)).kind is Kind.BAD_SIGNATURE
    assert not (tmp_path / NAME).exists()


def test_join_asks_the_bundle_who_signed_it(
    stick: Path, tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Removing the index's signature does not skip the check of the bundle."""
    stick.with_name(stick.name + ".sig").unlink(missing_ok=True)
    command = ["join", str(stick), "-o", str(tmp_path), "--json"]

    def joined(*options: str) -> tuple[int, dict[str, Any]]:
        code = main([*command, *options, "--home", str(tmp_path / "home")])
        return code, json.loads(capsys.readouterr().out)

    known = ["--allowed-signers", str(keys.signers())]
    code, answer = joined(*known)
    assert (code, len(answer["signers"]), answer["index_signers"]) == (0, 1, [])
    assert joined()[1]["signers"] == []
    assert joined(*known, "--require-signers", "2")[0] == Kind.TOO_FEW_SIGNERS.exit_code
    strangers = ["--allowed-signers", str(keys.signers(keys.line("stranger")))]
    assert joined(*strangers)[0] == Kind.UNKNOWN_SIGNER.exit_code


def test_two_joins_at_once(stick: Path, tmp_path: Path) -> None:
    index = parts.read_index(stick)
    partial = tmp_path / f"{NAME}.partial"
    with _Partial.opened(partial, index):
        assert failed(lambda: join(stick, out=tmp_path)).kind is Kind.LOCKED
    assert not partial.exists()


def test_the_verifier_from_the_first_part_imports_the_parts(
    stick: Path, keys: Keys, tmp_path: Path
) -> None:
    """verify.pyz from part 1 is enough; no second copy of the bundle is written."""
    pyz = tmp_path / "verify.pyz"
    first = str(stick.with_name(f"{NAME}.part-01"))
    taken = subprocess.run(
        ["tar", "--occurrence=1", "-xOf", first, "verify.pyz"], capture_output=True, check=True
    )
    pyz.write_bytes(taken.stdout)
    # Without --occurrence=1, tar reads to the end of the part. It complains, unless a member of the
    # bundle ends exactly there; it has extracted the whole file either way.
    plain = subprocess.run(["tar", "-xOf", first, "verify.pyz"], capture_output=True, check=False)
    assert plain.returncode == 0 or b"Unexpected EOF" in plain.stderr
    assert plain.stdout == taken.stdout
    command = [sys.executable, "-I", str(pyz), *arguments("verify", stick, keys, Home(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "VALID" in done.stdout) == (0, True), done.stderr
    flip(stick.with_name(f"{NAME}.part-03"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == Kind.PART.exit_code
    assert "copy part 3 again" in done.stderr


@pytest.mark.usefixtures("quick")
def test_import_from_parts(stick: Path, bundle: Path, keys: Keys, home: Home) -> None:
    run_import(stick, keys.trust(), home)
    assert_finished(home, bundle, keys.trust())
    with checks.opened(stick, trust=None, home=None) as opened:
        assert not opened.source.whole


def test_a_signature_is_not_added_to_parts(stick: Path, keys: Keys) -> None:
    command = ["sign", str(stick), "--key", str(keys.key("second"))]
    before = everything(stick.parent)
    assert main(command) == Kind.SIGNING.exit_code
    assert everything(stick.parent) == before

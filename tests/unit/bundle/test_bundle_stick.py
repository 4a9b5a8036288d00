"""USB drives: a FAT32 image, and a drive that is removed during reading."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.carry import join, split
from bundle.cli.main import main
from bundle.core import output
from bundle.errors import AirliftError, Kind
from bundle.format import parts, tar
from bundle.jumphost import importer
from bundle.jumphost.store import Home
from bundle.verify import checks
from tests.unit.bundle.bundlekit import (
    TREE,
    Keys,
    arguments,
    assert_finished,
    everything,
    run_import,
)

NAME = "airlift-1.0.0-amd64.tar"
SIZE = 400_000
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def nothing(_: object) -> None:
    """Discard log and progress messages."""


# ---------------------------------------------------------------- FAT32
def run(*command: str | Path) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": PATH, "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"},
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def fat(tmp_path: Path) -> Path:
    """Return a FAT32 file system in a file, reached by mtools without the kernel."""
    for tool in ("mkfs.vfat", "fsck.vfat", "mcopy"):
        if shutil.which(tool, path=PATH) is None:
            pytest.fail(f"{tool} is not here: apt-get install dosfstools mtools")
    image = tmp_path / "stick.img"
    run("mkfs.vfat", "-F", "32", "-n", "AIRLIFT", "-C", image, str(40 * 1024))
    return image


def put(image: Path, folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    run("mcopy", "-i", image, *files, "::/")


def get(image: Path, folder: Path) -> Path:
    folder.mkdir()
    run("mcopy", "-i", image, "::/*", folder)
    return folder


@pytest.mark.usefixtures("quick")
def test_a_fat_stick_carries_every_file_that_is_written_to_one(
    fat: Path, full: build.Built, keys: Keys, home: Home, tmp_path: Path
) -> None:
    """Bundle, sums, parts, index, signatures and custody log keep their names and bytes."""
    vendor = tmp_path / "vendor"
    shutil.copytree(full.path.parent, vendor)
    command = ["split", str(vendor / full.path.name), "--size", "1M", "--key", str(keys.key())]
    assert main([*command, "--who", "Ann", "--sign", str(keys.key("ann"))]) == 0
    put(fat, vendor)
    run("fsck.vfat", "-n", fat)
    back = get(fat, tmp_path / "back")
    assert everything(back) == everything(vendor)
    suffixes = {re.sub(r"-\d+$", "", name.removeprefix(NAME)) for name in everything(back)}
    wanted = {"", ".part", ".parts", ".parts.sig", ".custody", "SHA256SUMS", "SHA256SUMS.sig"}
    assert suffixes == wanted
    assert main(arguments("import", back / f"{NAME}.parts", keys, home)) == 0
    assert_finished(home, full.path, keys.trust())
    joined = join.join(
        [back / f"{NAME}.parts"], out=tmp_path / "out", trust=None, log=nothing, progress=nothing
    )
    assert joined.path.read_bytes() == full.path.read_bytes()


def test_a_byte_that_flips_on_the_stick_is_found_in_its_part(
    fat: Path, stick: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    put(fat, stick.parent)
    victim = stick.with_name(f"{NAME}.part-07").read_bytes()
    raw = bytearray(fat.read_bytes())
    place = raw.index(victim[1024:1536])
    raw[place] ^= 0x10
    fat.write_bytes(raw)
    run("fsck.vfat", "-n", fat)
    back = get(fat, tmp_path / "back")
    for command in ("verify", "import"):
        done = subprocess.run(
            [sys.executable, "-m", "bundle", *arguments(command, back / stick.name, keys, home)],
            cwd=TREE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == Kind.PART.exit_code
        assert "part 7 is bad" in done.stderr
        assert done.stderr.count("copy part") == 1
    assert not home.current.exists()


@pytest.mark.parametrize("name", ["a:b.tar", "a b.tar", "-x.tar", ".tar", "ä.tar", "a?.tar"])
def test_a_name_that_a_stick_cannot_hold_is_refused(name: str, big: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.symlink_to(big)
    with pytest.raises(AirliftError) as caught:
        split.split(path, size=SIZE, out=tmp_path, key=None, log=nothing, progress=nothing)
    assert caught.value.kind is Kind.USAGE


def test_no_part_is_larger_than_fat_allows(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel here may not support FAT, so use a table of mounts that lists it."""
    device = tmp_path.stat().st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /media/usb rw - vfat /dev/sda1 rw\n"
    (tmp_path / "mountinfo").write_text(line)
    assert output.filesystem(tmp_path / "new" / "folder", tmp_path / "mountinfo") == "vfat"
    real = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE", "-T", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if real.returncode == 0:
        assert output.filesystem(tmp_path) == real.stdout.strip()
    monkeypatch.setattr(split, "filesystem", lambda _: "vfat")
    with pytest.raises(AirliftError) as caught:
        split.split(
            big, size=parts.FAT_LIMIT + 1, out=tmp_path, key=None, log=nothing, progress=nothing
        )
    assert (caught.value.kind, caught.value.fix) == (Kind.USAGE, "use --size 3900M")


# ---------------------------------------------------------------- a removed drive
@pytest.fixture
def one_core() -> Iterator[None]:
    """Read members one after the other, the largest first."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


def pulled_while(
    action: Callable[[Callable[[int], None]], object], part: Path, after: int
) -> AirliftError:
    """Remove a part's bytes during reading, then restore them."""
    data, seen = part.read_bytes(), [0]

    def progress(count: int) -> None:
        seen[0] += count
        if seen[0] >= after:
            os.truncate(part, 0)

    with pytest.raises(AirliftError) as caught:
        action(progress)
    assert part.stat().st_size == 0
    part.write_bytes(data)
    assert "was the drive removed?" in caught.value.what
    assert "run the same command" in caught.value.fix
    return caught.value


@pytest.mark.usefixtures("quick", "one_core")
def test_an_import_goes_on_after_the_stick_was_pulled(
    big: Path, stick: Path, keys: Keys, home: Home
) -> None:
    """Stored members stay and are not read again: the drive's copy may even be damaged."""

    def action(progress: Callable[[int], None]) -> object:
        return importer.run(stick, trust=keys.trust(), home=home, log=nothing, progress=progress)

    # The last part holds the members after the large blob.
    last = sorted(stick.parent.glob("*.part-*"))[-1]
    error = pulled_while(action, last, 3_000_000)
    assert (error.kind, error.where) == (Kind.UNREADABLE, str(last))
    assert not home.current.exists()
    staged = [p for p in home.incoming.rglob("blobs/*") if p.suffix != ".part"]
    large = max(staged, key=lambda path: path.stat().st_size)
    assert large.stat().st_size == 3_000_000
    # Reconnect the drive without one of its parts.
    middle = stick.with_name(f"{NAME}.part-05")
    middle.rename(middle.with_suffix(".away"))
    with pytest.raises(AirliftError) as caught:
        action(nothing)
    assert "part 5 is missing: copy part 5 again" in caught.value.what
    assert large.exists()
    # Restore all parts, but damage the drive's copy of a stored member.
    middle.write_bytes(bytes(SIZE))
    action(nothing)
    assert_finished(home, big, keys.trust())


@pytest.mark.usefixtures("quick", "one_core")
def test_an_import_goes_on_after_it_was_killed(
    big: Path, stick: Path, keys: Keys, home: Home
) -> None:
    """Stored members may also be missing on the drive."""
    child = os.fork()
    if child == 0:
        seen = 0

        def progress(count: int) -> None:
            nonlocal seen
            seen += count
            # This is the first member after the large blob.
            if seen > 3_000_000:
                os.kill(os.getpid(), signal.SIGKILL)

        importer.run(stick, trust=keys.trust(), home=home, log=nothing, progress=progress)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not home.current.exists()
    stick.with_name(f"{NAME}.part-05").write_bytes(bytes(SIZE))
    run_import(stick, keys.trust(), home)
    assert_finished(home, big, keys.trust())


@pytest.mark.usefixtures("quick", "one_core")
def test_a_bad_part_does_not_cost_what_was_stored(
    big: Path, stick: Path, keys: Keys, home: Home
) -> None:
    with checks.opened(big, trust=None, home=None) as opened:
        number, start = divmod(opened.offsets[-1], SIZE)
    last = stick.with_name(f"{NAME}.part-{number + 1:02d}")
    data = last.read_bytes()
    last.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])
    with pytest.raises(AirliftError) as caught:
        run_import(stick, keys.trust(), home)
    assert caught.value.kind is Kind.PART
    assert any(path.stat().st_size == 3_000_000 for path in home.incoming.rglob("blobs/*"))
    last.write_bytes(data)
    run_import(stick, keys.trust(), home)
    assert_finished(home, big, keys.trust())


@pytest.mark.usefixtures("quick")
def test_a_stored_blob_that_was_damaged_is_replaced(big: Path, keys: Keys, home: Home) -> None:
    """Members that are not read from the drive are hashed on the disk."""
    run_import(big, keys.trust(), home)
    blob = max(home.blobs.iterdir(), key=lambda path: path.stat().st_size)
    raw = blob.read_bytes()
    blob.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    # Remove another blob, so that the import is not complete.
    min(home.blobs.iterdir(), key=lambda path: path.stat().st_size).unlink()
    run_import(big, keys.trust(), home)
    assert blob.read_bytes() == raw
    assert_finished(home, big, keys.trust())


def test_a_join_goes_on_after_the_stick_was_pulled(big: Path, tmp_path: Path) -> None:
    usb, size = tmp_path / "usb", 1_500_000
    split.split(big, size=size, out=usb, key=None, log=nothing, progress=nothing)

    def action(progress: Callable[[int], None]) -> join.Joined:
        index = usb / f"{NAME}.parts"
        return join.join([index], out=tmp_path, trust=None, log=nothing, progress=progress)

    # Remove the drive in the middle of the second part.
    part = usb / f"{NAME}.part-02"
    error = pulled_while(action, part, size + 1)
    assert (error.kind, error.where) == (Kind.UNREADABLE, str(part))
    done = action(nothing)
    assert (done.kept_parts, done.path.read_bytes()) == (1, big.read_bytes())


def test_a_stick_that_does_not_keep_what_was_written(big: Path, tmp_path: Path) -> None:
    """The parts are read again before their index is written."""
    first = tmp_path / "usb" / f".{NAME}.split" / f"{NAME}.part-01"

    written: list[bytes] = []

    def progress(_: int) -> None:
        if not written and first.with_name(f"{NAME}.part-02").exists():
            written.append(first.read_bytes())
            first.write_bytes(written[0][:-1] + bytes([written[0][-1] ^ 0xFF]))

    with pytest.raises(AirliftError) as caught:
        split.split(big, size=SIZE, out=tmp_path / "usb", key=None, log=nothing, progress=progress)
    assert (caught.value.kind, caught.value.fix) == (Kind.OUTPUT, "use another drive")
    assert not list((tmp_path / "usb").iterdir())


def test_what_the_system_says_of_a_failing_medium() -> None:
    """The kernel itself reports EIO for a file whose first byte cannot be read."""
    with tar.Source(Path("/proc/self/mem")) as source, pytest.raises(AirliftError) as caught:
        source.read(0, 512)
    assert caught.value.kind is Kind.UNREADABLE
    assert "byte 0: Input/output error; was the drive removed?" in caught.value.what

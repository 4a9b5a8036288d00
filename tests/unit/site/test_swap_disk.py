"""Full and read-only disks of the edge: real file systems, and a fake engine."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from swap_agent import __main__, nginx, reserve, swap
from swap_agent.journal import Journal
from swap_agent.nginx import Edge
from swap_agent.state import NoRoomError, SwapError, in_words

from tests.unit.roles.conftest import ROLES
from tests.unit.site.swapkit import World


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.others = path / "others"
        self.others.mkdir()

    def fill(self, *, but: int = 0) -> None:
        """Use all space except some bytes."""
        with (self.others / "big").open("ab", buffering=0) as file, full():
            while True:
                file.write(b"x" * 4096)
        size = (self.others / "big").stat().st_size
        os.truncate(self.others / "big", max(0, size - but))

    def fill_names(self) -> None:
        """Use all inodes, like a spool of small files."""
        with full():
            for number in range(1_000_000):
                (self.others / str(number)).touch()

    def empty(self) -> None:
        shutil.rmtree(self.others)
        self.others.mkdir()

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


@contextlib.contextmanager
def full() -> Iterator[None]:
    with pytest.raises(OSError, match="No space left on device"):
        yield


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=12m,nr_inodes=600", "airlift-test", str(path)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("file systems can be mounted here by root only")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def world(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(disk.path / "edge-1")
    monkeypatch.setattr(nginx, "engine", made.engine)
    monkeypatch.setattr(swap, "engine", made.engine)
    monkeypatch.setattr(nginx, "started", lambda _: "1")
    monkeypatch.setattr(Edge, "hup", lambda _: made.hup())
    monkeypatch.setattr(Edge, "answered", lambda _: made.serving)
    monkeypatch.setattr("socket.gethostname", lambda: "edge-1")
    made.apply()
    made.start()
    return made


def tell(world: World, *words: str) -> dict[str, Any]:
    """Give the agent a command, as its program does."""
    return __main__.obey(world.edge, __main__.parser().parse_args(list(words)))


def upgrade(world: World) -> None:
    """Run an upgrade up to its switch."""
    tell(world, "lock", "--run=run-1", "--owner=ann", "--verb=upgrade")
    tell(world, "switch", "--run=run-1", "--to=green", "--release=1.1.0", "--serial=2")
    assert world.held().release == "1.1.0"


def kept(world: World) -> list[int]:
    """Return how many files each reserve has."""
    return [len(list(one.iterdir())) if one.exists() else 0 for one in reserve.places(world.edge)]


def consistent(world: World) -> str:
    """Check that record, tree and Nginx agree; return the release."""
    held = world.held()
    assert held.generation == world.edge.live_generation() == world.serving
    name = f"{held.active}-{held.standby}" if held.standby else held.active
    assert (world.edge.live / "upstream.conf").read_text() == f"# upstreams/{name}.conf\n"
    assert not list(world.root.rglob("*.staged"))
    assert not list(world.root.rglob("*.new"))
    return held.release


FULL: list[Callable[[Disk], None]] = [Disk.fill, Disk.fill_names]
NAMES = ["bytes", "names"]


# ---------------------------------------------------------------- rollback
@pytest.mark.parametrize("fill", FULL, ids=NAMES)
def test_a_full_disk_keeps_no_release_in_service(
    world: World, disk: Disk, fill: Callable[[Disk], None]
) -> None:
    upgrade(world)
    assert kept(world) == [reserve.FILES] * 2
    fill(disk)
    assert tell(world, "undo", "--run=run-1")["changed"]
    assert consistent(world) == "1.0.0"
    data = '{"release": "1.1.0"}'
    tell(world, "unlock", "--run=run-1", "--failed=not ready", "--data", data)
    shown = swap.show(world.edge)
    assert (shown["lease"], shown["unfinished"]) == (None, [])
    assert shown["last_run"]["data"] == {"release": "1.1.0", "why": "not ready"}
    assert kept(world) == [0, 0]
    disk.empty()
    tell(world, "lock", "--run=run-2", "--owner=ann", "--verb=upgrade")
    assert kept(world) == [reserve.FILES] * 2


@pytest.mark.parametrize("fill", FULL, ids=NAMES)
def test_without_the_reserve_it_would(
    world: World, disk: Disk, fill: Callable[[Disk], None]
) -> None:
    """Control: the reserve is needed; the same command works once there is space."""
    upgrade(world)
    assert reserve.free(world.edge)
    fill(disk)
    with pytest.raises(NoRoomError, match="free space on edge-1"):
        tell(world, "undo", "--run=run-1")
    assert consistent(world) == "1.1.0"
    disk.empty()
    tell(world, "undo", "--run=run-1")
    assert consistent(world) == "1.0.0"


def test_nothing_but_the_way_back_uses_the_reserve(world: World, disk: Disk) -> None:
    upgrade(world)
    disk.fill()
    run = "--run=run-1"
    for words in (
        ["lock", run, "--owner=ann", "--verb=rollback"],
        ["step", run, "--name=workers"],
        ["switch", run, "--to=blue", "--release=1.0.0", "--serial=1"],
        ["retire", run],
        ["unlock", run],
    ):
        with pytest.raises(NoRoomError):
            tell(world, *words)
        assert consistent(world) == "1.1.0"
    assert kept(world) == [reserve.FILES] * 2


def test_a_reserve_does_not_fill_the_disk_itself(world: World, disk: Disk) -> None:
    disk.fill(but=3 * reserve.FILES * reserve.SIZE)
    reserve.keep(world.edge)
    assert kept(world) == [0, 0]
    disk.empty()
    reserve.keep(world.edge)
    assert kept(world) == [reserve.FILES] * 2
    before = os.statvfs(disk.path).f_bavail
    reserve.keep(world.edge)
    assert os.statvfs(disk.path).f_bavail == before


# ---------------------------------------------------------------- partial writes
@pytest.mark.parametrize("room", [0, 4096, 12288, 20480])
def test_a_tree_that_does_not_fit_leaves_the_one_that_serves(
    world: World, disk: Disk, room: int
) -> None:
    world.want("changed " * 4000)
    disk.fill(but=room)
    with pytest.raises(NoRoomError, match=r"cannot write .*000002\.staged.*No space left"):
        tell(world, "apply", "--release=1.0.0", "--serial=1")
    assert consistent(world) == "1.0.0"
    assert [path.name for path in world.edge.trees.iterdir()] == ["000001"]
    assert (world.edge.live / "nginx.conf").read_text() == "# nginx.conf\n"
    disk.empty()
    assert tell(world, "apply", "--release=1.0.0", "--serial=1")["generation"] == 2
    assert consistent(world) == "1.0.0"


def write(journal: Journal, times: int) -> None:
    for _ in range(times):
        journal.append("r", "dump", "done", {"why": "x" * 100})


def test_a_record_that_does_not_fit_leaves_the_ones_before(world: World, disk: Disk) -> None:
    journal = Journal(world.settings.state_file.with_name("journal"))
    journal.append("r", "dump", "intent")
    disk.fill()
    with pytest.raises(NoRoomError, match=rf"cannot write {journal.path}: No space left on device"):
        write(journal, 100)
    written = [record["seq"] for record in journal.records()]
    disk.empty()
    journal.append("r", "dump", "done")
    assert [record["seq"] for record in journal.records()] == [*written, len(written) + 1]


def test_an_engine_without_room_tries_nothing_new(world: World) -> None:
    """Images fill the engine's disk. The active configuration was tested before."""
    upgrade(world)
    world.refuses = "docker: Error response from daemon: mkdir x: no space left on device."
    tell(world, "undo", "--run=run-1")
    assert consistent(world) == "1.0.0"
    world.want("new")
    with pytest.raises(NoRoomError, match="the engine has no disk space: docker: Error"):
        tell(world, "apply", "--release=1.0.0", "--serial=1")
    assert consistent(world) == "1.0.0"
    world.refuses = "unknown directive"
    dataclasses.replace(world.held(), standby="green").save(world.settings.state_file)
    with pytest.raises(SwapError, match="Nginx rejects the new configuration: unknown directive"):
        tell(world, "apply", "--release=1.0.0", "--serial=1")


# ---------------------------------------------------------------- messages
def command(disk: Disk, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the agent itself."""
    settings = {
        "root": str(disk.path / "edge"),
        "state_file": str(disk.path / "swap/state.json"),
        "files": [],
        "container": "none",
        "image": "none",
        "user": "1:1",
        "probe_address": "127.0.0.1",
        "probe_port": 1,
    }
    # The settings are outside of the full disk.
    path = disk.path.with_name("swap.json")
    path.write_text(json.dumps(settings))
    return subprocess.run(
        [sys.executable, "-m", "swap_agent", "--settings", str(path), *words],
        env={"PYTHONPATH": str(ROLES / "swap_agent/files"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


LOCK = ("lock", "--run", "r", "--owner", "ann", "--verb", "upgrade")
WRITING = [
    LOCK,
    ("step", "--run", "r", "--name", "images"),
    ("beat", "--run", "r", "--seconds", "60"),
    ("unlock", "--run", "r"),
]


def test_a_full_disk_is_a_sentence(disk: Disk) -> None:
    assert command(disk, *LOCK).returncode == 0
    disk.fill()
    for words in WRITING:
        done = command(disk, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"airlift-swap: cannot write {disk.path}/swap/"), line
        assert ": No space left on device; free space on " in line
        assert f"(df -h {disk.path}/swap; df -i {disk.path}/swap), then run the same" in line
    for words in (("show",), ("journal",), ("journal", "--json")):
        done = command(disk, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert json.loads(command(disk, "show").stdout)["lease"]["run"] == "r"


def test_a_disk_that_is_not_for_writing_is_a_sentence(disk: Disk) -> None:
    assert command(disk, *LOCK).returncode == 0
    disk.read_only()
    for words in [*WRITING, ("undo", "--run", "r"), ("apply", "--release", "1", "--serial", "1")]:
        done = command(disk, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        (line,) = done.stderr.splitlines()
        assert ": Read-only file system; on " in line
        assert (
            "find the cause with dmesg, mount it for writing, then run the same command again"
            in line
        )
    assert command(disk, "show").returncode == 0


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, NoRoomError, "No space left on device; free space on edge-1 (df -h /d;"),
        (errno.EDQUOT, NoRoomError, "Disk quota exceeded; free space on edge-1 (df -h /d;"),
        (errno.EROFS, SwapError, "Read-only file system; on edge-1, find the cause with dmesg"),
        (errno.EACCES, SwapError, "Permission denied; run it as root on edge-1: sudo airlift-swap"),
        (errno.EIO, SwapError, "Input/output error; find the cause on edge-1 with dmesg, then run"),
    ],
)
def test_what_a_disk_says(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: type[SwapError], words: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "edge-1")
    with pytest.raises(SwapError) as told, in_words(Path("/d/file")):
        raise OSError(number, os.strerror(number))
    assert type(told.value) is kind
    assert str(told.value).startswith(f"cannot write /d/file: {words}")

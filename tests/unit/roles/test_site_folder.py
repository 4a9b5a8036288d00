"""Files in the site's folder that a second operator cannot use, and the command to repair them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.key.logic import turn
from roles.site.logic import folder

ALICE, BOB, OPERATORS = 61001, 61002, 61003

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users")


def as_user(user: int, act: Callable[[], Any]) -> Any:
    """Act as another user in a child process; return its result."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([OPERATORS])
            os.setgid(user)
            os.setuid(user)
            os.umask(0o077)
            os.write(writer, json.dumps(act()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return json.load(stream)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that other users can enter; each run of pytest closes its own for them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def site(open_folder: Path) -> Path:
    """Return a site that only Alice has installed."""
    top = open_folder / "acme"
    top.mkdir()
    os.chown(top, ALICE, ALICE)

    def install() -> None:
        folder.write(top / ".airlift/status.json", "{}")
        (top / ".airlift/tls").mkdir(mode=0o700)
        (top / ".airlift/tls/ca.key").touch(mode=0o600)
        turn.give_back(top / ".airlift/keys.turn", "nobody's")

    as_user(ALICE, install)
    return top


def look(top: Path, user: int) -> dict[str, Any]:
    found: dict[str, Any] = as_user(user, lambda: folder.look(str(top), str(top / ".airlift")))
    return found


def test_a_second_operator_is_told_who_owns_what_and_the_command_mends_it(site: Path) -> None:
    assert look(site, ALICE) == {
        "directory_mode": "0700",
        "file_mode": "0600",
        "group": "",
        "problem": "",
        "fix": "",
    }
    site.chmod(0o755)
    found = look(site, BOB)
    assert f"{BOB} cannot use it" in found["problem"]
    assert f"{site}/.airlift belongs to {ALICE}:{ALICE}, mode 0700" in found["problem"]
    command = found["fix"].partition(": ")[2].replace("sudo ", "").replace("airlift", "61003", 1)
    assert "chgrp -R 61003" in command
    subprocess.run(["sh", "-ec", command], check=True)
    for user in (ALICE, BOB):
        found = look(site, user)
        assert (found["problem"], found["group"]) == ("", str(OPERATORS))
        assert (found["directory_mode"], found["file_mode"]) == ("2770", "0660")
    assert site.stat().st_mode & 0o7777 == 0o2770


def test_an_inventory_may_be_read_only_where_the_state_is_elsewhere(
    site: Path, open_folder: Path
) -> None:
    os.chown(site, 0, 0)
    site.chmod(0o755)
    assert f"{site} belongs to 0:0" in as_user(BOB, lambda: folder.look(str(site), f"{site}/s"))[
        "problem"
    ].replace("root:root", "0:0")
    (open_folder / "state").mkdir()
    os.chown(open_folder / "state", BOB, BOB)
    found = as_user(BOB, lambda: folder.look(str(site), str(open_folder / "state/airlift")))
    assert found["problem"] == ""


def test_operators_replace_each_others_reports_and_take_turns(site: Path) -> None:
    os.chown(site, ALICE, OPERATORS)
    site.chmod(0o2770)
    state = site / "later/.airlift"

    def report(text: str) -> Callable[[], str]:
        def act() -> str:
            folder.write(state / "status.json", text)
            taken = turn.take(state / "keys.turn", text, lambda _: True, seconds=1)
            turn.give_back(state / "keys.turn", text)
            return taken or (state / "status.json").read_text()

        return act

    as_user(ALICE, lambda: folder.make(site / "later"))
    for user, text in ((ALICE, "alice's"), (BOB, "bob's"), (ALICE, "alice's again")):
        assert as_user(user, report(text)) == text
    assert state.stat().st_mode & 0o7777 == 0o2770
    assert (state / "status.json").stat().st_gid == OPERATORS
    assert [path.name for path in state.iterdir() if path.name.startswith(".")] == []


def test_a_report_that_is_no_file_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    folder.write(tmp_path / "pipe", "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)

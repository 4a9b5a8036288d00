"""A jump host's state: saved, shown, restored on another host, or refused in one sentence."""

from __future__ import annotations

import fnmatch
import json
import os
import pty
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import bundle_name
from bundle.jumphost import kept_trust, restore_state, saved_state, sealed
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import SOAK, TREE, Keys, disk_of
from tests.unit.bundle.statekit import (
    PASSPHRASE,
    SITE,
    jump_host,
    new_host,
    public,
    record,
    shape,
    write,
)
from tests.unit.bundle.test_bundle_kill import STEPS, in_dying_child

AS_ROOT = os.geteuid() == 0


class Desk:
    """Two jump hosts, a drive, and an operator."""

    def __init__(self, folder: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> None:
        self.keys = keys
        self.capsys = capsys
        self.old = jump_host(folder / "old", keys)
        self.new = new_host(folder / "new", keys)
        self.file = folder / "jump.state"
        self.secret = folder / "passphrase"
        self.secret.write_text(f"{PASSPHRASE}\n")
        self.secret.chmod(0o600)

    def type(self, action: str, home: Home, *words: str, code: int = 0) -> dict[str, Any]:
        argv = ["state", action, str(self.file), "--home", str(home.root), "--json"]
        argv += ["--passphrase-file", str(self.secret), *words]
        self.capsys.readouterr()
        assert main(argv) == code, self.capsys.readouterr()
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return found

    def refused(self, action: str, home: Home, *words: str, kind: Kind = Kind.STATE) -> str:
        found = self.type(action, home, *words, code=kind.exit_code)["error"]
        assert found["kind"] == kind.label
        assert "\n" not in found["what"]
        assert found["fix"]
        return str(found["what"])


@pytest.fixture
def desk(tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, keys, capsys)


def state_of(home: Home) -> saved_state.State:
    return saved_state.collect(home, inventories=True)


# ---------------------------------------------------------------- save and restore
def test_a_new_jump_host_gets_everything_back(desk: Desk) -> None:
    desk.type("save", desk.old)
    assert desk.file.stat().st_mode & 0o777 == 0o600
    done = desk.type("restore", desk.new)
    assert shape(desk.new.sites / "acme") == shape(desk.old.sites / "acme")
    assert not (desk.new.sites / "acme.vault-password").exists()
    assert [one.version for one in desk.new.acceptances()] == ["1.0.0", "1.1.0"]
    assert kept_trust.required_signers(desk.new) == 2
    assert shape(desk.new.trust) == shape(desk.old.trust)
    assert (desk.new.root / "airlift-1.0.0-amd64.tar.custody").read_text() == "an entry\n"
    assert done["to_import"] == [{"version": "1.0.0", "serial": 1}]
    assert done["kept"] == done["owners_missed"] == []
    assert not list(desk.new.root.rglob(".restoring"))
    # A second restore changes nothing.
    again = desk.type("restore", desk.new)
    assert again["parts"]["site acme"] == "was here already"
    assert again["parts"]["accepted"] == "0 of 2 records added"


def test_the_next_commands_are_of_what_is_there(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.type("save", desk.old)
    argv = ["state", "restore", str(desk.file), "--home", str(desk.new.root)]
    assert main([*argv, "--passphrase-file", str(desk.secret)]) == 0
    text = capsys.readouterr().out
    folder, bundle, status = (line.split() for line in text.partition("Next:\n")[2].splitlines())
    assert folder == ["cd", str(desk.new.current)]
    assert bundle[:4] == ["./venv/bin/python", "-m", "bundle", "import"]
    pattern = bundle[4].rpartition("/")[2]
    assert fnmatch.fnmatch(bundle_name("1.0.0", "amd64"), pattern)
    site = desk.new.sites / "acme"
    assert status[1:5] == ["-i", str(site), "--vault-id", "acme@prompt"]
    assert (TREE / status[5]).is_file()


def test_what_is_in_it_is_shown_without_its_secrets(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.type("save", desk.old)
    argv = ["state", "show", str(desk.file), "--passphrase-file", str(desk.secret)]
    assert main(argv) == 0
    text = capsys.readouterr().out
    for words in (
        *("authority, smoke key, certificates of 1 host, inventory of 3 files", "2 records"),
        *("1.0.0 (serial 1), 1.1.0 (serial 10)", "drwxrws---", "-r--------", "acme.vault-password"),
    ):
        assert words in text
    for data, _ in SITE.values():
        assert data.decode().strip() not in text


def test_the_file_is_opened_by_hand(desk: Desk, tmp_path: Path) -> None:
    """Without a release, Ansible's own tool and tar are enough."""
    desk.type("save", desk.old)
    tool = [str(Path(sys.executable).with_name("ansible-vault")), "decrypt", str(desk.file)]
    tool += ["--vault-id", f"airlift-state@{desk.secret}", "--output", "-"]
    plain = subprocess.run(tool, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(plain), mode="r:gz") as tar:
        key = tar.extractfile("sites/acme/.airlift/tls/ca.key")
        assert key is not None
        assert key.read() == b"KEY OF THE AUTHORITY"


def test_without_inventories_it_joins_one_from_elsewhere(desk: Desk) -> None:
    desk.type("save", desk.old, "--no-inventories")
    inventory = {name: one for name, one in SITE.items() if not name.startswith(".airlift")}
    other = {**inventory, "hosts.yml": (b"all: {hosts: {}}\n", 0o600)}
    write(desk.new.sites / "acme", other)
    # A report from before the restore may be overwritten.
    write(desk.new.sites / "acme", {".airlift/preflight.json": (b"{}", 0o644)})
    assert desk.type("restore", desk.new)["parts"]["site acme"] == ".airlift restored"
    here, there = shape(desk.new.sites / "acme"), shape(desk.old.sites / "acme")
    assert here["hosts.yml"] == ("-rw-------", b"all: {hosts: {}}\n")
    assert {k: v for k, v in here.items() if k.startswith(".airlift")} == {
        k: v for k, v in there.items() if k.startswith(".airlift")
    }


def test_a_folder_that_is_a_link_is_followed(desk: Desk, tmp_path: Path) -> None:
    """The inventory is a working tree elsewhere."""
    for home in (desk.old, desk.new):
        tree = tmp_path / f"tree-{home.root.name}"
        write(tree, SITE if home is desk.old else {"hosts.yml": SITE["hosts.yml"]})
        home.sites.mkdir(exist_ok=True)
        (home.sites / "tree").symlink_to(tree)
    desk.type("save", desk.old, "--no-inventories")
    desk.type("restore", desk.new)
    assert (desk.new.sites / "tree").is_symlink()
    assert (tmp_path / "tree-new/.airlift/tls/ca.pem").read_bytes() == b"AUTHORITY"


# ---------------------------------------------------------------- refusals
@pytest.mark.parametrize("action", ["show", "restore"])
def test_another_passphrase_is_refused(desk: Desk, action: str) -> None:
    desk.type("save", desk.old)
    desk.secret.write_text("another passphrase\n")
    before = shape(desk.new.root)
    assert "passphrase is wrong" in desk.refused(action, desk.new)
    assert shape(desk.new.root) == before


def test_an_altered_file_is_refused_wherever_it_was_altered(desk: Desk) -> None:
    desk.type("save", desk.old)
    good = desk.file.read_bytes()
    before = shape(desk.new.root)
    places = [0, 5, len(sealed.HEAD), len(sealed.HEAD) + 40, len(good) // 2, len(good) - 2]
    for place in places:
        for byte in (b"0", b"\xff", b"\n"):
            if good[place : place + 1] != byte:
                desk.file.write_bytes(good[:place] + byte + good[place + 1 :])
                what = desk.refused("restore", desk.new)
                assert "altered" in what or "not a saved state" in what
    for short in (good[: len(good) // 2], good[:-1], good[: len(sealed.HEAD)], b""):
        desk.file.write_bytes(short)
        # The last byte is only the end of a line.
        if short != good[:-1]:
            desk.refused("restore", desk.new)
    assert shape(desk.new.root) == before


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "sites/../evil", "other/x", "sites"])
def test_a_name_that_leads_out_is_refused(desk: Desk, name: str) -> None:
    state = state_of(desk.old)
    evil = saved_state.Item(name, tarfile.REGTYPE, 0o600, b"evil")
    raw = saved_state.pack(state._replace(items={**state.items, name: evil}))
    with pytest.raises(AirliftError) as caught:
        saved_state.unpack(raw, desk.file)
    assert caught.value.kind is Kind.STATE


def test_a_file_below_a_link_is_refused(desk: Desk) -> None:
    items = dict(state_of(desk.old).items)
    items["sites/acme/out"] = saved_state.Item(
        "sites/acme/out", tarfile.SYMTYPE, 0o777, link="/etc"
    )
    evil = saved_state.Item("sites/acme/out/evil", tarfile.REGTYPE, 0o600, b"evil")
    raw = saved_state.pack(saved_state.State(state_of(desk.old).about, {**items, evil.path: evil}))
    with pytest.raises(AirliftError, match="below no directory"):
        saved_state.unpack(raw, desk.file)


def test_a_living_authority_is_not_replaced_in_silence(desk: Desk) -> None:
    desk.type("save", desk.old)
    mine = {**SITE, ".airlift/tls/ca.key": (b"ANOTHER AUTHORITY", 0o600)}
    write(desk.new.sites / "acme", mine)
    before = shape(desk.new.root)
    assert "site acme (.airlift/tls/ca.key, group" in desk.refused("restore", desk.new)
    assert shape(desk.new.root) == before
    done = desk.type("restore", desk.new, "--replace")
    assert shape(desk.new.sites / "acme") == shape(desk.old.sites / "acme")
    (kept,) = map(Path, done["kept"])
    assert {p.read_bytes() for p in kept.rglob("ca.key")} == {b"ANOTHER AUTHORITY"}


def test_a_changed_inventory_is_not_replaced_in_silence(desk: Desk) -> None:
    desk.type("save", desk.old)
    write(desk.new.sites / "acme", {**SITE, "hosts.yml": (b"changed: {}\n", 0o600)})
    assert "hosts.yml)" in desk.refused("restore", desk.new)
    assert (desk.new.sites / "acme/hosts.yml").read_bytes() == b"changed: {}\n"


def test_records_that_contradict_are_refused_even_if_told(desk: Desk) -> None:
    desk.type("save", desk.old)
    desk.new.accept(record("1.0.0", 3, release="f" * 64))
    assert "contradicts" in desk.refused("restore", desk.new, "--replace", kind=Kind.CONFLICT)
    assert not (desk.new.sites / "acme").exists()


def test_trust_only_grows_stricter(desk: Desk) -> None:
    """A key revoked on either jump host is revoked afterwards, whatever list is used."""
    desk.type("save", desk.old)
    (desk.new.trust / "allowed_signers").write_text(desk.keys.line() + desk.keys.line("second"))
    (desk.new.trust / "revoked").write_text(public(desk.keys, "lost"))
    (desk.new.trust / "required_signers").write_text("3\n")
    assert "allowed signers" in desk.refused("restore", desk.new)
    desk.type("restore", desk.new, "--replace")
    revoked = (desk.new.trust / "revoked").read_text()
    assert public(desk.keys, "lost").strip() in revoked
    assert public(desk.keys, "stolen").strip() in revoked
    assert kept_trust.required_signers(desk.new) == 3
    assert (desk.new.trust / "allowed_signers").read_text() == desk.keys.line()
    assert desk.keys.line("second") in (desk.new.trust / "allowed_signers.old").read_text()


def test_a_custody_log_that_went_on_stays(desk: Desk) -> None:
    desk.type("save", desk.old)
    log = desk.new.root / "airlift-1.0.0-amd64.tar.custody"
    log.write_text("an entry\nanother\n")
    desk.type("restore", desk.new)
    assert log.read_text() == "an entry\nanother\n"
    log.write_text("other words\n")
    assert "custody log" in desk.refused("restore", desk.new)


@pytest.mark.parametrize(
    ("text", "mode", "kind"),
    [("short\n", 0o600, Kind.USAGE), (f"{PASSPHRASE}\n", 0o644, Kind.FILE)],
)
def test_a_passphrase_that_protects_nothing_is_refused(
    desk: Desk, text: str, mode: int, kind: Kind
) -> None:
    desk.secret.write_text(text)
    desk.secret.chmod(mode)
    desk.refused("save", desk.old, kind=kind)
    assert not desk.file.exists()


def test_another_file_is_not_overwritten(desk: Desk) -> None:
    desk.file.write_text("a letter")
    desk.refused("save", desk.old, kind=Kind.OUTPUT)
    assert desk.file.read_text() == "a letter"
    desk.file.unlink()
    for _ in range(2):  # overwriting an older state is allowed
        desk.type("save", desk.old)


def test_what_is_too_large_for_a_state_is_named(desk: Desk) -> None:
    with (desk.old.sites / "acme/image.tar").open("wb") as stream:
        stream.truncate(saved_state.LARGEST + 1)
    assert "image.tar has 16.8 MB" in desk.refused("save", desk.old, kind=Kind.FILE)


def test_an_empty_jump_host_has_nothing_to_save(desk: Desk, tmp_path: Path) -> None:
    assert "nothing to save" in desk.refused("save", Home(tmp_path / "none"), kind=Kind.HOME)


# ---------------------------------------------------------------- owners
@pytest.mark.skipif(not AS_ROOT, reason="only root gives files away")
def test_owners_are_kept_and_unknown_ones_are_named(desk: Desk) -> None:
    os.chown(desk.old.sites / "acme/hosts.yml", 1, 2)
    os.chown(desk.old.sites / "acme/.airlift/smoke.key", 54321, 54322)
    state = state_of(desk.old)
    stranger = state.items["sites/acme/group_vars/all/main.yml"]._replace(user="nobody-here")
    items = {**state.items, stranger.path: stranger}
    done = restore_state.restore(desk.new, state._replace(items=items), replace=False)
    here = desk.new.sites / "acme"
    assert (here / "hosts.yml").stat()[4:6] == (1, 2)
    assert (here / ".airlift/smoke.key").stat()[4:6] == (54321, 54322)
    assert (here / "group_vars/all/main.yml").stat().st_uid == desk.new.root.stat().st_uid
    assert done.owners == [f"nobody-here:{stranger.group}"]


# ---------------------------------------------------------------- the passphrase
def test_the_passphrase_is_typed_twice_on_the_terminal(desk: Desk) -> None:
    """It appears in no argument, variable or output."""
    words = [sys.executable, "-m", "bundle", "state", "save", str(desk.file)]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(TREE)
        os.execv(sys.executable, [*words, "--home", str(desk.old.root)])  # noqa: S606
    shown = b""
    for prompt in (b"Passphrase of the saved state: ", b"again: "):
        while prompt not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, f"{PASSPHRASE}\n".encode())
    while True:
        try:
            if not (piece := os.read(terminal, 1000)):
                break
        except OSError:
            break
        shown += piece
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    assert PASSPHRASE.encode() not in shown
    assert b"KEY OF" not in desk.file.read_bytes()
    desk.type("show", desk.old)


def test_without_a_terminal_it_says_how_to_give_the_passphrase(desk: Desk) -> None:
    words = [sys.executable, "-m", "bundle", "state", "save", str(desk.file)]
    words += ["--home", str(desk.old.root)]
    run: dict[str, Any] = {
        "cwd": TREE,
        "capture_output": True,
        "text": True,
        "start_new_session": True,
    }
    done = subprocess.run(words, check=False, input="", **run)
    assert done.returncode == Kind.USAGE.exit_code
    assert "--passphrase-file -" in done.stderr
    piped = [*words, "--passphrase-file", "-"]
    done = subprocess.run(piped, check=False, input=f"{PASSPHRASE}\n", **run)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- kills and full disks
STATE_STEPS = [*STEPS, (os, "chown"), (os, "utime"), (restore_state, "exchange")]


@pytest.mark.slow
@pytest.mark.parametrize("replace", [False, True])
def test_killed_at_any_step_the_same_command_finishes(
    tmp_path: Path, keys: Keys, replace: bool
) -> None:
    old = jump_host(tmp_path / "old", keys)
    state, wanted = state_of(old), shape(old.sites / "acme")
    wanted_trust = shape(old.trust)
    living = {**SITE, ".airlift/tls/ca.key": (b"ANOTHER AUTHORITY", 0o600)}
    step = 1
    while True:
        step += 1 if SOAK else 4
        home = new_host(tmp_path / f"new-{step}", keys)
        before = dict[str, Any]()
        if replace:
            write(home.sites / "acme", living)
            before = shape(home.sites / "acme")

        def act(home: Home = home) -> object:
            return restore_state.restore(home, state, replace=replace)

        left = in_dying_child(step, act, steps=STATE_STEPS, prepare=lambda: None)
        # The site is as before or as saved, never partly restored.
        there = shape(home.sites / "acme") if (home.sites / "acme").exists() else {}
        assert there in (before, wanted), step
        assert len(home.acceptances()) in (1, 2)
        kept_trust.required_signers(home)
        if left is not None:
            break
        act()
        assert shape(home.sites / "acme") == wanted, step
        assert len(home.acceptances()) == 2
        assert shape(home.trust) == wanted_trust, step
        assert not list(home.root.rglob(".restoring"))
        assert not list(home.root.rglob("*.part"))
        kept = list((home.sites / ".replaced").rglob("ca.key"))
        assert [path.read_bytes() for path in kept] == [b"ANOTHER AUTHORITY"] * replace, step
    assert step > 60


def test_killed_while_it_saves_an_older_file_stays(tmp_path: Path, keys: Keys) -> None:
    home, file = jump_host(tmp_path / "old", keys), tmp_path / "jump.state"
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    argv = ["state", "save", str(file), "--home", str(home.root)]
    argv += ["--passphrase-file", str(secret)]

    def act() -> object:
        with Path(os.devnull).open("w") as nowhere:
            sys.stdout = nowhere
            return main(argv)

    assert main(argv) == 0
    before, step = file.read_bytes(), 0
    while True:
        step += 1
        left = in_dying_child(step, act, steps=STEPS, prepare=lambda: None)
        assert file.stat().st_mode & 0o777 == 0o600
        data = saved_state.unpack(sealed.unseal(file.read_bytes(), PASSPHRASE.encode(), file), file)
        assert data.sites == ["acme"]
        if left is not None:
            break
    assert file.read_bytes() != before
    assert main(argv) == 0
    assert [path.name for path in tmp_path.glob("*.part")] == []
    assert [path.name for path in tmp_path.glob(".*.part")] == []


def test_a_full_disk_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    write(desk.old.sites / "acme", {"files/large": (os.urandom(1 << 20), 0o600)})
    with disk_of(tmp_path / "disk", "size=1m") as disk:
        where, desk.file = desk.file, disk / "jump.state"
        desk.refused("save", desk.old, kind=Kind.NO_SPACE)
        assert list(disk.iterdir()) == []
        desk.file = where
        desk.type("save", desk.old)
        home = new_host(disk / "airlift", desk.keys)
        desk.refused("restore", home, kind=Kind.NO_SPACE)
        assert not (home.sites / "acme").exists()

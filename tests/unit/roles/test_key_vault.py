"""The vault's file is replaced as a whole and keeps its form; runs take turns and read again."""

from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from roles.key.logic import listedit, turn, vaultfile
from roles.site.logic.fresh import Fresh

NAME = "app_api_keys"
TEXT = f"# the client's secrets\n{NAME}: []\npassword: s3cret-of-acme\n"


def library(**passwords: str) -> VaultLib:
    return VaultLib([(label, VaultSecret(word.encode())) for label, word in passwords.items()])


def sealed(path: Path, label: str | None, password: str, text: str = TEXT) -> Path:
    path.write_bytes(
        VaultLib().encrypt(text, secret=VaultSecret(password.encode()), vault_id=label)
    )
    path.chmod(0o640)
    return path


def opened(path: Path, label: str, password: str) -> str:
    return vaultfile.read(path, library(**{label: password})).text


def adding(client: str) -> Callable[[vaultfile.Document], str]:
    entry = {"client": client, "key_sha256": "a" * 64}
    return lambda document: listedit.add(document.text, NAME, entry)


@pytest.mark.parametrize(("label", "header"), [("acme", "1.2;AES256;acme"), (None, "1.1;AES256")])
def test_a_vault_keeps_label_password_mode_and_the_rest(
    tmp_path: Path, label: str | None, header: str
) -> None:
    path = sealed(tmp_path / "vault.yml", label, "right")
    secrets = library(other="wrong", **{label or "default": "right"}, more="wrong too")
    was = vaultfile.change(path, secrets, adding("new"))
    assert was.encrypted
    assert path.read_text().splitlines()[0] == f"$ANSIBLE_VAULT;{header}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    text = opened(path, label or "default", "right")
    assert listedit.add(TEXT, NAME, {"client": "new", "key_sha256": "a" * 64}) == text
    assert list(tmp_path.iterdir()) == [path]
    # Ansible's own tool reads the same.
    (tmp_path / "word").write_text("right")
    shown = subprocess.run(
        [
            *(Path(sys.executable).with_name("ansible-vault"), "view", path),
            *("--vault-id", f"{label or 'default'}@{tmp_path / 'word'}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == text.strip()


def test_a_wrong_password_changes_nothing(tmp_path: Path) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    before = path.read_bytes()
    with pytest.raises(vaultfile.FileError, match="cannot be decrypted"):
        vaultfile.change(path, library(acme="wrong"), adding("new"))
    assert path.read_bytes() == before


def test_a_plain_file_stays_plain_and_a_link_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.yml").write_text(TEXT)
    link = tmp_path / "main.yml"
    link.symlink_to("real.yml")
    assert not vaultfile.change(link, library(), adding("new")).encrypted
    assert link.is_symlink()
    assert listedit.entries((tmp_path / "real.yml").read_text(), NAME)


def test_nothing_to_change_writes_nothing(tmp_path: Path) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    before = path.read_bytes()
    vaultfile.change(path, library(acme="right"), lambda document: document.text)
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(vaultfile.FileError, match="cannot be replaced: No space left"):
        vaultfile.change(path, library(acme="right"), adding("new"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_somebody_elses_file_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    real = os.fstat

    def mine(handle: int) -> os.stat_result:
        found = list(real(handle))
        found[stat.ST_UID] = 4711
        return os.stat_result(found)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fstat", mine)
    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(
        vaultfile.FileError, match=f"belongs to {path.owner()}: run the same command as"
    ):
        vaultfile.change(path, library(acme="right"), adding("new"))


def test_what_an_editor_saved_meanwhile_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "main.yml"
    path.write_text(TEXT)

    def slow(document: vaultfile.Document) -> str:
        path.write_text(f"{TEXT}saved: yes\n")
        return adding("new")(document)

    with pytest.raises(vaultfile.FileError, match="changed by another program meanwhile"):
        vaultfile.change(path, library(), slow)
    assert path.read_text().endswith("saved: yes\n")


def test_a_killed_run_leaves_the_whole_old_file_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    before = path.read_bytes()

    def killed() -> None:
        Path.replace = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[assignment, method-assign]
        vaultfile.change(path, library(acme="right"), adding("new"))

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    assert process.exitcode == -9
    assert path.read_bytes() == before
    (left,) = set(tmp_path.iterdir()) - {path}
    # Ansible ignores hidden files, and this one is encrypted.
    assert left.name.startswith(".")
    assert b"s3cret" not in left.read_bytes()
    vaultfile.change(path, library(acme="right"), adding("new"))
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path = sealed(tmp_path / "vault.yml", "acme", "right")
    context = multiprocessing.get_context("fork")
    clients = [f"client-{number}" for number in range(6)]
    processes = [
        context.Process(target=vaultfile.change, args=(path, library(acme="right"), adding(client)))
        for client in clients
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(clients)
    there = listedit.entries(opened(path, "acme", "right"), NAME)
    assert sorted(one["client"] for one in there) == clients


def test_a_turn_is_one_runs_and_a_dead_one_has_none(tmp_path: Path) -> None:
    path = tmp_path / "keys.turn"
    assert turn.take(path, "a", lambda _: False, seconds=0) == ""
    assert turn.take(path, "a", lambda _: False, seconds=0) == ""
    assert turn.take(path, "b", lambda _: False, seconds=0) == "a"
    turn.give_back(path, "b")
    assert turn.take(path, "b", lambda _: False, seconds=0) == "a"
    assert turn.take(path, "b", lambda run: run == "a", seconds=0) == ""
    turn.give_back(path, "b")
    assert turn.take(path, "c", lambda _: False, seconds=0) == ""


def test_a_turn_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.turn"
    turn.take(path, "a", lambda _: False, seconds=0)
    monkeypatch.setattr(time, "sleep", lambda _: turn.give_back(path, "a"))
    assert turn.take(path, "b", lambda _: False, seconds=60) == ""


def site(folder: Path, keys: str, **files: str) -> DataLoader:
    """Return an inventory, and what a run has loaded of it."""
    variables = folder / "group_vars" / "all"
    variables.mkdir(parents=True)
    (folder / "hosts.yml").write_text("app: {hosts: {app-1: {}, app-2: {}}}\n")
    (variables / "main.yml").write_text(keys)
    for name, text in files.items():
        (variables / f"{name}.yml").write_text(text)
    loader = DataLoader()
    loader.set_vault_secrets([("acme", VaultSecret(b"right"))])
    return loader


def test_what_was_written_since_a_run_began_is_seen(tmp_path: Path) -> None:
    loader = site(tmp_path, "a: 1\n")
    path = sealed(tmp_path / "group_vars" / "all" / "vault.yml", "acme", "right")
    assert Fresh(loader, [str(tmp_path)]).value("app-1", NAME, None) == []
    vaultfile.change(path, loader._vault, adding("new"))
    fresh = Fresh(loader, [str(tmp_path)])
    assert [one["client"] for one in fresh.value("app-1", NAME, None)] == ["new"]
    assert fresh.definition("app-1", NAME)[:2] == (NAME, path)


def test_a_variable_is_followed_to_where_it_is_written(tmp_path: Path) -> None:
    loader = site(tmp_path, f"{NAME}: '{{{{ vault_keys }}}}'\n", vault="vault_keys: [1]\n")
    fresh = Fresh(loader, [str(tmp_path)])
    assert fresh.definition("app-1", NAME)[:2] == (
        "vault_keys",
        tmp_path / "group_vars" / "all" / "vault.yml",
    )
    assert fresh.value("app-1", NAME, []) == [1]
    assert fresh.value("app-1", "set_nowhere", "x") == "x"
    assert fresh.definition("app-1", "set_nowhere").path is None


def test_one_in_the_inventory_itself_is_found(tmp_path: Path) -> None:
    loader = site(tmp_path, "a: 1\n")
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(f"all: {{vars: {{{NAME}: [1]}}}}\napp: {{hosts: {{app-1: {{}}}}}}\n")
    assert Fresh(loader, [str(tmp_path)]).definition("app-1", NAME).path == hosts

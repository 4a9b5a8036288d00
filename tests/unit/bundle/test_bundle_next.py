"""The next command that an import prints fits the state of the jump host."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import Keys, arguments

pytestmark = pytest.mark.usefixtures("quick")


def site(home: Home, name: str, vault: str = "$ANSIBLE_VAULT;1.2;AES256;acme\n61") -> Path:
    path = home.sites / name
    (path / "group_vars" / "all").mkdir(parents=True)
    (path / "hosts.yml").write_text("all: {}\n")
    (path / "group_vars" / "all" / "main.yml").write_text("site_name: acme\n")
    (path / "group_vars" / "all" / "vault.yml").write_text(vault)
    return path


def installed(path: Path) -> Path:
    (path / ".airlift" / "tls").mkdir(parents=True)
    (path / ".airlift" / "tls" / "ca.pem").write_text("x")
    return path


def printed(small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(arguments("import", small, keys, home)) == 0
    lines = capsys.readouterr().out.rpartition("Next:\n")[2].splitlines()
    assert lines[0] == f"  cd {home.current}"
    return [line.strip() for line in lines[1:]]


def command(path: Path, vault: str, playbook: str) -> str:
    start = f"./venv/bin/ansible-playbook -i {path} --vault-id {vault}"
    return f"{start} playbooks/{playbook}"


def test_an_installed_site_is_upgraded_and_a_new_one_installed(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = site(home, "new"), installed(site(home, "acme"))
    # The folder of sites also contains other files.
    (home.sites / "acme.vault-password").write_text("x")
    assert printed(small, keys, home, capsys) == [
        command(old, "acme@prompt", "upgrade.yml --check"),
        command(old, "acme@prompt", "upgrade.yml"),
        command(new, "acme@prompt", "preflight.yml"),
        command(new, "acme@prompt", "install.yml"),
    ]


@pytest.mark.parametrize(
    ("vault", "option"),
    [
        ("$ANSIBLE_VAULT;1.2;AES256;prod\n61", "prod@prompt"),
        ("$ANSIBLE_VAULT;1.1;AES256\n61", "@prompt"),
        ("postgres_password: x\n", "shop@prompt"),
    ],
)
def test_the_vault_option_has_the_label_of_the_file(  # noqa: PLR0917 - fixtures
    small: Path,
    keys: Keys,
    home: Home,
    capsys: pytest.CaptureFixture[str],
    vault: str,
    option: str,
) -> None:
    path = site(home, "shop", vault)
    assert command(path, option, "install.yml") in printed(small, keys, home, capsys)


def test_without_a_site_it_says_how_one_is_made(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(small, keys, home, capsys)
    assert shlex.split(lines[0])[:2] == ["mkdir", "-p"]
    assert lines[-1] == command(home.sites / "CLIENT", "CLIENT@prompt", "install.yml")


def test_a_site_with_a_blank_in_its_name_is_one_word(
    small: Path, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site(home, "two words", "postgres_password: x\n")
    lines = printed(small, keys, home, capsys)
    assert shlex.split(lines[-1])[1:] == [
        "-i",
        str(path),
        "--vault-id",
        "two words@prompt",
        "playbooks/install.yml",
    ]

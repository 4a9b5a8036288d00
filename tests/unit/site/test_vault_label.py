"""A vault opens with its password, whatever label it has or lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def ansible(program: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words],
        cwd=folder,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("label", ["", "other"])
def test_the_runbooks_option_opens_it(label: str, tmp_path: Path) -> None:
    """A client encrypted it without `--vault-id acme@prompt`, or with their own label."""
    (tmp_path / "password").write_text("hunter2\n")
    site = tmp_path / "site/group_vars/all"
    site.mkdir(parents=True)
    (site / "vault.yml").write_text("answer: 42\n")
    (tmp_path / "site/hosts.yml").write_text("app: {hosts: {app-1: }}\n")
    given = f"--vault-id={label}@password" if label else "--vault-password-file=password"
    made = ansible("ansible-vault", "encrypt", given, str(site / "vault.yml"), folder=tmp_path)
    assert made.returncode == 0, made.stderr
    head = (site / "vault.yml").read_text().splitlines()[0]
    assert head.endswith(";other") is bool(label)
    words = ("-i", "site", "--host", "app-1", "--vault-id", "acme@password")
    shown = ansible("ansible-inventory", *words, folder=tmp_path)
    assert '"answer": 42' in shown.stdout, shown.stderr

"""The commands of docs/INSTALL.md work as written and print what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.journey import Journey
from scripts.lab import ROOT
from scripts.page_parts import blocks
from tests.unit.docs.shown import is_shown, page

INSTALL = page("INSTALL.md")
COMMANDS = blocks(INSTALL)
OUTPUT = blocks(INSTALL, "text")
ORDER = [
    "prepare the jump host",
    "settings",
    "by hand",
    "describe the site",
    "make the secrets",
    "make the first key",
    "preflight",
    "install",
    "status",
    "smoke",
]
#: Settings of this test: the site's hosts are this machine.
HERE = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
}


class Jump:
    """A jump host whose `/opt/airlift` is a temporary folder, and whose site runs on itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "opt" / "airlift"
        self.site = self.home / "sites" / "acme"
        self.tools = folder / "tools"
        self.tools.mkdir()
        sudo = self.tools / "sudo"
        sudo.write_text('#!/bin/sh\nexec "$@"\n')
        sudo.chmod(0o755)
        (folder / "password").write_text("right\n")

    def unpack(self) -> None:
        """Create what an import leaves in the page's folders."""
        release = self.home / "releases" / "1.0.0"
        release.mkdir(parents=True)
        manifest: dict[str, Any] = {"version": "1.0.0", "serial": 1, "architecture": "amd64"}
        manifest |= {"components": {}, "absent": {}, "zones": {}}
        (release / "manifest.json").write_text(json.dumps(manifest))
        for name in ("ansible.cfg", "bundle", "inventories", "playbooks", "roles"):
            (release / name).symlink_to(ROOT / name)
        (release / "venv").symlink_to(Path(sys.executable).parent.parent)
        (self.home / "current").symlink_to("releases/1.0.0")

    def type(self, mark: str) -> subprocess.CompletedProcess[str]:
        """Run a block of the page with this test's paths and password file."""
        script = self.here(COMMANDS[mark])
        env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "USER": os.environ.get("USER", "root")}
        env["PATH"] = f"{self.tools}:{env['PATH']}"
        env["HOME"] = str(self.folder)
        place = self.home / "current"
        return subprocess.run(
            ["bash", "-c", script],
            cwd=place if place.exists() else self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    def here(self, text: str) -> str:
        """Replace the page's paths by this test's, and the vault's prompt by a file."""
        text = text.replace("/opt/airlift", str(self.home))
        return text.replace("acme@prompt", f"acme@{self.folder / 'password'}")

    def findings(self) -> set[tuple[str, str]]:
        """Return preflight's findings about inventory and keys, as host and check."""
        path = self.site / ".airlift" / "preflight.json"
        rows = json.loads(path.read_text())["errors"] if path.exists() else []
        found = {(row["host"], row["check"]) for row in rows}
        return {one for one in found if one[0] == "inventory" or one[1] == "API keys"}


def test_the_steps_come_in_this_order() -> None:
    assert list(COMMANDS) == ORDER


@pytest.mark.parametrize("mark", ["settings", "by hand"])
def test_the_check_by_hand_is_the_one_that_the_security_officer_reads(mark: str) -> None:
    assert COMMANDS[mark] == blocks(page("TRUST.md"))[mark]


@pytest.mark.parametrize("operation", ["preflight", "install", "status", "smoke"])
def test_the_end_to_end_site_is_installed_by_these_commands(operation: str) -> None:
    typed = Journey().playbook_command(operation).partition(" && ")[2]
    typed = typed.replace("/opt/airlift/sites/lab.vault-password", "prompt")
    typed = typed.replace("sites/lab", "sites/acme").replace("lab@", "acme@")
    assert COMMANDS[operation] == f"{typed}\n"


@pytest.mark.slow
def test_a_site_described_as_the_page_says_has_what_preflight_wants(tmp_path: Path) -> None:
    jump = Jump(tmp_path)
    assert jump.type("prepare the jump host").returncode == 0
    assert jump.home.is_dir()
    jump.unpack()
    assert jump.type("describe the site").returncode == 0
    (jump.site / "group_vars" / "all" / "here.yml").write_text(json.dumps(HERE))
    settings = jump.site / "group_vars" / "all" / "main.yml"
    example = settings.read_text()

    made = jump.type("make the secrets")
    assert (made.returncode, made.stderr.strip()) == (0, "")
    vault = settings.with_name("vault.yml").read_text()
    assert vault.startswith("$ANSIBLE_VAULT;1.2;AES256;acme\n")

    settings.write_text(f"{example}\nedge_memroy: 1g\n")
    found = jump.type("preflight")
    wanted = {("inventory", "variable name"), ("site", "API keys")}
    assert jump.findings() == wanted, found.stdout + found.stderr
    assert found.returncode == 2
    assert is_shown(jump.here(OUTPUT["findings of preflight"]), found.stdout), found.stdout
    settings.write_text(example)

    key = jump.type("make the first key")
    assert is_shown(jump.here(OUTPUT["output of the first key"]), key.stdout), (
        key.stdout + key.stderr
    )
    listed = yaml.safe_load(settings.read_text())["app_api_keys"]
    assert [one["client"] for one in listed] == ["billing"]


#: Output that only a real site prints, and the file that contains it.
MADE = [
    ("output of preflight", "TO CARRY", "roles/images/filter_plugins/images_cost.py"),
    ("output of install", "(its documentation at /docs)", "roles/edge/tasks/prove.yml"),
    ("output of status", "/health/ready through the edge: ", "roles/status/logic/report.py"),
    ("output of smoke", "): the smoke test passed", "roles/swap/tasks/smoke.yml"),
]


@pytest.mark.parametrize(("mark", "words", "file"), MADE, ids=[mark for mark, _, _ in MADE])
def test_output_of_a_real_site_has_the_words_of_today(mark: str, words: str, file: str) -> None:
    assert words in OUTPUT[mark]
    assert words in (ROOT / file).read_text()


@pytest.mark.parametrize(
    ("block", "output", "same"),
    [
        ("a -----\nb", "x\na  ---- b", True),
        ("a\n…\nb", "a c d\nb", True),
        ("a b", "a c b", False),
        ("key airlift_…", "key airlift_" + "x" * 43, True),
        ("SHA256:" + "a" * 43, "SHA256:short", False),
    ],
)
def test_output_is_compared_but_for_what_every_run_has_of_its_own(
    block: str, output: str, same: bool
) -> None:
    assert is_shown(block, output) == same

"""A release's programs work in any directory and locale, and in a home with a long name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli.main import main
from bundle.jumphost import importer, start
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import Keys

ROOT = Path(__file__).resolve().parents[3]
#: Without an encoding, with one that the system lacks, with an unknown language, and a valid one.
LOCALES = [{"LC_ALL": "C"}, {"LC_ALL": "de_DE.UTF-8"}, {"LANG": "xx_YY.UTF-8"}, {"LC_ALL": "POSIX"}]
#: The code that `airlift.pth` runs before anything else.
PREPARED = "import bundle.jumphost.start as start; start.prepare();"


def environment(**more: str) -> dict[str, str]:
    """Return an operator's environment with this locale, without Ansible's variables."""
    keep = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    return {**keep, "PYTHONPATH": str(ROOT), **more}


@pytest.mark.slow
@pytest.mark.parametrize("given", LOCALES, ids=lambda one: "=".join(*one.items()))
def test_a_playbook_is_called_by_its_full_path_in_any_locale(
    given: dict[str, str], tmp_path: Path
) -> None:
    """Ansible itself would end at once without this preparation."""
    run = "from ansible.cli.playbook import main; main()"
    words = ["-i", "localhost,", "--syntax-check", str(ROOT / "playbooks/status.yml")]

    def code(text: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", text, *words],
            cwd=tmp_path,
            env=environment(**given),
            capture_output=True,
            check=False,
        ).returncode

    assert code(run) != 0
    assert code(PREPARED + run) == 0


def prepared(**given: str) -> list[str]:
    """Return the settings and the locale of a prepared program."""
    show = "import os; print(os.environ['ANSIBLE_CONFIG'], os.environ.get('LC_ALL', 'none'))"
    done = subprocess.run(
        [sys.executable, "-c", PREPARED + show],
        env=environment(**given),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_what_the_operator_sets_stays() -> None:
    mine = prepared(ANSIBLE_CONFIG="/srv/ansible.cfg", LC_ALL="C.UTF-8")
    assert mine == ["/srv/ansible.cfg", "C.UTF-8"]
    assert prepared(LANG="C.UTF-8") == [str(ROOT / "ansible.cfg"), "none"]


def test_a_release_without_playbooks_has_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "__file__", str(tmp_path / "bundle/jumphost/start.py"))
    found: dict[str, str] = {}
    start.prepare(found)
    assert start.CONFIG not in found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a home with blanks", "h" * 70])
def test_a_home_of_any_name_works(name: str, full: build.Built, keys: Keys, tmp_path: Path) -> None:
    """Its Python finds the release by `airlift.pth`. For blanks see test_bundle_home.py."""
    home = Home(tmp_path / ("h" * 70) / "airlift")
    home.root.parent.mkdir()
    importer.run(
        full.path, trust=keys.trust(), home=home, log=lambda _: None, progress=lambda _: None
    )
    assert main(["verify", str(home.current), "--home", str(home.root)]) == 0
    show = "import os; print(os.environ['ANSIBLE_CONFIG']); print(os.environ['LC_ALL'])"
    done = subprocess.run(
        [home.current / "venv/bin/python", "-c", show],
        cwd=tmp_path,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{home.current.resolve()}/ansible.cfg", "C.UTF-8"]
    assert done.stderr == ""

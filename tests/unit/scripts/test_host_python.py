"""`make lint` refuses host code that needs a newer Python than the hosts have."""

import shlex
import subprocess
from pathlib import Path

import pytest

from scripts.lab import ROOT

BODY = "def pairs(names, values):\n    return dict(zip(names, values{}))\n"
NEWER = ", strict=True"


def lint(tree: Path) -> tuple[int, str]:
    """Run the check of `make lint` in another tree."""
    made = ["make", "-n", "lint-code"]
    said = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = (line for line in said.splitlines() if shlex.split(line)[:1] == ["vermin"])
    path = f"PATH={ROOT / '.venv/bin'}:$PATH; {command}"
    done = subprocess.run(
        ["bash", "-c", path], cwd=tree, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "place",
    ["swap_agent/files/agent/one.py", "swap/library/one.py", "site/module_utils/one.py"],
)
def test_code_for_hosts_is_held_to_their_oldest_python(place: str, tmp_path: Path) -> None:
    for folder in ("swap_agent/files/agent", "swap/library", "site/module_utils"):
        (tmp_path / "roles" / folder).mkdir(parents=True)
    (tmp_path / "roles/swap_agent/files/airlift-swap").write_text("#!/usr/bin/python3\n")
    file = tmp_path / "roles" / place
    file.write_text(BODY.format(""))
    assert lint(tmp_path)[0] == 0
    file.write_text(BODY.format(NEWER))
    code, said = lint(tmp_path)
    assert code == 1
    assert "zip(strict)" in said
    assert place in said

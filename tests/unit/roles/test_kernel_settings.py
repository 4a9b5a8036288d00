"""Kernel settings are applied now and at boot, and never stop an installation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

module = plugin("site/module_utils/kernel_values.py")
FORWARD = {"net.ipv4.ip_forward": 1}


class Kernel:
    """The kernel's settings in a folder."""

    def __init__(self, folder: Path) -> None:
        self.root, self.file = folder / "sys", folder / "sysctl.d/99-zz-airlift.conf"
        self.forward = self.root / "net/ipv4/ip_forward"
        self.forward.parent.mkdir(parents=True)
        self.forward.write_text("0\n")

    def set(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"path": str(self.file), "root": str(self.root), "settings": FORWARD, "leave": {}}
        found: dict[str, Any] = module.run({**given, **options}, check=check)
        return found


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_what_differs_is_set_and_kept(kernel: Kernel) -> None:
    before = os.umask(0o077)
    try:
        found = kernel.set()
    finally:
        os.umask(before)
    assert found["changed"]
    assert found["was"] == {"net.ipv4.ip_forward": "0"}
    assert kernel.forward.read_text() == "1"
    assert kernel.file.read_text().endswith("net.ipv4.ip_forward = 1\n")
    assert kernel.file.stat().st_mode & 0o777 == 0o644
    again = kernel.set()
    assert (again["changed"], again["warnings"]) == (False, [])


def test_what_somebody_took_back_is_set_again(kernel: Kernel) -> None:
    kernel.set()
    kernel.forward.write_text("0\n")
    assert kernel.set()["was"] == {"net.ipv4.ip_forward": "0"}


def test_a_rehearsal_tells_and_changes_nothing(kernel: Kernel) -> None:
    assert kernel.set(check=True)["changed"]
    assert kernel.forward.read_text() == "0\n"
    assert not kernel.file.exists()


def test_settings_that_cannot_be_written_are_a_warning(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    found = kernel.set()
    assert "cannot be set to 1 from here (Read-only file system)" in found["warnings"][0]
    assert "sysctl -w net.ipv4.ip_forward=1" in found["warnings"][0]
    assert not kernel.set()["changed"], "the file was written, and there is nothing else to do"


def test_a_choice_that_may_stay_stays(kernel: Kernel) -> None:
    kernel.forward.write_text("2\n")
    found = kernel.set(leave={"net.ipv4.ip_forward": 2})
    assert not found["changed"]
    assert "and was not changed" in found["warnings"][0]
    assert kernel.forward.read_text() == "2\n"
    assert not kernel.file.exists()

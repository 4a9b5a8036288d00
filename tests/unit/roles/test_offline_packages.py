"""The policy that stops services from starting during an installation is removed."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

packages = plugin("container_engine/module_utils/offline_packages.py")


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", path)
    monkeypatch.setattr(packages, "STAGE", tmp_path / "stage")
    return path


@pytest.mark.parametrize("code", [0, 100])
@pytest.mark.parametrize("before", [None, packages.DENY, "#!/bin/sh\nexit 0\n"])
def test_only_the_clients_own_policy_stays(
    before: str | None, code: int, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is not None:
        policy.write_text(before)
    seen = []

    def run(*command: str, **_: Any) -> subprocess.CompletedProcess[str]:
        seen.append((policy.read_text(), policy.stat().st_mode & 0o111 != 0))
        return subprocess.CompletedProcess(command, code if "install" in command else 0, "", "no")

    theirs = before not in (None, packages.DENY)
    if theirs:
        policy.chmod(0o755)
    monkeypatch.setattr(packages, "run", run)
    if code:
        with pytest.raises(packages.RefusedError, match=r"could not install docker\.io .*: no"):
            packages.install("deb", ["docker.io"])
    else:
        packages.install("deb", ["docker.io"])
        assert not packages.STAGE.exists()
    assert seen == [(before if theirs else packages.DENY, True)] * 2
    assert policy.exists() is theirs


def test_only_our_own_policy_is_a_leftover(policy: Path) -> None:
    assert not packages.is_leftover()
    policy.write_text("#!/bin/sh\nexit 101\n")
    assert not packages.is_leftover()
    policy.write_text(packages.DENY)
    assert packages.is_leftover()


def test_an_rpm_needs_no_policy(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*command: str, **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        assert not policy.exists()
        return subprocess.CompletedProcess(command, 0, "nftables installed\n", "")

    monkeypatch.setattr(packages, "run", run)
    assert packages.missing_packages("rpm", ["nftables", "docker-ce"]) == ["docker-ce"]
    packages.install("rpm", ["docker-ce"])
    assert asked[-1][-2:] == ("install", "docker-ce")

"""Files of a service are exact and atomic, and their fingerprint reveals nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import service_files
from ansible.module_utils.host_tools import RefusedError

from tests.unit.roles.conftest import run_with_umask

OWNER = f"{os.getuid()}:{os.getgid()}"


def run(tmp_path: Path, *, check_mode: bool = False, **params: Any) -> dict[str, Any]:
    given = {
        "directory": str(tmp_path / "etc/demo"),
        "owner": OWNER,
        "mode": "0400",
        "directory_mode": "0700",
        "fingerprint_key": str(tmp_path / "etc/.key"),
        **params,
    }
    result: dict[str, Any] = service_files.run(given, check=check_mode)
    return result


@pytest.fixture(autouse=True)
def _own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the key belong to the user of the tests instead of root."""
    real = service_files.Rights
    monkeypatch.setattr(
        service_files,
        "Rights",
        lambda owner, *modes: real(OWNER if owner == "0:0" else owner, *modes),
    )


def test_writes_once(tmp_path: Path) -> None:
    files = {"a.conf": "a", "sub/b.conf": "b"}
    first = run(tmp_path, files=files)
    again = run(tmp_path, files=files)
    assert first["changed"]
    assert first["changed_files"] == ["a.conf", "sub/b.conf"]
    assert not again["changed"]
    assert again["fingerprint"] == first["fingerprint"]
    assert (tmp_path / "etc/demo/a.conf").stat().st_mode & 0o777 == 0o400


def test_one_file_may_have_another_mode(tmp_path: Path) -> None:
    given: dict[str, Any] = {"mode": "0444", "files": {"a.crt": "a"}, "secrets": {"a.key": "k"}}
    run(tmp_path, **given, modes={"a.key": "0400"})
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc/demo").iterdir()}
    assert modes == {"a.crt": 0o444, "a.key": 0o400}
    assert not run(tmp_path, **given, modes={"a.key": "0400"})["changed"]
    other = run(tmp_path, **given, modes={"a.key": "0440"})
    assert other["changed_files"] == ["a.key"]
    assert other["fingerprint"] != run(tmp_path, **given)["fingerprint"]


def test_what_is_not_named_goes(tmp_path: Path) -> None:
    run(tmp_path, files={"a": "1", "b": "2"})
    result = run(tmp_path, files={"a": "1"})
    assert result["changed_files"] == ["b"]
    assert [path.name for path in (tmp_path / "etc/demo").iterdir()] == ["a"]


def test_rights_are_put_right(tmp_path: Path) -> None:
    run(tmp_path, secrets={"pw": "x"})
    (tmp_path / "etc/demo/pw").chmod(0o644)
    assert run(tmp_path, secrets={"pw": "x"})["changed_files"] == ["pw"]
    (tmp_path / "etc/demo").chmod(0o755)
    assert run(tmp_path, secrets={"pw": "x"})["changed"]
    assert not run(tmp_path, secrets={"pw": "x"})["changed"]


def test_the_fingerprint_is_the_hosts_own(tmp_path: Path) -> None:
    here = run(tmp_path / "one", secrets={"pw": "x"})["fingerprint"]
    there = run(tmp_path / "two", secrets={"pw": "x"})["fingerprint"]
    assert here != there
    assert run(tmp_path / "one", secrets={"pw": "y"})["fingerprint"] != here


def test_secrets_are_in_no_diff(tmp_path: Path) -> None:
    assert "hunter2" not in str(run(tmp_path, secrets={"pw": "hunter2"}))


def test_copies_come_from_the_host(tmp_path: Path) -> None:
    source = tmp_path / "ca.pem"
    source.write_text("one")
    before = run(tmp_path, copies={"ca.pem": str(source)})
    source.write_text("two")
    after = run(tmp_path, copies={"ca.pem": str(source)})
    assert after["changed"]
    assert after["fingerprint"] != before["fingerprint"]


def test_a_refused_configuration_is_never_in_place(tmp_path: Path) -> None:
    run(tmp_path, files={"a": "good"})
    with pytest.raises(RefusedError, match="were not installed: a is bad"):
        run(
            tmp_path,
            files={"a": "bad"},
            validate=["sh", "-c", "grep -q good %s/a || { echo a is bad; exit 1; }"],
        )
    assert (tmp_path / "etc/demo/a").read_text() == "good"
    assert sorted(path.name for path in (tmp_path / "etc").iterdir()) == [".key", "demo"]


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, check_mode=True, files={"a": "1"})["changed"]
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_path_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="inside the directory"):
        run(tmp_path, files={name: "x"})


@pytest.mark.slow
def test_modes_do_not_come_from_the_callers_umask(tmp_path: Path) -> None:
    """With umask 0077 under sudo, folders above the directory must still admit its user."""
    arguments = {"directory": str(tmp_path / "a/b/c"), "owner": f"{os.getuid()}:{os.getgid()}"}
    arguments |= {"mode": "0400", "directory_mode": "0500"}
    run_with_umask("service_files", {**arguments, "files": {"d/e": "text"}})
    modes = {path: (tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b", "a/b/c")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/c": 0o500}

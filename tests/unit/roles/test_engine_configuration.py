"""The engine's configuration keeps the client's keys, sets ours, and refuses unusable ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin

module = plugin("container_engine/module_utils/engine_configuration.py")
OURS: dict[str, Any] = {
    "live-restore": True,
    "log-driver": "json-file",
    "log-opts": {"max-size": "20m"},
    "features": {"containerd-snapshotter": False},
}
THEIRS: dict[str, Any] = {
    "dns": ["10.0.0.53"],
    "proxies": {"http-proxy": "http://proxy:3128"},
    "insecure-registries": ["registry.client"],
    "features": {"buildkit": True},
}
#: Like engine 26, refuse a key that is also a flag.
DOCKERD = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/calls"
case "$*" in
  *--log-driver=*) grep -q log-driver "${2#--config-file=}" || exit 0
    echo "both as a flag and in the file: log-driver" >&2; exit 1 ;;
esac
"""


class Host:
    """The files of a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.record = folder / "docker/daemon.json", folder / "airlift/engine.json"
        self.path.parent.mkdir()
        self.pidfile = folder / "pid"
        self.backups: list[str] = []

    def program(self, name: str, text: str) -> None:
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin" / name).write_text(text)
        (self.folder / "bin" / name).chmod(0o755)

    def bring(self, settings: dict[str, Any], *, check: bool = False) -> dict[str, Any]:
        given = SimpleNamespace(
            params={"settings": settings, "record": str(self.record)},
            check_mode=check,
            backup_local=self.backups.append,
        )
        found: dict[str, Any] = module.bring(given, self.path, self.pidfile)
        return found

    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    made.program("dockerd", DOCKERD)
    made.program("docker", "#!/bin/sh\nexit 1\n")
    made.program("systemctl", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return made


def test_the_clients_keys_stay_and_ours_are_there(host: Host) -> None:
    host.path.write_text(json.dumps({**THEIRS, "live-restore": False}))
    found = host.bring(OURS)
    assert found["changed"]
    assert found["kept"] == ["dns", "insecure-registries", "proxies"]
    assert found["changes"] == ["features", "live-restore", "log-driver", "log-opts"]
    assert host.now() == {
        **THEIRS,
        **OURS,
        "features": {"buildkit": True, "containerd-snapshotter": False},
    }
    assert host.backups == [str(host.path)]
    assert host.path.stat().st_mode & 0o777 == 0o644
    again = host.bring(OURS)
    assert (again["changed"], len(host.backups)) == (False, 1)


def test_a_new_host_gets_the_file(host: Host) -> None:
    assert host.bring(OURS)["changed"]
    assert host.now() == OURS
    assert host.backups == []


def test_what_we_put_there_goes_when_it_is_no_longer_wanted(host: Host) -> None:
    host.bring({**OURS, "debug": True, "mtu": 1400})
    host.path.write_text(json.dumps({**host.now(), "mtu": 9000, "dns": ["10.0.0.53"]}))
    found = host.bring(OURS)
    assert found["changes"] == ["debug"]
    assert host.now() == {**OURS, "mtu": 9000, "dns": ["10.0.0.53"]}, (
        "the client has changed mtu since"
    )


def test_options_of_another_log_driver_go_with_it(host: Host) -> None:
    """An engine does not start with an option that its log driver does not know."""
    host.path.write_text(json.dumps({"log-driver": "syslog", "log-opts": {"syslog-address": "x"}}))
    host.bring(OURS)
    assert host.now()["log-opts"] == {"max-size": "20m"}
    host.path.write_text(json.dumps({**OURS, "log-opts": {"max-size": "1g", "tag": "x"}}))
    host.bring(OURS)
    assert host.now()["log-opts"] == {"max-size": "20m", "tag": "x"}


def test_a_rehearsal_tells_and_writes_nothing(host: Host) -> None:
    host.program("docker", '#!/bin/sh\ncase "$1" in info) echo false ;; ps) echo db web ;; esac\n')
    host.path.write_text(json.dumps(THEIRS))
    found = host.bring(OURS, check=True)
    assert (found["changed"], found["stops"]) == (True, ["db", "web"])
    assert host.now() == THEIRS
    assert not host.record.exists()


def test_a_key_that_is_also_a_flag_is_refused_before_anything_is_touched(host: Host) -> None:
    host.path.write_text(json.dumps(THEIRS))
    words = ["-H", "fd://", "--config-file", "/etc/docker/daemon.json", "--log-driver=journald"]
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as engine:
        assert engine.stdout
        engine.stdout.readline()
        host.pidfile.write_text(f"{engine.pid}\n")
        with pytest.raises(
            module.RefusedError, match="a flag and in the file: log-driver"
        ) as error:
            host.bring(OURS)
        engine.kill()
    assert "--log-driver=journald" in str(error.value)
    assert "container_engine_options" in str(error.value)
    assert host.now() == THEIRS
    assert [path.name for path in host.path.parent.iterdir()] == ["daemon.json"]
    assert "--config-file /etc" not in (host.folder / "bin/calls").read_text()


def unit(host: Host, command: str, *more: str) -> None:
    """Let systemd show a unit in its own format."""
    lines = [
        f"ExecStart={{ path=/usr/sbin/dockerd ; argv[]={command} ; ignore_errors=no ; pid=0 }}",
        *more,
    ]
    (host.folder / "shown").write_text("".join(f"{line}\n" for line in lines))
    host.program("systemctl", f"#!/bin/sh\ncat '{host.folder}/shown'\n")


def test_the_flags_of_the_unit_count_though_no_engine_runs_with_them_yet(host: Host) -> None:
    unit(host, "/usr/sbin/dockerd -H fd:// --log-driver=journald")
    with pytest.raises(module.RefusedError, match="a flag and in the file: log-driver"):
        host.bring(OURS)
    assert not host.path.exists()


def test_variables_of_the_unit_are_put_in_as_systemd_does(host: Host) -> None:
    defaults = host.folder / "docker"
    (host.folder / "default").write_text(
        "# Debian's\nDOCKER_OPTS='--log-driver=local --mtu=1400'\n"
    )
    unit(
        host,
        "/usr/sbin/dockerd -H fd:// --data-root=${ROOT}/x $DOCKER_OPTS $NOTHING",
        'Environment=ROOT=/srv "DOCKER_OPTS=--log-driver=syslog"',
        f"EnvironmentFiles={host.folder}/default (ignore_errors=yes)",
        f"EnvironmentFiles={defaults}/nowhere (ignore_errors=yes)",
    )
    wanted = ["-H", "fd://", "--data-root=/srv/x", "--log-driver=local", "--mtu=1400"]
    assert module.unit_flags() == wanted


@pytest.mark.parametrize(
    "flag", ["--config-file=/srv/daemon.json", "--config-file /srv/daemon.json"]
)
def test_an_engine_that_reads_another_file_is_refused(host: Host, flag: str) -> None:
    unit(host, f"/usr/sbin/dockerd {flag}")
    with pytest.raises(module.RefusedError, match=r"reads /srv/daemon.json and not"):
        host.bring(OURS)
    assert not host.path.exists()


def test_an_engine_that_cannot_judge_is_not_asked_to(host: Host) -> None:
    host.program("dockerd", "#!/bin/sh\necho 'unknown flag: --validate' >&2\nexit 125\n")
    assert host.bring(OURS)["changed"]


def test_what_was_wrong_before_is_not_held_against_it(host: Host) -> None:
    """The cause is not in our settings: a program of the engine is in another place."""
    host.program("dockerd", "#!/bin/sh\necho 'invalid userland-proxy-path' >&2\nexit 1\n")
    assert host.bring(OURS)["changed"]


@pytest.mark.parametrize("text", ["{,}", "[]"])
def test_a_file_that_is_no_configuration_is_named(host: Host, text: str) -> None:
    host.path.write_text(text)
    with pytest.raises(
        module.RefusedError, match=r"daemon.json is .*: correct it, or move it away"
    ):
        host.bring(OURS)

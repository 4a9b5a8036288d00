"""The engine of a host, with fake programs: what the module compares, changes and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.roles.conftest import ROLES, ROOT, plugin

module = plugin("container_engine/library/container_engine.py")
packages = module.offline_packages

RUNNING: dict[str, Any] = {"ServerVersion": "26.1.5", "Driver": "overlay2", "DriverStatus": None}
RUNNING |= {"DockerRootDir": "/var/lib/docker", "Containers": 3}
EMPTY = {**RUNNING, "Containers": 0}
# The client of engine 26.1 describes a stopped daemon like this, and exits with 0.
DOWN: dict[str, Any] = {"ServerVersion": "", "Driver": "", "DockerRootDir": "", "Containers": 0}
DOWN |= {"ServerErrors": ["Cannot connect to the Docker daemon"], "DriverStatus": None}

NETWORK = {"Name": "airlift", "Driver": "bridge", "Options": {"icc": "false", "x": "y"}}
SETTINGS = {"data-root": "/var/lib/docker", "live-restore": True}
SYSTEM: dict[str, Any] = {"id": "debian", "version": "13", "format": "deb", "name": "Debian 13"}
SYSTEM |= {"engine": ["docker.io"], "support": ["nftables"]}
RULES = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A FORWARD -j DOCKER-USER\n"

PROGRAMS = {
    "dockerd": '[ "$1" != --version ] || [ -e "$here/absent" ] || echo Docker version 26.1.5',
    "docker": """case "$1 $2" in
      info*) [ -e "$here/started" ] && exec cat "$here/after.json"; cat "$here/before.json" ;;
      "network inspect") cat "$here/network.json" ;;
      "network create") echo "docker $@" >> "$here/calls" ;;
    esac""",
    "systemctl": """case "$1" in
      is-active) [ ! -e "$here/inactive" ] || [ -e "$here/started" ] ;;
      is-enabled) [ ! -e "$here/disabled" ] ;;
      reset-failed) touch "$here/reset" ;;
      show) ;;
      *) [ -e "$here/reset" ] || exit 1
         echo "$@" >> "$here/calls"; touch "$here/started"
         [ -e "$here/stays-flushed" ] || rm -f "$here/flushed" ;;
    esac""",
    "dpkg-query": """[ -e "$here/bare" ] || printf '%s installed\\n' nftables python3-requests""",
    "iptables-save": """[ ! -e "$here/broken" ] || exit 1
      [ -e "$here/flushed" ] || cat "$here/rules" """,
}


class Host:
    """A fake host without anything to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in PROGRAMS.items():
            self.program(name, text)
        self.file = folder / "etc/daemon.json"
        self.file.parent.mkdir(mode=0o755)
        self.file.write_text(json.dumps(SETTINGS))
        self.record = folder / "engine.json"
        self.record.write_text(json.dumps(SETTINGS))
        (folder / "rules").write_text(RULES)
        (folder / "network.json").write_text(json.dumps([NETWORK]))
        self.sysctl = folder / "sysctl.d/99-zz-airlift.conf"
        self.sysctl.parent.mkdir()
        self.sysctl.write_text(f"{module.kernel_values.HEAD}net.ipv4.ip_forward = 1\n")
        self.forward = folder / "sys/net/ipv4/ip_forward"
        self.forward.parent.mkdir(parents=True)
        self.forward.write_text("1\n")
        (folder / "os-release").write_text('ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian 13"\n')
        self.warnings: list[str] = []

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nhere=$(dirname "$0")\n{text}\n')
        path.chmod(0o755)

    def mark(self, *names: str) -> None:
        """Change what the programs answer."""
        for name in names:
            (self.folder / name).touch()

    def bring(
        self,
        before: dict[str, Any] = RUNNING,
        after: dict[str, Any] = RUNNING,
        *,
        check: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Run the module; return its result."""
        (self.folder / "before.json").write_text(json.dumps(before))
        (self.folder / "after.json").write_text(json.dumps(after))
        given: dict[str, Any] = {"host": "app-1", "minimum": "23.0", "image_store": "overlay2"}
        given |= {"settings": SETTINGS, "record": str(self.record), "systems": [SYSTEM]}
        given |= {"network": {"name": "airlift", "options": {"icc": "false"}}}
        given |= {"support_packages": None, "engine_packages": None, "stage_owner": "root"}
        given |= {"update": False, "offered": {}, "also": []}
        found: dict[str, Any] = module.Engine(
            SimpleNamespace(
                params={**given, "repositories": ["debian-13"], **options},
                check_mode=check,
                backup_local=lambda _: None,
                warn=self.warnings.append,
            )
        ).bring()
        return found

    def calls(self) -> str:
        """Return the calls for the unit and the network."""
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, path in {
        "CONFIGURATION": made.file,
        "PIDFILE": tmp_path / "pid",
        "SYSCTL": made.sysctl,
        "KERNEL": tmp_path / "sys",
        "RELEASE": tmp_path / "os-release",
    }.items():
        monkeypatch.setattr(module, name, path)
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")
    monkeypatch.setattr(packages, "STAGE", tmp_path / "stage")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return made


# ---------------------------------------------------------------- no change, and each change
def test_nothing_to_do_is_one_answer(host: Host) -> None:
    found = host.bring()
    assert (found["changed"], found["due"], found["changes"], found["diff"]) == (
        False,
        False,
        [],
        [],
    )
    assert (found["rc"], json.loads(found["stdout"])) == (0, RUNNING)
    assert host.calls() == ""


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("marks", "change", "call"),
    [
        (["inactive"], "docker.service: started", "start docker.service"),
        (["disabled"], "docker.service: enabled", "enable docker.service"),
        (["flushed"], "docker.service: restarted, because it lost the", "restart docker.service"),
        (["other network"], "network airlift: created", "docker network create --driver bridge"),
        (["no forwarding"], "forwarding: net.ipv4.ip_forward = 1", ""),
        (["other settings"], "daemon.json: live-restore", "restart docker.service"),
        (["policy"], "policy-rc.d: removed", ""),
    ],
)
def test_what_differs_is_told_and_brought_about(
    marks: list[str], change: str, call: str, check: bool, host: Host
) -> None:
    host.mark(*marks)
    if marks == ["other network"]:
        (host.folder / "network.json").write_text("[]")
    if marks == ["no forwarding"]:
        host.forward.write_text("0\n")
    if marks == ["other settings"]:
        host.file.write_text(json.dumps({**SETTINGS, "live-restore": False}))
    if marks == ["policy"]:
        packages.POLICY.write_text(packages.DENY)
    found = host.bring(check=check)
    assert (found["changed"], found["due"]) == (True, True)
    assert change in " ".join(found["changes"])
    assert (call in host.calls()) is (not check or not call)
    if check:
        assert host.calls() == ""
        return
    assert host.forward.read_text().strip() == "1"
    assert json.loads(host.file.read_text()) == SETTINGS
    assert not packages.POLICY.exists()


def test_a_run_that_was_killed_before_the_restart_is_finished(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is already correct, but the engine runs without it."""
    module.PIDFILE.write_text("none")
    os.utime(module.PIDFILE, (1, 1))
    os.utime(host.file, (0, 0))
    assert host.bring()["changes"] == []

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    more: dict[str, Any] = {"settings": {**SETTINGS, "log-driver": "json-file"}}
    with monkeypatch.context() as patch:
        patch.setattr(module.Engine, "systemctl", killed)
        with pytest.raises(KeyboardInterrupt):
            host.bring(**more)
    for check in (True, False):
        found = host.bring(check=check, **more)
        assert found["changes"] == [
            f"docker.service: restarted, because it was started before {host.file} was written"
        ]
        assert (found["changed"], found["due"]) == (True, True)
    assert host.calls() == "restart docker.service\n"
    # The engine writes this file at its start.
    module.PIDFILE.write_text("none")
    assert host.bring(**more)["changes"] == []


def test_a_record_alone_is_due_and_no_change(host: Host) -> None:
    """Without the record, a key that is no longer wanted would stay."""
    host.record.unlink()
    found = host.bring(check=True)
    assert (found["changed"], found["due"]) == (False, True)
    assert not host.bring()["changed"]
    assert json.loads(host.record.read_text()) == SETTINGS


@pytest.mark.parametrize("mends", [True, False])
def test_an_engine_that_lost_its_rules_must_make_them_again(mends: bool, host: Host) -> None:
    host.mark("flushed", *(() if mends else ("stays-flushed",)))
    if mends:
        host.bring()
    else:
        with pytest.raises(
            module.RefusedError, match="has not made them again: the way to published ports"
        ):
            host.bring()
    assert "restart docker" in host.calls()


def test_rules_that_cannot_be_read_are_not_missing(host: Host) -> None:
    """A restart would not fix that."""
    host.mark("broken")
    with pytest.raises(module.RefusedError, match="firewall rules cannot be read"):
        host.bring()
    assert host.calls() == ""


def test_a_network_in_use_is_not_replaced(host: Host) -> None:
    other = {**NETWORK, "Options": {"icc": "true"}, "Containers": {"a": {}}}
    (host.folder / "network.json").write_text(json.dumps([other]))
    with pytest.raises(module.RefusedError, match="docker network rm airlift"):
        host.bring()
    assert host.calls() == ""


# ---------------------------------------------------------------- an empty host
def test_a_rehearsal_on_an_empty_host_tells_all_of_it(host: Host) -> None:
    host.mark("absent", "bare", "inactive", "disabled")
    for path in (host.file, host.record, host.sysctl):
        path.unlink()
    (host.folder / "network.json").write_text("[]")
    found = host.bring(DOWN, DOWN, check=True)
    assert found["changes"] == [
        f"{host.file}: data-root, live-restore",
        "packages: nftables, docker.io",
        "docker.service: started",
        "docker.service: enabled",
        "forwarding: net.ipv4.ip_forward = 1",
        "network airlift: created",
    ]
    planned = json.loads(found["stdout"])
    assert module.image_store(planned) == "overlay2"
    assert not host.file.exists()
    assert not packages.STAGE.exists()
    other = json.loads(host.bring(DOWN, DOWN, check=True, image_store="containerd")["stdout"])
    assert module.image_store(other) == "containerd"


def test_missing_packages_are_asked_for_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.mark("bare")
    host.file.unlink()
    staged = host.bring()
    assert (staged["changed"], staged["staged"]) == (True, "debian-13")
    assert (packages.STAGE / "repodata").is_dir()
    assert not host.file.exists()
    seen: list[Any] = []
    monkeypatch.setattr(
        packages, "install", lambda *given: seen.append((*given, host.file.exists()))
    )
    host.bring(stage_owner="")
    assert seen == [("deb", ["nftables"], True)], "the engine's first start finds its configuration"


OFFERED = {"debian-13": {"docker.io": "26.1.5-2", "runc": "1.1.15", "iptables": "1.8", "gone": "9"}}


def test_newer_packages_are_installed_only_when_asked_for(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ["docker.io installed 26.1.5-1", "runc installed 1.1.15", "iptables installed 1.9"]
    lines = " ".join(f"'{one}'" for one in [*installed, "gone removed 1"])
    host.program(
        "dpkg-query",
        f"""case "$*" in
          *Version*) printf '%s\\n' {lines} ;;
          *) printf '%s installed\\n' nftables python3-requests ;;
        esac""",
    )
    done: list[list[str]] = []
    monkeypatch.setattr(packages, "install", lambda _, names: done.append(list(names)))
    monkeypatch.setattr(packages, "stage", lambda _: None)
    assert host.bring(offered=OFFERED)["outdated"] == []
    said = host.bring(check=True, update=True, offered=OFFERED)
    assert (said["outdated"], said["due"], done) == (["docker.io"], True, [])
    # First the packages are copied to the host.
    assert host.bring(update=True, offered=OFFERED)["staged"] == "debian-13"
    said = host.bring(update=True, offered=OFFERED, stage_owner="")
    assert (done, said["outdated"]) == ([["docker.io"]], ["docker.io"])
    # Without the restart the old program would keep running.
    assert "restart docker.service" in (host.folder / "calls").read_text()


def test_the_index_of_a_repository_has_the_versions() -> None:
    action = plugin("container_engine/action_plugins/container_engine.py")
    index = "Package: runc\nDescription: Package: no\nVersion: 1.1\n\nPackage: a\nVersion: 2:3\n"
    assert action.versions_of(index) == {"runc": "1.1", "a": "2:3"}


@pytest.mark.parametrize("absent", [True, False])
def test_a_release_without_packages_for_the_host_is_refused(absent: bool, host: Host) -> None:
    host.mark("bare", *(("absent",) if absent else ()))
    words = "has no engine, and this release has no packages for Debian 13"
    with pytest.raises(module.RefusedError, match=words if absent else "nftables: not installed"):
        host.bring(DOWN if absent else RUNNING, repositories=[])


def test_packages_that_only_some_hosts_need_are_installed_there_only(host: Host) -> None:
    systems = [{**SYSTEM, "shared_address": ["keepalived"]}]
    assert host.bring(systems=systems, check=True)["changes"] == []
    found = host.bring(systems=systems, also=["shared_address"], check=True)
    assert found["changes"] == ["packages: keepalived"]
    # A system without this entry needs no further packages.
    assert host.bring(also=["shared_address"], check=True)["changes"] == []
    with pytest.raises(module.RefusedError, match="keepalived: not installed on app-1"):
        host.bring(systems=systems, also=["shared_address"], repositories=[])


def test_packages_of_the_inventory_go_first(host: Host) -> None:
    host.mark("bare")
    assert host.bring(support_packages=[])["changes"] == []
    found = host.bring(support_packages=["chrony"], check=True)
    assert found["changes"] == ["packages: chrony"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('ID="rhel"\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat"\n', "rhel-9"),
        ("ID=ubuntu\nVERSION_ID='24.04'\n", "ubuntu-24.04"),
        ("ID=debian\nVERSION_ID=12\n", "debian-12"),
    ],
)
def test_systems_are_known_by_their_own_release(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "os").write_text(text)
    systems = [{"id": "rhel", "version": "9"}, {"id": "ubuntu", "version": "24.04"}]
    assert packages.system_of(systems, tmp_path / "os")[0] == name


# ---------------------------------------------------------------- containers that must stay visible
def test_a_stopped_engine_is_started_to_be_asked(host: Host) -> None:
    """Its containers would disappear like those of a running engine."""
    host.mark("inactive")
    with pytest.raises(module.RefusedError, match="3 containers"):
        host.bring(DOWN, RUNNING, image_store="containerd")
    assert "start docker.service" in host.calls()


def test_an_engine_that_never_ran_starts(host: Host) -> None:
    """Its packages were installed before the run was killed."""
    host.mark("inactive")
    assert host.bring(DOWN, EMPTY, settings={**SETTINGS, "data-root": "/data"})["changed"]


@pytest.mark.parametrize("configured", [True, False])
def test_an_engine_that_does_not_start(configured: bool, host: Host) -> None:
    if not configured:
        host.file.unlink()
    with pytest.raises(module.RefusedError, match=r"journalctl -u docker\.service") as error:
        host.bring(DOWN, DOWN)
    assert ("unknown whether it has containers" in str(error.value)) is configured
    assert host.file.exists(), "our configuration is missing"


def test_a_rehearsal_starts_nothing(host: Host) -> None:
    host.mark("inactive")
    found = host.bring(DOWN, RUNNING, check=True)
    assert found["changes"] == ["docker.service: started"]
    assert (found["rc"], found["stdout"]) == (0, "{}"), "no answer must not be a failure here"
    assert host.calls() == ""


def test_containers_in_another_directory_do_not_vanish(host: Host) -> None:
    with pytest.raises(module.RefusedError, match="container_engine_data_dir to /srv/docker"):
        host.bring({**RUNNING, "DockerRootDir": "/srv/docker"})


def test_a_linked_directory_is_the_same(host: Host) -> None:
    (host.folder / "data").mkdir()
    (host.folder / "link").symlink_to("data")
    real = {**RUNNING, "DockerRootDir": f"{host.folder}/data/100000.100000"}
    host.bring(real, real, settings={**SETTINGS, "data-root": f"{host.folder}/link"})


def test_an_old_engine_is_refused_before_anything_changes(host: Host) -> None:
    host.mark("disabled")
    with pytest.raises(module.RefusedError, match=r"runs engine 20\.10\.24\+dfsg1; 23\.0 or newer"):
        host.bring({**RUNNING, "ServerVersion": "20.10.24+dfsg1"})
    assert host.calls() == ""


# ---------------------------------------------------------------- the role
def play(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(text)
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "-i", "localhost,", "-c", "local", folder / "play.yml", *options],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PATH": f"{folder}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("due", "answer"), [(True, RUNNING), (False, RUNNING), (True, DOWN)])
def test_what_preflight_has_compared_is_not_asked_again(
    due: bool, answer: dict[str, Any], host: Host
) -> None:
    """In check mode, because the task reads files of this machine."""
    (host.folder / "before.json").write_text(json.dumps(answer))
    host.program("dockerd", 'echo "$@" >> "$here/asked"\n' + PROGRAMS["dockerd"])
    more = "container_engine_compared: {due: false}" if not due else "x: 1"
    tasks = [{"ansible.builtin.import_role": {"name": "container_engine", "tasks_from": "foresee"}}]
    tasks += [{"ansible.builtin.import_role": {"name": "container_engine"}}]
    done = play(
        host.folder,
        json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks[not due :]}]),
        *["--check", "-e", f"{{ansible_python_interpreter: {sys.executable}, {more}}}"],
        *["-e", "site_name=lab", "-e", "site_public_name=lab", "-e", f"site_release_dir={ROOT}"],
        *["-e", '{"site_mgmt_addresses": ["192.0.2.1/32"]}'],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = host.folder / "asked"
    count = asked.read_text().count("--version") if asked.exists() else 0
    assert count == (2 if due else 0), done.stdout


@pytest.mark.slow
def test_only_an_answer_is_kept(tmp_path: Path) -> None:
    """Use one run, because most of the time is Ansible's start."""
    cases = [
        (name, answer, known)
        for name in ("site_engine", "container_engine_compared")
        for answer, known in ((RUNNING, True), (DOWN, False), (None, False))
    ]
    tasks = [
        {
            "ansible.builtin.debug": {"msg": f"{name} {number} {{{{ site_engine_known }}}}"},
            "vars": {name: {"rc": 0, "stdout": json.dumps(answer)}} if answer else {},
        }
        for number, (name, answer, _) in enumerate(cases)
    ]
    book = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    book["vars_files"] = [f"{ROLES}/site/vars/main.yml"]
    done = play(tmp_path, json.dumps([book]))
    for number, (name, _, known) in enumerate(cases):
        assert f"{name} {number} {known}" in done.stdout, done.stdout + done.stderr

"""Setup of the agent on its host in one call: real files, fake systemd and agent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from swap_agent.state import Settings

from tests.unit.roles.conftest import ROLES, ROOT, plugin

setup = plugin("swap_agent/library/swap_agent_setup.py")
OWNER = f"{os.getuid()}:{os.getgid()}"
UNIT = "airlift-edge.service"
#: systemd's answer about a unit that runs as its file describes.
WELL = {
    "LoadState": "loaded",
    "NeedDaemonReload": "no",
    "UnitFileState": "enabled",
    "ActiveState": "active",
}
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$*" >> calls
case "$1" in
    show) cat unit; exit 0 ;;
esac
test -e broken && { echo "Unit is masked." >&2; exit 1; }
cp after unit
"""
AGENT = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$*" >> calls
cat ../etc/swap.json > found
cat answer
test -e refusal || exit 0
cat refusal >&2
exit 1
"""


class Host:
    """A host: its files and its programs."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys
        self.bin = root / "bin"
        self.bin.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("airlift-swap", AGENT)):
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.knows()
        self.knows("after")
        self.answers(changed=False)

    def knows(self, name: str = "unit", **other: str) -> None:
        """Set what systemd reports about the unit, now or `after` a command."""
        lines = [f"{key}={value}\n" for key, value in {**WELL, **other}.items()]
        (self.bin / name).write_text("".join(lines))

    def answers(self, **answer: Any) -> None:
        (self.bin / "answer").write_text(json.dumps(answer))

    def calls(self) -> list[str]:
        path = self.bin / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def run(self, **options: Any) -> dict[str, Any]:
        """Run the module as Ansible does; return its result."""
        with patch_module_args(options), pytest.raises(SystemExit):
            setup.answer(setup.run, setup.OPTIONS)
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return found

    def tree(self, files: dict[str, str], **more: Any) -> dict[str, Any]:
        given = {"directory": str(self.root / "etc/edge/desired"), "owner": OWNER}
        return {**given, "mode": "0400", "directory_mode": "0700", "files": files, **more}

    def file(self, content: str = "{}\n", mode: str = "0644") -> dict[str, str]:
        return {"path": str(self.root / "etc/swap.json"), "content": content, "mode": mode}

    def apply(self, **more: Any) -> dict[str, Any]:
        """Call it as the role does before Nginx starts."""
        given = {"trees": [self.tree({"nginx.conf": "one\n"})], "files": [self.file()]}
        agent = str(self.bin / "airlift-swap")
        apply = [agent, "apply", "--release", "1.0.0", "--serial", "1"]
        return self.run(**{**given, "commands": [apply, [agent, "verify"]], **more})


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Host:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Host(tmp_path, capsys)


# ---------------------------------------------------------------- files and the agent
def test_a_first_call_brings_all_about_and_a_second_changes_nothing(host: Host) -> None:
    host.answers(changed=True, why="the configuration differs", active="blue")
    first = host.apply()
    assert first["changed"]
    assert [Path(name).name for name in first["changed_files"]] == ["nginx.conf", "swap.json"]
    assert [one["active"] for one in first["agent"]] == ["blue", "blue"]
    assert host.read("etc/edge/desired/nginx.conf") == "one\n"
    assert (host.root / "etc/swap.json").stat().st_mode & 0o777 == 0o644
    assert host.read("bin/found") == "{}\n", "the agent is called after its files are written"
    host.answers(changed=False, why="nothing to do", active="blue")
    second = host.apply()
    assert not second["changed"]
    assert (second["changed_files"], second["diff"]) == ([], [])
    assert host.calls() == ["apply --release 1.0.0 --serial 1", "verify"] * 2


def test_what_the_agent_had_to_do_is_a_change(host: Host) -> None:
    host.apply()
    host.answers(changed=True, why="the live tree was not active yet")
    assert host.apply()["changed"]


def test_each_change_is_shown_and_no_key(host: Host) -> None:
    (host.root / "own.key").write_text("KEY-1")
    tree = host.tree({"nginx.conf": "one\n"}, copies={"tls/edge.key": str(host.root / "own.key")})
    host.apply(trees=[tree])
    (host.root / "own.key").write_text("KEY-2")
    tree["files"] = {"nginx.conf": "two\n"}
    said = host.apply(trees=[tree], files=[host.file(content='{"a": 1}\n')])
    names = [name.removeprefix(f"{host.root}/etc/") for name in said["changed_files"]]
    assert names == ["edge/desired/nginx.conf", "edge/desired/tls/edge.key", "swap.json"]
    shown = json.dumps(said["diff"])
    assert "one" in shown
    assert "two" in shown
    assert "KEY" not in json.dumps(said)
    assert host.read("etc/edge/desired/tls/edge.key") == "KEY-2"


def test_a_file_of_another_mode_is_written_again(host: Host) -> None:
    host.apply()
    path = host.root / "etc/swap.json"
    path.chmod(0o666)
    assert host.apply()["changed_files"] == [str(path)]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_others_have_beside_a_single_file_stays(host: Host) -> None:
    folder = host.root / "etc"
    folder.mkdir(mode=0o775)
    folder.chmod(0o2775)
    (folder / "other.conf").write_text("theirs")
    host.apply()
    assert host.read("etc/other.conf") == "theirs"
    assert folder.stat().st_mode & 0o7777 == 0o2775
    assert sorted(path.name for path in folder.iterdir()) == ["edge", "other.conf", "swap.json"]


def test_what_the_agent_refuses_is_told_in_its_own_words(host: Host) -> None:
    (host.bin / "refusal").write_text("airlift-swap: Nginx rejects the new configuration: x\n")
    said = host.apply()
    assert said["failed"]
    assert said["msg"] == "Nginx rejects the new configuration: x"


@pytest.mark.parametrize("answer", ["", "[]", "{", '{"changed": "no"}', "{}"])
def test_another_answer_than_the_agents_is_refused(host: Host, answer: str) -> None:
    (host.bin / "answer").write_text(answer)
    assert host.apply()["msg"] == f"unexpected answer of the swap agent: {answer}"


def test_an_agent_that_cannot_be_started(host: Host) -> None:
    assert host.run(commands=[[str(host.root / "nothing"), "verify"]])["failed"]


# ---------------------------------------------------------------- the daemon
@pytest.mark.parametrize(
    ("known", "due"),
    [
        ({}, []),
        ({"ActiveState": "activating"}, []),
        ({"UnitFileState": "disabled"}, ["enable"]),
        ({"ActiveState": "inactive"}, ["restart"]),
        ({"ActiveState": "failed", "UnitFileState": "disabled"}, ["enable", "restart"]),
        # A run that was killed after it had written the unit leaves this.
        ({"NeedDaemonReload": "yes"}, ["daemon-reload", "enable", "restart"]),
        (
            {"LoadState": "not-found", "UnitFileState": "", "ActiveState": "inactive"},
            ["daemon-reload", "enable", "restart"],
        ),
    ],
)
def test_a_unit_runs_as_its_file_says(host: Host, known: dict[str, str], due: list[str]) -> None:
    host.knows(**known)
    rehearsed = host.run(unit=UNIT, _ansible_check_mode=True)
    assert (rehearsed["changed"], rehearsed["unit"]) == (bool(due), due)
    assert [call.partition(" ")[0] for call in host.calls()] == ["show"]
    said = host.run(unit=UNIT)
    assert (said["changed"], said["unit"]) == (bool(due), due)
    told = [step if step == "daemon-reload" else f"{step} {UNIT}" for step in due]
    assert [call for call in host.calls() if not call.startswith("show")] == told
    assert not host.run(unit=UNIT)["changed"]


def test_a_unit_that_does_not_start_is_told(host: Host) -> None:
    host.knows(ActiveState="inactive")
    host.knows("after", ActiveState="failed")
    said = host.run(unit=UNIT)
    assert said["msg"] == f"{UNIT} does not run, it is failed; see: journalctl -u {UNIT}"
    (host.bin / "broken").touch()
    assert host.run(unit=UNIT)["msg"] == f"systemctl restart {UNIT}: Unit is masked."


# ---------------------------------------------------------------- check mode
def test_check_mode_tells_and_changes_nothing_on_an_empty_host_as_well(host: Host) -> None:
    tree = host.tree({"nginx.conf": "one\n"}, copies={"tls/edge.key": str(host.root / "own.key")})
    said = host.apply(trees=[tree], _ansible_check_mode=True)
    assert said["changed"]
    names = [name.removeprefix(f"{host.root}/etc/") for name in said["changed_files"]]
    assert names == ["edge/desired/nginx.conf", "edge/desired/tls/edge.key", "swap.json"]
    assert not (host.root / "etc").exists()
    assert host.calls() == []
    # Outside of check mode, a missing key is an error.
    assert "own.key" in host.apply(trees=[tree])["msg"]


# ---------------------------------------------------------------- calls of the role
@pytest.mark.slow
def test_the_role_wants_a_configuration_for_each_way_to_serve(tmp_path: Path) -> None:
    """The agent chooses one of these files by its name."""
    for name in ("edge.crt", "edge.key"):
        (tmp_path / name).write_text(name)
    variables = {
        "ansible_python_interpreter": sys.executable,
        "site_config_dir": str(tmp_path / "etc"),
        "edge_user": OWNER,
        "edge_certificate": str(tmp_path / "edge.crt"),
        "edge_certificate_key": str(tmp_path / "edge.key"),
        "edge_backends": {"app-1": "10.0.2.1", "app-2": "10.0.2.2"},
        "edge_server_names": ["acme.example"],
        "edge_metrics_allowed": ["10.0.4.1"],
        "edge_management_allowed": ["10.0.0.1"],
        "inventory_dir": str(tmp_path),
        "site_release_dir": str(ROOT),
        "site_name": "acme",
        "site_public_name": "acme.example",
        "site_mgmt_addresses": ["10.0.0.1"],
    }
    call = {"name": "edge", "tasks_from": "configuration", "rolespec_validate": False}
    include = {"name": "Configuration", "ansible.builtin.include_role": call}
    rehearsal = {**include, "ansible.builtin.include_role": {**call, "apply": {"check_mode": True}}}
    play = {"name": "Play", "hosts": "localhost", "gather_facts": False, "vars": variables}
    last = {**include, "ansible.builtin.include_role": {**call, "public": True}}
    parts = {"content": "{{ edge_agent_parts | to_json }}", "dest": str(tmp_path / "parts")}
    kept = {"name": "Parts", "ansible.builtin.copy": {**parts, "mode": "0600"}}
    tasks = [rehearsal, include, last, kept]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{**play, "tasks": tasks}], sort_keys=False))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-c",
            "local",
            str(tmp_path / "play.yml"),
            "-e",
            json.dumps({"site_images": {"nginx": "sha256:nginx"}}),
        ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_INVENTORY_UNPARSED_FAILED": "false",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 changed, 0 failed" in done.stdout, "check mode, the first call and the parts"
    desired = tmp_path / "etc/edge/desired"
    upstreams = {path.stem: path.read_text() for path in (desired / "upstreams").iterdir()}
    assert sorted(upstreams) == ["blue", "blue-green", "green", "green-blue"]
    ports = {"blue": 8001, "green": 8002}
    for name, text in upstreams.items():
        primary, _, standby = name.partition("-")
        assert f"# Requests go to {primary}" in text
        assert text.count(" backup;") == (2 if standby else 0)
        (other,) = set(ports) - {primary}
        assert f"server 10.0.2.1:{ports[other]}; # app-1" in text.partition("upstream preview {")[2]
    assert (desired / "tls/edge.key").read_text() == "edge.key"
    written = {part["path"]: part for part in json.loads((tmp_path / "parts").read_text())}
    settings = written[f"{tmp_path}/etc/swap.json"]["content"]
    assert settings.endswith("}\n")
    (tmp_path / "swap.json").write_text(settings)
    loaded = Settings.load(tmp_path / "swap.json")
    assert set(loaded.files) <= {str(path.relative_to(desired)) for path in desired.rglob("*")}
    assert loaded.image == "sha256:nginx"
    command = written["/usr/local/sbin/airlift-swap"]
    assert command["mode"] == "0755"
    assert command["content"].startswith("#!/usr/bin/python3")
    assert command["content"].endswith("main()\n")
    unit = written["/etc/systemd/system/airlift-edge.service"]["content"]
    assert f"ReadWritePaths={tmp_path}/etc/edge /var/lib/airlift/swap\n" in unit
    assert unit.endswith("WantedBy=multi-user.target\n")

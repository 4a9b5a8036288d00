"""One call per host returns all facts for preflight, the images and the engine's tasks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError

from tests.unit.roles.conftest import ROLES, ROOT, plugin

facts = plugin("preflight/library/preflight_facts.py")
probe = plugin("preflight/action_plugins/preflight_probe.py")
deliver = plugin("images/action_plugins/images_deliver.py")

Answer = Callable[[], dict[str, Any]]
COMPONENT: dict[str, Any] = {
    "version": "1.0",
    "repository": "airlift/app",
    "manifest_digest": "sha256:m1",
    "config_digest": "sha256:c1",
    "diff_ids": ["sha256:d"],
    "probe": ["app", "--version"],
    "layers": [{"digest": "sha256:l", "size": 9}],
    "unpacked_size": 9,
}
COMPONENTS = {"app": COMPONENT}
UP: dict[str, Any] = {"ServerVersion": "26.1.5+dfsg1", "Driver": "overlay2", "DriverStatus": None}
UP |= {"DockerRootDir": "/"}
IMAGE = {"Id": "sha256:c1", "RootFS": {"Layers": ["sha256:d"]}, "RepoTags": ["airlift/app:1.0"]}


# ---------------------------------------------------------------- the jump host's part
def told(*, root: bool, ahead: float = 0.0) -> dict[str, Any]:
    """Return the answer of a host; only root learns about the engine."""
    clock = [time.time() + ahead, time.time() + ahead]
    return {"facts": {"os": {}, **({"engine": {}} if root else {})}, "clock": clock}


def raised(error: Exception) -> Answer:
    """Raise instead of answering."""

    def answer() -> dict[str, Any]:
        raise error

    return answer


def asked(*answers: Answer) -> tuple[dict[str, Any], list[bool]]:
    """Return the action's result for this answer, and which calls were as root."""
    task = MagicMock(args={"components": COMPONENTS, "paths": []}, check_mode=False, async_val=0)
    connection = MagicMock(become=object(), option_definitions={})

    def plain(become: Any) -> None:
        connection.become = become

    connection.set_become_plugin = plain
    keywords = ("play_context", "loader", "templar", "shared_loader_obj")
    action = probe.ActionModule(
        task=task, connection=connection, **{name: MagicMock() for name in keywords}
    )
    left, calls = list(answers), []

    def execute(**given: Any) -> dict[str, Any]:
        assert "layers" not in given["module_args"]["components"]["app"], (
            "hosts do not need the layers"
        )
        calls.append(connection.become is not None)
        return left.pop(0)()

    action._execute_module = execute
    result: dict[str, Any] = action.run(task_vars={})
    assert not left
    return result, calls


def test_one_call_tells_all() -> None:
    said, calls = asked(lambda: told(root=True))
    assert (said["problem"], said["said"], calls) == ("", "", [True])
    assert "engine" in said["facts"]


@pytest.mark.parametrize(
    "refused",
    [
        lambda: {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "sudo: not allowed"},
        raised(AnsibleError("Missing sudo password: sudo: not allowed")),
        raised(
            AnsibleConnectionFailure(
                "Timeout (8s) waiting for privilege escalation prompt: sudo: not allowed"
            )
        ),
    ],
)
def test_a_refused_root_is_told_with_what_the_login_user_sees(refused: Answer) -> None:
    said, calls = asked(refused, lambda: told(root=False))
    assert (said["problem"], calls) == ("sudo", [True, False])
    assert "sudo: not allowed" in said["said"]
    assert "os" in said["facts"]


def test_another_user_than_root_is_no_root() -> None:
    said, calls = asked(lambda: told(root=False))
    assert (said["problem"], calls) == ("sudo", [True])


def test_a_host_without_python_is_not_one_without_sudo() -> None:
    gone = {"failed": True, "msg": "", "module_stderr": "/usr/bin/python3: not found"}
    said, calls = asked(lambda: gone, lambda: gone)
    assert (said["problem"], calls) == ("start", [True, False])
    assert "python3: not found" in said["said"]


@pytest.mark.parametrize(
    "silent",
    [
        raised(AnsibleConnectionFailure("Failed to connect to the host via ssh: no route")),
        lambda: {"unreachable": True, "msg": "no route"},
    ],
)
def test_a_host_that_is_down_is_waited_for_once(silent: Answer) -> None:
    said, calls = asked(silent)
    assert (said["problem"], calls) == ("connection", [True])
    assert "no route" in said["said"]


@pytest.mark.parametrize("ahead", [60.0, -60.0])
def test_a_slow_answer_hides_no_wrong_clock(ahead: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host spent 20 s on its engine; the way there and back took 2 s."""
    monkeypatch.setattr(probe, "time", MagicMock(time=MagicMock(side_effect=[1000.0, 1022.0])))
    there = told(root=True)
    there["clock"] = [1001.5 + ahead, 1021.5 + ahead]
    said, _ = asked(lambda: there)
    assert said["facts"]["clock_off"] == pytest.approx(59.5 if ahead > 0 else 58.5)
    assert said["facts"]["clock_ahead"] is (ahead > 0)


# ---------------------------------------------------------------- the host's part
@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a fake client of the engine: a file for each answer, and a line for each call."""
    (tmp_path / "info").write_text(json.dumps(UP))
    (tmp_path / "image").write_text(json.dumps([IMAGE]))
    (tmp_path / "ps").write_text("abc 0.0.0.0:443->443/tcp")
    program = tmp_path / "docker"
    program.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\necho "$@" >> calls\n'
        '[ "$1 $2" = "image ls" ] && exec echo sha256:c1\ncat "$1"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def calls(host: Path) -> list[str]:
    """Return the client's calls without formats and names."""
    file = host / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [" ".join(line.split()[: 2 if line.startswith("image") else 1]) for line in lines]


def test_an_engine_tells_of_itself_its_containers_and_its_images(host: Path) -> None:
    found = facts.engine(COMPONENTS)
    assert (found["version"], found["said"]) == ("26.1.5", "")
    assert json.loads(found["told"]["stdout"]) == UP
    assert (found["containers"], found["published"]) == (["abc"], [443])
    assert (found["images"]["missing"], found["images"]["ids"]) == ([], {"app": "sha256:c1"})
    assert sorted(calls(host)) == ["image inspect", "info", "ps"]


def test_an_image_without_its_tag_is_not_proven(host: Path) -> None:
    (host / "image").write_text(json.dumps([{**IMAGE, "RepoTags": []}]))
    images = facts.engine(COMPONENTS)["images"]
    assert (images["missing"], images["absent"]) == (["app"], [])


def test_without_an_engine_every_image_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("ansible.module_utils.host_tools.PLACES", "")
    found = facts.engine(COMPONENTS)
    assert (found["version"], found["said"], found["told"]) == ("", "", {})
    assert found["images"]["absent"] == ["app"]


def test_an_engine_that_is_down_is_told_and_its_images_count_as_missing(host: Path) -> None:
    (host / "info").write_text(json.dumps({"ServerVersion": "", "ServerErrors": ["no daemon"]}))
    found = facts.engine(COMPONENTS)
    assert (found["said"], found["told"], found["images"]["absent"]) == ("no daemon", {}, ["app"])


def test_the_login_is_found_where_sudo_hides_it() -> None:
    """root sees the environment of the processes that started it; here it is the same user's."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:];"
        "from tests.unit.roles.conftest import plugin;"
        "print(plugin('preflight/library/preflight_facts.py').login_address())"
    )
    inner = 'env -u SSH_CONNECTION "$0" -c "$1" "$2"; true'
    done = subprocess.run(
        ["/bin/sh", "-c", inner, sys.executable, script, str(ROOT)],
        env=os.environ | {"SSH_CONNECTION": "10.0.0.9 40000 10.0.0.1 22"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "10.0.0.9"


# ---------------------------------------------------------------- what a run keeps of it
def delivered(known: dict[str, Any], *, check: bool, tmp_path: Path) -> list[str]:
    """Return what a delivery asks a host about before it sends anything."""
    arguments = {"components": COMPONENTS, "store": str(tmp_path), "port": 0, "way": "auto"}
    task = MagicMock(args={**arguments, "known": known}, check_mode=check, async_val=0)
    keywords = ("connection", "play_context", "loader", "templar", "shared_loader_obj")
    action = deliver.ActionModule(task=task, **{name: MagicMock() for name in keywords})
    asks: list[str] = []

    def engine(state: str, *_: Any, **__: Any) -> dict[str, Any]:
        asks.append(state)
        return {"failed": True}

    action._engine = engine
    action.run(task_vars={"inventory_hostname": "app-1"})
    return asks


KNOWN: dict[str, Any] = {"store": "overlay2", "ids": {"app": "sha256:c1"}, "free": 1}
KNOWN |= {"missing": [], "absent": [], "layers": []}
LACKS = {**KNOWN, "missing": ["app"], "absent": ["app"]}


@pytest.mark.parametrize(
    ("known", "check", "asks"),
    [
        (KNOWN, False, []),
        (KNOWN, True, []),
        (LACKS, True, []),
        (LACKS, False, ["inspect"]),
        ({}, False, ["inspect"]),
        ({}, True, ["inspect"]),
        ({**KNOWN, "store": "containerd"}, False, ["inspect"]),
        ({**KNOWN, "ids": {"app": "sha256:c0"}}, False, ["inspect"]),
        ({**KNOWN, "ids": {}}, True, ["inspect"]),
    ],
)
def test_a_host_is_asked_again_only_where_something_is_missing_or_unknown(
    known: dict[str, Any], check: bool, asks: list[str], tmp_path: Path
) -> None:
    assert delivered(known, check=check, tmp_path=tmp_path) == asks


PLAY = """
- hosts: localhost
  gather_facts: false
  vars: {site_manifest_file: "{{ playbook_dir }}/manifest.json"}
  tasks:
    - {ansible.builtin.include_role: {name: site, tasks_from: ask}, when: again | bool}
    - {ansible.builtin.import_role: {name: images}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preflight", "due", "again", "wanted"),
    [
        (True, None, False, []),
        (True, False, False, []),
        (False, None, False, ["info", "info", "image inspect"]),
        # The engine was changed, or another run held the lock meanwhile.
        (True, True, False, ["info", "image inspect"]),
        (True, False, True, ["info", "info", "image inspect"]),
    ],
)
def test_within_a_run_the_host_is_not_asked_again(
    preflight: bool, due: bool | None, again: bool, wanted: list[str], host: Path
) -> None:
    (host / "manifest.json").write_text(json.dumps({"components": COMPONENTS}))
    (host / "play.yml").write_text(PLAY)
    (host / "hosts").write_text("[app]\nlocalhost\n")
    given: dict[str, Any] = {"ansible_become": False, "again": again, "site_name": "acme"}
    given |= {"site_public_name": "acme.example", "site_mgmt_addresses": ["10.0.0.1"]}
    given["site_release_dir"] = str(ROOT)
    if preflight:
        given["preflight_asked"] = {"facts": {"engine": facts.engine(COMPONENTS)}}
        (host / "info").write_text(json.dumps({**UP, "SystemTime": "later"}))
        calls(host)
    if due is not None:
        given["container_engine_compared"] = {"rc": 0, "stdout": json.dumps(UP), "due": due}
    program = Path(sys.executable).with_name("ansible-playbook")
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROLES)}
    done = subprocess.run(
        [str(program), "-i", "hosts", "-c", "local", "play.yml", "-e", json.dumps(given)],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        cwd=host,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 changed, 0 failed" in done.stdout
    assert calls(host) == wanted

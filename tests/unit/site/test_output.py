"""Output of a playbook on the terminal: real Ansible with the callback of ansible.cfg."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.deploy.commands import Done
from scripts.facts import Recap, ended, recap
from scripts.lab import telling
from scripts.screen import sub_step
from tests.unit.roles.conftest import ROOT

pytestmark = pytest.mark.slow
HOSTS = ("app-1", "app-2", "edge-1")
LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
#: An address without a host, and a single try.
AWAY = {"ansible_host": "127.0.0.9", "ansible_port": 1, "ansible_connection": "ssh"}
#: Act like a module that changes nothing, but quickly.
LOOK = """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {}
"""


class Desk:
    """A folder with playbooks and an inventory that names this machine several times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hosts: dict[str, Any] = dict.fromkeys(HOSTS, LOCAL)
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        (folder / "action_plugins").mkdir()
        (folder / "action_plugins/look.py").write_text(LOOK)

    def command(self, *options: str) -> list[str]:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, "-i", str(self.folder / "hosts.yml"), "play.yml", *options]

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "tmp"),
            "ANSIBLE_SSH_RETRIES": "0",
            **more,
        }

    def write(self, *plays: dict[str, Any]) -> None:
        full = [{"name": "Play", "hosts": "all", "gather_facts": False, **play} for play in plays]
        (self.folder / "play.yml").write_text(yaml.safe_dump(full, sort_keys=False))

    def role(self, name: str, **files: list[dict[str, Any]]) -> None:
        folder = self.folder / "roles" / name / "tasks"
        folder.mkdir(parents=True)
        for file, tasks in files.items():
            (folder / f"{file}.yml").write_text(yaml.safe_dump(tasks, sort_keys=False))

    def run(self, *options: str, code: int = 0, **environment: str) -> str:
        """Run the playbook; return its output, with every time as 0.0 s."""
        done = subprocess.run(
            self.command(*options),
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.error = done.stderr
        text = re.sub(r" +\d+\.\d s\b", " 0.0 s", done.stdout)
        return re.sub(r" +$", "", text, flags=re.MULTILINE)

    def play(self, *tasks: dict[str, Any], options: str = "", code: int = 0, **play: Any) -> str:
        """Run one play of these tasks."""
        self.write({"tasks": list(tasks), **play})
        return self.run(*options.split(), code=code)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def debug(msg: Any, **more: Any) -> dict[str, Any]:
    return {"name": "Report", "ansible.builtin.debug": {"msg": msg}, **more}


def write(path: str, content: str = "new\n", **more: Any) -> dict[str, Any]:
    task = {"dest": path, "content": content, "mode": "0644"}
    return {"name": "Write the file", "ansible.builtin.copy": task, **more}


def look(name: str = "Look", **more: Any) -> dict[str, Any]:
    return {"name": name, "look": None, **more}


def include(role: str, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ansible.builtin.import_role": {"name": role, **more}}


# ---------------------------------------------------------------- steps
def test_a_step_is_a_role_a_file_of_tasks_or_the_rest_of_a_play(desk: Desk) -> None:
    desk.role("engine", main=[look()])
    desk.role(
        "swap",
        main=[
            {"name": "Plan", "ansible.builtin.import_tasks": "plan.yml"},
            {
                "name": "The upgrade",
                "block": [
                    {
                        "name": "Start {{ colour }}",
                        "ansible.builtin.include_tasks": "start.yml",
                        "when": "inventory_hostname != 'edge-1'",
                    },
                ],
            },
            look("Something else"),
        ],
        plan=[look()],
        start=[look("Deeper"), {"name": "Again", "ansible.builtin.include_tasks": "plan.yml"}],
    )
    desk.role(
        "status", main=[{"name": "Inside", "ansible.builtin.import_tasks": "x.yml"}], x=[look()]
    )
    desk.write(
        {"name": "Prepare every host", "tasks": [{"block": [include("engine", "Engine")]}]},
        {"name": "Upgrade", "vars": {"colour": "blue"}, "tasks": [include("swap", "Upgrade")]},
        {"name": "Status", "hosts": "edge-1", "roles": ["status"]},
        {"name": "Nobody", "hosts": "all:!all", "tasks": [look()]},
        {"name": "Nothing", "tasks": [look(when=False), debug("quiet", when=False)]},
    )
    assert (
        desk.run()
        == """\
Engine                                   app-1, app-2, edge-1 0.0 s
Plan                                     app-1, app-2, edge-1 0.0 s
Start blue                               app-1, app-2 0.0 s
Upgrade                                  app-1, app-2, edge-1 0.0 s
Status                                   edge-1 0.0 s

0 changed, 0 failed, 0.0 s
"""
    )


def test_many_hosts_are_counted_and_each_batch_is_a_step(desk: Desk) -> None:
    hosts = {f"host-number-{number}": LOCAL for number in range(3)}
    (desk.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    desk.write({"tasks": [look()]}, {"name": "Batches", "serial": [1, 2], "tasks": [look()]})
    assert (
        desk.run()
        == """\
Play                                     3 hosts 0.0 s
Batches                                  host-number-0 0.0 s
Batches                                  2 hosts 0.0 s

0 changed, 0 failed, 0.0 s
"""
    )


# ---------------------------------------------------------------- changes
def test_each_container_that_changed_has_a_line(desk: Desk) -> None:
    (desk.folder / "library").mkdir()
    (desk.folder / "library/containers.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "found = [{'name': 'redis', 'changed': True, 'why': ['image', 'redis.conf']},\n"
        "         {'name': 'exporter', 'changed': False, 'why': []},\n"
        "         {'name': 'log', 'changed': True, 'why': ['it does not run']}]\n"
        "AnsibleModule({}).exit_json(changed=True, containers=found)\n"
    )
    said = desk.play({"name": "Bring about", "containers": None}, hosts="app-1")
    assert said.splitlines()[:2] == [
        "changed: [app-1] container redis: image, redis.conf",
        "changed: [app-1] container log: it does not run",
    ]
    assert recap(said) == Recap(changed=2, failed=0)


def test_a_change_says_where_what_and_why(desk: Desk) -> None:
    desk.role("redis", main=[write("{{ out }}/{{ inventory_hostname }}")])
    (desk.folder / "library").mkdir()
    (desk.folder / "library/container.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "AnsibleModule({}).exit_json(changed=True, changes=['image: 1.1.0', 'restarted'])\n"
    )
    desk.write(
        {
            "name": "Data zone",
            "hosts": "app-1",
            "vars": {"out": str(desk.folder)},
            "tasks": [
                include("redis", "Redis"),
                {"name": "Container", "container": None, "delegate_to": "edge-1"},
                {
                    "name": "Write them",
                    "ansible.builtin.copy": {
                        "dest": "{{ out }}/{{ item }}",
                        "content": "x",
                        "mode": "0600",
                    },
                    "loop": ["one", "two"],
                    "notify": "Restart",
                },
            ],
            "handlers": [{"name": "Restart", "ansible.builtin.command": "true"}],
        }
    )
    said = desk.run()
    assert (
        said
        == f"""\
changed: [app-1] redis: Write the file: {desk.folder}/app-1
Redis                                    app-1 0.0 s
changed: [app-1 -> edge-1] Container: image: 1.1.0, restarted
changed: [app-1] Write them: one: {desk.folder}/one
changed: [app-1] Write them: two: {desk.folder}/two
changed: [app-1] Restart
Data zone                                app-1 0.0 s

5 changed, 0 failed, 0.0 s
"""
    )
    assert recap(said) == Recap(changed=5, failed=0)


def test_check_mode_says_that_nothing_is_changed(desk: Desk) -> None:
    path = desk.folder / "file"
    path.write_text("old\n")
    assert (
        desk.play(
            write(str(path)), debug("it\nNext: do it"), hosts="app-1", options="--check --diff"
        )
        == f"""\
Check mode: no host is changed.
would change: [app-1] Write the file
--- before: {path}
+++ after: {path}
@@ -1 +1 @@
-old
+new
Play                                     app-1 0.0 s

it
Next: do it

1 would change, 0 failed, 0.0 s
"""
    )
    assert path.read_text() == "old\n"


def test_the_difference_is_shown_on_request_and_no_secret_ever(desk: Desk) -> None:
    secret = "hunter2"
    path, kept = desk.folder / "file", desk.folder / "secret"
    fail = {"ansible.builtin.command": f"sh -c 'echo {secret} >&2; exit 1'"}
    tasks = [
        write(str(path)),
        write(str(kept), f"{secret}\n", no_log=True),
        write(str(kept) + "{{ item }}", f"{secret}\n", no_log=True, loop=[secret]),
        {"name": "Try it", **fail, "no_log": True, "ignore_errors": True},
        {"name": "Try them", **fail, "no_log": True, "loop": [secret], "ignore_errors": True},
        {"name": "Show it", "ansible.builtin.debug": {"msg": secret}, "no_log": True},
        {"name": "Refuse it", **fail, "no_log": True},
    ]
    said = desk.play(*tasks, hosts="app-1", options="--diff", code=2)
    assert (
        said
        == f"""\
changed: [app-1] Write the file: {path}
--- before
+++ after: {path}
@@ -0,0 +1 @@
+new
changed: [app-1] Write the file
changed: [app-1] Write the file: (censored due to no_log)
ignored: [app-1] Try it: its message is hidden (site_no_log)
ignored: [app-1] Try them: its message is hidden (site_no_log)
Play                                     app-1 0.0 s  failed
failed: [app-1] Refuse it: its message is hidden (site_no_log)

3 changed, 1 failed (app-1), 0.0 s
"""
    )
    assert secret not in said + desk.error


# ---------------------------------------------------------------- texts
def test_a_text_is_printed_as_it_is_once_and_the_next_command_last(desk: Desk) -> None:
    table = 'HOST    STATE\nedge-1  it\'s "ok": {a: b}'
    assert (
        desk.play(
            debug("note: planning again"),
            debug(table),
            debug("{{ inventory_hostname }} is well", when="inventory_hostname == 'app-2'"),
            debug("lab serves release 1.0.0\nNext: ansible-playbook playbooks/status.yml"),
            debug(["one", "two"], run_once=True),
            {"name": "Show", "ansible.builtin.debug": {"var": "numbers"}, "run_once": True},
            look("Unlock"),
            vars={"numbers": {"one": 1}},
        )
        == """\
note: planning again

HOST    STATE
edge-1  it's "ok": {a: b}

app-2 is well

one
two

numbers:
    one: 1

Play                                     app-1, app-2, edge-1 0.0 s

lab serves release 1.0.0
Next: ansible-playbook playbooks/status.yml

0 changed, 0 failed, 0.0 s
"""
    )


# ---------------------------------------------------------------- failures
def test_a_failure_is_its_message_as_plain_text(desk: Desk) -> None:
    why = 'app-green is not ready:\n  it\'s "down"\nlab still serves 1.0.0 (blue).'
    said = desk.play(
        debug("done\nNext: status.yml"),
        look(),
        {
            "name": "Stopped",
            "ansible.builtin.fail": {"msg": why},
            "when": "inventory_hostname == 'app-2'",
        },
        look(),
        code=2,
    )
    assert (
        said
        == f"""\

done
Next: status.yml

Play                                     app-1, app-2, edge-1 0.0 s  failed
failed: [app-2] {why}
Play                                     app-1, edge-1 0.0 s

0 changed, 1 failed (app-2), 0.0 s
"""
    )
    assert telling(said).startswith(f"failed: [app-2] {why}\n")
    assert Done(2, said).reason == "app-green is not ready:"
    assert recap(said) == Recap(changed=0, failed=1)
    # With -v the output is Ansible's own.
    assert "fatal: [app-2]: FAILED! =>\n" in desk.run("-v", code=2)


def test_a_program_that_fails_is_quoted_and_named(desk: Desk) -> None:
    bad: dict[str, Any] = {
        "name": "Start the engine",
        "ansible.builtin.command": "sh -c 'echo no space >&2; exit 3'",
    }
    crash = "#!/usr/bin/python\nimport sys\nsys.exit('no such thing')\n"
    (desk.folder / "library").mkdir()
    (desk.folder / "library/crash.py").write_text(crash)
    tasks: list[dict[str, Any]] = [
        {**bad, "ignore_errors": True},
        {**bad, "loop": ["a"], "ignore_errors": True},
        {
            "name": "Say {{ nothing }}",
            "ansible.builtin.debug": {"msg": "{{ nothing }}"},
            "ignore_errors": True,
        },
        {"name": "Crash", "crash": None},
    ]
    said = desk.play(*tasks, hosts="app-1", code=2)
    begin = "ignored: [app-1] Start the engine: non-zero return code\nno space\n"
    assert said.startswith(begin * 2), said
    assert "'nothing' is undefined" in said
    assert "\nfailed: [app-1] Crash: " in said
    assert "no such thing" in said
    assert "[ERROR]" not in said + desk.error


def test_a_rescue_is_a_step_and_not_a_failure(desk: Desk) -> None:
    desk.role("swap", failed=[look("Record it")])
    fail = {"name": "Gate", "ansible.builtin.fail": {"msg": "the gate failed"}}
    block = {
        "name": "All",
        "block": [fail],
        "rescue": [include("swap", "Record the failure", tasks_from="failed")],
    }
    said = desk.play(block, hosts="edge-1")
    assert (
        said
        == """\
Play                                     edge-1 0.0 s  failed
failed: [edge-1] the gate failed
Record the failure                       edge-1 0.0 s

0 changed, 0 failed, 0.0 s
"""
    )
    assert recap(said) == Recap(changed=0, failed=0)


def test_hosts_that_cannot_be_reached_are_named(desk: Desk) -> None:
    hosts = {"app-1": LOCAL, "app-2": AWAY}
    (desk.folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    connect = {"name": "Look", "ansible.builtin.ping": None}
    said = desk.play({**connect, "ignore_unreachable": True}, connect, code=4)
    lines = said.splitlines()
    reason = r"unreachable: \[app-2\] .*Connection refused"
    assert [bool(re.match(reason, line)) for line in lines[:2]] == [True, True], said
    assert lines[2:] == [
        "Play                                     app-1 0.0 s",
        "",
        "0 changed, 0 failed, 1 unreachable (app-2), 0.0 s",
    ]
    assert recap(said) == Recap(changed=0, failed=1)
    assert "Connection refused" in Done(4, said).reason


def test_warnings_are_kept(desk: Desk) -> None:
    (desk.folder / "library").mkdir()
    (desk.folder / "library/careful.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "module = AnsibleModule({})\nmodule.warn('the disk is nearly full')\nmodule.exit_json()\n"
    )
    desk.play({"name": "Look", "careful": None}, hosts="app-1")
    assert desk.error == "[WARNING]: the disk is nearly full\n"


# ---------------------------------------------------------------- terminals and programs
def terminal(desk: Desk, **environment: str) -> str:
    """Run the playbook on a terminal; return its output."""
    master, slave = pty.openpty()
    command = [*desk.command()]
    with subprocess.Popen(
        command,
        cwd=desk.folder,
        env=desk.environment(**environment),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:
                break
            written += part
        assert process.wait() == 0, written
    os.close(master)
    return written.decode()


def test_a_terminal_shows_the_step_in_progress_and_colours_words_only(desk: Desk) -> None:
    task = {"name": "Write the file", "ansible.builtin.command": "true"}
    desk.write({"hosts": "app-1", "tasks": [task]})
    said = terminal(desk, TERM="xterm-256color")
    assert "\033[KPlay …\r" in said
    assert "\033[0;33mchanged: [app-1]\033[0m Write the file" in said
    said = terminal(desk, TERM="xterm-256color", NO_COLOR="1")
    assert "\033[Kchanged: [app-1] Write the file" in said
    assert "\033" not in terminal(desk, TERM="dumb")


def test_the_log_file_has_it_without_colours(desk: Desk) -> None:
    desk.write({"hosts": "app-1", "tasks": [write(str(desk.folder / "file")), look()]})
    desk.run(ANSIBLE_LOG_PATH=str(desk.folder / "log"), ANSIBLE_FORCE_COLOR="1")
    log = (desk.folder / "log").read_text()
    assert f"| changed: [app-1] Write the file: {desk.folder}/file\n" in log
    assert "\033" not in log


def test_more_words_are_those_of_ansible(desk: Desk) -> None:
    desk.write({"hosts": "app-1", "tasks": [look(), debug("a text")]})
    ours, own = desk.run("-vv"), desk.run("-vv", ANSIBLE_STDOUT_CALLBACK="default")
    # The command's result contains its times, and each output names the other callback.
    own_words = re.compile(r"(delta|end|start): .*|Skipping callback.*")
    assert own_words.sub("", ours) == own_words.sub("", own)
    assert "TASK [Look] ***" in ours
    assert "PLAY RECAP ***" in ours


def test_programs_tell_an_end_from_a_kill(desk: Desk) -> None:
    said = desk.play({"name": "Change", "ansible.builtin.command": "true"}, hosts="app-1")
    assert ended(said)
    # With -v the output is Ansible's own.
    own = desk.run("-v")
    assert ended(own)
    assert recap(said) == recap(own) == Recap(changed=1, failed=0)
    assert not ended(said.rpartition("\n\n")[0])
    assert sub_step("Start blue                           app-1, app-2              1.0 s") == (
        "Start blue"
    )
    assert sub_step("changed: [app-1] Write the file") is None

"""A site on one machine: real Ansible, roles and agent, with a fake engine."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from swap_agent import lease
from swap_agent.journal import Journal
from swap_agent.state import State

from tests.unit.roles.conftest import ROLES, ROOT

#: A long timeout, because this machine may be busy.
PATIENT = json.dumps({"swap_ask_seconds": 120, "swap_glance_seconds": 120})
SCHEMA = {"version": 1, "lowest_compatible": 1, "bytes": 1000}
#: The name of another run in between, in the format of release 1.0.0.
OTHER = "other.machine.boot.1.1"
OLD_AGENT = """
import json, subprocess, sys
if "beat" in sys.argv[1:2]:
    sys.exit(2)
done = subprocess.run([REAL, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
said = json.loads(done.stdout or "{}")
for name in ("seen", "last_lease", "seconds"):
    said.pop(name, None)
print(json.dumps(said))
sys.exit(done.returncode)
"""


class Desk:
    """A jump host whose hosts are itself: an app host that comes first, and one for the rest."""

    #: The hosts of a play.
    hosts = "all"

    def __init__(self, root: Path, every: float = 30.0) -> None:
        self.root = root
        self.agent = root / "airlift-swap"
        self.swap = root / "data/swap"
        self.roles = root / "roles"
        self.roles.mkdir()
        for role in ROLES.iterdir():
            if role.name != "swap_agent":
                (self.roles / role.name).symlink_to(role)
        self._copy_role(every)
        for version, serial in (("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 3)):
            release = root / "releases" / version
            (release / "playbooks").mkdir(parents=True)
            (release / "bundle").symlink_to(ROOT / "bundle")
            (release / "roles").symlink_to(self.roles)
            schema = {"head": serial, "lowest_compatible": 1}
            manifest = {"version": version, "serial": serial, "schema": schema}
            manifest |= {
                "components": {"app": dict.fromkeys(("manifest_digest", "config_digest"), "x")}
            }
            (release / "manifest.json").write_text(json.dumps(manifest))
        self._inventory()
        self._agent()

    def _copy_role(self, every: float) -> None:
        for path in (ROLES / "swap_agent").rglob("*"):
            copy = self.roles / path.relative_to(ROLES)
            if path.is_file() and path.suffix != ".pyc":
                copy.parent.mkdir(parents=True, exist_ok=True)
                text = path.read_text().replace("/usr/local/sbin/airlift-swap", str(self.agent))
                copy.write_text(text.replace("EVERY = 30.0", f"EVERY = {every}"))

    def _inventory(self) -> None:
        facts = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "ansible_host": "127.0.0.1",
            "site_name": "desk",
            "site_public_name": "desk.example",
            "site_mgmt_addresses": ["127.0.0.1"],
            "site_data_dir": str(self.root / "data"),
        }
        edge: dict[str, Any] = {"hosts": {"edge-1": {}}}
        zones: dict[str, Any] = {"app": {"hosts": {"app-1": {}}}}
        zones |= dict.fromkeys(("dmz", "data", "monitor"), edge)
        site = self.root / "site"
        site.mkdir()
        (site / "hosts.yml").write_text(
            yaml.safe_dump({**zones, "all": {"vars": facts}}, sort_keys=False)
        )
        (site / ".airlift").mkdir()
        (site / ".airlift/smoke.key").write_text("of the smoke test")

    def _agent(self) -> None:
        settings = {
            "root": str(self.root / "edge"),
            "state_file": str(self.swap / "state.json"),
            "files": [],
            "container": "none",
            "image": "none",
            "user": "1:1",
            "probe_address": "127.0.0.1",
            "probe_port": 1,
        }
        (self.root / "swap.json").write_text(json.dumps(settings))
        words = [sys.executable, "-m", "swap_agent", "--settings", str(self.root / "swap.json")]
        where = shlex.quote(str(ROLES / "swap_agent/files"))
        program(self.agent, f'#!/bin/sh\nPYTHONPATH={where} exec {shlex.join(words)} "$@"\n')
        (self.root / "bin").mkdir()
        # The host has a database, but no container of the service.
        says = json.dumps({"schema": SCHEMA, "api_keys": []})
        text = f"""#!/bin/sh
[ "$1" = container ] && exit 1
[ "$2" = --interactive ] && cat > /dev/null
echo '{{}}'
echo '{says}'
"""
        program(self.root / "bin/docker", text)

    def make_agent_old(self) -> None:
        """Install the agent of release 1.0.0, which has fewer commands."""
        real = self.agent.rename(self.root / "airlift-swap.real")
        program(self.agent, f"#!{sys.executable}\nREAL = {str(real)!r}\n{OLD_AGENT}")

    def serve(self, release: str, generation: int, active: str = "blue") -> None:
        """Make a release active, as an upgrade or a rollback does."""
        other = {"blue": "green", "green": "blue"}[active]
        before = ("1.0.0", 1) if release == "1.1.0" else ("1.1.0", 2)
        State(
            active=active,
            standby=other,
            release=release,
            serial=int(release[2]) + 1,
            generation=generation,
            since="2026-01-01T00:00:00Z",
            previous_release=before[0],
            previous_serial=before[1],
            warm_until="2027-01-01T00:00:00Z",
        ).save(self.swap / "state.json")

    def run(self, *tasks: dict[str, Any], options: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a playbook of release 1.1.0 with these tasks."""
        play = {
            "hosts": self.hosts,
            "gather_facts": False,
            "any_errors_fatal": True,
            "tasks": tasks,
        }
        path = self.root / "releases/1.1.0/playbooks/play.yml"
        path.write_text(yaml.safe_dump([{"name": "Play", **play}], sort_keys=False))
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "HOME": str(self.root),
            # Hide the engine: the plan must not use real containers of this machine.
            "DOCKER_HOST": f"unix://{self.root}/no.sock",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            # This callback prints task names, which tests use to check the order.
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_ROLES_PATH": str(self.roles),
            "ANSIBLE_REMOTE_TMP": str(self.root / "tmp"),
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), str(path)]
        return subprocess.Popen(
            [*command, "-i", str(self.root / "site"), "-e", PATIENT, *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, *tasks: dict[str, Any], options: Sequence[str] = ()) -> tuple[int, str]:
        """Run a playbook to its end; return its exit code and output."""
        with self.run(*tasks, options=options) as running:
            said, _ = running.communicate(timeout=300)
        return running.returncode, said

    def call(self, *words: str) -> str:
        """Call the agent as an operator on the edge does; return its output."""
        done = subprocess.run([self.agent, *words], capture_output=True, text=True, check=True)
        return done.stdout

    def other(self, *words: str) -> list[str]:
        """Return a command of another run, for a task."""
        return [str(self.agent), words[0], "--run", OTHER, *words[1:]]

    def lease(self) -> lease.Lease:
        found = lease.held(self.swap / "lease.json")
        assert found is not None
        return found

    def journal(self) -> list[tuple[str, str, str]]:
        records = Journal(self.swap / "journal").records()
        return [(r["run"].partition(".")[0], r["step"], r["event"]) for r in records]


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def command(name: str, *words: str) -> dict[str, Any]:
    """Return a task that runs a command, once."""
    return {"name": name, "ansible.builtin.command": {"argv": list(words)}, "run_once": True}


def role(tasks: str, **variables: Any) -> dict[str, Any]:
    """Return a task that includes tasks of the role swap, as playbooks do."""
    return {
        "name": tasks,
        "ansible.builtin.import_role": {"name": "swap", "tasks_from": tasks},
        "vars": variables,
    }

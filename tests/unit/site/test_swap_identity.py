"""Detect ended runs by real processes, and take over their locks from a real agent."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swap_agent import lease
from swap_agent.journal import Journal

from tests.unit.roles.conftest import ROLES, plugin

agent = plugin("swap_agent/action_plugins/swap_agent.py")


def named(
    pid: int | str, start: str = "", host: str = "", machine: str = "", boot: str = ""
) -> str:
    """Return a run's name, of this machine by default."""
    here, this_machine, this_boot, _, _ = agent.this_run().rsplit(".", 4)
    start = start or agent.started(int(pid))
    return f"{host or here}.{machine or this_machine}.{boot or this_boot}.{pid}.{start}"


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


# ---------------------------------------------------------------- names and processes
def test_the_start_of_a_process(living: subprocess.Popen[bytes]) -> None:
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    start = int(agent.started(living.pid)) / os.sysconf("SC_CLK_TCK")
    assert uptime - 60 < start <= uptime + 1
    assert int(agent.started(os.getpid())) <= int(agent.started(living.pid))
    end(living)
    assert agent.started(living.pid) == ""


def test_a_process_with_an_odd_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b c"
    shutil.copy(shutil.which("sleep") or "", odd)
    with subprocess.Popen([odd, "600"]) as process:
        status = Path(f"/proc/{process.pid}/stat")
        for _ in range(500):
            if "S 1 (b" in status.read_text():
                break
            time.sleep(0.01)
        start = agent.started(process.pid)
        process.kill()
    assert int(start) >= int(agent.started(os.getpid()))


def test_forks_of_a_run_have_its_name() -> None:
    """Every task runs in a fork; the name is that of the process which forked."""
    names = []
    for _ in range(2):
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.write(writing, agent.this_run().encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as pipe:
            names.append(pipe.read())
    start = agent.started(os.getpid())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    machine = agent.first_of("/etc/machine-id")
    assert names == [f"{socket.gethostname()}.{machine}.{boot}.{os.getpid()}.{start}"] * 2


def test_an_id_is_always_one_word(tmp_path: Path) -> None:
    """Dots separate a name's parts, and a container's machine id may be missing or empty."""
    path = tmp_path / "id"
    assert agent.first_of(str(path)) == "none"
    path.write_text("\n")
    assert agent.first_of(str(path)) == "none"
    path.write_text("0123456789abcdef\n")
    assert agent.first_of(str(path)) == "01234567"


def test_a_run_lives_as_long_as_its_process(living: subprocess.Popen[bytes]) -> None:
    run = named(living.pid)
    assert not agent.is_dead(run)
    assert not agent.is_dead(agent.this_run())
    end(living)
    assert agent.is_dead(run)


def test_a_process_id_that_came_again_is_another_run(living: subprocess.Popen[bytes]) -> None:
    start = int(agent.started(living.pid))
    assert agent.is_dead(named(living.pid, start=str(start - 1)))
    assert agent.is_dead(named(living.pid, start=str(start)[:-1]))


def test_of_another_host_nothing_is_known(living: subprocess.Popen[bytes]) -> None:
    for host in ("other", f"{socket.gethostname()}.example", f"x.{socket.gethostname()}"):
        run = named(living.pid, host=host)
        assert not agent.is_dead(run)
        assert not agent.is_dead(named(2**22 + 1, start="1", host=host))


def test_of_another_machine_of_the_same_name_nothing_is_known(
    living: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {"/etc/machine-id": "aaaaaaaa", "/proc/sys/kernel/random/boot_id": "11111111"}
    monkeypatch.setattr(agent, "first_of", ids.__getitem__)
    theirs = [named(living.pid), named(2**22 + 1, start="1")]
    assert [agent.is_dead(run) for run in theirs] == [False, True], (
        "same answer as on their own machine"
    )
    ids["/etc/machine-id"] = "bbbbbbbb"
    for boot in ("11111111", "22222222"):
        ids["/proc/sys/kernel/random/boot_id"] = boot
        mine = [named(living.pid), named(2**22 + 1, start="1")]
        assert not any(agent.is_dead(run) for run in theirs)
    ids |= {"/etc/machine-id": "aaaaaaaa", "/proc/sys/kernel/random/boot_id": "11111111"}
    assert not any(agent.is_dead(run) for run in mine)


def test_before_this_boot_nothing_lives(living: subprocess.Popen[bytes]) -> None:
    assert agent.is_dead(named(living.pid, boot="00000000"))


def test_a_host_name_may_have_dots(
    living: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "jump.acme.example")
    run = named(living.pid)
    assert run.startswith("jump.acme.example.")
    assert not agent.is_dead(run)
    assert not agent.is_dead(run.removeprefix("jump."))
    end(living)
    assert agent.is_dead(run)


@pytest.mark.parametrize(
    "run", ["", ".", "...", "run-1", "a.b", "a.b.c.d", "a.b.c.d.e", "None", "x" * 9999]
)
def test_a_name_of_another_kind_is_never_dead(run: str) -> None:
    assert not agent.is_dead(run)


@pytest.mark.parametrize("pid", ["", "x", "-1", "1/x", "99999999999999999999"])
def test_a_process_that_cannot_be_is_dead(pid: str) -> None:
    assert agent.is_dead(named(pid, start="1"))


def test_a_process_that_ended_is_dead_also_before_it_is_reaped(
    living: subprocess.Popen[bytes],
) -> None:
    """It stays like this in a container whose first process reaps no children."""
    run = named(living.pid)
    assert not agent.is_dead(run)
    living.kill()
    os.waitid(os.P_PID, living.pid, os.WEXITED | os.WNOWAIT)
    assert agent.is_dead(run)


# ---------------------------------------------------------------- the agent
class Site:
    """The real agent with its own files, called by the real action."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        settings = {
            "root": str(root / "edge"),
            "state_file": str(root / "swap/state.json"),
            "files": [],
            "container": "none",
            "image": "none",
            "user": "1:1",
            "probe_address": "127.0.0.1",
            "probe_port": 1,
        }
        (root / "swap.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "swap_agent", "--settings", str(root / "swap.json")]
        where = shlex.quote(str(ROLES / "swap_agent/files"))
        self.program(f'PYTHONPATH={where} exec {shlex.join(command)} "$@"')

    def program(self, text: str) -> None:
        path = self.root / "airlift-swap"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def execute(
        self, *, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the command as Ansible's command module does on the edge."""
        assert module_name == "ansible.legacy.command"
        assert task_vars == {"here": 1}
        words = module_args["argv"]
        self.calls.append(words)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

    def do(
        self, command: str, *, check: bool = False, begins: str = "", **options: Any
    ) -> dict[str, Any]:
        args = {"command": command, **({"options": options} if options else {})}
        args |= {"begins": begins} if begins else {}
        task = SimpleNamespace(args=args, check_mode=check, async_val=0, action="swap_agent")
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="none"))
        action = agent.ActionModule(task, connection, None, None, None)
        action._execute_module = self.execute
        found: dict[str, Any] = action.run(None, {"here": 1})
        return found

    def lock(self, **more: Any) -> dict[str, Any]:
        return self.do("lock", owner="bob@jump", verb="upgrade", **more)

    def give(self, run: str) -> None:
        """Let another run hold the lease."""
        path = self.root / "swap/lease.json"
        lease.acquire(path, run=run, owner="ann@jump", verb="rollback", seconds=600)

    def held(self) -> lease.Lease:
        found = lease.held(self.root / "swap/lease.json")
        assert found is not None
        return found

    def journal(self) -> list[dict[str, Any]]:
        return Journal(self.root / "swap/journal").records()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(agent, "AGENT", str(tmp_path / "airlift-swap"))
    # Here a run has the name of the process that started the tests.
    monkeypatch.setattr(agent, "while_it_lives", lambda run, beat: None)
    return Site(tmp_path)


def test_a_run_is_locked_in_its_own_name(site: Site) -> None:
    data = {"release": "1.1.0", "serial": 2}
    said = site.lock(data=data)
    assert (said["run"], said["changed"]) == (agent.this_run(), False)
    assert (site.held().run, site.held().owner) == (agent.this_run(), "bob@jump")
    (note,) = site.journal()
    assert (note["step"], note["event"]) == ("upgrade", "intent")
    assert note["data"] == {"owner": "bob@jump", **data}


def test_the_same_run_only_prolongs(site: Site) -> None:
    site.lock(seconds=5)
    first = site.held()
    assert not site.lock(seconds=500).get("failed")
    assert site.held().epoch == first.epoch
    assert site.held().expires > first.expires + 400
    assert len(site.journal()) == 1


def test_a_dead_run_is_taken_over(site: Site, living: subprocess.Popen[bytes]) -> None:
    dead = named(living.pid)
    site.give(dead)
    end(living)
    assert not site.lock().get("failed")
    assert (site.held().run, site.held().epoch) == (agent.this_run(), 2)
    assert len(site.calls) == 2
    assert site.calls[1] == [*site.calls[0], "--instead-of", dead]


def test_a_living_run_is_left_alone_and_named(site: Site, living: subprocess.Popen[bytes]) -> None:
    run = named(living.pid)
    site.give(run)
    said = site.lock()
    assert said["failed"]
    assert said["msg"].startswith(f"rollback by ann@jump is in progress on this site (run {run})")
    assert site.held().run == run
    assert len(site.calls) == 1
    assert site.journal() == []


@pytest.mark.parametrize("other", [{"host": "other"}, {"machine": "00000000"}])
def test_a_run_of_another_machine_is_left_alone(site: Site, other: dict[str, str]) -> None:
    site.give(named(2**22 + 1, start="1", **other))
    assert "by ann@jump is in progress" in site.lock()["msg"]
    assert site.held().epoch == 1


def test_only_the_holder_goes_on(site: Site) -> None:
    site.lock()
    assert not site.do("step", name="images").get("failed")
    lease.release(site.root / "swap/lease.json", agent.this_run())
    site.give(named(1, host="other"))
    said = site.do("step", name="schema")
    assert said["failed"]
    assert said["msg"].startswith(f"run {agent.this_run()} does not hold the lease")


def test_a_step_is_recorded_before_the_command_that_it_begins_with(site: Site) -> None:
    """One call to the edge does both; a step that cannot be recorded does not begin."""
    site.lock()
    site.do("step", name="schema")
    before = len(site.calls)
    said = site.do("retire", begins="colour")
    assert said["failed"], "nothing is installed here"
    assert "nothing is installed here yet" in said["msg"]
    assert len(site.calls) == before + 1
    events = [(one["step"], one["event"]) for one in site.journal()][1:]
    assert events == [("schema", "intent"), ("schema", "done"), ("colour", "intent")]
    lease.release(site.root / "swap/lease.json", agent.this_run())
    said = site.do("unlock", begins="finish")
    assert said["msg"] == f"run {agent.this_run()} has ended; run the same playbook again"
    assert len(site.journal()) == 4


def test_show_tells_a_run_at_work_from_a_dead_one(
    site: Site, living: subprocess.Popen[bytes]
) -> None:
    assert "at_work" not in site.do("show")
    site.give(named(living.pid))
    assert site.do("show")["at_work"] is True
    end(living)
    said = site.do("show")
    assert (said["at_work"], said["changed"], said["installed"]) == (False, False, False)
    assert not any("--run" in words for words in site.calls), "a query needs no run"


def test_a_run_whose_lease_ran_out_is_at_work_while_its_process_lives(
    site: Site, living: subprocess.Popen[bytes]
) -> None:
    """The jump host was unreachable for a while, but no run took over."""
    path = site.root / "swap/lease.json"
    for run in (named(living.pid, host="other"), named(living.pid)):
        lease.acquire(path, run=run, owner="ann", verb="upgrade", seconds=-1)
    said = site.do("show")
    assert (said["at_work"], said["lease"]["run"]) == (True, named(living.pid))
    lease.release(path, named(living.pid))
    assert site.do("show")["lease"] is None
    site.give(named(living.pid))
    end(living)
    assert site.do("show")["at_work"] is False


def test_of_another_machine_one_that_ran_out_is_not_at_work(
    site: Site, living: subprocess.Popen[bytes]
) -> None:
    path = site.root / "swap/lease.json"
    run = named(living.pid, host="other")
    lease.acquire(path, run=run, owner="ann", verb="upgrade", seconds=-1)
    said = site.do("show")
    assert (said["lease"], "at_work" in said) == (None, False)


def test_playbooks_of_release_1_0_0_understand_the_answers(site: Site) -> None:
    """They read `holder` of every answer, and lock for an hour without a heartbeat."""
    site.lock()
    for command in ("show", "lock", "step"):
        words = {"lock": ["--owner=bob", "--verb=upgrade"], "step": ["--name=images"]}
        run = [] if command == "show" else [f"--run={agent.this_run()}"]
        argv = [agent.AGENT, command, *run, *words.get(command, [])]
        done = site.execute(
            module_name="ansible.legacy.command",
            module_args={"argv": argv},
            task_vars={"here": 1},
        )
        assert json.loads(done["stdout"]).get("holder", {}) == {}
    assert site.held().left() > 3500


def test_of_a_run_itself_nothing_was_cut_off(site: Site) -> None:
    """In a plan inside its own lock, its own start does not hide what it took over."""
    path = site.root / "swap/journal"
    Journal(path).append("dead", "upgrade", "intent", {"release": "1.1.0"})
    Journal(path).append("dead", "images", "intent")
    site.lock(data={"release": "1.1.0"})
    left = site.do("show")["unfinished"]
    assert [(one["run"], one["step"]) for one in left] == [("dead", "upgrade"), ("dead", "images")]


def test_a_host_without_an_agent_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible's module reports a missing program like this."""
    gone = {"rc": 2, "stdout": "", "stderr": "", "msg": "Error executing command."}
    monkeypatch.setattr(site, "execute", lambda **_: gone)
    assert site.do("show")["msg"] == f"there is no {site.root}/airlift-swap on this host"


def test_check_mode_only_looks(site: Site) -> None:
    assert site.do("lock", check=True, owner="bob", verb="upgrade")["skipped"]
    assert site.calls == []
    assert site.do("show", check=True)["installed"] is False


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("echo oops", "unexpected answer of the swap agent: oops"),
        ("echo oops; exit 1", "unexpected answer of the swap agent: oops"),
        ("echo 'airlift-swap: no room' >&2; exit 1", "no room"),
        ("echo '{}'; echo 'usage: x' >&2; exit 2", "usage: x"),
    ],
)
def test_an_agent_that_fails_is_heard(site: Site, program: str, words: str) -> None:
    site.program(program)
    said = site.lock()
    assert said["failed"]
    assert said["msg"].strip() == words

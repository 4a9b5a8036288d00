"""Run a command of the swap agent on the edge, on behalf of this run."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

AGENT = "/usr/local/sbin/airlift-swap"
#: The agent's exit code when another run holds the lease.
HELD = 3
#: Seconds between two heartbeats of a run, and for how long each keeps the lease: that soon after a
#: jump host is gone, another one may take over.
EVERY = 30.0
KEPT = 180


def started(pid: int) -> str:
    """Return when a process of this machine was started, in ticks since boot; empty if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A zombie has ended, although its parent has not read its exit status yet.
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


def first_of(path: str) -> str:
    """Return the first characters of an id that the system keeps in a file."""
    try:
        return Path(path).read_text().strip()[:8] or "none"
    except OSError:
        return "none"


def is_answer(said: Any, *needed: str) -> bool:
    """Return whether this has the form of an agent's answer that this module relies on."""
    if not isinstance(said, dict) or not set(needed) <= set(said):
        return False
    names = ("holder", "lease", "last_lease")
    runs = [said[name] for name in names if said.get(name) is not None]
    records = [*_list(said.get("unfinished", [])), *_list(said.get("records", []))]
    return all(isinstance(one, dict) and isinstance(one.get("run"), str) for one in runs) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in _OF_RECORDS)
        for one in records
    )


#: The fields of a journal record that this module reads.
_OF_RECORDS = ("run", "step", "event")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def this_run() -> str:
    """Return a name of this run of ansible-playbook from which others can tell if it still runs.

    Tasks run in forks of that process. A process id is reused, with another start time; a machine
    that was rebooted has another boot id; two machines may share a name, but not a machine id.
    """
    pid = os.getppid()
    machine, boot = first_of("/etc/machine-id"), first_of("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}.{machine}.{boot}.{pid}.{started(pid)}"


def is_dead(run: str) -> bool:
    """Return whether a run is known to have ended: it began on this machine, without its process.

    False when that is unknown, for example for a run of another machine.
    """
    mine, other = this_run().rsplit(".", 4), run.rsplit(".", 4)
    if len(other) != len(mine) or other[:2] != mine[:2]:
        return False
    boot, pid, start = other[2:]
    if boot != mine[2]:
        # Without an id of its own the name alone does not make it this machine.
        return mine[1] != "none"
    return not pid.isdigit() or started(int(pid)) != start


def is_alive(run: str) -> bool:
    """Return whether a run is known to be in progress: its process runs on this machine."""
    mine, other = this_run().rsplit(".", 4), run.rsplit(".", 4)
    if len(other) != len(mine) or other[:3] != mine[:3]:
        return False
    pid, start = other[3:]
    return pid.isdigit() and start != "" and started(int(pid)) == start


def judged(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what `show` answered, with what this machine knows of the run that holds the lease."""
    last = answer.get("last_lease")
    # An expired lease counts while its process runs, until another run takes over.
    if not answer.get("lease") and last and is_alive(str(last["run"])):
        answer["lease"] = last
    if answer.get("lease"):
        answer["at_work"] = not is_dead(str(answer["lease"]["run"]))
    return answer


def while_it_lives(run: str, beat: Callable[[], bool]) -> None:
    """Send heartbeats for a run from a process that outlives this task, until the run ends.

    Tasks run in short-lived forks; only the playbook itself lives long. A fork of a fork keeps the
    connection with its passwords, in memory only. It has no terminal, blocks nothing, and ends with
    the playbook, however that ends. So a step may take as long as it needs. `beat` returns whether
    the lease still belongs to the run.
    """
    if child := os.fork():
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in range(3):
            os.dup2(nothing, handle)
        _beat(run, beat)
    finally:
        # Whatever happened, no code of the playbook may run here, not even its cleanup.
        os._exit(0)


def _beat(run: str, beat: Callable[[], bool]) -> None:
    pid, start = run.rsplit(".", 2)[1:]
    following = 0.0
    while started(int(pid)) == start:
        if time.monotonic() >= following:
            if not beat():
                return
            following = time.monotonic() + EVERY
        time.sleep(min(1.0, EVERY))


class ActionModule(ActionBase):  # type: ignore[misc]
    """Returns the agent's answer; fails with its message.

    `begins` names the step that begins with the command: it is recorded before, in the same call.
    """

    _VALID_ARGS = frozenset(("command", "options", "heartbeat", "begins"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Run the command; take the lease over from an ended run of this machine."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        command = str(self._task.args["command"])
        options = dict(self._task.args.get("options") or {})
        if self._task.check_mode and command != "show" and "look" not in options:
            return {"skipped": True, "changed": False}
        if command != "show":
            options["run"] = this_run()
        code, answer, words = self._call(command, options)
        holder = str(answer.get("holder", {}).get("run", ""))
        if code == HELD and is_dead(holder):
            options["instead-of"] = holder
            self._display.display(f"run {holder} is no longer running; taking its lock over")
            code, answer, words = self._call(command, options)
        if code != 0:
            return {"failed": True, "changed": False, "msg": words.removeprefix("airlift-swap: ")}
        if command == "lock" and self._task.args.get("heartbeat", True):
            while_it_lives(options["run"], lambda: self._beat(options["run"]))
        if command == "show":
            if any(one["run"] == this_run() for one in answer["unfinished"]):
                answer["unfinished"] = self._left_by_others()
            answer = judged(answer)
        return {"changed": False, **answer}

    def _left_by_others(self) -> list[dict[str, Any]]:
        """Return what was interrupted before this run began: its own records would hide that."""
        _, answer, _ = self._call("journal", {"json": None})
        begun: dict[str, dict[str, Any]] = {}
        for record in answer.get("records", []):
            if record["run"] == this_run():
                continue
            if record["event"] == "intent":
                begun[record["step"]] = record
            else:
                begun.pop(record["step"], None)
        return list(begun.values())

    def _beat(self, run: str) -> bool:
        """Send one heartbeat; return False only if the lease is known to belong to another run.

        An edge that cannot be reached, or whose disk is full, is tried again. An agent of release
        1.0.0 has no `beat`; an upgrade soon replaces it, and its lease holds for an hour.
        """
        words = shlex.join([AGENT, "beat", "--run", run, "--seconds", str(KEPT)])
        # The display's queue belongs to the playbook's process; this one has no reader.
        self._display._final_q = None
        try:
            done = self._low_level_execute_command(words)
            return done["rc"] != 0 or bool(json.loads(done["stdout"])["held"])
        except Exception:  # A connection plugin may raise anything; none of it ends a run.
            return True

    def _call(self, command: str, options: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
        words = [AGENT, command]
        for name, given in options.items():
            for value in given if isinstance(given, list) else [given]:
                words.append(f"--{name}")
                if value is not None:
                    words.append(json.dumps(value) if isinstance(value, dict) else str(value))
        if step := self._task.args.get("begins"):
            first = shlex.join([AGENT, "step", "--run", options["run"], "--name", str(step)])
            words = ["sh", "-c", f"{first} >/dev/null && exec {shlex.join(words)}"]
        try:
            done = self._execute_module(
                module_name="ansible.legacy.command",
                module_args={"argv": words},
                task_vars=self._vars,
            )
        except AnsibleConnectionFailure as error:
            # Where any error is fatal, an edge that cannot be reached ends the play even if that is
            # ignored; `show` leaves it to its caller.
            if command != "show":
                raise
            return 1, {}, f"the edge cannot be reached: {error}"
        said = str(done.get("stderr") or done.get("msg") or "").strip()
        if done.get("rc") == errno.ENOENT and not done.get("stderr"):
            said = f"there is no {AGENT} on this host"
        try:
            answer = json.loads(done.get("stdout") or "{}")
        except (ValueError, RecursionError):
            answer = None
        code = int(done.get("rc", 1))
        if not is_answer(answer, *(["unfinished"] if (command, code) == ("show", 0) else [])):
            return code or 1, {}, f"unexpected answer of the swap agent: {done.get('stdout')}"
        return code, answer, said

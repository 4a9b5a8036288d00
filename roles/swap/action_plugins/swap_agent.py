"""Give the swap agent on the edge a command, in the name of this very run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

AGENT = "/usr/local/sbin/airlift-swap"
#: The agent's exit code when another run holds the lease.
HELD = 3
#: Seconds between two signs of life of a run, and for how long each keeps the lease: so soon after
#: a jump host is gone another one may take over.
EVERY = 30.0
KEPT = 180


def started(pid: int) -> str:
    """Return when a process of this machine was started, in ticks since boot; empty if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # One that ended and that nobody has asked after yet is gone all the same.
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
    """Tell whether this is an answer of the agent, as far as its form is relied upon here."""
    if not isinstance(said, dict) or not set(needed) <= set(said):
        return False
    names = ("holder", "lease", "last_lease")
    runs = [said[name] for name in names if said.get(name) is not None]
    records = [*_list(said.get("unfinished", [])), *_list(said.get("records", []))]
    return all(isinstance(one, dict) and isinstance(one.get("run"), str) for one in runs) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), str) for key in _OF_RECORDS)
        for one in records
    )


#: What each record of the journal has, of what is looked at here.
_OF_RECORDS = ("run", "step", "event")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def this_run() -> str:
    """Name this run of ansible-playbook, so that another one can tell whether it still lives.

    Tasks run in forks of that process. A process id comes again, with another start; a machine
    that was rebooted has another boot id; two machines may have one name, but not one id.
    """
    pid = os.getppid()
    machine, boot = first_of("/etc/machine-id"), first_of("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}.{machine}.{boot}.{pid}.{started(pid)}"


def is_dead(run: str) -> bool:
    """Tell whether a run is known to be over: begun on this machine, and its process is gone."""
    mine, other = this_run().rsplit(".", 4), run.rsplit(".", 4)
    if len(other) != len(mine) or other[:2] != mine[:2]:
        return False
    boot, pid, start = other[2:]
    if boot != mine[2]:
        # Without an id of its own the name alone does not make it this machine.
        return mine[1] != "none"
    return not pid.isdigit() or started(int(pid)) != start


def is_alive(run: str) -> bool:
    """Tell whether a run is known to go on: its process is on this machine, and lives."""
    mine, other = this_run().rsplit(".", 4), run.rsplit(".", 4)
    if len(other) != len(mine) or other[:3] != mine[:3]:
        return False
    pid, start = other[3:]
    return pid.isdigit() and start != "" and started(int(pid)) == start


def while_it_lives(run: str, beat: Callable[[], bool]) -> None:
    """Give signs of life for a run, from a process that outlives this task, until the run ends.

    Tasks run in forks, so nothing here lives for long but the playbook itself. A fork of a fork has
    the connection with its passwords, in memory only, and is in nobody's way: it has no terminal,
    waits for nobody, and ends with the playbook, however that ends. A step as long as it may be
    goes on meanwhile. `beat` says whether the lease is still the run's.
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
        # Whatever happened, nothing of the playbook's may run here, not even its tidying up.
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
    """Returns the agent's answer; fails with its words."""

    _VALID_ARGS = frozenset(("command", "options", "heartbeat"))
    _supports_check_mode = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Call it; take the lease over from a run of this machine that died."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        command = str(self._task.args["command"])
        if self._task.check_mode and command != "show":
            return {"skipped": True, "changed": False}
        options = dict(self._task.args.get("options") or {})
        if command != "show":
            options["run"] = this_run()
        code, answer, words = self._call(command, options)
        holder = str(answer.get("holder", {}).get("run", ""))
        if code == HELD and is_dead(holder):
            options["instead-of"] = holder
            self._display.display(f"taking over from run {options['instead-of']}, which is dead")
            code, answer, words = self._call(command, options)
        if code != 0:
            return {"failed": True, "changed": False, "msg": words.removeprefix("airlift-swap: ")}
        if command == "lock" and self._task.args.get("heartbeat", True):
            while_it_lives(options["run"], lambda: self._beat(options["run"]))
        if command == "show":
            last = answer.get("last_lease")
            # One that ran out goes on as long as its process does, until another takes over.
            if not answer.get("lease") and last and is_alive(str(last["run"])):
                answer["lease"] = last
            if any(one["run"] == this_run() for one in answer["unfinished"]):
                answer["unfinished"] = self._left_by_others()
            if answer.get("lease"):
                answer["at_work"] = not is_dead(str(answer["lease"]["run"]))
        return {"changed": False, **answer}

    def _left_by_others(self) -> list[dict[str, Any]]:
        """Return what was cut off before this run began: in the journal, its own hides it."""
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
        """Give one sign of life; return whether the lease is still this run's, for all one knows.

        An edge that cannot be reached, or whose disk is full, is tried again. An agent of release
        1.0.0 knows no beat; an upgrade soon brings another, and its lease holds for an hour.
        """
        words = shlex.join([AGENT, "beat", "--run", run, "--seconds", str(KEPT)])
        # Nobody listens to this process any more.
        self._display._final_q = None
        try:
            done = self._low_level_execute_command(words)
            return done["rc"] != 0 or bool(json.loads(done["stdout"])["held"])
        except Exception:  # A connection plugin may raise anything; none of it ends a run.
            return True

    def _call(self, command: str, options: dict[str, Any]) -> tuple[int, dict[str, Any], str]:
        words = [AGENT, command]
        for name, value in options.items():
            words.append(f"--{name}")
            if value is not None:
                words.append(json.dumps(value) if isinstance(value, dict) else str(value))
        done = self._execute_module(
            module_name="ansible.legacy.command",
            module_args={"argv": words},
            task_vars=self._vars,
        )
        said = str(done.get("stderr") or done.get("msg") or "").strip()
        try:
            answer = json.loads(done.get("stdout") or "{}")
        except (ValueError, RecursionError):
            answer = None
        code = int(done.get("rc", 1))
        if not is_answer(answer, *(["unfinished"] if (command, code) == ("show", 0) else [])):
            return code or 1, {}, f"the swap agent said: {done.get('stdout')}"
        return code, answer, said

"""An Ansible callback that counts the remote steps of a run, for benchmarks.

A *remote step* is a module that runs on a host: one call over SSH, one Python there. Modules on the
controller do not count, nor does what an action plugin does beside modules, such as copying a file.
The hosts of a task run side by side, and tasks follow each other. So the critical path of a run is
the sum over its tasks of the steps of the host that has most of them.

When the run ends, AIRLIFT_STEPS (a file) has one more line of JSON:

- ``steps``: remote steps on the critical path,
- ``alone``: those of them in tasks of one host,
- ``calls``: the remote steps of all hosts,
- ``work``: seconds on the critical path in which a host worked or waited: what each step took
  beyond the quickest one of the run, which is the price of a call that does nearly nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: remote_steps
type: aggregate
short_description: counts the remote steps of a run
description: Counts modules that run on hosts, and writes their number to AIRLIFT_STEPS.
"""

#: A step: number of the task, process that ran it for one host, seconds.
Step = tuple[int, int, float]


def totals(steps: list[Step]) -> dict[str, float]:
    """Return the counts of a run."""
    tasks: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, process, seconds in steps:
        tasks[task][process].append(seconds)
    call = min((seconds for *_, seconds in steps), default=0.0)
    busiest = [max(map(len, hosts.values())) for hosts in tasks.values()]
    work = [
        max(sum(one - call for one in times) for times in hosts.values())
        for hosts in tasks.values()
    ]
    alone = [most for most, hosts in zip(busiest, tasks.values(), strict=True) if len(hosts) == 1]
    return {
        "steps": sum(busiest),
        "alone": sum(alone),
        "calls": len(steps),
        "work": round(sum(work), 2),
    }


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Counts in the processes that Ansible forks, one for each host of a task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "remote_steps"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._target = Path(os.environ["AIRLIFT_STEPS"])
        self._seen = self._target.with_name(f"{self._target.name}.{os.getpid()}")
        #: A forked process has the number of its task.
        self._task = 0
        ActionBase._execute_module = self._counting(ActionBase._execute_module)

    def _counting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def execute(action: Any, *words: Any, **named: Any) -> Any:
            start = time.monotonic()
            try:
                return original(action, *words, **named)
            finally:
                if action._connection.transport != "local":
                    step: Step = (self._task, os.getpid(), time.monotonic() - start)
                    # Short lines that are appended in one call do not mix.
                    with self._seen.open("a") as file:
                        file.write(json.dumps(step) + "\n")

        return execute

    def v2_playbook_on_task_start(self, *_: Any, **__: Any) -> None:
        """Number the task that begins."""
        self._task += 1

    v2_playbook_on_handler_task_start = v2_playbook_on_task_start

    def v2_playbook_on_stats(self, _stats: Any) -> None:
        """Write the counts."""
        lines = self._seen.read_text().splitlines() if self._seen.exists() else []
        self._seen.unlink(missing_ok=True)
        with self._target.open("a") as file:
            file.write(json.dumps(totals([tuple(json.loads(line)) for line in lines])) + "\n")

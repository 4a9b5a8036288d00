"""Arms the service's failpoints; Python imports it at its start where this folder is on the path.

`AIRLIFT_FAILPOINTS="claim.after=kill:2,succeed.before=stop"`: the process ends with SIGKILL (or
freezes with SIGSTOP) at the second passage of one place and at the first of another. A place
fires once in a run: a file of its name in `AIRLIFT_FAILPOINTS_FIRED` says that it did, and which
process it was; whoever takes the file away arms the place again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _arm(specification: str, fired: str) -> None:
    from app import failpoints  # noqa: PLC0415 - only where a test asks for it

    wanted: dict[str, tuple[signal.Signals, int]] = {}
    for entry in specification.split(","):
        name, _, action = entry.partition("=")
        verb, _, count = action.partition(":")
        if name not in failpoints.POINTS:
            raise SystemExit(f"there is no failpoint {name}")
        wanted[name] = (_SIGNALS[verb], int(count or 1))
    seen: Counter[str] = Counter()

    def hook(point: str) -> None:
        if point not in wanted:
            return
        number, count = wanted[point]
        seen[point] += 1
        if seen[point] < count:
            return
        try:
            mark = os.open(f"{fired}/{point}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(mark, str(os.getpid()).encode())
        os.close(mark)
        os.kill(os.getpid(), number)

    failpoints.install(hook)


if specification := os.environ.get("AIRLIFT_FAILPOINTS"):
    _arm(specification, os.environ["AIRLIFT_FAILPOINTS_FIRED"])

"""Who may change the site: one run at a time, for as long as it gives signs of life.

`lease.json` has the form that release 1.0.0 reads and writes: its `expires` is a time of the wall
clock, and 0 says that the lease was given back. When it really runs out is in `lease.pulse`, by the
time since boot: nobody sets that clock, and it goes on while the machine sleeps. A pulse counts for
its own run and epoch only; without one, the wall clock counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from swap_agent.state import SwapError, in_words, made, parsed, replace_synced

#: How long a lease holds without a heartbeat: playbooks of release 1.0.0 send none.
SECONDS = 3600.0


@dataclasses.dataclass(frozen=True)
class Lease:
    """A run's right to change the site. Its epoch only grows, so an old holder is known by it."""

    run: str
    owner: str
    verb: str
    epoch: int
    expires: float
    #: For how long each sign of life keeps it.
    seconds: float = SECONDS

    def left(self) -> float:
        """Return the seconds for which it still holds; not above 0 when it has run out."""
        return self.expires - time.time()

    def given_back(self) -> bool:
        """Tell whether its holder is done; one that only ran out still belongs to its run."""
        return self.expires == 0


def since_boot() -> float:
    """Return the seconds since this machine was started, its sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Return the id of this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def held(path: Path) -> Lease | None:
    """Return the last lease, run out or not; None when there never was one."""
    try:
        lease = made(Lease, parsed(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SwapError(f"the lease {path} cannot be read: {error}") from error
    pulse = _pulse(path)
    if pulse is None or lease.given_back() or pulse.of != (lease.run, lease.epoch):
        return lease
    # How long a machine was off is not known, and a run on the jump host may have outlived that:
    # from the start on, it has the whole length to be heard again.
    until = pulse.until if pulse.boot == boot() else pulse.seconds
    return dataclasses.replace(
        lease, seconds=pulse.seconds, expires=time.time() + until - since_boot()
    )


@dataclasses.dataclass(frozen=True)
class Pulse:
    """The last sign of life of a run."""

    of: tuple[str, int]
    seconds: float
    boot: str
    until: float


def _pulse(path: Path) -> Pulse | None:
    try:
        raw = parsed(path.with_suffix(".pulse").read_text())
        of = (str(raw["run"]), int(raw["epoch"]))
        return Pulse(of, float(raw["seconds"]), str(raw["boot"]), float(raw["until"]))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _beat(path: Path, lease: Lease, seconds: float) -> None:
    pulse = {
        "run": lease.run,
        "epoch": lease.epoch,
        "seconds": seconds,
        "boot": boot(),
        "until": since_boot() + seconds,
    }
    replace_synced(path.with_suffix(".pulse"), (json.dumps(pulse) + "\n").encode(), ".beat")


def _save(path: Path, lease: Lease) -> Lease:
    body = dataclasses.asdict(lease)
    # Release 1.0.0 refuses a key that it does not know.
    del body["seconds"]
    replace_synced(path, (json.dumps(body) + "\n").encode())
    return lease


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time change the lease: a heartbeat does not wait for the agent."""
    lock = path.with_suffix(".lock")
    with in_words(lock):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = lock.open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


class HeldError(SwapError):
    """Another run holds the lease."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            f"{lease.owner} is at work on this site ({lease.verb}, run {lease.run}); its lease "
            f"runs out in {lease.left():.0f} s unless it is renewed. Wait for it, or, if it is "
            f"dead for certain, on {socket.gethostname()}: "
            f"sudo airlift-swap unlock --run {shlex.quote(lease.run)} --failed 'it was dead'"
        )
        self.lease = lease


def acquire(
    path: Path, *, run: str, owner: str, verb: str, seconds: float, instead_of: str = ""
) -> Lease:
    """Take the lease, or prolong it for the same run.

    Another run's has to run out first, unless the caller knows that this very run is dead.
    """
    with _alone(path):
        before = held(path)
        if before and before.run not in {run, instead_of} and before.left() > 0:
            raise HeldError(before)
        same = before is not None and before.run == run and not before.given_back()
        epoch = (before.epoch if before else 0) + (0 if same else 1)
        lease = _save(path, Lease(run, owner, verb, epoch, time.time() + seconds, seconds))
        _beat(path, lease, seconds)
        return lease


def check(path: Path, run: str) -> Lease:
    """Return the lease of this run and prolong it, or refuse: somebody else may have taken over.

    One that ran out still belongs to its run: what it began can be ended or undone only by it, or
    by whoever takes over.
    """
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run:
            holder = f"run {lease.run} of {lease.owner}" if lease else "nobody"
            raise SwapError(f"run {run} does not hold the lease of this site, {holder} does")
        if lease.given_back():
            raise SwapError(f"run {run} has ended; start the same playbook again")
        _beat(path, lease, lease.seconds)
        return lease


def beat(path: Path, run: str, seconds: float) -> bool:
    """Take a sign of life of a run; return whether the lease is still its own."""
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run or lease.given_back():
            return False
        _beat(path, lease, seconds)
        return True


def release(path: Path, run: str) -> bool:
    """Give the lease back; the epoch stays known. Return whether there was something to give."""
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run or lease.given_back():
            return False
        _save(path, dataclasses.replace(lease, expires=0.0))
        return True

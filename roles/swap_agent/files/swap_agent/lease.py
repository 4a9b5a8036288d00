"""The lock of the site: one run at a time holds it, for as long as it sends heartbeats.

`lease.json` has the form that release 1.0.0 reads and writes: its `expires` is a time of the wall
clock, and 0 means that the lease was released. The real expiry is in `lease.pulse`, as time since
boot: nobody sets that clock, and it keeps running while the machine sleeps. A pulse counts for its
own run and epoch only; without one, the wall clock counts.
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
    """A run's right to change the site; its epoch only grows and so identifies an old holder."""

    run: str
    owner: str
    verb: str
    epoch: int
    expires: float
    #: For how long each heartbeat keeps it.
    seconds: float = SECONDS

    def left(self) -> float:
        """Return the seconds until it expires; 0 or less when it has expired."""
        return self.expires - time.time()

    def given_back(self) -> bool:
        """Return whether its holder released it; an expired lease still belongs to its run."""
        return self.expires == 0


def since_boot() -> float:
    """Return the seconds since this machine was started, including sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Return the id of this start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def held(path: Path) -> Lease | None:
    """Return the last lease, expired or not; None when there never was one."""
    try:
        lease = made(Lease, parsed(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SwapError(f"the lease {path} cannot be read: {error}") from error
    pulse = _pulse(path)
    if pulse is None or lease.given_back() or pulse.of != (lease.run, lease.epoch):
        return lease
    # It is unknown how long a machine was off, and a run on the jump host may have outlived that:
    # after a reboot, the run has the full time again to send its next heartbeat.
    until = pulse.until if pulse.boot == boot() else pulse.seconds
    return dataclasses.replace(
        lease, seconds=pulse.seconds, expires=time.time() + until - since_boot()
    )


@dataclasses.dataclass(frozen=True)
class Pulse:
    """The last heartbeat of a run."""

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
    # Release 1.0.0 rejects unknown keys.
    del body["seconds"]
    replace_synced(path, (json.dumps(body) + "\n").encode())
    return lease


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time change the lease; a heartbeat does not wait for the agent."""
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
            f"{lease.verb} by {lease.owner} is in progress on this site (run {lease.run}); its "
            f"lock expires in {lease.left():.0f} s unless the run renews it. Wait for its end. Or "
            "confirm that it is no longer running, then release its lock on "
            f"{socket.gethostname()}: sudo airlift-swap unlock --run {shlex.quote(lease.run)} "
            "--failed 'no longer running'"
        )
        self.lease = lease


def acquire(
    path: Path, *, run: str, owner: str, verb: str, seconds: float, instead_of: str = ""
) -> Lease:
    """Take the lease, or prolong it for the same run.

    Another run's lease has to expire first, unless that run is `instead_of`: the caller knows that
    it has ended.
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
    """Return the lease of this run and prolong it; refuse if another run has taken over.

    An expired lease still belongs to its run: only that run, or the one that takes over, can end
    or undo what it began.
    """
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run:
            holder = f"run {lease.run} of {lease.owner}" if lease else "nobody"
            raise SwapError(f"run {run} does not hold the lease of this site, {holder} does")
        if lease.given_back():
            raise SwapError(f"run {run} has ended; run the same playbook again")
        _beat(path, lease, lease.seconds)
        return lease


def beat(path: Path, run: str, seconds: float) -> bool:
    """Record a heartbeat of a run; return whether the lease is still its own."""
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run or lease.given_back():
            return False
        _beat(path, lease, seconds)
        return True


def release(path: Path, run: str) -> bool:
    """Release the lease, keeping its epoch; return whether this run held it."""
    with _alone(path):
        lease = held(path)
        if lease is None or lease.run != run or lease.given_back():
            return False
        _save(path, dataclasses.replace(lease, expires=0.0))
        return True

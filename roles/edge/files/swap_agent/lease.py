"""Who may change the site: one run at a time, for as long as it gives signs of life."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from pathlib import Path

from swap_agent.state import SwapError, replace_synced


@dataclasses.dataclass(frozen=True)
class Lease:
    """A run's right to change the site. Its epoch only grows, so an old holder is known by it."""

    run: str
    owner: str
    verb: str
    epoch: int
    expires: float

    def left(self) -> float:
        """Return the seconds for which it still holds; not above 0 when it has run out."""
        return self.expires - time.time()


def held(path: Path) -> Lease | None:
    """Return the last lease, run out or not; None when there never was one."""
    try:
        return Lease(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise SwapError(f"the lease {path} cannot be read: {error}") from error


def _save(path: Path, lease: Lease) -> Lease:
    replace_synced(path, (json.dumps(dataclasses.asdict(lease)) + "\n").encode())
    return lease


class HeldError(SwapError):
    """Another run holds the lease."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            f"{lease.owner} is at work on this site ({lease.verb}, run {lease.run}); its lease "
            f"runs out in {lease.left():.0f} s unless it is renewed. Wait for it, or, if it is "
            f"dead for certain, on {socket.gethostname()}: "
            f"sudo airlift-swap unlock --run {lease.run} --failed 'it was dead'"
        )
        self.lease = lease


def acquire(
    path: Path, *, run: str, owner: str, verb: str, seconds: float, instead_of: str = ""
) -> Lease:
    """Take the lease, or prolong it for the same run.

    Another run's has to run out first, unless the caller knows that this very run is dead.
    """
    before = held(path)
    if before and before.run not in {run, instead_of} and before.left() > 0:
        raise HeldError(before)
    same = before is not None and before.run == run and before.left() > 0
    epoch = (before.epoch if before else 0) + (0 if same else 1)
    return _save(path, Lease(run, owner, verb, epoch, time.time() + seconds))


def check(path: Path, run: str) -> Lease:
    """Return the lease of this run, or refuse: somebody else may have taken over since."""
    lease = held(path)
    if lease is None or lease.run != run:
        holder = f"run {lease.run} of {lease.owner}" if lease else "nobody"
        raise SwapError(f"run {run} does not hold the lease of this site, {holder} does")
    if lease.left() <= 0:
        raise SwapError(f"the lease of run {run} has run out; start the same playbook again")
    return lease


def release(path: Path, run: str) -> bool:
    """Give the lease back; the epoch stays known. Return whether there was something to give."""
    lease = held(path)
    if lease is None or lease.run != run or lease.left() <= 0:
        return False
    _save(path, dataclasses.replace(lease, expires=0.0))
    return True

"""Named points around commits where a test can end or freeze the process.

Production cannot arm a point: this module reads no setting, and the service never calls `install`.
Until a test arms it, a point is a call that returns at once. The kill tests arm points with a
module that only they add to the interpreter's path (`tests/kill/armed`).
"""

from __future__ import annotations

from collections.abc import Callable

POINTS = frozenset(
    {
        # The service, around the commit that comes before a 202, and around a cancellation.
        "trigger.before_commit",
        "trigger.after_commit",
        "trigger.after_hint",
        "cancel.before",
        "cancel.after",
        # The worker: wake-up message read, job claimed, lease renewed, end written.
        "hint.read",
        "claim.before",
        "claim.after",
        "collect.after",
        "heartbeat.before",
        "heartbeat.after",
        "succeed.before",
        "succeed.after",
        "retry.before",
        "retry.after",
        "end.before",
        "end.after",
        "release.before",
        "release.after",
        # The sweeper in the worker: jobs of unresponsive workers, expired data.
        "sweep.before",
        "sweep.after",
        "forget.before",
        "forget.after",
    }
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None]) -> None:
    """Call `hook` with the name of each point that is reached; for tests only."""
    global _hook  # noqa: PLW0603 - one for the process, set once before anything runs
    _hook = hook


def reached(point: str) -> None:
    """Report that a point is reached; do nothing in production."""
    if _hook is not None:
        _hook(point)

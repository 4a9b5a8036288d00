"""Named places at the boundaries of commits where a test may end or freeze the process.

Nothing here reads the environment and nothing in the service calls `install`: in production a
place is a call that returns at once, and no setting can arm it. The kill tests arm it from
outside, by a module that only they put on the interpreter's path (`tests/kill/armed`).
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
        # The worker: a hint read, a job claimed, its lease renewed, its end written.
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
        # The sweeper, in the worker: jobs of silent workers, what is too old.
        "sweep.before",
        "sweep.after",
        "forget.before",
        "forget.after",
    }
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None]) -> None:
    """Call `hook` with the name of each place that is reached; for tests alone."""
    global _hook  # noqa: PLW0603 - one for the process, set once before anything runs
    _hook = hook


def reached(point: str) -> None:
    """Say that a place is reached; does nothing in production."""
    if _hook is not None:
        _hook(point)

"""Events that a package reports while it works; the command line decides how to show them."""

from __future__ import annotations

from collections.abc import Callable

#: Takes a line about the current step.
Log = Callable[[str], None]
#: Takes the number of further bytes that are done.
Progress = Callable[[int], None]
#: Returns the progress of an unplanned search, when it begins.
Searching = Callable[[], Progress]


def unseen() -> Progress:
    """Return the progress of a search that is not shown."""
    return lambda _: None

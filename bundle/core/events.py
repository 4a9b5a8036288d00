"""What a room tells while it works; the command line decides how it is shown."""

from __future__ import annotations

from collections.abc import Callable

#: A line about what is being done.
Log = Callable[[str], None]
#: So many more bytes are done.
Progress = Callable[[int], None]
#: The progress of a search that nobody expected, when it begins.
Searching = Callable[[], Progress]


def unseen() -> Progress:
    """The progress of a search that is not shown."""
    return lambda _: None

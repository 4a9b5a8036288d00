"""What a room tells while it works; the command line decides how it is shown."""

from __future__ import annotations

from collections.abc import Callable

#: A line about what is being done.
Log = Callable[[str], None]
#: So many more bytes are done.
Progress = Callable[[int], None]

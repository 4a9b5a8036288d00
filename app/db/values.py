"""Convert values for Postgres."""

from __future__ import annotations

import math
from typing import Any

from psycopg.types.json import Json, Jsonb


def storable(value: str) -> str:
    """Return `value` if Postgres can store it; raise ValueError for NUL or lone surrogates."""
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
    """Return a copy without what `jsonb` cannot store: NUL, lone surrogates, NaN, infinity."""
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
    """Return a parameter for a `jsonb` column."""
    return Jsonb(clean(value))


def ordered_json(value: Any) -> Json:
    """Return a parameter for a `json` column, which keeps the order of fields for readers."""
    return Json(clean(value))

"""Check each request against the OpenAPI document before its body is read.

The checks cover the names in the query and the encoding of the body. They give the same answers
at every endpoint, whether or not the framework handles it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from email.message import Message
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Scope

from app.http.context import context_of
from app.http.problems import FieldError, Problem

_JSON = "application/json"
_PLAIN = (b"application/json", b"application/json; charset=utf-8")
_CHARSETS = frozenset({None, "utf-8", "utf8", "us-ascii"})
_MAX_NAMES = 20


class _Operation(NamedTuple):
    query: frozenset[str]
    takes_json: bool


class Expected:
    """Checks requests against a document; `bare` paths accept GET without a query.

    Unknown paths and methods pass: the router answers them.
    """

    def __init__(self, paths: Mapping[str, Mapping[str, Any]], bare: Collection[str] = ()) -> None:
        self._operations = {
            (path, "GET"): _Operation(frozenset(), takes_json=False) for path in bare
        }
        for path, methods in paths.items():
            for method, operation in methods.items():
                names = {
                    parameter["name"]
                    for parameter in operation.get("parameters", ())
                    if parameter["in"] == "query"
                }
                found = _Operation(frozenset(names), "requestBody" in operation)
                self._operations[path, method.upper()] = found

    def refusal(self, scope: Scope) -> Problem | None:
        """Return the problem of a request that its operation does not accept, or None."""
        query = scope["query_string"]
        operation = self._operations.get((context_of(scope).endpoint, scope["method"]))
        if operation is None:
            return None
        if query and (unknown := _unknown(query, operation.query)):
            return _not_a_parameter(unknown)
        return _wrong_form(scope) if operation.takes_json else None


def _unknown(query: bytes, known: frozenset[str]) -> list[str]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return [name for name in dict.fromkeys(name for name, _value in pairs) if name not in known]


def _wrong_form(scope: Scope) -> Problem | None:
    """Return why an announced body cannot be read, or None; operations reject missing bodies."""
    kind = b""
    announced = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = kind or value
        elif name == b"content-encoding":
            if any(coding.strip().lower() != b"identity" for coding in value.split(b",")):
                return _not_read(
                    "the body is encoded; send it without a Content-Encoding",
                    {"accept-encoding": "identity"},
                )
        elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            announced = True
    if not announced or kind in _PLAIN:
        return None
    message = _judged(bytes(kind))
    return None if message is None else _not_read(message, {"accept": _JSON})


@lru_cache(maxsize=64)
def _judged(kind: bytes) -> str | None:
    """Return the error of a content type, or None if it is accepted."""
    header = Message()
    header["content-type"] = kind.decode("latin-1")
    if header.get_content_maintype() != "application" or not (
        header.get_content_subtype() == "json" or header.get_content_subtype().endswith("+json")
    ):
        return f"the Content-Type must be {_JSON}"
    if header.get_content_charset() not in _CHARSETS:
        return "the charset must be utf-8"
    return None


def _not_read(message: str, headers: Mapping[str, str]) -> Problem:
    return Problem(
        415,
        "unsupported-media-type",
        "The form of the body is not supported",
        message,
        headers=headers,
        errors=[FieldError(field="body", message=message, code="content_type")],
    )


def _not_a_parameter(names: list[str]) -> Problem:
    """Return the framework's problem for a model that forbids unknown fields."""
    shown = [name[:100] for name in names[:_MAX_NAMES]]
    noun = "field is" if len(names) == 1 else "fields are"
    return Problem(
        422,
        "validation",
        "The request is not valid",
        f"{len(names)} {noun} wrong: {', '.join(shown)}",
        errors=[
            FieldError(field=name, message="Extra inputs are not permitted", code="extra_forbidden")
            for name in shown
        ],
    )

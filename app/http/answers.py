"""Write models as answers.

If an endpoint returns a model, the framework validates and copies it before it writes it. These
functions write it once; the schema stays documented as the route's `response_model`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response


def answer(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a model as a JSON response, as the framework would write it."""
    return encoded(model.model_dump_json(by_alias=True).encode(), status, headers)


def encoded(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response from bytes that are JSON already."""
    return Response(body, status, headers, media_type="application/json")

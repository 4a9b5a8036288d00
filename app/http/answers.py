"""Models as answers.

An endpoint that returns a model has it checked and copied by the framework before it is written.
One that returns an answer has it written once; the schema stays, as the route's `response_model`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response


def answer(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A model as the framework would write it."""
    return encoded(model.model_dump_json(by_alias=True).encode(), status, headers)


def encoded(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is written already."""
    return Response(body, status, headers, media_type="application/json")

"""List and store items."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)

from app.db.pool import Database
from app.db.values import storable
from app.http.answers import answer, encoded
from app.http.context import caller, owner_filter
from app.http.problems import ProblemDetail

router = APIRouter(tags=["items"])
_LONGEST = 200

_ANSWERS: dict[int | str, dict[str, Any]] = {
    503: {"model": ProblemDetail, "description": "Postgres is not available"}
}


def _name(value: str) -> str:
    name = storable(value).strip()
    if not name:
        msg = "must hold something else than white space"
        raise ValueError(msg)
    return name


class NewItem(BaseModel):
    """An item to store."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"name": "demo"}]},
    )

    # The limit counts characters as sent, which OpenAPI can express. The stored text is not longer.
    name: Annotated[
        str,
        StringConstraints(min_length=1, max_length=_LONGEST, strict=True),
        AfterValidator(_name),
    ] = Field(json_schema_extra={"pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"})


class Item(BaseModel):
    """A stored item."""

    id: int = Field(examples=[1])
    name: str = Field(examples=["demo"], json_schema_extra={"maxLength": _LONGEST})
    created_at: dt.datetime


_ITEMS = TypeAdapter(list[Item])


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


@router.get(
    "/items", name="list", response_model=list[Item], summary="List items", responses=_ANSWERS
)
async def list_items(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximal number of entries.")] = 100,
    after: Annotated[
        int,
        Query(ge=0, le=2**63 - 1, description="The cursor: the last `id` of the previous page."),
    ] = 0,
) -> Response:
    """Return items in the order in which they were stored."""
    client = owner_filter(request)
    rows = await _database(request).fetch_all(
        """SELECT id, name, created_at FROM items
           WHERE id > %s AND (%s::text IS NULL OR client = %s) ORDER BY id LIMIT %s""",
        after,
        client,
        client,
        limit,
    )
    return encoded(_ITEMS.dump_json([Item(**row) for row in rows]))


@router.post(
    "/items",
    name="create",
    status_code=201,
    response_model=Item,
    summary="Store an item",
    responses={
        **_ANSWERS,
        422: {"model": ProblemDetail, "description": "A field is wrong"},
    },
)
async def create_item(request: Request, body: NewItem) -> Response:
    """Store one item; it is in Postgres before the answer."""
    row = await _database(request).fetch_one(
        "INSERT INTO items (client, name) VALUES (%s, %s) RETURNING id, name, created_at",
        caller(request),
        body.name,
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING gives its row or raises
    return answer(Item(**row), 201)

"""The configuration of a job: one model per kind of source."""

from __future__ import annotations

import math
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
)

from app.db.values import storable

Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[Text, Field(min_length=1, max_length=200)]


class Selection(BaseModel):
    """Which fields of a record the models look at; found by their usual names if left out."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    text_field: Name | None = Field(
        default=None, description="The field whose text is classified by the sentiment model."
    )
    feature_fields: list[Name] | None = Field(
        default=None,
        min_length=4,
        max_length=4,
        description="Four numeric fields for the tabular model, in the model's order.",
    )
    id_field: Name | None = Field(
        default=None,
        description="The field that identifies records in the report; by default `id`, if any.",
    )
    records_path: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="Path of the list of records in a JSON document, such as data.items.",
    )


class FileConfig(Selection):
    """A file under a root that the site registered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"root": "inbox", "path": "reviews.csv", "text_field": "comment"}]
        }
    )

    root: Name = Field(description="The root's name, as the site registered it.")
    path: Annotated[Text, Field(min_length=1, max_length=1024)] = Field(
        description="The file's path under the root."
    )
    format: Literal["csv", "json", "jsonl"] | None = Field(
        default=None, description="Derived from the file's name by default."
    )
    delimiter: Literal[",", ";", "\t", "|"] = Field(
        default=",", description="Separator of CSV fields."
    )


class ApiConfig(Selection):
    """An HTTP address that answers with JSON, JSON Lines or CSV."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://data.client.example:8443/reviews"}]}
    )

    url: Annotated[Text, Field(min_length=1, max_length=2048)] = Field(
        description="http or https; its host and port must be on the site's list."
    )
    format: Literal["csv", "json", "jsonl"] | None = Field(
        default=None, description="Derived from the answer's content type by default."
    )
    delimiter: Literal[",", ";", "\t", "|"] = Field(
        default=",", description="Separator of CSV fields."
    )


_LONGEST_PARAMETER = 10_000


def parameter(value: object) -> object:
    """Return a value that both JSON and a database can hold; raise ValueError otherwise."""
    if isinstance(value, str) and len(storable(value)) > _LONGEST_PARAMETER:
        msg = f"must have {_LONGEST_PARAMETER} characters at most"
        raise ValueError(msg)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        msg = "must fit into 64 bits"
        raise ValueError(msg)
    if isinstance(value, float) and not math.isfinite(value):
        msg = "must be a finite number"
        raise ValueError(msg)
    return value


Parameter = Annotated[
    str | int | float | bool | None,
    AfterValidator(parameter),
    # What the function checks, in the terms of OpenAPI.
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": _LONGEST_PARAMETER},
                {"type": "number"},
                {"type": "boolean"},
                {"type": "null"},
            ]
        }
    ),
]


class DatabaseConfig(Selection):
    """A read-only query of a database that the site registered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "source": "crm",
                    "query": "SELECT id, comment FROM reviews WHERE made_at >= :since",
                    "params": {"since": "2026-01-01"},
                    "text_field": "comment",
                }
            ]
        }
    )

    source: Name = Field(description="The database's name, as the site registered it.")
    query: Annotated[Text, Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="One statement that reads rows; `:name` stands for a parameter."
    )
    params: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")], Parameter] = (
        Field(default_factory=dict, max_length=50, description="The query's parameters, by name.")
    )


class RegisteredDatabase(BaseModel):
    """A database as the site registers it; its password is a file of /run/secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str
    max_rows: int | None = Field(default=None, ge=1)
    timeout_seconds: float | None = Field(default=None, gt=0, le=600)

    @field_validator("url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("postgresql", "postgres"):
            msg = "must start with postgresql://"
            raise ValueError(msg)
        if parts.password is not None or "password" in dict(parse_qsl(parts.query)):
            msg = "must carry no password; put it in a file of /run/secrets"
            raise ValueError(msg)
        return value

"""The service accepts exactly the values that the OpenAPI document describes."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.items.router import NewItem
from app.main import create_app
from app.settings import Settings
from tests.unit.app.appkit import Client

TRIGGER = "/api/v1/jobs/trigger"
SPACES = " \t\n\r\x1c\x1f\x85\u00a0\u2003\u3000"
NAMES = st.text(st.sampled_from(SPACES + "ab\x00\u200b\ufeff😀"), max_size=8) | st.tuples(
    st.sampled_from(["", " ", "\n ", "\u2003"]), st.integers(195, 201), st.sampled_from(["", " "])
).map(lambda parts: parts[0] + "x" * parts[1] + parts[2])


def fits(schema: dict[str, Any], value: Any) -> bool:
    try:
        jsonschema.validate(value, schema)
    except jsonschema.ValidationError:
        return False
    return True


@hypothesis_settings(max_examples=300, deadline=None)
@given(name=NAMES)
def test_the_name_of_an_item_is_taken_as_the_document_says(
    client: Client, app: FastAPI, name: str
) -> None:
    schema = app.openapi()["components"]["schemas"]["NewItem"]
    # Without Postgres, a valid name gives 503.
    status = client.post("/items", json={"name": name}).status_code
    assert status == (503 if fits(schema, {"name": name}) else 422)


@pytest.mark.parametrize("name", [" " + "x" * 200, "x" * 200 + "\n", " " * 150 + "x" * 60])
def test_white_space_counts_for_the_length_that_is_promised(client: Client, name: str) -> None:
    answer = client.post("/items", json={"name": name})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "name"


def test_what_is_stored_of_a_name_is_what_an_answer_may_hold(app: FastAPI) -> None:
    assert NewItem(name=" \u3000demo\n").name == "demo"
    schemas = app.openapi()["components"]["schemas"]
    stored, sent = (schemas[name]["properties"]["name"] for name in ("Item", "NewItem"))
    assert stored["maxLength"] == sent["maxLength"] == 200
    assert len(NewItem(name=" " + "x" * 199).name) <= stored["maxLength"]


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    key=st.text(st.characters(max_codepoint=0x7F), max_size=4)
    | st.just("x" * 200)
    | st.just("x" * 201)
)
def test_an_idempotency_key_is_taken_as_the_document_says(
    client: Client, app: FastAPI, key: str
) -> None:
    (parameter,) = app.openapi()["paths"][TRIGGER]["post"]["parameters"]
    body = {"source_type": "file", "config": {"root": "inbox", "path": "a.csv"}}
    headers = {"idempotency-key": key}
    if key != key.strip(" \t") or any(one in key for one in "\x00\r\n"):
        return  # a header cannot hold it
    status = client.post(TRIGGER, json=body, headers=headers).status_code
    assert status == (503 if fits(parameter["schema"], key) else 422)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("FileConfig", "root"),
        ("FileConfig", "text_field"),
        ("FileConfig", "records_path"),
        ("ApiConfig", "url"),
        ("DatabaseConfig", "source"),
        ("DatabaseConfig", "query"),
        ("DatabaseConfig", "params"),
    ],
)
def test_each_length_of_the_document_is_the_services(
    client: Client, app: FastAPI, kind: str, name: str, over: int
) -> None:
    found = app.openapi()["components"]["schemas"][kind]["properties"][name]
    value: Any = "x" * (_longest(found) + over)
    config: dict[str, Any] = {
        "FileConfig": {"root": "inbox", "path": "a.csv"},
        "ApiConfig": {"url": "http://x"},
        "DatabaseConfig": {"source": "crm", "query": "SELECT :a"},
    }[kind] | {name: {"a": value} if name == "params" else value}
    source = kind.removesuffix("Config").lower()
    answer = client.post(TRIGGER, json={"source_type": source, "config": config})
    wrong = {error["field"]: error["code"] for error in answer.json().get("errors", ())}
    field = f"config.{name}" + (".a" if name == "params" else "")
    lengths = ("too_long", "value_error" if name == "params" else "")
    assert (wrong.get(field) in lengths) is bool(over), wrong


def test_limits_that_a_site_sets_are_in_its_document(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_text_length": 30, "predict_batch_max": 2}))
    schemas = app.openapi()["components"]["schemas"]
    for path, name, least, most in (
        ("/predict", "PredictRequest", {"text": "x" * 30}, {"text": "x" * 31}),
        (
            "/predict/batch",
            "BatchRequest",
            {"items": [{"text": "a"}] * 2},
            {"items": [{"text": "a"}] * 3},
        ),
    ):
        schema = schemas[name] | {"components": app.openapi()["components"]}
        for body, good in ((least, True), (most, False)):
            assert fits(schema, body) is good
            assert Client(app).post(path, json=body).status_code == (200 if good else 422)


def _longest(schema: Any) -> int:
    """Return the one `maxLength` in a schema."""
    if isinstance(schema, dict):
        return schema.get("maxLength") or max(map(_longest, schema.values()), default=0)
    return max(map(_longest, schema), default=0) if isinstance(schema, list) else 0

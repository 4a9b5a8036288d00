"""No answer contains the text of an exception, whatever fails behind the endpoint."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psycopg
import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from app.db.pool import Database, DatabaseUnavailableError
from app.db.redis import RedisGate, RedisUnavailableError
from app.jobs.service import status_of
from app.main import create_app
from app.predict.artefacts import ModelError, load_models
from app.settings import Settings
from app.sources.base import Limits, SourceError
from app.sources.file import FileSource
from app.sources.schemas import FileConfig
from tests.unit.app.appkit import Client

MARK = "hunter2-in-an-exception"
JOB = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
BODIES: dict[str, Any] = {
    "/predict": {"text": "good"},
    "/predict/batch": {"items": [{"text": "good"}]},
    "/items": {"name": "demo"},
    "/api/v1/jobs/trigger": {"source_type": "file", "config": {"root": "inbox", "path": "a.csv"}},
}


def wrong(kind: type[Exception]) -> Exception:
    return kind(500, MARK) if kind is HTTPException else kind(MARK)


def raising(kind: type[Exception]) -> Callable[..., Any]:
    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise wrong(kind)

    return fail


def doors(app: FastAPI) -> list[tuple[str, httpx.Response]]:
    """Return the answer of each operation in the OpenAPI document."""
    client = Client(app)
    return [
        (
            f"{method} {path}",
            client.request(
                method.upper(),
                path.replace("{job_id}", JOB),
                **({"json": BODIES[path]} if "requestBody" in operation else {}),
            ),
        )
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


KINDS = [
    RuntimeError,
    ValueError,
    KeyError,
    OSError,
    TimeoutError,
    psycopg.OperationalError,
    psycopg.errors.UniqueViolation,
    DatabaseUnavailableError,
    RedisUnavailableError,
    ModelError,
    HTTPException,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_endpoint_tells_the_words_of_an_exception(
    kind: type[Exception], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings)

    @asynccontextmanager
    async def connection(_self: Database) -> Any:
        raise wrong(kind)
        yield

    monkeypatch.setattr(Database, "connection", connection)
    monkeypatch.setattr(RedisGate, "run", raising(kind))
    monkeypatch.setattr(app.state.predictor, "_cache", None)
    monkeypatch.setattr(type(app.state.predictor), "models", property(raising(kind)))
    monkeypatch.setattr(app.state.health, "exposition", raising(kind))
    for owner in (app.state.database, app.state.redis):
        owner.configured = True
    answers = doors(app)
    assert sum(answer.status_code >= 500 for _, answer in answers) >= 10
    for door, answer in answers:
        assert MARK not in answer.text + str(answer.headers), door


@pytest.mark.parametrize("code", ["internal", "file-not-found"])
def test_of_a_job_only_what_its_source_says_is_told(code: str) -> None:
    row = dict.fromkeys(("started_at", "finished_at"))
    row |= {"id": uuid.UUID(JOB), "state": "dead", "source_type": "file", "total": None}
    row |= {"created_at": "2026-01-01T00:00:00Z", "attempts": 5, "max_attempts": 5, "processed": 0}
    row |= {"error": {"code": code, "message": f"RuntimeError: {MARK}"}, "run_after": None}
    shown = status_of(row).model_dump_json()
    assert (MARK in shown) is (code != "internal")
    assert f'"code":"{code}"' in shown


def test_models_that_cannot_be_read_do_not_say_how(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(f'{{"models": [{{"name": "{MARK}"}}]}}')
    with pytest.raises(ModelError) as caught:
        load_models(tmp_path)
    assert "KeyError" in str(caught.value)
    (tmp_path / "manifest.json").write_text(f'{{"models": "{MARK}"}}')
    with pytest.raises(ModelError) as caught:
        load_models(tmp_path)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", f'text\n"{MARK}" {MARK}\n'),
        ("a.csv", f'text\n"{MARK}\n'),
        ("a.json", f'[{{"{MARK}": 1}} "{MARK}"]'),
        ("a.json", f'["{MARK}"'),
        ("a.json", MARK),
    ],
)
def test_a_broken_source_is_told_without_what_it_holds(
    tmp_path: Path, name: str, data: str
) -> None:
    (tmp_path / name).write_text(data, newline="")
    source = FileSource({"inbox": tmp_path}, Limits(20_000, 100, 2))
    collection = anyio.run(source.collect, FileConfig(root="inbox", path=name), "x")
    with pytest.raises(SourceError) as caught:
        list(collection.batches)
    assert MARK not in str(caught.value)

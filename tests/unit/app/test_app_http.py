from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from app.main import create_app
from app.settings import Settings
from tests.unit.app.appkit import JSON, Client

PROBLEM = "application/problem+json"


def counted(method: str, endpoint: str, status: int) -> float:
    labels = {"method": method, "endpoint": endpoint, "http_status": str(status)}
    return REGISTRY.get_sample_value("app_requests_total", labels) or 0


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


@pytest.mark.parametrize("path", ["/health", "/healthz", "/health/live"])
def test_liveness_touches_nothing(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_readiness_says_what_is_missing(client: Client) -> None:
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unready",
        "checks": {
            "postgres": "DATABASE_URL is not set",
            "schema": "not checked",
            "models": "ok",
            "redis": "REDIS_URL is not set",
            "queue": "ok",
        },
        "release": "1.0.0",
        "colour": "none",
    }


def test_root_names_the_service(client: Client) -> None:
    body = client.get("/").json()
    assert body["service"] == "Data Collection Service"
    assert body["version"] == "1.0.0"
    assert body["colour"] == "none"
    for link in body["docs"].values():
        assert client.get(link).status_code == 200


def test_predict_a_text(client: Client) -> None:
    answer = client.post("/predict", json={"text": "what a wonderful day"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["label"] == "positive"
    assert 0.5 < body["probability"] <= 1
    assert set(body["probabilities"]) == {"negative", "neutral", "positive"}


def test_predict_a_row(client: Client) -> None:
    body = client.post("/predict", json={"data": [1, 2, 3, 4]}).json()
    assert body["class"] in {"setosa", "versicolor", "virginica"}
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_baseline_score(client: Client, settings: Settings) -> None:
    assert client.get("/predict").json() == {"score": 0.75}
    other = Client(create_app(settings.model_copy(update={"baseline_score": 0.5})))
    assert other.get("/predict").json() == {"score": 0.5}


def test_model_info(client: Client) -> None:
    models = {model["name"]: model for model in client.get("/model/info").json()["models"]}
    assert models["sentiment"]["vocabulary_size"] > 1000
    assert len(models["iris"]["features"]) == 4
    for model in models.values():
        assert re.fullmatch(r"[0-9a-f]{64}", model["sha256"])
        assert model["version"]
        assert model["type"]
        assert model["labels"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", model["trained_at"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"text": "a", "data": [1, 2, 3, 4]}, "body"),
        ({"text": ""}, "text"),
        ({"text": 7}, "text"),
        ({"text": ["a"]}, "text"),
        ({"text": "x" * 20_001}, "text"),
        ({"data": [1, 2, 3]}, "data"),
        ({"data": [1, 2, 3, 4, 5]}, "data"),
        ({"data": [1, 2, "3", 4]}, "data.2"),
        ({"data": [1, 2, True, 4]}, "data.2"),
        ({"data": [1, 2, None, 4]}, "data.2"),
        ({"data": [1, 2, 3, 1e300]}, "data.3"),
        ({"data": {"a": 1}}, "data"),
        ({"text": "a", "other": 1}, "other"),
        ([1], "body"),
    ],
)
def test_validation_names_the_field(client: Client, body: Any, field: str) -> None:
    answer = problem(client.post("/predict", json=body), 422)
    assert [error["field"] for error in answer["errors"]] == [field]
    assert field in answer["detail"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b'{"data": [NaN, 1, 2, 3]}', 422),
        (b'{"data": [Infinity, 1, 2, 3]}', 422),
        (b'{"data": [1e999, 1, 2, 3]}', 422),
        (b'{"data": [' + b"9" * 5000 + b", 1, 2, 3]}", 422),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
        (b"\xff\xfe\x00", 400),
        (b'{"text": "\xc3\x28"}', 400),
        (b"""{"\\ud800": 1}""", 422),
        (b"""{"text": "\\ud800"}""", 422),
    ],
)
def test_hostile_json_is_the_clients_fault(client: Client, content: bytes, status: int) -> None:
    problem(client.post("/predict", content=content, headers=JSON), status)


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\u202e", "😀" * 5000])
def test_strange_text_is_classified(client: Client, text: str) -> None:
    answer = client.post("/predict", content=json.dumps({"text": text}), headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "", "   ", "x" * 201, 5, None, ["a"], {}])
def test_items_that_cannot_be_stored_are_refused_before_postgres(client: Client, name: Any) -> None:
    answer = client.post("/items", content=json.dumps({"name": name}), headers=JSON)
    assert problem(answer, 422)["errors"][0]["field"] == "name"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5)
    ),
    max_leaves=15,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(["/predict", "/items", "/api/v1/jobs/trigger"]),
    body=JSON_VALUES
    | st.fixed_dictionaries(
        {
            "source_type": st.sampled_from(["api", "file", "database"]) | JSON_VALUES,
            "config": st.dictionaries(
                st.sampled_from(["root", "path", "url", "source", "format", "text_field"]),
                JSON_VALUES,
            ),
        }
    ),
)
def test_no_body_whatsoever_is_a_500(client: Client, path: str, body: Any) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code in (200, 400, 422, 503), answer.text
    if answer.status_code != 200:
        assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"source_type": "ftp", "config": {}}, "source_type"),
        ({"config": {}}, "source_type"),
        ({"source_type": "file"}, "config"),
        ({"source_type": "file", "config": {"path": "a.csv"}}, "config.root"),
        ({"source_type": "file", "config": {"root": "none", "path": "a.csv"}}, "config.root"),
        ({"source_type": "file", "config": {"root": "inbox", "path": "../a.csv"}}, "config.path"),
        ({"source_type": "file", "config": {"root": "inbox", "path": "/etc/a.csv"}}, "config.path"),
        ({"source_type": "file", "config": {"root": "inbox", "path": "a\x00.csv"}}, "config.path"),
        ({"source_type": "file", "config": {"root": "inbox", "path": "a.bin"}}, "config.format"),
        ({"source_type": "api", "config": {"url": "http://10.0.0.1/"}}, "config.url"),
        ({"source_type": "api", "config": {"url": "file:///etc/passwd"}}, "config.url"),
        ({"source_type": "database", "config": {"source": "crm"}}, "config.source"),
    ],
)
def test_jobs_that_cannot_run_are_refused_at_once(client: Client, body: Any, field: str) -> None:
    answer = problem(client.post("/api/v1/jobs/trigger", json=body), 422)
    assert answer["errors"][0]["field"] == field


def test_a_database_job_is_told_that_none_is_registered(client: Client) -> None:
    body = {"source_type": "database", "config": {"source": "crm", "query": "SELECT 1"}}
    answer = problem(client.post("/api/v1/jobs/trigger", json=body), 422)
    assert "no such database is registered on this site" in answer["detail"]
    assert answer["errors"][0]["code"] == "source_not_registered"


def test_without_postgres_a_job_is_503(client: Client) -> None:
    body = {"source_type": "file", "config": {"root": "inbox", "path": "a.csv"}}
    answer = client.post("/api/v1/jobs/trigger", json=body)
    problem(answer, 503)
    assert answer.headers["retry-after"]


def test_a_job_id_is_checked(client: Client) -> None:
    answer = problem(client.get("/api/v1/jobs/status/12"), 422)
    assert answer["errors"][0]["field"] == "job_id"


def test_a_large_body_is_refused_before_it_is_read(client: Client) -> None:
    answer = client.post("/predict", content=b"x" * 1_048_577, headers=JSON)
    assert "1048576" in problem(answer, 413)["detail"]
    assert answer.headers["connection"] == "close"


def test_a_large_body_of_unknown_length_is_cut_off(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65_536
            yield b"x" * 65_536

    problem(client.post("/predict", content=endless(), headers=JSON), 413)
    assert sent < 3_000_000


def test_unknown_paths_share_one_label(client: Client) -> None:
    before = counted("GET", "unmatched", 404)
    for path in ("/nope", "/wp-login.php", "/predict/", "/items/7"):
        problem(client.get(path), 404)
    assert counted("GET", "unmatched", 404) == before + 4


def test_a_wrong_method_is_405(client: Client) -> None:
    before = counted("DELETE", "/predict", 405)
    problem(client.request("DELETE", "/predict"), 405)
    assert counted("DELETE", "/predict", 405) == before + 1
    client.request("BREW", "/predict")
    assert counted("OTHER", "/predict", 405) >= 1


def test_a_request_is_counted_once_under_its_template(client: Client) -> None:
    job = "00000000-0000-4000-8000-000000000000"
    template = "/api/v1/jobs/status/{job_id}"
    before = counted("GET", template, 503)
    client.get(f"/api/v1/jobs/status/{job}")
    assert counted("GET", template, 503) == before + 1
    text = client.get("/metrics").text
    assert job not in text
    assert f'app_request_latency_seconds_count{{endpoint="{template}",method="GET"}}' in text


def test_request_ids_are_kept_if_harmless(client: Client) -> None:
    given_id = "trace-2f3a.77_b"
    assert client.get("/", headers={"x-request-id": given_id}).headers["x-request-id"] == given_id
    for bad in ("short", "a b c d e f", "x" * 65, "é" * 10, "<script>alert(1)</script>"):
        answer = client.get("/", headers={"x-request-id": bad.encode()})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_what_nobody_caught_is_a_problem_and_one_log_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings)
    client = Client(app)

    async def broken() -> None:
        private = "a-secret-in-a-local-variable"
        raise RuntimeError("the disk is on fire\n" + private)

    app.router.add_api_route("/broken", broken)
    capsys.readouterr()
    answer = problem(client.get("/broken?token=abc"), 500)
    assert "fire" not in json.dumps(answer)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 1
    assert lines[0]["exception"]["type"] == "builtins.RuntimeError"
    assert lines[0]["exception"]["message"] == "the disk is on fire"
    assert any("test_app_http.py" in frame for frame in lines[0]["exception"]["stack"])
    assert lines[0]["request_id"] == answer["request_id"]
    assert "secret" not in json.dumps(lines)
    assert "abc" not in json.dumps(lines)


def test_an_access_line_says_what_matters_and_no_body(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for query, status in (("", 200), ("?x=private", 422), ("?private=1", 422)):
        capsys.readouterr()
        body = {"text": "private words"}
        client.post(f"/predict{query}", json=body, headers={"x-api-key": "k-1"})
        (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert {"timestamp", "level", "request_id", "route", "status", "duration_ms"} <= set(line)
        assert (line["route"], line["status"], line["method"]) == ("/predict", status, "POST")
        assert "private" not in json.dumps(line)
        assert "k-1" not in json.dumps(line)


def test_docs_work_without_the_internet(client: Client) -> None:
    for page in ("/docs", "/redoc"):
        html = client.get(page).text
        for link in re.findall(r'(?:src|href)="([^"]+)"', html):
            assert link.startswith("/"), f"{page} loads {link}"
            assert client.get(link).status_code == 200
        assert "cdn" not in html
        assert not re.findall(r"https?://(?!www\.w3\.org)", html)


def test_openapi_knows_errors_keys_and_tags(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    assert "HTTPValidationError" not in json.dumps(document)
    predict = document["paths"]["/predict"]["post"]
    assert predict["security"] == [{"ApiKey": ["predict"]}]
    assert PROBLEM in predict["responses"]["422"]["content"]
    assert "security" not in document["paths"]["/health"]["get"]
    assert {tag["name"] for tag in document["tags"]} == {"jobs", "predict", "items", "health"}
    assert "examples" in document["components"]["schemas"]["PredictRequest"]
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["tags"]
    for reference in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(document)):
        assert reference[1] in document["components"][reference[0]]


def test_app_main_has_an_app_for_tools_that_look_for_it() -> None:
    import app.main as module  # noqa: PLC0415

    assert isinstance(module.app, FastAPI)
    with pytest.raises(AttributeError):
        _ = module.nothing


def test_a18_generated_clients_get_short_names_of_operations(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    names = [
        operation["operationId"] for methods in paths.values() for operation in methods.values()
    ]
    assert sorted(names) == [
        *("health_alive", "health_healthz", "health_live", "health_metrics", "health_ready"),
        *("health_root", "items_create", "items_list", "jobs_cancel", "jobs_list", "jobs_report"),
        *("jobs_result", "jobs_status", "jobs_trigger", "predict_baseline", "predict_batch"),
        *("predict_info", "predict_one"),
    ]

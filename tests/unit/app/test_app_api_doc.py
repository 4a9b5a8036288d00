"""docs/API.md and the OpenAPI document are correct: each example is sent exactly as written."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.http.examples import EXAMPLES, PROBLEMS, Example
from scripts import api_doc
from tests.unit.app.appkit import Process, Site, eventually

SENT = [(method, path, example) for (method, path), all_ in EXAMPLES.items() for example in all_]
# Values that differ between runs or sites: only their type is compared.
VARIES = {
    *("job_id", "status_url", "result_url", "id", "next_cursor"),
    *("created_at", "started_at", "finished_at"),
    *("sha256", "trained_at", "vocabulary_size"),
}


def like(example: Any, got: Any, name: str = "") -> None:
    """Check that the answer has the example's form and its fixed values."""
    assert isinstance(got, type(example)) or {type(got), type(example)} <= {int, float}, name
    if isinstance(example, dict):
        assert set(got) == set(example), name
        for key, value in example.items():
            like(value, got[key], key)
    elif isinstance(example, list):
        assert bool(got) == bool(example), name
        for one, other in zip(example, got, strict=False):
            like(one, other, name)
    elif name not in VARIES:
        assert got == example, name


def test_a18_api_md_is_what_the_openapi_document_says(app: FastAPI) -> None:
    before = api_doc.DOCUMENT.read_text()
    assert api_doc.render(before, app.openapi()) == before, "run: python scripts/api_doc.py"


def test_a18_every_endpoint_has_an_example(app: FastAPI) -> None:
    document = app.openapi()
    operations = {
        (method, path) for path in document["paths"] for method in document["paths"][path]
    }
    assert set(EXAMPLES) == operations, "app/http/examples.py lacks operations or has extra ones"
    for found in (document["paths"][path][method] for method, path in operations):
        assert any(
            "examples" in content
            for status, answer in found["responses"].items()
            if status.startswith("2")
            for content in answer.get("content", {}).values()
        )
        for content in found.get("requestBody", {}).get("content", {}).values():
            assert content["examples"]


def test_a18_every_error_has_a_shape_and_an_example(app: FastAPI) -> None:
    document = app.openapi()
    schema = document["components"]["schemas"]["ProblemDetail"]
    for answer in document["components"]["responses"].values():
        example = answer["content"]["application/problem+json"]["example"]
        _validate(document, schema, example)
    for methods in document["paths"].values():
        for operation in methods.values():
            assert ("security" in operation) == ("429" in operation["responses"])
            if "requestBody" in operation:
                assert set(PROBLEMS) <= set(operation["responses"])


@pytest.mark.parametrize(("method", "path", "example"), SENT)
def test_a18_examples_are_valid(app: FastAPI, method: str, path: str, example: Example) -> None:
    document = app.openapi()
    operation = document["paths"][path][method]
    content = operation["responses"][str(example.status)]["content"]
    if not isinstance(example.answer, str):
        _validate(document, content["application/json"]["schema"], example.answer)
    if example.body is not None:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        _validate(document, body, example.body)


def _validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    # Importing it takes seconds to compile grammars: only processes that run this test do.
    import jsonschema  # type: ignore[import-untyped]  # noqa: PLC0415

    jsonschema.validate(value, {**schema, "components": document["components"]})


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    shared.worker()
    return shared.serve(
        AUTH_ENABLED="true",
        AUTH_CACHE_SECONDS="0",
        RELEASE="1.0.0",
        API_SOURCES_ALLOWED='["data.client.example:8443"]',
        OPEN_SOURCES='["api:data.client.example:8443", "root:inbox"]',
        WORKER_POLL_SECONDS="0.2",
    )


@pytest.fixture(scope="module")
def variables(shared: Site, web: Process, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the variables that the reader sets; curl also prints the status on its own line."""
    from tests.unit.app.test_app_keys import add  # noqa: PLC0415

    key = add(shared, "reader")[1]
    folder = tmp_path_factory.mktemp("curl")
    (folder / ".curlrc").write_text('write-out = "\\n%{http_code}"\n')
    # Create two jobs, so that a page of one has a next page.
    jobs = [shared.trigger(web, **{"x-api-key": key}) for _ in range(2)]

    def done() -> bool:
        paths = [f"/api/v1/jobs/status/{job}" for job in jobs]
        found = [web.http.get(path, headers={"x-api-key": key}).json() for path in paths]
        return all(status["status"] == "succeeded" for status in found)

    eventually(done, what="the jobs of the examples")
    waiting = str(uuid.uuid4())
    with shared.connect() as connection:
        connection.execute(
            """INSERT INTO jobs
                   (id, client, source_type, payload_version, config, max_attempts, run_after)
               VALUES (%s, 'reader', 'file', 1, '{}', 5, now() + interval '1 day')""",
            (waiting,),
        )
    return {
        "URL": web.url,
        "KEY": key,
        "JOB": jobs[1],
        "WAITING": waiting,
        "CURL_HOME": str(folder),
    }


@pytest.mark.docker
@pytest.mark.parametrize(("method", "path", "example"), SENT)
def test_a18_the_example_is_answered_as_documented(
    shared: Site, variables: dict[str, str], method: str, path: str, example: Example
) -> None:
    guarded = "health" not in path and path not in ("/", "/metrics")
    shown = api_doc.command(method, path, example, guarded=guarded)
    assert shown in api_doc.DOCUMENT.read_text()
    done = subprocess.run(
        ["bash", "-euc", shown],
        env={"PATH": shared.environment["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    assert int(status) == example.status, body
    if isinstance(example.answer, str):
        for line in example.answer.splitlines():
            assert line in body
    else:
        like(example.answer, json.loads(body))


@pytest.mark.docker
def test_a18_the_key_commands_of_the_document_exist(shared: Site) -> None:
    text = Path(api_doc.DOCUMENT).read_text()
    commands = re.findall(r"^\$ python -m app(?:\.keys| keys) (\w+)", text, re.MULTILINE)
    assert set(commands) == {"add", "list", "revoke", "sync"}

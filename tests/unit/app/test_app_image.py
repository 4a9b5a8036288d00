"""The image, run as a plain `docker run` and as on a site: read-only, without privileges."""

from __future__ import annotations

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from bundle.builder.images import app, engine, lockfile, recipes
from tests.unit.app.appkit import ROOT, eventually, free_port, one_builder

LOCK = lockfile.load(ROOT / "bundle" / "images.lock.yml")


def test_the_dockerfile_and_the_example_pin_what_the_lock_pins() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    pinned = re.search(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert pinned is not None
    assert pinned[1] == str(LOCK.bases["python"][0])
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert example["PROMETHEUS_IMAGE"] == str(LOCK.images["prometheus"].upstream)
    assert example["GRAFANA_IMAGE"] == str(LOCK.images["grafana"].upstream)
    # Grafana's is the only password in .env, and its value is obviously an example.
    assert {
        name: value for name, value in example.items() if "password" in name.lower() and value
    } == {"GF_SECURITY_ADMIN_PASSWORD": "admin"}


@pytest.fixture(scope="module")
def image() -> str:
    engine.require()
    recipe = LOCK.bases["python"][1]
    build = LOCK.images["app"].build
    assert build is not None
    with one_builder():
        python = recipes.make(LOCK, recipe, recipes.base(LOCK, recipe.base, print), print)
        return app.make(LOCK, build, python, print, version="1.0.0")


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[tuple[str, httpx.Client]]:
    name, port = f"airlift-unit-{uuid.uuid4().hex[:12]}", free_port()
    docker(
        *("run", "--detach", "--name", name, "--label", "airlift.unit"),
        *("--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--publish", f"127.0.0.1:{port}:8000", image),
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            eventually(lambda: client.get("/health").status_code == 200, seconds=60)
            yield name, client
    finally:
        subprocess.run([*engine.docker(), "rm", "--force", name], capture_output=True, check=False)


def docker(*arguments: str) -> str:
    return engine.run(arguments, what=f"docker {arguments[0]}").strip()


def config(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


@pytest.mark.docker
@pytest.mark.slow
def test_it_answers_with_nothing_else_running(container: tuple[str, httpx.Client]) -> None:
    _name, client = container
    assert client.get("/health").json()["status"] == "ok"
    assert "app_requests_total" in client.get("/metrics").text
    assert client.post("/predict", json={"text": "lovely"}).json()["label"] == "positive"
    assert client.post("/predict", json={"data": [1, 2, 3, 4]}).json()["class"]
    assert client.get("/predict").json() == {"score": 0.75}
    assert len(client.get("/model/info").json()["models"]) == 2
    assert client.get("/docs").status_code == 200
    assert client.get("/health/ready").status_code == 503


@pytest.mark.docker
@pytest.mark.slow
def test_it_has_no_rights_and_no_tools(container: tuple[str, httpx.Client]) -> None:
    name, _client = container
    assert docker("exec", name, "id", "-u") == "10001"
    found = docker("exec", name, "sh", "-c", "which pip pip3 gcc cc make git curl; true")
    assert found == ""
    for module in ("pip", "ensurepip", "setuptools", "sklearn", "numpy"):
        done = subprocess.run(
            [*engine.docker(), "exec", name, "python", "-c", f"import {module}"],
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, module
    written = docker("exec", name, "sh", "-c", "touch /srv/x /opt/venv/x 2>&1; true")
    assert written.count("Read-only file system") == 2


@pytest.mark.docker
@pytest.mark.slow
def test_its_health_check_says_what_is_missing(container: tuple[str, httpx.Client]) -> None:
    name, _client = container
    done = subprocess.run(
        [*engine.docker(), "exec", name, "python", "-m", "app", "healthcheck"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["checks"]["postgres"] == "DATABASE_URL is not set"
    assert docker("exec", name, "python", "-m", "app", "healthcheck", "--live")


@pytest.mark.docker
@pytest.mark.slow
def test_it_is_small_labelled_and_runs_its_server_as_process_one(
    image: str, container: tuple[str, httpx.Client]
) -> None:
    name, _client = container
    about = config(image)
    assert about["Size"] < 300_000_000
    assert about["Config"]["User"] == "10001:10001"
    assert about["Config"]["Cmd"][0] == "python"
    assert about["Config"]["Healthcheck"]["Test"][0] == "CMD"
    labels = about["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.0.0"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["org.opencontainers.image.revision"])
    docker("stop", "--time", "20", name)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    for line in docker("logs", name).splitlines():
        json.loads(line)

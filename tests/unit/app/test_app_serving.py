"""gunicorn with two workers, started as in the image."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.settings import ConfigurationError, Settings
from tests.unit.app.appkit import PASSWORD, ROOT, Process, Site, eventually, free_port, sample


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PORT": str(free_port()),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "prom"),
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def only_json(text: str) -> list[dict[str, object]]:
    import json  # noqa: PLC0415

    return [json.loads(line) for line in text.splitlines()]


def children(process: Process) -> list[int]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.popen.pid)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.docker
def test_counters_add_up_over_workers_and_survive_one(site: Site) -> None:
    web = site.serve()
    series = 'app_requests_total{endpoint="/predict",http_status="200",method="GET"}'
    for _ in range(40):
        # Open a new connection each time: the kernel spreads connections over the workers.
        assert web.http.get("/predict", headers={"connection": "close"}).status_code == 200
    assert {sample(web, series) for _ in range(10)} == {40}
    text = web.http.get("/metrics").text
    assert text.count("# TYPE app_requests_total counter") == 1
    assert 'app_model_info{model="sentiment"' in text
    assert sample(web, 'app_build_info{colour="blue",revision="unknown",version="1.0.0"}') == 1
    victim = children(web)[0]
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: len(children(web)) == 2 and victim not in children(web))
    assert web.http.get("/predict").status_code == 200
    assert sample(web, series) == 41
    assert sample(web, "app_requests_in_flight") <= 1


@pytest.mark.docker
@pytest.mark.slow
def test_each_line_is_json_whoever_logs(site: Site) -> None:
    web = site.serve()
    site.trigger(web)
    web.http.get("/nope")
    assert web.stop() == 0
    lines = web.lines()
    assert {"gunicorn.error", "uvicorn.error", "app.access", "app.jobs"} <= {
        line["logger"] for line in lines
    }
    for line in lines:
        assert {"timestamp", "level", "event", "release", "colour"} <= set(line)
        assert PASSWORD not in str(line)
    assert web.logged("authentication is off")
    migrated = site.command("migrate")
    assert "alembic.runtime.migration" in {line["logger"] for line in migrated}


@pytest.mark.docker
def test_a_request_in_flight_outlives_sigterm(site: Site) -> None:
    web = site.serve()
    port = int(web.url.rpartition(":")[2])
    body = b'{"text": "good"}'
    head = (
        b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(head + body[:4])
        time.sleep(0.5)
        web.popen.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert web.popen.poll() is None
        slow.sendall(body[4:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    assert web.stop() == 0


@pytest.mark.docker
@pytest.mark.slow
def test_draining_turns_readiness_while_everything_else_works(site: Site) -> None:
    web = site.serve(DRAIN_FILE=str(site.folder / "flag"))
    assert web.http.get("/health/ready").status_code == 200
    site.command("drain", DRAIN_FILE=str(site.folder / "flag"))
    answer = web.http.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"]["drain"]
    assert web.http.get("/health").status_code == 200
    assert web.http.post("/predict", json={"text": "good"}).status_code == 200
    assert sample(web, "app_draining") == 1
    port = web.url.rpartition(":")[2]
    checks = [{"PORT": port}, {"WORKER_METRICS_PORT": port}]
    for environment, flags in zip(checks, ([], ["--worker"]), strict=True):
        assert run(site.folder, "healthcheck", *flags, **environment).returncode == 1
        assert run(site.folder, "healthcheck", "--live", *flags, **environment).returncode == 0
    site.command("drain", "--off", DRAIN_FILE=str(site.folder / "flag"))
    assert run(site.folder, "healthcheck", PORT=port).returncode == 0


@pytest.mark.docker
def test_a_worker_whose_port_is_taken_ends_with_a_reason(site: Site) -> None:
    with socket.create_server(("", 0)) as taken:
        done = run(
            site.folder,
            "worker",
            **{**site.environment, "WORKER_METRICS_PORT": str(taken.getsockname()[1])},
        )
    assert done.returncode != 0
    assert "address already in use" in done.stdout


def test_a_worker_with_a_damaged_model_refuses_to_start(tmp_path: Path) -> None:
    models = Path(shutil.copytree(ROOT / "app" / "models", tmp_path / "models"))
    (models / "sentiment.json").write_text("{}")
    done = run(tmp_path, "worker", MODELS_DIR=str(models))
    assert done.returncode == 1
    lines = only_json(done.stdout)
    assert any(line["level"] == "critical" for line in lines)
    assert "the manifest says" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_wrong_setting_is_named_and_not_shown(tmp_path: Path, command: str) -> None:
    wrong = {"WEB_CONCURRENCY": "many", "DATABASE_URL": "postgresql://a:hunter2@db/x"}
    done = run(tmp_path, command, **wrong)
    assert done.returncode == 2
    (line,) = only_json(done.stdout)
    assert "WEB_CONCURRENCY: " in str(line["reason"])
    assert "DATABASE_URL: Value error, must carry no password" in str(line["reason"])
    assert "hunter2" not in done.stdout
    assert done.stderr == ""


def test_settings_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "database_password").write_text("from-a-file\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    monkeypatch.setenv("REDIS_URL", "")
    settings = Settings.load()
    assert settings.log_level == "warning"
    assert settings.redis_url is None
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == "from-a-file"
    assert "from-a-file" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "loud"),
        ("WEB_CONCURRENCY", "0"),
        ("DATABASE_URL", "mysql://db/x"),
        ("REDIS_URL", "rediss://:secret@db/0"),
        ("API_SOURCES_ALLOWED", '["no-port"]'),
        ("API_SOURCES_ALLOWED", '["a:99999"]'),
        ("REDIS_URL", "http://redis"),
        ("FILE_ROOTS", '{"a": "relative"}'),
        ("FILE_ROOTS", "{oops"),
    ],
)
def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=rf"(?i){name}"):
        Settings.load()

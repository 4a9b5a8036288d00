"""Steps around a deployment: fetch the attested bundle, and notify people."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.deploy.outcome import Outcome
from tests.unit.scripts.deploykit import ROOT, program

#: A stand-in for GitHub's client, controlled by a file, that records its calls.
_GH = """
import json, pathlib, sys
world = json.load(open(WORLD))
with open(CALLS, "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + chr(10))
if sys.argv[1:3] == ["run", "list"]:
    print(json.dumps(world["runs"]))
if sys.argv[1:3] == ["run", "download"]:
    for artefact in world["artefacts"]:
        folder = pathlib.Path(sys.argv[sys.argv.index("--dir") + 1]) / artefact
        folder.mkdir(parents=True)
        for name in world["files"]:
            (folder / name).write_text("a bundle")
if sys.argv[1:3] == ["attestation", "verify"] and not (
    world["attested"] and "/bundle/" in sys.argv[3]
):
    print("Error: no attestations found")
    sys.exit(1)
"""
SUCCESS = {"databaseId": 77, "status": "completed", "conclusion": "success", "event": "push"}
BUNDLE = "airlift-1.1.0-amd64.tar"


class Runner:
    """A GitHub runner with the stand-in client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        head = f"#!{sys.executable}\nWORLD = {str(root / 'world')!r}\n"
        program(root / "bin" / "gh", f"{head}CALLS = {str(root / 'calls')!r}\n{_GH}")
        self.wish(runs=[SUCCESS], files=[BUNDLE, "SHA256SUMS"], attested=True, artefacts=["bundle"])

    def wish(self, **wishes: Any) -> None:
        path = self.root / "world"
        world = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**world, **wishes}))

    def run(self, phase: str, **settings: str) -> tuple[int, str]:
        """Run a phase; return its exit code and output."""
        done = subprocess.run(
            [sys.executable, "-m", "scripts.deploy", phase],
            cwd=ROOT,
            env={
                "PATH": f"{self.root}/bin:/usr/bin:/bin",
                "GITHUB_REPOSITORY": "acme/airlift",
                "GITHUB_OUTPUT": str(self.root / "outputs"),
                "DEPLOY_PATIENCE_SECONDS": "0",
                **settings,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def fetch(self, release: str = "1.1.0", **settings: str) -> tuple[int, str]:
        target = str(self.root / "dist")
        return self.run("fetch", DEPLOY_RELEASE=release, DEPLOY_BUNDLE=target, **settings)

    @property
    def calls(self) -> str:
        return (self.root / "calls").read_text()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


# ---------------------------------------------------------------- the bundle
def test_the_bundle_is_that_of_the_tags_build_and_its_attestation_is_checked(
    runner: Runner,
) -> None:
    code, output = runner.fetch()
    assert code == 0, output
    file = runner.root / "dist" / "bundle" / BUNDLE
    assert f"bundle={file}\n" in (runner.root / "outputs").read_text()
    listed, downloaded, verified = runner.calls.splitlines()
    assert "--workflow release.yml --branch v1.1.0" in listed
    assert downloaded.startswith("run download 77 --repo acme/airlift")
    workflow = "acme/airlift/.github/workflows/release.yml"
    assert f"{file} --repo acme/airlift --signer-workflow {workflow}" in verified


def test_what_is_not_attested_is_not_deployed(runner: Runner) -> None:
    runner.wish(attested=False)
    code, output = runner.fetch()
    assert code == Outcome.FETCH.code
    assert f"{BUNDLE} is not attested by release.yml: Error: no attestations found" in output


def test_a_candidate_of_the_same_run_is_not_deployed(runner: Runner) -> None:
    runner.wish(artefacts=["bundle", "candidate"])
    code, output = runner.fetch()
    assert code == 0, output
    left = sorted((runner.root / "dist").rglob("*.tar"))
    assert left == [runner.root / "dist" / "bundle" / BUNDLE]


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([], "release.yml has no run for v1.1.0"),
        (
            [{**SUCCESS, "status": "in_progress", "conclusion": ""}],
            "release.yml is still in progress",
        ),
        ([{**SUCCESS, "conclusion": "failure"}], "did not succeed for v1.1.0: failure"),
    ],
)
def test_a_build_that_is_not_there_is_waited_for_and_then_named(
    runner: Runner, runs: list[dict[str, Any]], said: str
) -> None:
    runner.wish(runs=runs)
    code, output = runner.fetch()
    assert code == Outcome.FETCH.code
    assert said in output


def test_a_build_that_succeeded_the_second_time_is_good(runner: Runner) -> None:
    runner.wish(runs=[{**SUCCESS, "databaseId": 78, "conclusion": "failure"}, SUCCESS])
    assert runner.fetch()[0] == 0
    assert "run download 77" in runner.calls


@pytest.mark.parametrize(
    "files", [[], ["airlift-1.1.0-since-1.0.0-amd64.tar"], ["airlift-1.0.0-amd64.tar"]]
)
def test_only_a_full_bundle_of_the_release_will_do(runner: Runner, files: list[str]) -> None:
    runner.wish(files=files)
    code, output = runner.fetch()
    assert code == Outcome.FETCH.code
    assert "has no full bundle" in output


def test_a_moving_name_is_never_fetched(runner: Runner) -> None:
    assert runner.fetch("latest")[0] == Outcome.USAGE.code


# ---------------------------------------------------------------- people
class Hook(http.server.ThreadingHTTPServer):
    """A chat system's webhook."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.answers: list[int] = []
        self.told: list[dict[str, Any]] = []


class Receiver(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append(json.loads(body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Discard the message."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


NEEDS = {"ci": {"result": "success", "outputs": {}}, "staging": {"result": "failure"}}


def notify(runner: Runner, address: str, results: object = NEEDS) -> tuple[int, str]:
    file = runner.root / "webhook"
    file.write_text(f"{address}\n")
    return runner.run(
        "notify",
        DEPLOY_WEBHOOK_FILE=str(file),
        DEPLOY_RESULTS=json.dumps(results),
        DEPLOY_RELEASE="1.1.0",
        DEPLOY_LINK="https://git.example/run/77",
    )


def test_people_are_told_what_failed_and_where_to_look(runner: Runner, hook: Hook) -> None:
    code, output = notify(runner, f"http://127.0.0.1:{hook.server_port}/a-secret")
    assert code == 0, output
    told = hook.told[0]
    text = "Deployment of release 1.1.0 failed: staging failure https://git.example/run/77"
    assert (told["text"], told["status"]) == (text, "failed")
    assert told["results"] == {"ci": "success", "staging": "failure"}
    assert "a-secret" not in output


def test_jobs_that_were_not_due_are_no_failure(runner: Runner, hook: Hook) -> None:
    results = {"staging": "success", "production": "success", "rollback": "skipped"}
    notify(runner, f"http://127.0.0.1:{hook.server_port}/", results)
    assert hook.told[0]["text"].startswith(
        "Deployment of release 1.1.0 succeeded: staging, production"
    )


def test_a_receiver_in_trouble_is_asked_again(runner: Runner, hook: Hook) -> None:
    hook.answers = [503]
    assert notify(runner, f"http://127.0.0.1:{hook.server_port}/")[0] == 0
    assert len(hook.told) == 2


@pytest.mark.parametrize("status", [302, 403])
def test_a_refusal_is_said_without_the_address(runner: Runner, hook: Hook, status: int) -> None:
    hook.answers = [status, status, status]
    code, output = notify(runner, f"http://127.0.0.1:{hook.server_port}/a-secret")
    assert code == Outcome.NOTIFY.code
    assert f"127.0.0.1 answered {status}" in output
    assert "a-secret" not in output
    assert len(hook.told) == 1


def test_nobody_there_is_said_without_the_address(runner: Runner) -> None:
    code, output = notify(runner, "http://127.0.0.1:1/a-secret")
    assert code == Outcome.NOTIFY.code
    assert "127.0.0.1 does not answer (ConnectionRefusedError)" in output
    assert "a-secret" not in output


def test_a_plain_address_is_refused_without_being_shown(runner: Runner) -> None:
    code, output = notify(runner, "http://chat.example/a-secret")
    assert code == Outcome.USAGE.code
    assert "is not https" in output
    assert "a-secret" not in output


def test_no_address_is_no_failure(runner: Runner) -> None:
    code, output = notify(runner, "")
    assert code == 0
    assert "no notification is sent" in output


@pytest.mark.parametrize("results", ["[1]", "{", "7"])
def test_results_that_are_none_are_refused(runner: Runner, results: str) -> None:
    code, output = runner.run("notify", DEPLOY_RESULTS=results)
    assert code == Outcome.USAGE.code
    assert "is not JSON of jobs and results" in output

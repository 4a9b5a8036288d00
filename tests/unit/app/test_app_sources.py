from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.jobs.processing import Processor
from app.predict.artefacts import load_models
from app.sources import api as api_module
from app.sources.api import ApiSource
from app.sources.base import (
    Collection,
    Limits,
    PermanentSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.file import FileSource
from app.sources.schemas import ApiConfig, FileConfig, Selection

LIMITS = Limits(max_bytes=20_000, max_records=100, timeout_seconds=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def collect(root: Path, path: str, **options: Any) -> Collection:
    source = FileSource({"inbox": root}, LIMITS)
    config = FileConfig(root="inbox", path=path, **options)
    refusal = source.check(config)
    if refusal is not None:
        raise PermanentSourceError("refused", refusal.message)
    return anyio.run(source.collect, config)


def test_csv(root: Path) -> None:
    (root / "a.csv").write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a, b"\r\n2\r\n\r\n3,c\r\n')
    found = collect(root, "a.csv")
    assert found.records == [{"id": "1", "text": "a, b"}, {"id": "3", "text": "c"}]
    assert found.rejected == 1
    assert found.origin["format"] == "csv"
    assert len(found.origin["sha256"]) == 64


def test_csv_with_another_delimiter(root: Path) -> None:
    (root / "a.csv").write_text("id;text\n1;b\n")
    assert collect(root, "a.csv", delimiter=";").records == [{"id": "1", "text": "b"}]


@pytest.mark.parametrize(
    ("document", "options"),
    [
        ([{"text": "a"}, "b"], {}),
        ({"records": [{"text": "a"}, "b"]}, {}),
        ({"data": {"items": [{"text": "a"}, "b"]}}, {"records_path": "data.items"}),
    ],
)
def test_json(root: Path, document: Any, options: dict[str, str]) -> None:
    (root / "a.json").write_text(json.dumps(document))
    assert collect(root, "a.json", **options).records == [{"text": "a"}, {"text": "b"}]


def test_json_lines_skip_what_is_broken(root: Path) -> None:
    (root / "deep").mkdir()
    (root / "deep" / "a.jsonl").write_text('{"text": "a"}\n\n{oops\n7\n{"v": NaN}\n{"text": "b"}')
    found = collect(root, "deep/a.jsonl")
    assert found.records == [{"text": "a"}, {"text": "b"}]
    assert found.rejected == 3


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,a\n1,2\n", "bad-header"),
        ("a.csv", b'a,b\n1,"2\n', "bad-csv"),
        ("a.csv", b"a\n" + b"1\n" * 101, "too-many-records"),
        ("a.csv", b"text\n" + b"x" * 20_000, "file-too-large"),
        ("a.csv", b"a\xff\n", "not-utf-8"),
        ("a.json", b"{", "bad-json"),
        ("a.json", b"[" * 15_000, "bad-json"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "bad-json"),
        ("a.json", b"[NaN]", "bad-json"),
        ("a.json", b"7", "no-records"),
        ("a.json", json.dumps(["a"] * 101).encode(), "too-many-records"),
        ("a.jsonl", b"7\n", "bad-json-lines"),
        ("missing.csv", None, "file-not-found"),
        ("folder.csv/x.csv", None, "file-not-found"),
    ],
)
def test_a_bad_file_is_told_apart(root: Path, name: str, content: bytes | None, code: str) -> None:
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(PermanentSourceError) as caught:
        collect(root, name)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "path",
    ["../secret.csv", "a/../../secret.csv", "/etc/passwd", "..", "./a.csv", "a//b.csv", "a\\b.csv"],
)
def test_a_path_that_climbs_out_is_refused(root: Path, path: str) -> None:
    (root.parent / "secret.csv").write_text("text\nsecret\n")
    with pytest.raises(PermanentSourceError, match="must"):
        collect(root, path, format="csv")


def test_links_are_not_followed(root: Path) -> None:
    secret = root.parent / "secret.csv"
    secret.write_text("text\nsecret\n")
    (root / "link.csv").symlink_to(secret)
    (root / "folder").symlink_to(root.parent)
    for path in ("link.csv", "folder/secret.csv"):
        with pytest.raises(PermanentSourceError) as caught:
            collect(root, path)
        assert caught.value.code == "path-refused"


def test_only_regular_files_are_read(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    (root / "dir.csv").mkdir()
    for path in ("pipe.csv", "dir.csv"):
        with pytest.raises(PermanentSourceError) as caught:
            collect(root, path)
        assert caught.value.code == "not-a-file"


def test_only_hosts_that_have_a_root_run_its_jobs(root: Path) -> None:
    source = FileSource({"inbox": root, "elsewhere": root / "not-mounted"}, LIMITS)
    assert source.available() == ["root:inbox"]
    assert source.needs(FileConfig(root="elsewhere", path="a.csv")) == "root:elsewhere"


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    def do_GET(self) -> None:
        answers: dict[str, Callable[[], None]] = {
            "/good": lambda: self.answer(200, "application/json; charset=utf-8", b'["a", "b"]'),
            "/csv": lambda: self.answer(200, "text/csv", b"text\na\n"),
            "/odd": lambda: self.answer(200, "text/html", b"<p>"),
            "/large": lambda: self.answer(200, "application/json", b"x" * 50_000),
            "/500": lambda: self.answer(500, "text/plain", b""),
            "/404": lambda: self.answer(404, "text/plain", b""),
            "/same": lambda: self.redirect("/good"),
            "/loop": lambda: self.redirect("/loop"),
            "/away": lambda: self.redirect("http://127.0.0.1:1/good"),
            "/scheme": lambda: self.redirect("file:///etc/passwd"),
            "/zip": lambda: self.answer(
                200, "application/json", gzip.compress(b"[]"), ("content-encoding", "gzip")
            ),
            "/slow": self.slow,
        }
        answers[self.path.partition("?")[0]]()

    def answer(self, status: int, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, where: str) -> None:
        self.answer(302, "text/plain", b"", ("location", where))

    def slow(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(40):
            time.sleep(0.1)
            try:
                self.wfile.write(b" ")
            except OSError:
                return

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetch(server: str, path: str, allowed: list[str] | None = None) -> Collection:
    source = ApiSource([server] if allowed is None else allowed, LIMITS)
    config = ApiConfig(url=f"http://{server}{path}")
    refusal = source.check(config)
    if refusal is not None:
        raise PermanentSourceError("refused", refusal.message)
    return anyio.run(source.collect, config)


@pytest.mark.parametrize("path", ["/good?token=private", "/csv", "/same"])
def test_an_allowed_address_is_fetched(
    server: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    found = fetch(server, path)
    assert found.records[0] == {"text": "a"}
    assert "private" not in json.dumps(found.origin)


@pytest.mark.parametrize(
    ("path", "kind", "code"),
    [
        ("/odd", PermanentSourceError, "unknown-format"),
        ("/large", PermanentSourceError, "answer-too-large"),
        ("/404", PermanentSourceError, "source-status"),
        ("/500", TransientSourceError, "source-status"),
        ("/loop", PermanentSourceError, "too-many-redirects"),
        ("/away", PermanentSourceError, "redirect-refused"),
        ("/scheme", PermanentSourceError, "redirect-refused"),
        ("/zip", PermanentSourceError, "compressed"),
        ("/slow", TransientSourceError, "timeout"),
    ],
)
def test_what_a_source_may_do_wrong(
    server: str, path: str, kind: type[SourceError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        fetch(server, path)
    assert caught.value.code == code


def test_nobody_listening_may_be_tried_again() -> None:
    with pytest.raises(TransientSourceError):
        fetch("127.0.0.1:1", "/good")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/good",
        "http://user:pw@{server}/good",
        "ftp://{server}/good",
        "http:///good",
        "http://{server}@evil.example/",
        "not an address",
    ],
)
def test_addresses_that_are_not_on_the_list_are_refused(server: str, url: str) -> None:
    source = ApiSource([server], LIMITS)
    assert source.check(ApiConfig(url=url.format(server=server))) is not None


def test_a_name_that_leads_to_this_machine_is_refused(server: str) -> None:
    """The list may name a host that an attacker's name server sends to the loopback."""
    name = f"localhost:{server.rpartition(':')[2]}"
    source = ApiSource([name], LIMITS)
    with pytest.raises(PermanentSourceError) as caught:
        anyio.run(source.collect, ApiConfig(url=f"http://{name}/good"))
    assert caught.value.code == "address-refused"


def test_a_name_is_resolved_once_and_that_address_is_used(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> str:
        asked.append(host)
        return "127.0.0.1"

    monkeypatch.setattr(api_module, "_resolve", resolve)
    name = f"data.client.example:{server.rpartition(':')[2]}"
    found = anyio.run(ApiSource([name], LIMITS).collect, ApiConfig(url=f"http://{name}/good"))
    assert len(found.records) == 2
    assert asked == ["data.client.example"]


MODELS = load_models(Path(__file__).resolve().parents[3] / "app" / "models")


def process(records: list[dict[str, Any]], **selection: Any) -> dict[str, Any]:
    processor = Processor(MODELS, Selection(**selection), Collection(records))
    assert list(processor.steps())[-1:] == ([len(records)] if records else [])
    return processor.result()


def test_texts_are_found_classified_and_summed_up() -> None:
    texts = ["I love it", "terrible, broken", "", None, "x" * 20_001, "great"]
    result = process([{"Comment": text} for text in texts])
    assert result["sentiment"]["field"] == "Comment"
    assert result["sentiment"]["counts"] == {"negative": 1, "neutral": 0, "positive": 2}
    assert result["sentiment"]["shares"] == {"negative": 0.3333, "neutral": 0.0, "positive": 0.6667}
    assert result["records"]["skipped"] == {"no text": 2, "text too long": 1}
    assert [entry["record"] for entry in result["sample"]] == [0, 1, 5]
    assert "love" not in json.dumps(result)


def test_rows_are_classified() -> None:
    names = ["a", "b", "c", "d"]
    rows = [
        dict(zip(names, values, strict=True))
        for values in (
            [5.1, 3.5, 1.4, 0.2],
            ["6.7", "3.0", "5.2", "2.3"],
            [1, 2, 3, "x"],
            [1, 2, 3, True],
            [1, 2, 3, "nan"],
            [1, 2, 3, "1e400"],
            [1, 2, 3, 10**400],
        )
    ]
    result = process(rows, feature_fields=names)
    assert result["tabular"]["counts"] == {"setosa": 1, "versicolor": 0, "virginica": 1}
    assert result["records"]["skipped"] == {"features not numeric": 5}


def test_the_models_own_feature_names_are_known() -> None:
    row = dict.fromkeys(MODELS.tabular.features, 1.0)
    assert process([row])["tabular"]["classified"] == 1


def test_records_that_hold_nothing_known_are_refused() -> None:
    with pytest.raises(PermanentSourceError, match=r"fields seen: a, b") as caught:
        process([{"a": 1, "b": 2}])
    assert caught.value.code == "no-usable-field"


def test_no_records_is_a_result_too() -> None:
    assert process([])["records"]["collected"] == 0

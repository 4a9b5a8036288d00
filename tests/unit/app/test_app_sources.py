from __future__ import annotations

import contextlib
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

from app.sources import addresses
from app.sources.api import ApiSource
from app.sources.base import (
    Collection,
    Fault,
    Limits,
    PermanentSourceError,
    RefusedSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.file import FileSource
from app.sources.schemas import ApiConfig, FileConfig

CLIENT = "billing"
LIMITS = Limits(max_bytes=20_000, max_records=100, timeout_seconds=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class Found:
    """A collection, read to its end."""

    def __init__(self, collection: Collection) -> None:
        entries = [entry for batch in collection.batches for entry in batch]
        self.origin = collection.origin
        self.records = [what for _, what in entries if not isinstance(what, Fault)]
        self.faults = {line: what.reason for line, what in entries if isinstance(what, Fault)}


def collect(root: Path, path: str, **options: Any) -> Found:
    source = FileSource({"inbox": root}, LIMITS)
    config = FileConfig(root="inbox", path=path, **options)
    refusal = source.check(config, CLIENT)
    if refusal is not None:
        raise PermanentSourceError("refused", refusal.message)
    return Found(anyio.run(source.collect, config, CLIENT))


def test_csv(root: Path) -> None:
    (root / "a.csv").write_bytes(b'\xef\xbb\xbfid,text\r\n1,"a, b"\r\n2\r\n\r\n3,c\r\n')
    found = collect(root, "a.csv")
    assert found.records == [{"id": "1", "text": "a, b"}, {"id": "3", "text": "c"}]
    assert found.faults == {3: "wrong number of columns"}
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
    assert found.faults == {3: "not JSON", 4: "not a record", 5: "not JSON"}


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"a,a\n1,2\n", "bad-header"),
        ("a.csv", b'a,b\n1,"2\n', "bad-csv"),
        ("a.csv", b"a\n" + b"1\n" * 101, "too-many-records"),
        ("a.csv", b"text\n" + b"x" * 20_000, "source-too-large"),
        ("a.csv", b"a\xff\n", "not-utf-8"),
        ("a.json", b"{", "bad-json"),
        ("a.json", b"[" * 15_000, "bad-json"),
        ("a.json", b'["a"', "bad-json"),
        ("a.json", b'["a"] 7', "bad-json"),
        ("a.json", b'["a" "b"]', "bad-json"),
        ("a.json", b'{"records": ["a"]', "bad-json"),
        ("a.json", b'{"a": 1}', "no-records"),
        ("a.json", b'{"records": "a"}', "no-records"),
        ("a.json", b"[" + b"9" * 5000 + b"]", "no-valid-record"),
        ("a.json", b"7", "no-records"),
        ("a.json", json.dumps(["a"] * 101).encode(), "too-many-records"),
        ("a.jsonl", b"7\n", "no-valid-record"),
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
        assert caught.value.code == "file-not-found"


def test_only_regular_files_are_read(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    (root / "dir.csv").mkdir()
    for path in ("pipe.csv", "dir.csv"):
        with pytest.raises(PermanentSourceError) as caught:
            collect(root, path)
        assert caught.value.code == "file-not-found"


def test_only_hosts_that_have_a_root_run_its_jobs(root: Path) -> None:
    source = FileSource({"inbox": root, "elsewhere": root / "not-mounted"}, LIMITS)
    assert anyio.run(source.available) == ["root:inbox"]
    assert source.needs(FileConfig(root="elsewhere", path="a.csv")) == "root:elsewhere"


class Handler(BaseHTTPRequestHandler):
    """Handler that answers by path."""

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
            "/metadata": lambda: self.redirect("http://169.254.169.254/latest/"),
            "/endless": self.endless,
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

    def endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b'["a", ' * 1000)

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


def fetch(server: str, path: str, allowed: list[str] | None = None) -> Found:
    source = ApiSource([server] if allowed is None else allowed, LIMITS)
    config = ApiConfig(url=f"http://{server}{path}")
    refusal = source.check(config, CLIENT)
    if refusal is not None:
        raise PermanentSourceError("refused", refusal.message)
    return Found(anyio.run(source.collect, config, CLIENT))


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
        ("/large", RefusedSourceError, "source-too-large"),
        ("/404", PermanentSourceError, "source-status"),
        ("/500", TransientSourceError, "source-status"),
        ("/loop", PermanentSourceError, "too-many-redirects"),
        ("/away", RefusedSourceError, "blocked_address"),
        ("/scheme", RefusedSourceError, "blocked_address"),
        ("/metadata", RefusedSourceError, "blocked_address"),
        ("/zip", RefusedSourceError, "compressed"),
        ("/endless", RefusedSourceError, "source-too-large"),
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
    assert source.check(ApiConfig(url=url.format(server=server)), CLIENT) is not None


def test_a_name_that_leads_to_this_machine_is_refused(server: str) -> None:
    """An attacker's name server can point an allowed name to the loopback."""
    name = f"localhost:{server.rpartition(':')[2]}"
    source = ApiSource([name], LIMITS)
    with pytest.raises(PermanentSourceError) as caught:
        anyio.run(source.collect, ApiConfig(url=f"http://{name}/good"), CLIENT)
    assert caught.value.code == "blocked_address"


def test_a_name_is_resolved_once_and_that_address_is_used(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int, _networks: object) -> str:
        asked.append(host)
        return "127.0.0.1"

    monkeypatch.setattr(addresses, "resolve", resolve)
    name = f"data.client.example:{server.rpartition(':')[2]}"
    source = ApiSource([name], LIMITS)
    config = ApiConfig(url=f"http://{name}/good")
    found = Found(anyio.run(source.collect, config, CLIENT))
    assert len(found.records) == 2
    assert asked == ["data.client.example"]


def test_a_csv_field_may_be_as_long_as_json_allows(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "LIMITS", Limits(2_000_000, 100, 2))
    long = "x" * 400_000
    (root / "a.csv").write_text(f"text\n{long}\n")
    assert collect(root, "a.csv").records == [{"text": long}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_files_as_excel_saves_them_are_read(root: Path, encoding: str, form: str) -> None:
    text = "text\nGrüße 😀\n" if form == "csv" else '{"text": "Grüße 😀"}\n'
    (root / f"a.{form}").write_bytes(text.encode(encoding))
    assert collect(root, f"a.{form}").records == [{"text": "Grüße 😀"}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("größe\nx\n".encode("cp1252"), "save it as UTF-8"),
        ("text\nx\n".encode("utf-16-le"), "looks like UTF-16 without a byte-order mark"),
        ("text\nx\n".encode("utf-16") + b"x", "ends within a character"),
    ],
)
def test_an_encoding_that_is_not_read_is_refused_with_one_sentence(
    root: Path, data: bytes, said: str
) -> None:
    (root / "a.csv").write_bytes(data)
    with pytest.raises(PermanentSourceError, match=said):
        collect(root, "a.csv")

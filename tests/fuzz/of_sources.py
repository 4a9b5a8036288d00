"""Fuzz rows for what jobs read from their sources, and for the reports made of it."""

from __future__ import annotations

import codecs
import csv
import io
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.db.values import clean
from app.jobs.processing import Processor, Row
from app.predict.artefacts import Models, try_models
from app.reports import document, page, pdf, tables
from app.sources.api import ApiSource
from app.sources.base import Collection, Fault, Limits, SourceError
from app.sources.intake import Intake
from app.sources.jsonlist import JsonList
from app.sources.parse import Format, parse
from app.sources.schemas import ApiConfig, Selection
from tests.fuzz.mutate import Json, Lines
from tests.fuzz.parser import Case, Kit, fuzzed

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(max_bytes=3_000_000, max_records=5000, timeout_seconds=20)


def _models() -> Models:
    found = try_models(ROOT / "app" / "models")
    assert isinstance(found, Models)
    return found


JOB: dict[str, Any] = {"job_id": "6f96", "source_type": "file", "attempts": 1, "created_at": None}
JOB |= dict.fromkeys(("started_at", "finished_at"), "2026-01-02T03:04:05Z")
RECORDS: list[dict[str, Any]] = [
    {"id": 1, "text": "It is good", "sepal_length": 5.1, "note": "a;b"},
    {"id": "b", "text": 'He said "no", twice\nreally', "sepal_length": "4.9", "note": ""},
    {"id": None, "text": "schlecht 😀", "sepal_length": 1e3, "note": "=1+1"},
]


def _worked(kit: Kit, form: Format) -> Callable[[bytes], None]:
    """Return a check that parses, classifies, summarises and reports a source."""
    models = _models()
    selection = Selection()
    loop = kit.loop()

    def collected(data: bytes, delimiter: str) -> tuple[list[Any], dict[str, Any]]:
        origin: dict[str, Any] = {"type": "file", "root": "inbox", "path": "x", "format": form}
        intake = Intake(io.BytesIO(data), LIMITS.max_bytes, origin)
        batches = parse(intake, form, LIMITS, delimiter=delimiter, records_path=None)
        return [entry for batch in batches for entry in batch], origin

    def check(data: bytes) -> None:
        delimiter = ";" if b";" in data.split(b"\n")[0] else ","
        entries, origin = collected(data, delimiter)
        assert origin["bytes"] == len(data)
        assert len(entries) <= LIMITS.max_records
        assert all(isinstance(what, Fault | dict) for _, what in entries)
        processor = Processor(models, selection, Collection(iter([entries]), origin))
        for _ in processor.steps():
            pass
        result = processor.result()
        counts = result["records"]
        assert counts["collected"] == len(entries) == counts["processed"] + counts["rejected"]
        kept = json.loads(json.dumps(clean(result)))
        assert clean(kept) == kept
        rows = [Row(*row) for part in processor.parts for row in json.loads(part)]
        assert len(rows) == len(entries)
        report = document.Report(JOB, kept)
        loop.run_until_complete(_reported(report, rows))

    return check


async def _reported(report: document.Report, rows: list[Any]) -> None:
    """Write the report as CSV and JSON and read both again."""

    async def parts() -> Any:
        yield rows[:40]

    text = b"".join([piece async for piece in tables.as_csv(report, parts())]).decode()
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(line) for line in found}) == 1
    for line in found:
        for cell in line:
            assert not cell.lstrip(" ").startswith(("=", "@", "\t", "\r"))
    body = b"".join([piece async for piece in tables.as_json(report, parts())])
    assert len(json.loads(body)["rows"]) == len(rows[:40])


def _csv(delimiter: str = ",") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, RECORDS[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(RECORDS)
    return out.getvalue()


ENCODED = (b"\xff\xfe", b"\xef\xbb\xbf", b"\xfe\xff", b"\xe4", b"\xed\xa0\x80", b"\0", b'"', b'""')


@fuzzed(
    "source, CSV",
    "app.sources.parse.parse",
    *("app/sources/parse.py", "app/sources/intake.py", "app/jobs/processing.py"),
    *("app/reports/tables.py", "app/reports/document.py"),
    form=Lines((*ENCODED, b",", b";", b"id", b"text", b"1e999", b"nan")),
    refusals=(SourceError,),
)
def of_csv(kit: Kit) -> Case:
    """Each entry becomes one row, and the CSV and JSON reports can be read again."""
    text = _csv()
    seeds = [text.encode(), _csv(";").encode("utf-8-sig"), text.encode("utf-16")]
    seeds.append(codecs.BOM_UTF16_BE + text.encode("utf-16-be"))
    return Case(seeds, _worked(kit, "csv"))


@fuzzed(
    "source, JSON Lines",
    "app.sources.parse.parse",
    *("app/sources/parse.py", "app/sources/intake.py"),
    form=Lines(ENCODED, inner=Json()),
    refusals=(SourceError,),
)
def of_jsonl(kit: Kit) -> Case:
    """Each entry becomes one row, and the CSV and JSON reports can be read again."""
    lines = "".join(json.dumps(one) + "\n" for one in [*RECORDS, "only a text"])
    return Case([lines.encode(), lines.encode("utf-16")], _worked(kit, "jsonl"))


@fuzzed(
    "source, JSON",
    "app.sources.parse.parse",
    *("app/sources/parse.py", "app/sources/jsonlist.py"),
    form=Json(words=(*ENCODED, b"[", b"]", b"\\", b"\\u", b'"records"')),
    refusals=(SourceError,),
)
def of_json(kit: Kit) -> Case:
    """Each entry becomes one row, and the CSV and JSON reports can be read again."""
    documents: list[Any] = [RECORDS, {"a": {"b": [1]}, "records": RECORDS, "z": "]"}]
    seeds = [json.dumps(one).encode() for one in documents]
    seeds.append(json.dumps(RECORDS, indent=1, ensure_ascii=False).encode("utf-16"))
    return Case(seeds, _worked(kit, "json"))


class _Slowly(io.StringIO):
    """A text that returns a few characters per read, whatever size is requested."""

    step = 7

    def read(self, size: int | None = -1, /) -> str:
        return super().read(self.step)


@fuzzed(
    "list in JSON",
    "app.sources.jsonlist.JsonList.entries",
    "app/sources/jsonlist.py",
    form=Json(words=(b"\\", b'\\"', b"[", b"]", b"{", b"}", b",", b":", b"  ", b"\\u12")),
    refusals=(ValueError,),
)
def of_list(kit: Kit) -> Case:
    """A list has the same entries in any chunk size, and the same as `json` reads."""
    values: list[Any] = [RECORDS, [1, -2.5, None, True, 'a\\"b', [], {}, [[{"a": "]"}]]], []]
    seeds = [json.dumps(one).encode() for one in values]

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        try:
            found: list[str | None] | None = list(JsonList(io.StringIO(text)).entries([]))
        except ValueError:
            found = None
        slowly = _Slowly(text)
        slowly.step = 1 + len(text) % 13
        try:
            again: list[str | None] | None = list(JsonList(slowly).entries([]))
        except ValueError:
            again = None
        assert found == again, text
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list):
            assert found is not None, text
            assert len(found) == len(value)
            for mine, theirs in zip(found, value, strict=True):
                assert mine is None or repr(json.loads(mine)) == repr(theirs)
        if found is None:
            raise ValueError

    return Case(seeds, check)


ANSWERED = [b"HTTP/1.1 302 Found", b"location: http://x/", b"location: //", b"content-length: 9"]
ANSWERED += [b"content-encoding: gzip", b"transfer-encoding: chunked", b"content-type: text/csv"]
ANSWERED += [b"HTTP/1.1 200 OK", b"HTTP/1.1 204", b"HTTP/1.1 100 Continue", b"\xff", b"a: \x00"]


@fuzzed(
    "answer of a source",
    "app.sources.api.ApiSource.collect",
    *("app/sources/api.py", "app/sources/intake.py"),
    form=Lines(ANSWERED, end=b"\r\n"),
    refusals=(SourceError,),
    slow=True,
)
def of_answer(kit: Kit) -> Case:
    """Any answer yields records or a reason, and no secret of the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    kit.later.callback(listener.close)
    port = listener.getsockname()[1]
    source = ApiSource(
        [f"127.0.0.1:{port}"], LIMITS, networks=[ipaddress.ip_network("127.0.0.0/8")]
    )
    config = ApiConfig(url=f"http://127.0.0.1:{port}/reviews?token=secret")
    loop = kit.loop()
    # Load the system's authorities once: loading them for each input takes most of the time.
    context = ssl.create_default_context()
    kit.patch.setattr(ssl, "create_default_context", lambda **_: context)
    body = json.dumps(RECORDS).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    seeds = [
        head + b"content-length: %d\r\n\r\n%s" % (len(body), body),
        head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        head + b"connection: close\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\ncontent-type: text/csv; charset=utf-8\r\n\r\n" + _csv().encode(),
    ]
    current = [b""]

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                try:
                    connection.recv(65536)
                    connection.sendall(current[0])
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()

    async def collect() -> None:
        found = await source.collect(config, "anonymous")
        for _ in found.batches:
            pass
        assert "secret" not in json.dumps(found.origin)

    def check(data: bytes) -> None:
        current[0] = data
        loop.run_until_complete(collect())

    return Case(seeds, check)


@fuzzed(
    "report for people",
    "app.reports.page.render, app.reports.pdf.render",
    *("app/reports/page.py", "app/reports/pdf.py"),
    form=Json(words=(b"<b>", b"&amp;", b"\\u202e", b"\\ud800", b"</para>", b"{{", b"{%")),
    refusals=(),
    slow=True,
)
def of_report(kit: Kit) -> Case:
    """Names and reasons from a source appear only as text in HTML and PDF."""
    models = _models()
    origin = {"type": "file", "root": "inbox", "path": "x", "format": "json"}
    seeds = [json.dumps([{**one, "<script>": "x"} for one in RECORDS]).encode()]

    def check(data: bytes) -> None:
        intake = Intake(io.BytesIO(data), LIMITS.max_bytes, dict(origin))
        try:
            batches = parse(intake, "json", LIMITS, delimiter=",", records_path=None)
            processor = Processor(models, Selection(), Collection(batches, dict(origin)))
            for _ in processor.steps():
                pass
        except SourceError:
            return
        result = json.loads(json.dumps(clean(processor.result())))
        rows = [Row(*row) for part in processor.parts for row in json.loads(part)][:200]
        report = document.Report(JOB, result)
        html = page.render(report, rows).decode()
        assert "<script>" not in html
        assert pdf.render(report, rows).startswith(b"%PDF-")

    return Case(seeds, check)

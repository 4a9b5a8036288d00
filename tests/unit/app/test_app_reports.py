"""The report of a finished job in each format, and its safety against hostile sources."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import uuid
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pypdf
import pytest

from app.reports.tables import neutral
from tests.unit.app.appkit import Process, Site, eventually

pytestmark = pytest.mark.docker

NASTY = ["=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "<script>alert(1)</script>"]
WORDS = ["Überfluß", "отзыв", "κριτική"]
FORMS = ("csv", "json", "html", "pdf")
KEYS = {"key-of-the-owner": "owner", "key-of-another": "another"}


def key(value: str = "key-of-the-owner") -> dict[str, str]:
    return {"x-api-key": value}


@pytest.fixture(scope="module")
def web(shared: Site) -> Process:
    entries = [
        {"client": client, "key_sha256": hashlib.sha256(one.encode()).hexdigest()}
        for one, client in KEYS.items()
    ]
    keys = shared.folder / "keys.json"
    keys.write_text(json.dumps(entries))
    shared.command("keys", "sync", str(keys))
    process = shared.serve(AUTH_ENABLED="true", AUTH_CACHE_SECONDS="0")
    process.http.headers.update(key())
    return process


def run(shared: Site, web: Process, name: str, **config: Any) -> str:
    answer = web.http.post(
        "/api/v1/jobs/trigger",
        json={"source_type": "file", "config": {"root": "inbox", "path": name, **config}},
    )
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["job_id"]
    return job


@pytest.fixture(scope="module")
def job(shared: Site, web: Process) -> str:
    """Run a job on hostile records with a real worker; return its id."""
    lines = [{"id": name, "text": "I love it"} for name in NASTY + WORDS]
    text = "\n".join(json.dumps(line) for line in lines)
    text += "\n{broken\n" + '{"id": 1, "text": "a \\u0000 b"}\n'
    (shared.inbox / "=odd <b>.jsonl").write_text(text)
    shared.worker()
    found = run(shared, web, "=odd <b>.jsonl")
    shared.wait_for(web, found, "succeeded")
    return found


def get(web: Process, job: str, form: str, **options: Any) -> Any:
    answer = web.http.get(f"/api/v1/jobs/{job}/report", params={"format": form}, **options)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("form", FORMS)
def test_a11_each_form_has_its_type_a_safe_name_and_the_same_bytes_again(
    web: Process, job: str, form: str
) -> None:
    answer = get(web, job, form)
    expected = {"csv": "text/csv", "html": "text/html", "pdf": "application/pdf"}
    assert answer.headers["content-type"].startswith(expected.get(form, "application/json"))
    assert f'filename="report-{job}.{form}"' in answer.headers["content-disposition"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert get(web, job, form).content == answer.content


def test_a11_csv_holds_every_entry_and_no_formula(web: Process, job: str) -> None:
    text = get(web, job, "csv").text
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    rows = [line for line in table if line["section"] == "row"]
    assert len(rows) == len(NASTY) + len(WORDS) + 2
    assert [row["id"] for row in rows[:6]] == [f"'{name}" for name in NASTY[:6]]
    assert [row["id"] for row in rows[7:10]] == WORDS
    assert [row["error"] for row in rows[-2:]] == ["not JSON", "text not valid"]
    assert {row["sentiment"] for row in rows[:-2]} == {"positive"}
    facts = {(line["part"], line["name"]): line["value"] for line in table}
    assert facts["source", "path"] == "'=odd <b>.jsonl"
    assert facts["records", "collected"] == str(len(rows))
    assert facts["job", "job_id"] == job
    assert facts["sentiment", "version"]
    cells = [cell for line in csv.reader(io.StringIO(text, newline="")) for cell in line]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


@pytest.mark.parametrize("cell", ["=1", " =1", "\n=1", "-1", "\uff1d1"])
def test_a_cell_that_looks_like_a_formula_is_text(cell: str) -> None:
    assert neutral(cell) == f"'{cell}"
    assert neutral(-1) == -1
    assert neutral("a=1") == "a=1"


def test_a11_json_is_the_whole_of_it(web: Process, job: str) -> None:
    found = get(web, job, "json").json()
    assert found["job"]["job_id"] == job
    assert found["records"]["collected"] == len(found["rows"]) == 12
    assert found["errors"]["reasons"] == {"not JSON": 1, "text not valid": 1}
    assert found["rows"][0]["id"] == NASTY[0]
    assert web.http.get(f"/api/v1/jobs/{job}/report").json() == found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_a11_html_is_escaped_and_allows_nothing_else(web: Process, job: str) -> None:
    answer = get(web, job, "html")
    page = _Page()
    page.feed(answer.text)
    assert not {"script", "link", "img", "iframe", "b", "form", "a"} & set(page.tags)
    assert not {"src", "href", "style", "onload"} & {name for name, _ in page.attributes}
    assert "&lt;script&gt;alert(1)" in answer.text
    assert "odd &lt;b&gt;.jsonl" in answer.text
    assert all(word in answer.text for word in WORDS)
    policy = answer.headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_a11_pdf_shows_every_alphabet(web: Process, job: str) -> None:
    reader = pypdf.PdfReader(io.BytesIO(get(web, job, "pdf").content))
    text = "".join(page.extract_text() for page in reader.pages)
    assert job in text
    assert all(word in text for word in WORDS)
    assert "alert(1)" in text


def test_a11_nothing_of_another_clients_job(web: Process, job: str) -> None:
    for form in FORMS:
        path = f"/api/v1/jobs/{job}/report?format={form}"
        assert web.http.get(path, headers=key("key-of-another")).status_code == 404
        assert web.http.get(path, headers=key("nobody's")).status_code == 401
    assert web.http.get(f"/api/v1/jobs/{uuid.uuid4()}/report").status_code == 404


@pytest.mark.parametrize("form", ["xml", "", "CSV", "pdf\r\nx-evil: 1", "../csv"])
def test_a11_an_unknown_format_is_named(web: Process, job: str, form: str) -> None:
    answer = web.http.get(f"/api/v1/jobs/{job}/report", params={"format": form})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "format"


def test_a11_a_job_that_is_not_finished_or_failed(shared: Site, web: Process, job: str) -> None:
    waiting = uuid.uuid4()
    with shared.connect() as connection:
        connection.execute(
            """INSERT INTO jobs (id, client, source_type, payload_version, config, needs,
                   max_attempts) VALUES (%s, 'owner', 'file', 1, '{}', 'root:elsewhere', 5)""",
            (waiting,),
        )
    answer = web.http.get(f"/api/v1/jobs/{waiting}/report?format=csv")
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    failed = run(shared, web, "missing.csv")
    shared.wait_for(web, failed, "failed")
    answer = web.http.get(f"/api/v1/jobs/{failed}/report?format=csv")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "file-not-found"


def test_a_line_break_in_a_name_makes_no_line_of_the_log(
    shared: Site, web: Process, job: str
) -> None:
    """The name must not add a header either: clients choose file names, which appear in errors."""
    failed = run(shared, web, 'x.csv\r\n{"event": "forged"}\r\nset-cookie: a=b', format="csv")
    shared.wait_for(web, failed, "failed")
    answer = web.http.get(f"/api/v1/jobs/{failed}/report")
    assert answer.status_code == 409
    assert "set-cookie" not in answer.headers
    for process in shared.processes:
        assert process.lines()
        assert not process.logged("forged")


@pytest.mark.slow
def test_a11_a_hundred_thousand_rows_are_streamed_in_bounded_memory(
    shared: Site, web: Process, job: str
) -> None:
    count = 100_000
    with (shared.inbox / "large.csv").open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{n},good and bad number {n}\n" for n in range(count))
    worker = shared.processes[-1].popen.pid
    before = peak(worker)
    large = run(shared, web, "large.csv")
    shared.wait_for(web, large, "succeeded", seconds=90)
    assert peak(worker) - before < 80_000, "the worker holds the source in memory"
    webs = children(web.popen.pid)
    first = [peak(pid) for pid in webs]
    with web.http.stream("GET", f"/api/v1/jobs/{large}/report?format=csv") as answer:
        assert answer.status_code == 200
        rows = sum(line.startswith("row,") for line in answer.iter_lines())
    assert rows == count
    assert max(peak(pid) - then for pid, then in zip(webs, first, strict=True)) < 60_000
    for form in ("html", "pdf"):
        assert "large.csv" in get(web, large, form).text or form == "pdf"


def peak(pid: int) -> int:
    """Return the peak memory of a process, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def children(pid: int) -> list[int]:
    text = eventually(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text())
    return [int(child) for child in text.split()]

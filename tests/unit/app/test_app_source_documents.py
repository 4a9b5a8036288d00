"""Files and documents that are broken, change during reading, or expand in memory."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sources.base import Fault, Limits, PermanentSourceError, TransientSourceError
from app.sources.file import FileSource
from app.sources.jsonlist import MAX_DEPTH, JsonList
from app.sources.parse import read_record
from app.sources.schemas import FileConfig
from tests.unit.app.appkit import ROOT

LIMITS = Limits(max_bytes=3_000_000, max_records=50_000, timeout_seconds=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def read(root: Path, path: str, **options: Any) -> list[Any]:
    source = FileSource({"inbox": root}, LIMITS)
    collection = anyio.run(source.collect, FileConfig(root="inbox", path=path, **options), "x")
    return [what for batch in collection.batches for _, what in batch]


def test_b8_every_way_out_of_a_root_looks_as_if_nothing_were_there(root: Path) -> None:
    (root.parent / "secret.csv").write_text("text\nsecret\n")
    (root / "link.csv").symlink_to(root.parent / "secret.csv")
    (root / "up").symlink_to("..")
    (root / "proc.csv").symlink_to("/proc/self/environ")
    os.mkfifo(root / "pipe.csv")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(root / "socket.csv"))
    answers = set()
    for path in ("link.csv", "up/secret.csv", "proc.csv", "pipe.csv", "socket.csv", "nothing.csv"):
        with pytest.raises(PermanentSourceError) as caught:
            read(root, path)
        answers.add((caught.value.code, str(caught.value).replace(path, "PATH")))
    server.close()
    assert len(answers) == 1
    assert answers.pop()[0] == "file-not-found"


@pytest.mark.parametrize("change", ["grow", "shrink", "replace-in-place"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_b8_a_file_that_changes_while_it_is_read_is_tried_again(
    root: Path, change: str, form: str
) -> None:
    path = root / f"a.{form}"
    rows = [{"text": f"record {n} of many"} for n in range(20_000)]
    if form == "csv":
        path.write_text("text\n" + "".join(f"{row['text']}\n" for row in rows))
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    source = FileSource({"inbox": root}, LIMITS)
    collection = anyio.run(source.collect, FileConfig(root="inbox", path=path.name), "x")
    next(collection.batches)
    if change == "grow":
        with path.open("a") as file:
            file.write("x")
    elif change == "shrink":
        os.truncate(path, 100_001)
    else:
        path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(TransientSourceError) as caught:
        list(collection.batches)
    assert caught.value.code == "file-changed"


DEEP = "[" * (MAX_DEPTH + 10) + "]" * (MAX_DEPTH + 10)
OPEN = ("[" * 100_000, "not JSON")
ODD_LINES: list[tuple[str, str | None]] = [
    ('{"text": "fine"}', None),
    ('{"text": "a \\u0000 b"}', None),
    ('{"text": "\\ud800"}', None),
    ('{"text": ' + "9" * 5000 + "}", "not JSON"),
    ('{"text": 1e999}', None),
    ('{"text": ' + DEEP + "}", "too large or too deeply nested"),
    ('{"text": "' + "[" * 500 + '"}', None),
    ('{"text": "' + "x" * 1_000_001 + '"}', "too large or too deeply nested"),
    OPEN,
    ("NaN", "not JSON"),
    ("null", "not a record"),
    ("{'text': 1}", "not JSON"),
]


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    # In a single JSON document, an unclosed value makes the rest unreadable.
    [("jsonl", *odd) for odd in ODD_LINES] + [("json", *odd) for odd in ODD_LINES if odd != OPEN],
)
def test_b8_an_odd_record_is_counted_and_spoils_no_other(
    root: Path, form: str, line: str, reason: str | None
) -> None:
    good = '{"text": "good"}'
    text = f"{good}\n{line}\n{good}\n" if form == "jsonl" else f"[{good}, {line}, {good}]"
    (root / f"a.{form}").write_text(text)
    first, odd, last = read(root, f"a.{form}")
    assert first == last == {"text": "good"}
    assert (odd.reason if isinstance(odd, Fault) else None) == reason


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_b8_bytes_that_are_no_utf8_spoil_their_own_record(root: Path, form: str) -> None:
    texts = {
        "csv": b"text\nfine\nb\xe4d\nfine\n",
        "jsonl": b'{"text": "fine"}\n{"text": "b\xe4d"}\n{"text": "fine"}\n',
        "json": b'["fine", "b\xe4d", "fine"]',
    }
    (root / f"a.{form}").write_bytes(texts[form])
    assert [row["text"] for row in read(root, f"a.{form}")] == ["fine", "b\udce4d", "fine"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


class _Drops(io.StringIO):
    """A text that returns at most three characters per read."""

    def read(self, _size: int | None = -1, /) -> str:
        return super().read(3)


@given(values=st.lists(JSON), indent=st.sampled_from([None, 1]), before=JSON, plain=st.booleans())
def test_entries_are_what_json_says_wherever_the_document_is_cut(
    values: list[Any], indent: int | None, before: Any, plain: bool
) -> None:
    document = {"before": before, "a": {"x": before, "b": values, "y": 1}, "after": before}
    text = json.dumps(document, indent=indent, ensure_ascii=plain)
    found = JsonList(_Drops(text)).entries(["a", "b"])
    assert [json.loads(one) for one in found if one is not None] == values


@given(text=st.text(alphabet='[]{}",:\\ 1a') | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_no_text_hangs_or_breaks_the_reader(text: str) -> None:
    for path in (None, ["a"], []):
        try:
            for entry in JsonList(_Drops(text)).entries(path):
                if entry is not None:
                    read_record(entry)
        except ValueError:
            continue


def test_b8_memory_stays_bounded_whatever_the_document_is(root: Path) -> None:
    """`json` would need hundreds of MB for each of these documents of about 20 MB."""
    (root / "wide.json").write_text("[" + "[[]," * 4_000_000 + "1" + "]" * 4_000_001)
    (root / "large.json").write_text("[[" + "[]," * 1_000_000 + "1]]")
    (root / "many.json").write_text("[" + "{}," * 6_000_000 + "{}]")
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import asyncio, resource, pathlib
from app.sources.base import Limits, SourceError
from app.sources.file import FileSource
from app.sources.schemas import FileConfig
source = FileSource({{"inbox": pathlib.Path({str(root)!r})}}, Limits(30_000_000, 100_000, 5))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in ("wide.json", "large.json", "many.json"):
    found = asyncio.run(source.collect(FileConfig(root="inbox", path=name), "x"))
    try:
        print(sum(len(batch) for batch in found.batches))
    except SourceError as error:
        print(error.code)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    wide, large, many, grown = done.stdout.split()
    assert wide == "bad-json"
    assert large == "no-valid-record"
    assert many == "too-many-records"
    assert int(grown) < 40_000, f"{grown} KiB"

"""How a job processes records: it checks, classifies, sums up and counts each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from app.jobs.processing import NOT_UTF8, Processor, Row
from app.predict.artefacts import load_models
from app.reports import page, pdf
from app.reports.document import COVERAGE, Report, build
from app.sources.base import Collection, Entry, Fault, Limits, PermanentSourceError
from app.sources.encoding import Utf8Watch
from app.sources.file import FileSource
from app.sources.schemas import FileConfig, Selection

MODELS = load_models(Path(__file__).resolve().parents[3] / "app" / "models")


def process(records: list[dict[str, Any]], **selection: Any) -> dict[str, Any]:
    return worked(list(enumerate(records, start=1)), **selection).result()


def worked(entries: list[Entry], **selection: Any) -> Processor:
    batches = iter([entries]) if entries else iter([])
    processor = Processor(MODELS, Selection(**selection), Collection(batches, {"type": "file"}))
    for _ in processor.steps():
        pass
    return processor


def rows(processor: Processor) -> list[Row]:
    return [Row(*row) for part in processor.parts for row in json.loads(part)]


def test_texts_are_found_classified_and_summed_up() -> None:
    texts = ["I love it", "terrible, broken", "", None, "x" * 20_001, "great"]
    result = process([{"Comment": text} for text in texts])
    assert result["sentiment"]["field"] == "Comment"
    assert result["sentiment"]["counts"] == {"negative": 1, "neutral": 0, "positive": 2}
    assert result["sentiment"]["shares"] == {"negative": 0.3333, "neutral": 0.0, "positive": 0.6667}
    assert result["records"]["skipped"] == {"no text": 2, "text too long": 1}
    assert [entry["record"] for entry in result["sample"]] == [0, 1, 5]
    assert "love" not in json.dumps(result)


def test_what_the_model_knows_of_the_texts_is_summed_up_and_reported() -> None:
    processor = worked([(n, {"text": text}) for n, text in enumerate(["I love it", "отзыв", "😀"])])
    result = processor.result()
    assert result["sentiment"]["mean_coverage"] == 0.3333
    assert result["sentiment"]["no_known_word"] == 2
    assert result["sentiment"]["counts"] == {"negative": 0, "neutral": 2, "positive": 1}
    assert [entry["coverage"] for entry in result["sample"]] == [1, 0, 0]
    moments = dict.fromkeys(("created_at", "started_at", "finished_at"))
    report = build({"id": "j", "source_type": "file", "attempts": 1, **moments}, result)
    facts = report.facts()
    assert ("sentiment", "mean_coverage", 0.3333) in facts
    assert ("sentiment", "no_known_word", 2) in facts
    shown = page.render(report, rows(processor)).decode()
    assert "Words that the model knows: 33.3 %" in shown
    assert "Texts without any: 2, counted as neutral." in shown
    assert pdf.render(report, rows(processor)) != pdf.render(_older(report), rows(processor))


def _older(report: Report) -> Report:
    """Return a report as a release without coverage made it."""
    known = report.result["sentiment"].items()
    sentiment = {name: value for name, value in known if name not in COVERAGE}
    return Report(report.job, {**report.result, "sentiment": sentiment})


def test_a_job_of_an_older_release_still_has_its_report() -> None:
    processor = worked([(1, {"text": "I love it"})])
    moments = dict.fromkeys(("created_at", "started_at", "finished_at"))
    row = {"id": "j", "source_type": "file", "attempts": 1, **moments}
    report = _older(build(row, processor.result()))
    assert not [name for _part, name, _value in report.facts() if name in COVERAGE]
    assert "Words that the model knows" not in page.render(report, rows(processor)).decode()


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


def test_each_entry_is_a_row_and_each_error_is_counted_where_it_was() -> None:
    processor = worked(
        [
            (2, {"ID": "=cmd()", "text": "I love it"}),
            (3, Fault("wrong number of columns")),
            (5, {"ID": 10**5000, "text": "\ud800 broken"}),
            (6, {"ID": "x" * 100, "text": "a \x00 b"}),
            (7, {"ID": True, "text": 5}),
        ]
    )
    found = rows(processor)
    assert [(row.record, row.line, row.error) for row in found] == [
        (0, 2, None),
        (1, 3, "wrong number of columns"),
        (2, 5, "text not valid"),
        (3, 6, "text not valid"),
        (4, 7, "no text"),
    ]
    assert [row.id for row in found] == ["=cmd()", None, None, "x" * 80, None]
    assert found[0].sentiment == "positive"
    result = processor.result()
    assert result["records"] == {
        "collected": 5,
        "processed": 4,
        "rejected": 1,
        "skipped": {"text not valid": 2, "no text": 1},
    }
    assert result["errors"]["total"] == 4
    assert result["errors"]["sample"][:2] == [
        {"line": 3, "field": None, "reason": "wrong number of columns"},
        {"line": 5, "field": "text", "reason": "text not valid"},
    ]


def test_two_forms_of_one_text_are_one() -> None:
    result = worked([(1, {"text": " sche\u0301rie "}), (2, {"text": "sch\u00e9rie"})])
    first, second = rows(result)
    assert first.probability == second.probability


def test_rows_are_put_by_in_parts() -> None:
    batch: list[Entry] = [(n, {"text": "good"}) for n in range(250)]
    processor = Processor(MODELS, Selection(), Collection(iter([batch] * 9), {}))
    assert list(processor.steps())[-1] == 2250
    assert [len(json.loads(part)) for part in processor.parts] == [1000, 1000, 250]
    assert processor.result()["sentiment"]["confidence"]["0.9 or more"] in (0, 2250)


# ---------------------------------------------------------------- another encoding
def job(folder: Path, name: str, data: bytes, **selection: Any) -> dict[str, Any]:
    """Return the result of a job that reads a file."""
    (folder / name).write_bytes(data)
    limits = Limits(max_bytes=2_000_000, max_records=100_000, timeout_seconds=5)
    config = FileConfig(root="inbox", path=name, **selection)
    collection = anyio.run(FileSource({"inbox": folder}, limits).collect, config, "billing")
    processor = Processor(MODELS, config, collection)
    assert list(processor.steps())
    return processor.result()


@pytest.mark.parametrize(
    ("name", "text", "line", "offset"),
    [
        ("a.csv", "id,text\n1,fine\n2,schön\n3,grün\n", 3, 20),
        ("a.csv", "id,text\n" + "1,fine\n" * 30_000 + "2,schön\n", 30_002, 210_013),
        ("a.jsonl", '{"text": "fine"}\n{"text": "schön"}\n', 2, 30),
        ("a.json", '["fine",\n "schön"]', 2, 14),
    ],
)
def test_a_source_in_windows_1252_is_refused_with_line_and_byte(
    tmp_path: Path, name: str, text: str, line: int, offset: int
) -> None:
    with pytest.raises(PermanentSourceError) as caught:
        job(tmp_path, name, text.encode("cp1252"))
    assert caught.value.code == "not-utf-8"
    assert str(caught.value) == (
        f"line {line} is not UTF-8, it looks like Windows-1252: byte 0xF6 at offset {offset} "
        "would be 'ö'; save it as UTF-8 (in Excel: CSV UTF-8)"
    )


def test_a_byte_of_no_encoding_is_named_without_a_guess(tmp_path: Path) -> None:
    with pytest.raises(PermanentSourceError, match=r"^line 2 is not UTF-8: byte 0x81 at offset 5;"):
        job(tmp_path, "a.csv", b"text\n\x81\n")


def test_a_header_in_windows_1252_names_its_byte(tmp_path: Path) -> None:
    with pytest.raises(PermanentSourceError, match="line 1 is not UTF-8, it looks like Windows"):
        job(tmp_path, "a.csv", "größe,text\n1,fine\n".encode("cp1252"))


def test_a_damaged_place_in_utf8_spoils_its_own_record(tmp_path: Path) -> None:
    found = job(tmp_path, "a.csv", "text\nschön\n".encode() + b"sch\xf6n\nfine\n")
    assert found["records"]["skipped"] == {NOT_UTF8: 1}
    assert found["sentiment"]["classified"] == 2


def test_fields_that_nobody_classifies_may_be_in_any_encoding(tmp_path: Path) -> None:
    found = job(tmp_path, "a.csv", "name,text\nJörg,fine\n".encode("cp1252"))
    assert found["sentiment"]["classified"] == 1


def test_an_escaped_half_surrogate_does_not_fail_a_job(tmp_path: Path) -> None:
    """An escaped half of a surrogate pair is no invalid byte of the source."""
    found = job(tmp_path, "a.jsonl", b'{"text": "\\udcf6"}\n{"text": "fine"}\n')
    assert found["records"]["skipped"] == {NOT_UTF8: 1}


def test_a_character_that_is_cut_between_two_reads_is_good() -> None:
    watch = Utf8Watch()
    for byte in "fine\nschön 😀".encode():
        watch.feed(bytes([byte]))
    watch.feed(b"")
    assert watch.foreign is None


def test_a_source_that_ends_within_a_character_is_not_utf8() -> None:
    watch = Utf8Watch()
    for part in (b"fine\n", b"sch\xc3", b""):
        watch.feed(part)
    assert watch.foreign is not None
    assert watch.foreign.startswith("line 2 is not UTF-8, it looks like Windows-1252: byte 0xC3")
    assert "at offset 8" in watch.foreign

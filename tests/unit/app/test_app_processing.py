"""What a job makes of records: checked, classified, summed up, each accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.jobs.processing import Processor, Row
from app.predict.artefacts import load_models
from app.reports import page, pdf
from app.reports.document import COVERAGE, Report, build
from app.sources.base import Collection, Entry, Fault, PermanentSourceError
from app.sources.schemas import Selection

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
    """The report of a job that a release ran which knew nothing of coverage."""
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

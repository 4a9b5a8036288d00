"""Process collected records: check, classify and summarise them.

Records come in batches and leave as rows of the report, packed a thousand at a time, so that the
memory of a job hardly grows with its source. An unusable entry also becomes a row with the reason,
and is counted, so that nothing is dropped silently.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from app.db.values import clean
from app.predict.artefacts import Models, Prediction, TabularModel, TextModel
from app.sources.base import Batch, Collection, Fault, PermanentSourceError, Record
from app.sources.schemas import Selection

TEXT_NAMES = ("text", "comment", "review", "message", "body", "content", "sentence", "feedback")
_SAMPLE = 100
_ROWS_IN_PART = 1000
_MAX_ID = 80
_MAX_TEXT = 20_000
_MAX_VALUE = 1e9


NOT_UTF8 = "text not UTF-8: save the source as UTF-8 (in Excel: CSV UTF-8)"
# Columns of the report: jobs' predictions by probability.
BANDS = ((0.9, "0.9 or more"), (0.8, "0.8 to 0.9"), (0.6, "0.6 to 0.8"), (0.0, "below 0.6"))


class Row(NamedTuple):
    """One entry of the source in the report; stored as a list in this order."""

    record: int
    line: int
    id: str | None
    sentiment: str | None
    probability: float | None
    class_: str | None
    class_probability: float | None
    error: str | None


@dataclass(slots=True)
class _Tally:
    """Sums over all predictions of one model."""

    counts: Counter[str] = field(default_factory=Counter)
    bands: Counter[str] = field(default_factory=Counter)
    certainty: float = 0.0
    coverage: float = 0.0
    unknown: int = 0
    scores: float = 0.0

    def add(self, prediction: Prediction) -> None:
        self.counts[prediction.label] += 1
        self.certainty += prediction.probability
        if prediction.coverage is not None:
            self.coverage += prediction.coverage
            self.unknown += not prediction.coverage
        self.bands[next(name for low, name in BANDS if prediction.probability >= low)] += 1

    def summary(self, model: TextModel | TabularModel) -> dict[str, Any]:
        total = self.counts.total()
        return {
            "model": model.name,
            "version": model.version,
            "classified": total,
            "counts": {label: self.counts[label] for label in model.labels},
            "shares": {
                label: round(self.counts[label] / total, 4) if total else 0.0
                for label in model.labels
            },
            "mean_probability": round(self.certainty / total, 4) if total else None,
            "confidence": {name: self.bands[name] for _low, name in BANDS},
        }


@dataclass(slots=True)
class _Errors:
    """Unusable records by reason, with a sample."""

    reasons: Counter[str] = field(default_factory=Counter)
    sample: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: int, reason: str, name: str | None = None) -> str:
        self.reasons[reason] += 1
        if len(self.sample) < _SAMPLE:
            self.sample.append({"line": line, "field": name, "reason": reason})
        return reason


class Processor:
    """Processes one collection in steps, so that its caller can work in between."""

    def __init__(self, models: Models, selection: Selection, collection: Collection) -> None:
        self._models = models
        self._collection = collection
        self._text = selection.text_field
        self._features: Sequence[str] | None = selection.feature_fields
        self._id = selection.id_field
        self._guessed = False
        self._sentiment = _Tally()
        self._tabular = _Tally()
        self._skipped: Counter[str] = Counter()
        self._errors = _Errors()
        self._sample: list[dict[str, Any]] = []
        self._entries = 0
        self._processed = 0
        self._rows: list[Row] = []
        self.parts: list[str] = []

    def _guess_fields(self, records: Sequence[Record]) -> None:
        seen = dict.fromkeys(name for record in records[:50] for name in record)
        by_lower = {name.lower(): name for name in reversed(seen)}
        self._id = self._id or by_lower.get("id")
        if self._text is not None or self._features is not None:
            return
        self._text = next((by_lower[name] for name in TEXT_NAMES if name in by_lower), None)
        wanted = self._models.tabular.features
        if all(name in seen for name in wanted):
            self._features = wanted
        if self._text is None and self._features is None:
            fields = ", ".join(name[:40] for name in list(seen)[:20])
            raise PermanentSourceError(
                "no-usable-field",
                "no field is known to hold text or features; name them in text_field or "
                f"feature_fields (fields seen: {fields})",
            )

    def steps(self) -> Generator[int, None, None]:
        """Process one batch per step; yield the number of records processed so far."""
        with contextlib.closing(_closable(self._collection.batches)) as batches:
            for batch in batches:
                self._batch(batch)
                yield self._processed
        self._pack()

    def _batch(self, batch: Batch) -> None:
        records = [what for _line, what in batch if not isinstance(what, Fault)]
        if records and not self._guessed:
            self._guess_fields(records)
            self._guessed = True
        for line, what in batch:
            if isinstance(what, Fault):
                error = self._errors.add(line, what.reason)
                row = Row(self._entries, line, None, None, None, None, None, error)
            else:
                row = self._one(line, what)
                self._processed += 1
            self._entries += 1
            self._rows.append(row)
        if len(self._rows) >= _ROWS_IN_PART:
            self._pack()

    def _pack(self) -> None:
        """Pack the rows as text, which takes a tenth of their memory as objects."""
        if self._rows:
            self.parts.append(json.dumps(self._rows, separators=(",", ":")))
            self._rows = []

    def _one(self, line: int, record: Record) -> Row:
        errors: list[str] = []
        text = self._classify_text(line, record, errors)
        tabular = self._classify_row(line, record, errors)
        if (text or tabular) and len(self._sample) < _SAMPLE:
            found: dict[str, Any] = {"record": self._entries}
            if text:
                found |= {"sentiment": text.label, "probability": text.probability}
                found["coverage"] = text.coverage
            if tabular:
                found |= {"class": tabular.label, "class_probability": tabular.probability}
            self._sample.append(found)
        return Row(
            self._entries,
            line,
            _identity(record.get(self._id)) if self._id is not None else None,
            text.label if text else None,
            text.probability if text else None,
            tabular.label if tabular else None,
            tabular.probability if tabular else None,
            "; ".join(errors) or None,
        )

    def _classify_text(self, line: int, record: Record, errors: list[str]) -> Prediction | None:
        if self._text is None:
            return None
        text = record.get(self._text)
        reason = _unusable(text)
        if reason is not None or not isinstance(text, str):
            if reason == NOT_UTF8 and (foreign := self._collection.foreign()) is not None:
                # All such texts are affected: fail once instead of rejecting each row.
                raise PermanentSourceError("not-utf-8", foreign)
            errors.append(self._skip(line, reason or "no text", self._text))
            return None
        prediction = self._models.sentiment.predict(text)
        self._sentiment.add(prediction)
        self._sentiment.scores += prediction.probabilities[self._models.sentiment.labels[-1]]
        return prediction

    def _classify_row(self, line: int, record: Record, errors: list[str]) -> Prediction | None:
        if self._features is None:
            return None
        values = _numbers(record, self._features)
        if isinstance(values, str):
            errors.append(self._skip(line, "features not numeric", values))
            return None
        prediction = self._models.tabular.predict(values)
        self._tabular.add(prediction)
        return prediction

    def _skip(self, line: int, reason: str, name: str) -> str:
        self._skipped[reason] += 1
        return self._errors.add(line, reason, name)

    def result(self) -> dict[str, Any]:
        """Return the summary for the client: names and numbers, never a text of the source."""
        errors = self._errors
        result: dict[str, Any] = {
            "source": self._collection.origin,
            "records": {
                "collected": self._entries,
                "processed": self._processed,
                "rejected": self._entries - self._processed,
                "skipped": dict(self._skipped),
            },
            "errors": {
                "total": errors.reasons.total(),
                "reasons": dict(errors.reasons),
                "sample": errors.sample,
            },
        }
        if self._text is not None:
            summary = self._sentiment.summary(self._models.sentiment)
            total = summary["classified"]
            result["sentiment"] = {
                "field": self._text,
                **summary,
                "mean_positive": round(self._sentiment.scores / total, 4) if total else None,
                "mean_coverage": round(self._sentiment.coverage / total, 4) if total else None,
                "no_known_word": self._sentiment.unknown,
            }
        if self._features is not None:
            result["tabular"] = {
                "fields": list(self._features),
                **self._tabular.summary(self._models.tabular),
            }
        result["sample"] = self._sample
        return result


def _closable(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    yield from batches


def _unusable(text: Any) -> str | None:
    if not isinstance(text, str) or not text.strip():
        return "no text"
    if len(text) > _MAX_TEXT:
        return "text too long"
    # NUL, lone surrogates, bytes that are not UTF-8 (mostly a cp1252 export).
    if clean(text) == text:
        return None
    return NOT_UTF8 if any("\udc80" <= one <= "\udcff" for one in text) else "text not valid"


def _identity(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and abs(value) >= 10**_MAX_ID:
        return None  # too long for an id, and slow to convert
    return str(clean(str(value)))[:_MAX_ID]


def _numbers(record: Record, names: Sequence[str]) -> list[float] | str:
    """Return the features, or the name of the first field that is not a number."""
    values: list[float] = []
    for name in names:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return name
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return name
        if not math.isfinite(number) or abs(number) > _MAX_VALUE:
            return name
        values.append(number)
    return values

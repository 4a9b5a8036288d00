"""What happens to collected records: classified one by one, summed up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.predict.artefacts import Models, Prediction, TabularModel, TextModel
from app.sources.base import Collection, PermanentSourceError, Record
from app.sources.schemas import Selection

TEXT_NAMES = ("text", "comment", "review", "message", "body", "content", "sentence", "feedback")
_SAMPLE = 100
_CHUNK = 250
_MAX_TEXT = 20_000
_MAX_VALUE = 1e9


@dataclass(slots=True)
class _Tally:
    """Sums over the predictions of one model."""

    counts: Counter[str] = field(default_factory=Counter)
    certainty: float = 0.0
    scores: float = 0.0

    def add(self, prediction: Prediction) -> None:
        self.counts[prediction.label] += 1
        self.certainty += prediction.probability

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
        }


class Processor:
    """Works through one collection in steps, so that its caller can do other things in between."""

    def __init__(self, models: Models, selection: Selection, collection: Collection) -> None:
        self._models = models
        self._collection = collection
        self._text = selection.text_field
        self._features: Sequence[str] | None = selection.feature_fields
        self._sentiment = _Tally()
        self._tabular = _Tally()
        self._skipped: Counter[str] = Counter()
        self._sample: list[dict[str, Any]] = []
        self._processed = 0
        if self._text is None and self._features is None:
            self._guess_fields()

    def _guess_fields(self) -> None:
        records = self._collection.records
        seen = dict.fromkeys(name for record in records[:50] for name in record)
        by_lower = {name.lower(): name for name in reversed(seen)}
        self._text = next((by_lower[name] for name in TEXT_NAMES if name in by_lower), None)
        wanted = self._models.tabular.features
        if all(name in seen for name in wanted):
            self._features = wanted
        if records and self._text is None and self._features is None:
            fields = ", ".join(name[:40] for name in list(seen)[:20])
            raise PermanentSourceError(
                "no-usable-field",
                "no field is known to hold text or features; name them in text_field or "
                f"feature_fields (fields seen: {fields})",
            )

    def steps(self) -> Iterator[int]:
        """Process a part at a time; yields how many records are done."""
        records = self._collection.records
        for start in range(0, len(records), _CHUNK):
            for offset, record in enumerate(records[start : start + _CHUNK]):
                self._one(start + offset, record)
            self._processed = min(start + _CHUNK, len(records))
            yield self._processed

    def _one(self, index: int, record: Record) -> None:
        found: dict[str, Any] = {}
        if self._text is not None:
            text = record.get(self._text)
            if not isinstance(text, str) or not text.strip():
                self._skipped["no text"] += 1
            elif len(text) > _MAX_TEXT:
                self._skipped["text too long"] += 1
            else:
                prediction = self._models.sentiment.predict(text)
                self._sentiment.add(prediction)
                self._sentiment.scores += prediction.probabilities[
                    self._models.sentiment.labels[-1]
                ]
                found["sentiment"] = prediction.label
                found["probability"] = prediction.probability
        if self._features is not None:
            values = _numbers(record, self._features)
            if values is None:
                self._skipped["features not numeric"] += 1
            else:
                prediction = self._models.tabular.predict(values)
                self._tabular.add(prediction)
                found["class"] = prediction.label
                found["class_probability"] = prediction.probability
        if found and len(self._sample) < _SAMPLE:
            self._sample.append({"record": index, **found})

    def result(self) -> dict[str, Any]:
        """The summary that a client gets; it names fields and numbers, and repeats no text."""
        collection = self._collection
        result: dict[str, Any] = {
            "source": collection.origin,
            "records": {
                "collected": len(collection.records) + collection.rejected,
                "processed": self._processed,
                "rejected": collection.rejected,
                "skipped": dict(self._skipped),
            },
        }
        if self._text is not None:
            summary = self._sentiment.summary(self._models.sentiment)
            total = summary["classified"]
            result["sentiment"] = {
                "field": self._text,
                **summary,
                "mean_positive": round(self._sentiment.scores / total, 4) if total else None,
            }
        if self._features is not None:
            result["tabular"] = {
                "fields": list(self._features),
                **self._tabular.summary(self._models.tabular),
            }
        result["sample"] = self._sample
        return result


def _numbers(record: Record, names: Sequence[str]) -> list[float] | None:
    values: list[float] = []
    for name in names:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if not math.isfinite(number) or abs(number) > _MAX_VALUE:
            return None
        values.append(number)
    return values

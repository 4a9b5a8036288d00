"""Models as plain arrays: read, checked against their sha256, and computed in pure Python.

No pickle, so an artefact can hold nothing but numbers and words; no numpy or scikit-learn in the
image. A test holds the results equal to scikit-learn's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

FORMAT = 1


class ModelError(Exception):
    """A model cannot be used; the service does not start with it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest label and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def _sigmoid(score: float) -> float:
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    weight = math.exp(score)
    return weight / (1.0 + weight)


class _Classifier:
    """What both kinds of model share: labels and the choice of one."""

    def __init__(self, info: dict[str, Any], labels: list[str]) -> None:
        self.info = info
        self.name = str(info["name"])
        self.version = str(info["version"])
        self.labels = labels

    def _prediction(self, probabilities: list[float]) -> Prediction:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return Prediction(
            self.labels[best],
            round(probabilities[best], 6),
            {
                label: round(value, 6)
                for label, value in zip(self.labels, probabilities, strict=True)
            },
        )


class TextModel(_Classifier):
    """TF-IDF over words and pairs of words, then logistic regression with two labels."""

    # scikit-learn's own token pattern: words of two letters or more.
    _token = re.compile(r"(?u)\b\w\w+\b")

    def __init__(self, info: dict[str, Any], artefact: dict[str, Any]) -> None:
        super().__init__(info, [str(label) for label in artefact["labels"]])
        (weights,) = artefact["coefficients"]
        (self._intercept,) = artefact["intercepts"]
        terms, idf = artefact["terms"], artefact["idf"]
        if len(self.labels) != 2 or artefact["ngrams"] != [1, 2]:
            msg = "two labels, words and pairs of words are expected"
            raise ValueError(msg)
        self._terms: dict[str, tuple[float, float]] = dict(
            zip(terms, zip(idf, weights, strict=True), strict=True)
        )
        self.vocabulary_size = len(self._terms)

    def probabilities(self, text: str) -> list[float]:
        """The probability of each label, in the order of `labels`."""
        tokens = self._token.findall(text.lower())
        tokens += [f"{left} {right}" for left, right in pairwise(tokens)]
        terms = self._terms
        counts: dict[str, int] = {}
        for token in tokens:
            if token in terms:
                counts[token] = counts.get(token, 0) + 1
        squares = dot = 0.0
        for token, count in counts.items():
            idf, weight = terms[token]
            value = idf if count == 1 else idf * (1.0 + math.log(count))
            squares += value * value
            dot += value * weight
        score = self._intercept + (dot / math.sqrt(squares) if squares else 0.0)
        positive = _sigmoid(score)
        return [1.0 - positive, positive]

    def predict(self, text: str) -> Prediction:
        """Classify one text."""
        return self._prediction(self.probabilities(text))


class TabularModel(_Classifier):
    """One linear function a label, then softmax."""

    def __init__(self, info: dict[str, Any], artefact: dict[str, Any]) -> None:
        super().__init__(info, [str(label) for label in artefact["labels"]])
        self.features = [str(name) for name in artefact["features"]]
        self._rows = [
            (tuple(row), intercept)
            for row, intercept in zip(artefact["coefficients"], artefact["intercepts"], strict=True)
        ]
        if len(self._rows) != len(self.labels):
            msg = "one row of coefficients for each label is expected"
            raise ValueError(msg)

    def probabilities(self, values: Sequence[float]) -> list[float]:
        """The probability of each label, in the order of `labels`."""
        return _softmax(
            [
                intercept + sum(a * b for a, b in zip(row, values, strict=True))
                for row, intercept in self._rows
            ]
        )

    def predict(self, values: Sequence[float]) -> Prediction:
        """Classify one row of features."""
        return self._prediction(self.probabilities(values))


@dataclass(frozen=True, slots=True)
class Models:
    """Everything that was loaded, and the manifest's words on it."""

    sentiment: TextModel
    tabular: TabularModel
    trained_at: str

    @property
    def all(self) -> tuple[TextModel | TabularModel, ...]:
        """The loaded models."""
        return (self.sentiment, self.tabular)


def _read(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    path = folder / str(entry["file"])
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != entry["sha256"]:
        msg = (
            f"model {entry['name']}: sha256 of {path} is {found}, the manifest says "
            f"{entry['sha256']}; the image is damaged or was altered, load it again"
        )
        raise ModelError(msg)
    artefact: dict[str, Any] = json.loads(data)
    if artefact.get("format") != FORMAT:
        msg = f"model {entry['name']}: format {artefact.get('format')} is not known here"
        raise ModelError(msg)
    return artefact


def load_models(folder: Path) -> Models:
    """Read and check every model of `folder`; anything wrong raises `ModelError`."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        entries = {str(entry["name"]): entry for entry in manifest["models"]}
        sentiment, tabular = entries["sentiment"], entries["iris"]
        return Models(
            TextModel(sentiment, _read(folder, sentiment)),
            TabularModel(tabular, _read(folder, tabular)),
            str(manifest["trained_at"]),
        )
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"the models in {folder} are not usable: {error!r}") from error

"""Read models as plain arrays, check their sha256 and compute them in pure Python.

There is no pickle, so an artefact can hold nothing but numbers and words. The image needs neither
numpy nor scikit-learn. A test checks that the results equal those of scikit-learn.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 2
#: The label of a text without a word that the model knows.
NEUTRAL = "neutral"


class ModelError(Exception):
    """A model is missing, damaged or of another format; the message names the file."""


class Prediction(NamedTuple):
    """The most probable label, and the probability (0 to 1) of each label.

    `coverage` is the share (0 to 1) of a text's words that the model knows; None for numbers.
    """

    label: str
    probability: float
    probabilities: dict[str, float]
    coverage: float | None = None


class Judgement(NamedTuple):
    """The class of a text: label, probabilities in the order of `labels`, share of known words."""

    label: str
    probabilities: list[float]
    coverage: float


def _softmax(scores: Sequence[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


class _Classifier:
    """What both kinds of model share: manifest entry, name, version and labels."""

    def __init__(self, info: dict[str, Any], labels: list[str]) -> None:
        self.info = info
        self.name = str(info["name"])
        self.version = str(info["version"])
        self.labels = labels


class TextModel(_Classifier):
    """Linear classifier of texts: TF-IDF of words and word pairs, seven lexicon features, softmax.

    `scripts/sklearn_models.py` has the same model in scikit-learn; a test checks that both agree.
    """

    def __init__(self, info: dict[str, Any], artefact: dict[str, Any]) -> None:
        super().__init__(info, [str(label) for label in artefact["labels"]])
        self._token = re.compile(artefact["token"])
        rows = artefact["coefficients"]
        terms = artefact["terms"]
        self._lexicon = [row[len(terms) :] for row in rows]
        if len(self.labels) != 3 or {len(row) for row in self._lexicon} != {7}:
            msg = "three labels and seven features of rated words are expected"
            raise ValueError(msg)
        if NEUTRAL not in self.labels:
            msg = f"a label {NEUTRAL!r} is expected, for texts that the model knows nothing of"
            raise ValueError(msg)
        weights = zip(*(row[: len(terms)] for row in rows), strict=True)
        self._terms: dict[str, tuple[float, tuple[float, float, float]]] = dict(
            zip(terms, zip(artefact["idf"], weights, strict=True), strict=True)
        )
        self._intercepts = artefact["intercepts"]
        self._ratings: dict[str, float] = artefact["ratings"]
        self._negations = frozenset(artefact["negations"])
        self._negated_words = int(artefact["negated_words"])
        self._squash = float(artefact["squash"])
        self.vocabulary_size = len(self._terms)

    @staticmethod
    def normalise(text: str) -> str:
        """Return the form of a text that the model reads; equal forms get equal answers."""
        if text.isascii():
            return text.lower()
        # Compose before and after: more pairs have a composed form in lower case (H and a line
        # below). A normalised text must not change when it is normalised again.
        lower = unicodedata.normalize("NFC", text).lower()
        return unicodedata.normalize("NFC", lower).replace("\u2019", "'")

    def judge(self, text: str) -> Judgement:
        """Classify a text; without a known word: `NEUTRAL`, equal probabilities, coverage 0."""
        text = self.normalise(text)
        tokens = self._token.findall(text)
        coverage = self._coverage(tokens)
        if not coverage:
            return Judgement(NEUTRAL, [1 / 3] * 3, 0.0)
        probabilities = self._probabilities(text, tokens)
        return Judgement(
            self.labels[probabilities.index(max(probabilities))], probabilities, coverage
        )

    def _coverage(self, tokens: Sequence[str]) -> float:
        """Return the share (0 to 1) of words that have a weight or a rating.

        Emoticons count as words. Exclamation and question marks do not: every language has them.
        """
        words = [token for token in tokens if token[0] not in "!?"]
        if not words:
            return 0.0
        known = (self._terms, self._ratings, self._negations)
        return sum(any(word in some for some in known) for word in words) / len(words)

    def probabilities(self, text: str) -> list[float]:
        """Return the probability of each label, in the order of `labels`; no neutral rule."""
        text = self.normalise(text)
        return self._probabilities(text, self._token.findall(text))

    def _probabilities(self, text: str, tokens: Sequence[str]) -> list[float]:
        terms = self._terms
        counts: dict[str, int] = {}
        for term in (*tokens, *map(" ".join, pairwise(tokens))):
            if term in terms:
                counts[term] = counts.get(term, 0) + 1
        squares = first = second = third = 0.0
        for term, count in counts.items():
            value, (a, b, c) = terms[term]
            if count > 1:
                value *= 1.0 + math.log(count)
            squares += value * value
            first += value * a
            second += value * b
            third += value * c
        length = math.sqrt(squares) or 1.0
        rated = self._rated(tokens, text.count("!"))
        scores = [
            intercept + dot / length
            for intercept, dot in zip(self._intercepts, (first, second, third), strict=True)
        ]
        if any(rated):
            scores = [
                score + sum(map(mul, row, rated))
                for score, row in zip(scores, self._lexicon, strict=True)
            ]
        return _softmax(scores)

    def _rated(self, tokens: Sequence[str], exclamations: int) -> list[float]:
        """Return the seven lexicon features.

        Squashed sums of ratings (good, bad, negated good, negated bad, their balance), then the
        number of negations and of exclamation marks, scaled to 0 to 1.
        """
        ratings, negations = self._ratings, self._negations
        sums = [0.0, 0.0, 0.0, 0.0]
        count = negated = 0
        for token in tokens:
            if token in negations or token.endswith("n't"):
                count += 1
                negated = self._negated_words
                continue
            rating = ratings.get(token)
            if rating:
                sums[(rating < 0) + (2 if negated else 0)] += rating
            if negated:
                negated -= 1
        sums.append(sums[0] + sums[1] - sums[2] - sums[3])
        squash = self._squash
        squashed = [value and value / math.sqrt(value * value + squash) for value in sums]
        return [*squashed, min(count, 3) / 3, min(exclamations, 4) / 4]

    def predict(self, text: str) -> Prediction:
        """Classify one text; probabilities are rounded to six places."""
        label, probabilities, coverage = self.judge(text)
        rounded = [round(value, 6) for value in probabilities]
        found = dict(zip(self.labels, rounded, strict=True))
        return Prediction(label, found[label], found, round(coverage, 6))


class TabularModel(_Classifier):
    """A linear classifier of four numbers: one linear function per label, then a softmax."""

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
        """Return the probability of each label, in the order of `labels`."""
        return _softmax(
            [
                intercept + sum(a * b for a, b in zip(row, values, strict=True))
                for row, intercept in self._rows
            ]
        )

    def predict(self, values: Sequence[float]) -> Prediction:
        """Classify one row, in the order of `features`; probabilities are rounded to six places."""
        probabilities = self.probabilities(values)
        best = probabilities.index(max(probabilities))
        rounded = [round(value, 6) for value in probabilities]
        return Prediction(
            self.labels[best], rounded[best], dict(zip(self.labels, rounded, strict=True))
        )


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded models, and the training time from their manifest."""

    sentiment: TextModel
    tabular: TabularModel
    trained_at: str

    @property
    def all(self) -> tuple[TextModel | TabularModel, ...]:
        """Return all loaded models."""
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
    """Read and check all models of `folder`; raise `ModelError` if one is not usable."""
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
        kind = type(error).__name__
        raise ModelError(f"the models in {folder} are not usable ({kind})") from error


def try_models(folder: Path) -> Models | ModelError:
    """Return the models, or the error, for a process that reports the error and keeps running."""
    try:
        return load_models(folder)
    except ModelError as error:
        return error

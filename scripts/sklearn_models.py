"""The sentiment and Iris models in scikit-learn's own classes.

The training script fits them. Tests compare the service's results with theirs. The benchmark's
peers serve them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

FOLDER = Path(__file__).resolve().parent.parent / "app" / "models"
Array = np.ndarray[Any, Any]

#: Words with apostrophes, runs of exclamation and question marks, the most common emoticons.
TOKEN = r"\w+(?:'\w+)?|[!?]+|[:;=]['*o-]?[()\[\]dp/\\]"  # noqa: S105 - not a password
#: These words, and those that end in "n't", invert the ratings of the next words.
NEGATIONS = (
    *("aint", "barely", "cannot", "cant", "didnt", "doesnt", "dont", "hardly", "isnt", "neither"),
    *("never", "no", "none", "nor", "not", "nothing", "without", "wont"),
)
NEGATED_WORDS = 3
#: A sum of ratings s becomes s / sqrt(s² + 15), as in VADER, so that long texts do not dominate.
SQUASH = 15.0
LEXICON_FEATURES = (
    *("positive", "negative", "negated_positive", "negated_negative"),
    *("balance", "negations", "exclamations"),
)
_TOKENS = re.compile(TOKEN)


def normalise(text: str) -> str:
    """Return the form of a text that the model reads."""
    lower = unicodedata.normalize("NFC", text).lower()
    return unicodedata.normalize("NFC", lower).replace("\u2019", "'")


def vectorizer(**options: Any) -> TfidfVectorizer:
    """Return TF-IDF over words and word pairs: sublinear counts, rows scaled to length one."""
    return TfidfVectorizer(
        sublinear_tf=True,
        ngram_range=(1, 2),
        preprocessor=normalise,
        token_pattern=TOKEN,
        **options,
    )


def lexicon_features(texts: Sequence[str], ratings: Mapping[str, float]) -> Array:
    """Return the lexicon features of each text; shape (texts, LEXICON_FEATURES)."""
    rows = []
    for text in texts:
        tokens = _TOKENS.findall(normalise(text))
        turned = [token in NEGATIONS or token.endswith("n't") for token in tokens]
        sums = [0.0] * 4
        for at, token in enumerate(tokens):
            rating = 0.0 if turned[at] else ratings.get(token, 0.0)
            negated = any(turned[max(0, at - NEGATED_WORDS) : at])
            sums[2 * negated + (rating < 0)] += rating
        sums.append(sums[0] + sums[1] - sums[2] - sums[3])
        rows.append([*sums, min(sum(turned), 3) / 3, min(text.count("!"), 4) / 4])
    found = np.array(rows)
    found[:, :5] /= np.sqrt(np.square(found[:, :5]) + SQUASH)
    return found


def features(model: TfidfVectorizer, texts: Sequence[str], ratings: Mapping[str, float]) -> Any:
    """Return all features of the sentiment model, as a sparse matrix; one row per text."""
    parts = [model.transform(texts), sparse.csr_matrix(lexicon_features(texts, ratings))]
    return sparse.hstack(parts).tocsr()


def _logistic(data: Mapping[str, Any]) -> LogisticRegression:
    model = LogisticRegression()
    model.classes_ = np.array(data["labels"])
    model.coef_ = np.array(data["coefficients"])
    model.intercept_ = np.array(data["intercepts"])
    return model


class SentimentReference:
    """The committed sentiment model: texts to probabilities."""

    def __init__(self, folder: Path = FOLDER) -> None:
        data: dict[str, Any] = json.loads((folder / "sentiment.json").read_text())
        self.labels: list[str] = data["labels"]
        self._ratings: dict[str, float] = data["ratings"]
        self._vectorizer = vectorizer(vocabulary=data["terms"])
        self._vectorizer.idf_ = np.array(data["idf"])
        self._model = _logistic(data)

    def predict_proba(self, texts: Sequence[str]) -> Array:
        """Return the probability of each label for each text; shape (texts, labels)."""
        found: Array = self._model.predict_proba(features(self._vectorizer, texts, self._ratings))
        return found


class TermsOnly:
    """The sentiment model without lexicon features: plain TF-IDF and logistic regression."""

    def __init__(self, folder: Path = FOLDER) -> None:
        data: dict[str, Any] = json.loads((folder / "sentiment.json").read_text())
        self.labels: list[str] = data["labels"]
        self._vectorizer = vectorizer(vocabulary=data["terms"])
        self._vectorizer.idf_ = np.array(data["idf"])
        self._model = _logistic(data)
        # Keep the memory order of `fit`; in the other order, each prediction copies the array.
        self._model.coef_ = np.asfortranarray(self._model.coef_[:, : len(data["terms"])])

    def predict_proba(self, texts: Sequence[str]) -> Array:
        """Return the probability of each label for each text; shape (texts, labels)."""
        found: Array = self._model.predict_proba(self._vectorizer.transform(texts))
        return found

    def answer(self, text: str) -> dict[str, Any]:
        """Return the peers' answer: label, probability, probabilities by label."""
        (probabilities,) = self.predict_proba([text])
        best = int(probabilities.argmax())
        return {
            "label": self.labels[best],
            "probability": float(probabilities[best]),
            "probabilities": dict(zip(self.labels, map(float, probabilities), strict=True)),
        }


class TabularReference:
    """The committed Iris model: rows of four features to probabilities."""

    def __init__(self, folder: Path = FOLDER) -> None:
        data: dict[str, Any] = json.loads((folder / "iris.json").read_text())
        self.labels: list[str] = data["labels"]
        self._model = _logistic(data)

    def predict_proba(self, rows: Sequence[Sequence[float]]) -> Array:
        """Return the probability of each label for each row; shape (rows, labels)."""
        found: Array = self._model.predict_proba(rows)
        return found

"""Fit and evaluate the sentiment model: TF-IDF and lexicon features, softmax over three labels.

Sentences are rated from -4 to 4. Below -0.5 is negative, above 0.5 positive, otherwise neutral. The
two-class result is the sign of the rating, against the more probable of negative and positive.
Sentences of one document stay in the same fold, as do those that differ only in case and
punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from scripts.sklearn_models import LEXICON_FEATURES, Array, features, vectorizer

LABELS = ("negative", "neutral", "positive")
NEUTRAL = 0.5
FOLDS = 5
SEED = 7
#: Inverse strengths of the regularisation to choose from, inside each training part.
STRENGTHS = (1.0, 2.0, 4.0)
#: The few lexicon columns get less regularisation than the thousands of terms.
LEXICON_SCALE = 4.0


@dataclass(frozen=True)
class Sentences:
    """The data: texts, mean ratings, the set each is from and the document it belongs to."""

    texts: list[str]
    ratings: Array
    sources: Array
    documents: list[str]

    @property
    def classes(self) -> Array:
        """Return the classes: 0 negative, 1 neutral, 2 positive; shape (sentences,)."""
        return (1 + (self.ratings > NEUTRAL) - (self.ratings < -NEUTRAL)).astype(int)

    @property
    def groups(self) -> Array:
        """Return group numbers; sentences with the same number must be in the same fold."""
        plain = [" ".join(re.findall(r"\w+", text.lower())) for text in self.texts]
        count = len(plain)
        nodes = {name: count + n for n, name in enumerate(dict.fromkeys([*plain, *self.documents]))}
        ends = [nodes[name] for names in (plain, self.documents) for name in names]
        starts = [*range(count), *range(count)]
        graph = sparse.coo_matrix(
            (np.ones(len(ends)), (starts, ends)), shape=(count + len(nodes),) * 2
        )
        found: Array = connected_components(graph, directed=False)[1][:count]
        return found

    def part(self, rows: Array) -> Sentences:
        """Return the sentences of these rows."""
        return Sentences(
            [self.texts[row] for row in rows],
            self.ratings[rows],
            self.sources[rows],
            [self.documents[row] for row in rows],
        )


class Plain:
    """The baseline: TF-IDF and logistic regression with scikit-learn's defaults."""

    def fit(self, data: Sentences) -> Plain:
        """Fit the model."""
        self._vectorizer = TfidfVectorizer()
        known = self._vectorizer.fit_transform(data.texts)
        self._three = LogisticRegression(max_iter=300).fit(known, data.classes)
        self._two = LogisticRegression(max_iter=300).fit(known, data.ratings > 0)
        return self

    def judge(self, data: Sentences) -> tuple[Array, Array]:
        """Return probabilities, shape (sentences, 3), and whether each rating is above zero."""
        known = self._vectorizer.transform(data.texts)
        return self._three.predict_proba(known), self._two.predict(known)


class Served:
    """The model that is served."""

    def __init__(self, lexicon: Mapping[str, float]) -> None:
        self.lexicon = lexicon
        self.strength = 0.0

    def fit(self, data: Sentences) -> Served:
        """Choose the regularisation on a held-out part, then fit on everything."""
        split = GroupShuffleSplit(1, test_size=0.2, random_state=SEED)
        inner, held = next(split.split(data.texts, groups=data.groups))
        part, rest = data.part(inner), data.part(held)
        seen = self._prepare(part)
        right = {}
        for strength in STRENGTHS:
            model = self._learn(seen, part.classes, strength)
            right[strength] = model.score(self._scaled(rest.texts), rest.classes)
        self.strength = max(right, key=right.__getitem__)
        self.model = self._learn(self._prepare(data), data.classes, self.strength)
        return self

    def _prepare(self, data: Sentences) -> Any:
        self.vectorizer = vectorizer(min_df=2)
        self.vectorizer.fit(data.texts)
        return self._scaled(data.texts)

    def _scaled(self, texts: Sequence[str]) -> Any:
        return features(self.vectorizer, texts, self.lexicon) @ self._scale()

    def _scale(self) -> Any:
        factors = np.ones(len(self.vectorizer.vocabulary_) + len(LEXICON_FEATURES))
        factors[-len(LEXICON_FEATURES) :] = LEXICON_SCALE
        return sparse.diags(factors)

    def _learn(self, known: Any, classes: Array, strength: float) -> LogisticRegression:
        return LogisticRegression(
            C=strength, solver="sag", max_iter=100, tol=1e-3, random_state=SEED
        ).fit(known, classes)

    def judge(self, data: Sentences) -> tuple[Array, Array]:
        """Return probabilities, shape (sentences, 3), and whether each rating is above zero."""
        found = self.model.predict_proba(self._scaled(data.texts))
        return found, found[:, 2] > found[:, 0]

    def coefficients(self) -> Array:
        """Return coefficients of unscaled features; shape (labels, terms + lexicon features)."""
        found: Array = self.model.coef_ * self._scale().diagonal()
        return found


def accuracies(model: Plain | Served, data: Sentences) -> tuple[float, float, Array]:
    """Return the accuracy on three and on two classes, and the probabilities."""
    found, above = model.judge(data)
    three = float((found.argmax(axis=1) == data.classes).mean())
    return three, float((above == (data.ratings > 0)).mean()), found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation over folds."""
    return {"mean": round(float(np.mean(values)), 4), "sd": round(float(np.std(values)), 4)}


def evaluate(data: Sentences, lexicon: Mapping[str, float]) -> dict[str, Any]:
    """Cross-validate both models on the same folds, and once with each source held out."""
    makers: dict[str, Callable[[], Plain | Served]] = {
        "baseline": Plain,
        "model": lambda: Served(lexicon),
    }
    folds = list(
        GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(data.texts, groups=data.groups)
    )
    results: dict[str, Any] = {"folds": FOLDS}
    probabilities = np.zeros((len(data.texts), len(LABELS)))
    for name, make in makers.items():
        three, two = [], []
        for train, test in folds:
            rest = data.part(test)
            a, b, found = accuracies(make().fit(data.part(train)), rest)
            three.append(a)
            two.append(b)
            probabilities[test] = found
        results[name] = {"three_classes": spread(three), "two_classes": spread(two)}
    results["model"] |= _quality(probabilities, data.classes)
    results["left_out"] = {}
    for source in np.unique(data.sources):
        rest = data.part(np.flatnonzero(data.sources == source))
        learnt = data.part(np.flatnonzero(data.sources != source))
        results["left_out"][str(source)] = {
            name: dict(
                zip(
                    ("three_classes", "two_classes"),
                    (round(value, 4) for value in accuracies(make().fit(learnt), rest)[:2]),
                    strict=True,
                )
            )
            for name, make in makers.items()
        }
    return results


def _quality(probabilities: Array, classes: Array) -> dict[str, Any]:
    """Return the confusion matrix, and the accuracy by band of probability."""
    guesses, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    bins, error = [], 0.0
    for low in np.arange(0.3, 1.0, 0.1):
        chosen = (sure >= low) & (sure < low + 0.1 + (1e-9 if low > 0.85 else 0))
        if chosen.any():
            said, right = float(sure[chosen].mean()), float((guesses == classes)[chosen].mean())
            error += abs(said - right) * float(chosen.mean())
            bins.append(
                {
                    "from": round(float(low), 1),
                    "sentences": int(chosen.sum()),
                    "said": round(said, 4),
                    "right": round(right, 4),
                }
            )
    return {
        "f1_macro": round(float(f1_score(classes, guesses, average="macro")), 4),
        "confusion": confusion_matrix(classes, guesses).tolist(),
        "calibration": bins,
        "calibration_error": round(error, 4),
    }

"""The committed models as scikit-learn computes them: what the service's own arithmetic is held to.

Built from the artefacts' numbers with scikit-learn's classes. The tests compare with it, and the
benchmark's peers serve it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

FOLDER = Path(__file__).resolve().parent.parent / "app" / "models"


class SentimentReference:
    """Texts to probabilities."""

    def __init__(self, folder: Path = FOLDER) -> None:
        data: dict[str, Any] = json.loads((folder / "sentiment.json").read_text())
        self.labels: list[str] = data["labels"]
        self._vectorizer = TfidfVectorizer(
            sublinear_tf=True, ngram_range=(1, 2), vocabulary=data["terms"]
        )
        self._vectorizer.idf_ = np.array(data["idf"])
        self._model = LogisticRegression()
        self._model.classes_ = np.array(data["labels"])
        self._model.coef_ = np.array(data["coefficients"])
        self._model.intercept_ = np.array(data["intercepts"])

    def predict_proba(self, texts: list[str]) -> np.ndarray[Any, Any]:
        """The probabilities of each label for each text, shape (texts, labels)."""
        found: np.ndarray[Any, Any] = self._model.predict_proba(self._vectorizer.transform(texts))
        return found

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from app.predict.artefacts import ModelError, Models, load_models

FOLDER = Path(__file__).resolve().parents[3] / "app" / "models"
LOADED = load_models(FOLDER)


def artefact(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return loaded


def reference() -> tuple[TfidfVectorizer, LogisticRegression]:
    """scikit-learn's own classes with the artefact's numbers."""
    data = artefact("sentiment")
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), vocabulary=data["terms"])
    vectorizer.idf_ = np.array(data["idf"])
    model = LogisticRegression()
    model.classes_ = np.array(data["labels"])
    model.coef_ = np.array(data["coefficients"])
    model.intercept_ = np.array(data["intercepts"])
    return vectorizer, model


VECTORIZER, MODEL = reference()
WORDS = st.sampled_from([*artefact("sentiment")["terms"][::60], "Not", "GOOD!", "naïve", "don't"])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map(" ".join)))
def test_sentiment_equals_scikit_learn(text: str) -> None:
    expected = MODEL.predict_proba(VECTORIZER.transform([text]))[0]
    assert LOADED.sentiment.probabilities(text) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=4, max_size=4))
def test_tabular_equals_scikit_learn(values: list[float]) -> None:
    data = artefact("iris")
    model = LogisticRegression()
    model.classes_ = np.array(data["labels"])
    model.coef_ = np.array(data["coefficients"])
    model.intercept_ = np.array(data["intercepts"])
    expected = model.predict_proba([values])[0]
    assert LOADED.tabular.probabilities(values) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this, it works great", "positive"),
        ("Terrible. It broke after a day and nobody helped.", "negative"),
    ],
)
def test_plain_opinions(text: str, label: str) -> None:
    assert LOADED.sentiment.predict(text).label == label


def test_the_largest_features_that_a_request_may_hold_stay_finite() -> None:
    prediction = LOADED.tabular.predict([1e9, -1e9, 1e9, -1e9])
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_artefacts_hold_no_sentence_of_the_training_data() -> None:
    data = artefact("sentiment")
    assert set(data) == {
        *("format", "kind", "labels", "ngrams", "terms", "idf", "coefficients", "intercepts")
    }
    assert max(len(term.split()) for term in data["terms"]) == 2


def test_the_manifest_says_where_a_model_comes_from() -> None:
    for model in LOADED.all:
        assert {"version", "type", "labels", "metrics", "data", "sha256"} <= set(model.info)
    assert len(LOADED.sentiment.info["data"]["sha256"]) == 64
    assert LOADED.sentiment.info["metrics"]["accuracy"] > 0.75
    assert LOADED.tabular.info["metrics"]["accuracy"] > 0.95


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "models"))


def test_one_changed_byte_is_refused(copied: Path) -> None:
    path = copied / "iris.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    with pytest.raises(ModelError, match=r"sha256 of .*iris\.json is .* the manifest says"):
        load_models(copied)


@pytest.mark.parametrize("name", ["manifest.json", "sentiment.json"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ModelError, match=f"cannot read .*{name}"):
        load_models(copied)


def test_a_manifest_without_a_model_is_refused(copied: Path) -> None:
    (copied / "manifest.json").write_text('{"models": []}')
    with pytest.raises(ModelError, match="not usable"):
        load_models(copied)


def test_loading_twice_gives_the_same() -> None:
    again: Models = load_models(FOLDER)
    assert again.sentiment.probabilities("good") == LOADED.sentiment.probabilities("good")

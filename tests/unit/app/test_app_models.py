from __future__ import annotations

import json
import random
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.predict.artefacts import ModelError, Models, load_models
from scripts import model_card
from scripts.sklearn_models import SentimentReference, TabularReference

FOLDER = Path(__file__).resolve().parents[3] / "app" / "models"
LOADED = load_models(FOLDER)


SENTIMENT, TABULAR = SentimentReference(FOLDER), TabularReference(FOLDER)
ARTEFACT: dict[str, Any] = json.loads((FOLDER / "sentiment.json").read_text())
WORDS = st.sampled_from(
    [
        *ARTEFACT["terms"][::60],
        *list(ARTEFACT["ratings"])[::60],
        *(
            "Not",
            "never",
            "GOOD!",
            "!!!!!",
            "naïve",
            "don't",
            "DON\u2019T",
            ":)",
            "İ",
            "ß",
            "ǅ",
            "\u0130",
        ),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map(" ".join)))
def test_sentiment_equals_scikit_learn(text: str) -> None:
    expected = SENTIMENT.predict_proba([text])[0]
    assert LOADED.sentiment.probabilities(text) == pytest.approx(expected, abs=1e-9)


def test_sentiment_equals_scikit_learn_on_thousands_of_texts() -> None:
    draw = random.Random(11)
    words = [
        *ARTEFACT["terms"],
        *ARTEFACT["ratings"],
        *"!?.,'",
        "\u2019",
        "not",
        "no",
        "isn't",
        "ﬁ",
        "😀",
    ]
    texts = [" ".join(draw.choices(words, k=draw.randrange(60))) for _ in range(3000)]
    # Use any code point except surrogates: a request can hold no others.
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    texts += ["".join(map(chr, draw.choices(points, k=draw.randrange(80)))) for _ in range(2000)]
    expected = SENTIMENT.predict_proba(texts)
    found = np.array([LOADED.sentiment.probabilities(text) for text in texts])
    assert float(np.abs(found - expected).max()) < 1e-9
    assert len(set(found.argmax(axis=1).tolist())) == 3


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=10).map(" ".join)))
def test_a_text_is_one_text_in_whatever_form_it_is_composed(text: str) -> None:
    model = LOADED.sentiment
    normal = model.normalise(text)
    assert model.normalise(normal) == normal
    for form in ("NFC", "NFD"):
        assert model.normalise(unicodedata.normalize(form, text)) == normal


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=4, max_size=4))
def test_tabular_equals_scikit_learn(values: list[float]) -> None:
    expected = TABULAR.predict_proba([values])[0]
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
    assert max(len(term.split()) for term in ARTEFACT["terms"]) == 2
    texts = [name for name, value in ARTEFACT.items() if isinstance(value, str | list | dict)]
    assert {"terms", "idf", "coefficients", "intercepts", "ratings", "negations", "labels"} == {
        *texts
    } - {"kind", "token"}


def test_artefacts_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000


def test_the_manifest_says_where_a_model_comes_from() -> None:
    for model in LOADED.all:
        assert {"version", "type", "labels", "metrics", "data", "sha256"} <= set(model.info)
    assert len(LOADED.sentiment.info["data"]["sha256"]) == 64


def test_the_card_says_what_training_measured() -> None:
    results = json.loads(model_card.RESULTS.read_text())
    card = model_card.CARD.read_text()
    assert f"{model_card.BEGIN}\n{model_card.tables(results)}\n{model_card.END}" in card
    found, info = results["sentiment"], LOADED.sentiment.info
    assert info["metrics"]["accuracy_three_classes"] == found["model"]["three_classes"]["mean"]
    assert info["metrics"]["accuracy_two_classes"] == found["model"]["two_classes"]["mean"]
    assert LOADED.tabular.info["metrics"]["accuracy"] == results["iris"]["accuracy"]["mean"]
    assert info["data"]["sha256"] in card
    # The model must beat the baseline by more than both deviations, or its code is not worth it.
    for kind in ("three_classes", "two_classes"):
        ours, plain = found["model"][kind], found["baseline"][kind]
        assert ours["mean"] - ours["sd"] > plain["mean"] + plain["sd"]


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

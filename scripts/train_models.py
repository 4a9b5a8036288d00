#!/usr/bin/env python3
"""Train the service's models from public data and write them as plain JSON.

Sentiment: the human-rated sentences that the vaderSentiment source distribution carries (Hutto
and Gilbert, 2014; MIT licence), pinned by sha256, with the rated words of its lexicon as one-word
examples; TF-IDF and logistic regression. Tabular: Fisher's Iris data as scikit-learn ships it;
logistic regression.

The artefacts hold arrays and a vocabulary, no sentence and no pickle; `app/predict/artefacts.py`
reads them without scikit-learn. Run it with the development environment:

    .venv/bin/python scripts/train_models.py
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

PACKAGE = "vaderSentiment"
PACKAGE_VERSION = "3.3.2"
PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
SETS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
LEXICON_WEIGHT = 2.0
SEED = 7
VERSION = "1.0.0"


def download(folder: Path) -> bytes:
    """Fetch the source distribution through pip and check it against the pin."""
    pin = folder / "pin.txt"
    pin.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", ":all:", "--require-hashes"),
            *("--requirement", str(pin), "--dest", str(folder)),
        ],
        check=True,
    )
    data = next(folder.glob("*.tar.gz")).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE} {PACKAGE_VERSION}: sha256 is {found}, not {PACKAGE_SHA256}")
    return data


def member(archive: bytes, name: str) -> bytes:
    """One file of a compressed tar, found by the end of its path; nothing is written to disk."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            if info.isfile() and info.name.endswith(name):
                stream = tar.extractfile(info)
                if stream is not None:
                    return stream.read()
    raise SystemExit(f"{name} is not in the archive")


def sentences(archive: bytes) -> tuple[list[str], list[float]]:
    """Sentences and their mean ratings, from -4 (most negative) to 4."""
    inner = member(archive, INNER)
    texts: list[str] = []
    scores: list[float] = []
    for name in SETS:
        raw = member(inner, f"{name}_GroundTruth.txt")
        for line in raw.decode("utf-8-sig", errors="replace").splitlines():
            parts = line.split("\t", 2)
            if len(parts) == 3:
                scores.append(float(parts[1]))
                texts.append(parts[2])
    return texts, scores


def lexicon(archive: bytes) -> tuple[list[str], list[float]]:
    """Words and their mean ratings."""
    words: list[str] = []
    scores: list[float] = []
    raw = member(archive, f"{PACKAGE}/vader_lexicon.txt").decode("utf-8")
    for line in raw.splitlines():
        parts = line.split("\t")
        if len(parts) > 1:
            words.append(parts[0])
            scores.append(float(parts[1]))
    return words, scores


def fit_text(
    texts: list[str], labels: Any, words: list[str], word_labels: Any
) -> tuple[TfidfVectorizer, LogisticRegression]:
    """TF-IDF over words and pairs of words, then logistic regression."""
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=30_000
    )
    # The words count twice, so that each passes `min_df` even if no sentence has it.
    vectorizer.fit(texts + words + words)
    weights = np.concatenate([np.ones(len(texts)), np.full(len(words), LEXICON_WEIGHT)])
    model = LogisticRegression(C=2.0, max_iter=500)
    model.fit(
        vectorizer.transform(texts + words),
        np.concatenate([labels, word_labels]),
        sample_weight=weights,
    )
    return vectorizer, model


def train_sentiment(archive: bytes) -> tuple[dict[str, Any], dict[str, Any], list[str], Any]:
    """The sentiment artefact, what the manifest says of it, and sentences to compare on."""
    texts, scores = sentences(archive)
    words, word_scores = lexicon(archive)
    values = np.array(scores)
    labels = (values > 0).astype(int)
    word_labels = (np.array(word_scores) > 0).astype(int)
    clear = np.abs(values) >= 0.5
    accuracy, f1, accuracy_clear = [], [], []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=SEED).split(texts, labels):
        vectorizer, model = fit_text([texts[i] for i in train], labels[train], words, word_labels)
        guess = model.predict(vectorizer.transform([texts[i] for i in test]))
        accuracy.append(accuracy_score(labels[test], guess))
        f1.append(f1_score(labels[test], guess, average="macro"))
        accuracy_clear.append(accuracy_score(labels[test][clear[test]], guess[clear[test]]))
    vectorizer, model = fit_text(texts, labels, words, word_labels)
    names = [str(name) for name in vectorizer.get_feature_names_out()]
    artefact = {
        "format": 1,
        "kind": "tfidf-logistic",
        "labels": ["negative", "positive"],
        "ngrams": [1, 2],
        "terms": names,
        "idf": shorten(vectorizer.idf_),
        "coefficients": [shorten(row) for row in model.coef_],
        "intercepts": shorten(model.intercept_),
    }
    about = {
        "name": "sentiment",
        "type": "TF-IDF (1-2 words) and logistic regression",
        "labels": artefact["labels"],
        "vocabulary_size": len(names),
        "metrics": {
            "method": "five-fold cross-validation",
            "accuracy": round(float(np.mean(accuracy)), 4),
            "f1_macro": round(float(np.mean(f1)), 4),
            "accuracy_on_clear_sentences": round(float(np.mean(accuracy_clear)), 4),
        },
        "data": {
            "name": "human-rated sentences and words of vaderSentiment (Hutto and Gilbert, 2014)",
            "package": f"{PACKAGE} {PACKAGE_VERSION}",
            "sha256": PACKAGE_SHA256,
            "licence": "MIT",
            "sentences": len(texts),
            "words": len(words),
        },
    }
    sample = texts[::40]
    return artefact, about, sample, model.predict_proba(vectorizer.transform(sample))


def train_tabular() -> tuple[dict[str, Any], dict[str, Any], list[list[float]], Any]:
    """The tabular artefact; the scaler is folded into the coefficients."""
    iris = load_iris()
    data, target = iris.data, iris.target
    accuracy = []
    for train, test in StratifiedKFold(5, shuffle=True, random_state=SEED).split(data, target):
        scaler = StandardScaler().fit(data[train])
        model = LogisticRegression(max_iter=500).fit(scaler.transform(data[train]), target[train])
        accuracy.append(model.score(scaler.transform(data[test]), target[test]))
    scaler = StandardScaler().fit(data)
    model = LogisticRegression(max_iter=500).fit(scaler.transform(data), target)
    coefficients = model.coef_ / scaler.scale_
    intercepts = model.intercept_ - coefficients @ scaler.mean_
    artefact = {
        "format": 1,
        "kind": "linear-softmax",
        "labels": [str(name) for name in iris.target_names],
        "features": ["sepal_length_cm", "sepal_width_cm", "petal_length_cm", "petal_width_cm"],
        "coefficients": [shorten(row, 10) for row in coefficients],
        "intercepts": shorten(intercepts, 10),
    }
    about = {
        "name": "iris",
        "type": "multinomial logistic regression",
        "labels": artefact["labels"],
        "features": artefact["features"],
        "metrics": {
            "method": "five-fold cross-validation",
            "accuracy": round(float(np.mean(accuracy)), 4),
        },
        "data": {"name": "Iris (Fisher, 1936), as in scikit-learn", "rows": len(data)},
    }
    sample = [[float(value) for value in row] for row in data]
    return artefact, about, sample, model.predict_proba(scaler.transform(data))


def shorten(values: Any, digits: int = 7) -> list[float]:
    """Floats with a few significant digits: half the size, the same predictions."""
    return [float(f"{float(value):.{digits}g}") for value in values]


def write(path: Path, value: dict[str, Any], *, indent: int | None = None) -> str:
    """Write JSON that comes out the same for the same values; returns its sha256."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=True, indent=indent, separators=separators) + "\n"
    path.write_text(text, encoding="ascii")
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def main() -> None:
    """Train, compare with what the service will compute, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sdist", type=Path, help="the source distribution, if already at hand")
    parser.add_argument("--date", default=dt.datetime.now(dt.UTC).date().isoformat())
    parser.add_argument("--output", type=Path, default=REPOSITORY / "app" / "models")
    options = parser.parse_args()
    if options.sdist:
        archive = options.sdist.read_bytes()
        if hashlib.sha256(archive).hexdigest() != PACKAGE_SHA256:
            raise SystemExit(f"{options.sdist} is not {PACKAGE} {PACKAGE_VERSION} as pinned")
    else:
        with tempfile.TemporaryDirectory() as folder:
            archive = download(Path(folder))

    from app.predict.artefacts import load_models  # noqa: PLC0415 - needs the path set above

    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, tuple[dict[str, Any], dict[str, Any], Any, Any]] = {
        "sentiment": train_sentiment(archive),
        "iris": train_tabular(),
    }
    entries = []
    for name, (artefact, about, _sample, _expected) in results.items():
        file = f"{name}.json"
        sha256 = write(options.output / file, artefact)
        entries.append({**about, "version": VERSION, "file": file, "sha256": sha256})
    manifest = {
        "format": 1,
        "trained_at": options.date,
        "trained_with": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "models": entries,
    }
    write(options.output / "manifest.json", manifest, indent=1)

    models = load_models(options.output)
    for name, predict in (
        ("sentiment", models.sentiment.probabilities),
        ("iris", models.tabular.probabilities),
    ):
        _artefact, about, sample, expected = results[name]
        served = np.array([predict(value) for value in sample])
        difference = float(np.max(np.abs(served - expected)))
        print(f"{name}: {about['metrics']}, largest difference from scikit-learn {difference:.1e}")
        if difference > 1e-5:
            raise SystemExit(f"{name}: the served model differs from the trained one")


if __name__ == "__main__":
    main()

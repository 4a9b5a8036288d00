#!/usr/bin/env python3
"""Train the service's models from public data and write them as plain JSON: `make train`.

Sentiment: the human-rated sentences in the vaderSentiment source distribution (Hutto and Gilbert,
2014; MIT licence), pinned by sha256, and the rated words of its lexicon; see
`train_sentiment.py`. Tabular: Fisher's Iris data from scikit-learn; logistic regression.

The artefacts contain arrays and a vocabulary, no sentence and no pickle; `app/predict/artefacts.py`
reads them without scikit-learn. The evaluation is written to docs/model_card.json and, as tables,
to docs/MODEL_CARD.md. The same data and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.predict.artefacts import load_models
from bundle.builder import wheels
from scripts import model_card
from scripts.sklearn_models import NEGATED_WORDS, NEGATIONS, SQUASH, TOKEN
from scripts.train_sentiment import FOLDS, LABELS, SEED, Sentences, Served, evaluate, spread

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "vaderSentiment"
PACKAGE_VERSION = "3.3.2"
PACKAGE_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
SETS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
VERSION = "1.0.0"
TRAINED_ON = "2026-11-22"  # changes with the version; today's date would change the bytes


def download(folder: Path) -> bytes:
    """Download the source distribution with pip and check it against the pinned hash."""
    pin = f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n"
    said = wheels.download(pin, folder, "--no-binary", ":all:")
    if said is not None:
        raise SystemExit(f"{PACKAGE} {PACKAGE_VERSION} could not be downloaded:\n{said}")
    data = next(folder.glob("*.tar.gz")).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE} {PACKAGE_VERSION}: sha256 is {found}, not {PACKAGE_SHA256}")
    return data


def member(archive: bytes, name: str) -> bytes:
    """Return one file of a compressed tar, by the end of its path; write nothing to the disk."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            if info.isfile() and info.name.endswith(name):
                stream = tar.extractfile(info)
                if stream is not None:
                    return stream.read()
    raise SystemExit(f"{name} is not in the archive")


def sentences(archive: bytes) -> Sentences:
    """Return sentences with their mean ratings, from -4 (most negative) to 4."""
    inner = member(archive, INNER)
    texts: list[str] = []
    ratings: list[float] = []
    sources: list[str] = []
    documents: list[str] = []
    for name in SETS:
        raw = member(inner, f"{name}_GroundTruth.txt")
        for line in raw.decode("utf-8-sig", errors="replace").splitlines():
            parts = line.split("\t", 2)
            if len(parts) == 3:
                # "287_14" is the 14th sentence of document 287; others are alone.
                document, _, _sentence = parts[0].partition("_")
                ratings.append(float(parts[1]))
                texts.append(parts[2])
                sources.append(name)
                documents.append(f"\t{name} {document}")
    return Sentences(texts, np.array(ratings), np.array(sources), documents)


def lexicon(archive: bytes) -> dict[str, float]:
    """Return words with their mean ratings by ten people, who did not see these sentences."""
    raw = member(archive, f"{PACKAGE}/vader_lexicon.txt").decode("utf-8")
    lines = (line.split("\t") for line in raw.splitlines())
    return {parts[0].lower(): float(parts[1]) for parts in lines if len(parts) > 1}


def train_sentiment(archive: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the sentiment artefact, its manifest entry, and the evaluation."""
    data, ratings = sentences(archive), lexicon(archive)
    results = evaluate(data, ratings)
    final = Served(ratings).fit(data)
    terms = [str(name) for name in final.vectorizer.get_feature_names_out()]
    artefact = {
        "format": 2,
        "kind": "tfidf-lexicon-softmax",
        "labels": list(LABELS),
        "token": TOKEN,
        "terms": terms,
        "idf": shorten(final.vectorizer.idf_),
        "coefficients": [shorten(row) for row in final.coefficients()],
        "intercepts": shorten(final.model.intercept_),
        "ratings": ratings,
        "negations": list(NEGATIONS),
        "negated_words": NEGATED_WORDS,
        "squash": SQUASH,
    }
    about = {
        "name": "sentiment",
        "type": "TF-IDF (1-2 words) and rated words, multinomial logistic regression",
        "labels": artefact["labels"],
        "vocabulary_size": len(terms),
        "metrics": {
            "method": f"{FOLDS}-fold cross-validation, documents and near-duplicates kept together",
            "accuracy_three_classes": results["model"]["three_classes"]["mean"],
            "accuracy_two_classes": results["model"]["two_classes"]["mean"],
            "f1_macro": results["model"]["f1_macro"],
        },
        "data": {
            "name": "human-rated sentences and words of vaderSentiment (Hutto and Gilbert, 2014)",
            "package": f"{PACKAGE} {PACKAGE_VERSION}",
            "sha256": PACKAGE_SHA256,
            "licence": "MIT",
            "sentences": len(data.texts),
            "words": len(ratings),
        },
    }
    return (
        artefact,
        about,
        {
            "strength": final.strength,
            "sources": {
                str(name): int(count)
                for name, count in zip(*np.unique(data.sources, return_counts=True), strict=True)
            },
            "classes": np.bincount(data.classes, minlength=3).tolist(),
            "groups": len(set(data.groups.tolist())),
            **results,
        },
    )


def train_tabular() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the tabular artefact (its coefficients include the scaler), entry and evaluation."""
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
        "format": 2,
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
    return artefact, about, {"rows": len(data), "folds": 5, "accuracy": spread(accuracy)}


def shorten(values: Any, digits: int = 7) -> list[float]:
    """Return floats with few significant digits: half the size, the same predictions."""
    return [float(f"{float(value):.{digits}g}") for value in values]


def write(path: Path, value: dict[str, Any], *, indent: int | None = None) -> str:
    """Write JSON whose bytes depend only on the values; return its sha256."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, ensure_ascii=True, indent=indent, separators=separators) + "\n"
    path.write_text(text, encoding="ascii")
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def fetch(path: Path | None) -> bytes:
    """Return the source distribution: a local file, or downloaded."""
    if path is None:
        with tempfile.TemporaryDirectory() as folder:
            return download(Path(folder))
    archive = path.read_bytes()
    if hashlib.sha256(archive).hexdigest() != PACKAGE_SHA256:
        raise SystemExit(f"{path} is not {PACKAGE} {PACKAGE_VERSION} as pinned")
    return archive


def train(archive: bytes, output: Path, results: Path) -> None:
    """Train, evaluate and write everything; the same data gives the same bytes."""
    output.mkdir(parents=True, exist_ok=True)
    trained = {"sentiment": train_sentiment(archive), "iris": train_tabular()}
    entries = []
    for name, (artefact, about, _) in trained.items():
        sha256 = write(output / f"{name}.json", artefact)
        entries.append({**about, "version": VERSION, "file": f"{name}.json", "sha256": sha256})
    manifest = {
        "format": 2,
        "trained_at": TRAINED_ON,
        "trained_with": {
            "python": platform.python_version(),
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
        },
        "models": entries,
    }
    write(output / "manifest.json", manifest, indent=1)
    write(results, {name: found for name, (_, _, found) in trained.items()}, indent=1)
    load_models(output)


def main() -> None:
    """Train, evaluate, write, and put the numbers into the model card."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sdist", type=Path, help="the source distribution, if already at hand")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "app" / "models")
    parser.add_argument("--results", type=Path, default=model_card.RESULTS)
    options = parser.parse_args()
    train(fetch(options.sdist), options.output, options.results)
    if options.results == model_card.RESULTS:
        model_card.update()


if __name__ == "__main__":
    main()

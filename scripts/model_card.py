"""Write the tables of docs/MODEL_CARD.md from the training results (docs/model_card.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.page_parts import between

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "model_card.json"
CARD = DOCS / "MODEL_CARD.md"
BEGIN, END = "<!-- results: made by scripts/train_models.py -->", "<!-- end of results -->"
LABELS = ("negative", "neutral", "positive")


def tables(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    found = results["sentiment"]
    sides = {"plain TF-IDF and logistic regression": found["baseline"], "served": found["model"]}

    def cell(value: dict[str, float]) -> str:
        return f"{value['mean']:.3f} ± {value['sd']:.3f}"

    lines = [
        f"{found['folds']}-fold cross-validation over {sum(found['classes'])} sentences in "
        f"{found['groups']} groups, mean and standard deviation over the folds:",
        "",
        "| model | three classes | two classes |",
        "|---|---|---|",
        *(
            f"| {name} | {cell(side['three_classes'])} | {cell(side['two_classes'])} |"
            for name, side in sides.items()
        ),
        "",
        "Trained on the other sources, tested on an unseen one (served, in brackets the baseline):",
        "",
        "| unseen source | sentences | three classes | two classes |",
        "|---|---|---|---|",
        *(
            f"| {name} | {found['sources'][name]} | "
            + " | ".join(
                f"{pair['model'][kind]:.3f} ({pair['baseline'][kind]:.3f})"
                for kind in ("three_classes", "two_classes")
            )
            + " |"
            for name, pair in found["left_out"].items()
        ),
        "",
        f"Confusion in the cross-validation (macro F1 {found['model']['f1_macro']:.3f}):",
        "",
        "| people's rating | " + " | ".join(f"model: {label}" for label in LABELS) + " |",
        "|---|---|---|---|",
        *(
            f"| {label} | " + " | ".join(map(str, row)) + " |"
            for label, row in zip(LABELS, found["model"]["confusion"], strict=True)
        ),
        "",
        "Calibration: the share of correct labels, by the probability that the model gave them "
        f"(expected calibration error {found['model']['calibration_error']:.3f}):",
        "",
        "| probability | sentences | mean probability | correct |",
        "|---|---|---|---|",
        *(
            f"| {row['from']:.1f}-{row['from'] + 0.1:.1f} | {row['sentences']} | "
            f"{row['said']:.3f} | {row['right']:.3f} |"
            for row in found["model"]["calibration"]
        ),
        "",
        f"Iris: accuracy {cell(results['iris']['accuracy'])} in {results['iris']['folds']}-fold "
        f"cross-validation over {results['iris']['rows']} flowers.",
    ]
    return "\n".join(lines)


def update() -> None:
    """Write the tables into the card."""
    made = tables(json.loads(RESULTS.read_text()))
    CARD.write_text(between(CARD.read_text(), BEGIN, END, made))

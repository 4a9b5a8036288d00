"""Training is reproducible to the byte, shown with a small archive in the real one's format."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from app.predict.artefacts import load_models
from scripts.train_models import INNER, PACKAGE, SETS
from tests.unit.app.appkit import ROOT

RUN = """
import sys
from pathlib import Path
from scripts.train_models import train
train(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), Path(sys.argv[2]) / "results.json")
"""
WORDS = {"good": 1.9, "great": 3.1, "bad": -2.5, "awful": -2.0}


def _tar(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _archive() -> bytes:
    draw = random.Random(3)
    sets = {}
    for name in SETS:
        lines = []
        for number in range(60):
            words = draw.choices([*WORDS, "film", "phone", "not", "the"], k=6)
            rating = max(-4.0, min(4.0, sum(WORDS.get(word, 0) for word in words) / 3))
            lines.append(f"{number // 3}_{number % 3}\t{rating}\t{' '.join(words)}")
        sets[f"data/{name}_GroundTruth.txt"] = "\n".join(lines).encode()
    lexicon = "".join(f"{word}\t{rating}\t0.5\t[]\n" for word, rating in WORDS.items())
    return _tar({f"x/{INNER}": _tar(sets), f"x/{PACKAGE}/vader_lexicon.txt": lexicon.encode()})


@pytest.mark.slow
def test_b6_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    data = tmp_path / "archive.tar.gz"
    data.write_bytes(_archive())
    made = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RUN, str(data), str(folder)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            check=True,
            timeout=300,
        )
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(made[0]) == {"manifest.json", "sentiment.json", "iris.json", "results.json"}
    assert made[0] == made[1]
    assert load_models(tmp_path / "1").sentiment.predict("great good").label == "positive"

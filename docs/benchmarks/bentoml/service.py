"""A peer of the benchmark: BentoML serving the baseline's model.

Two workers, the rest as it comes: its own metrics, one log line a request with a trace id.
Started by scripts/bench_servers.py with `bentoml serve`.
"""

from __future__ import annotations

from typing import Annotated, Any

import bentoml
from pydantic import Field

from scripts.sklearn_models import TermsOnly

WORKERS = 2


@bentoml.service(workers=WORKERS)
class Sentiment:
    """`POST /predict`, named after the method."""

    def __init__(self) -> None:
        self.model = TermsOnly()

    @bentoml.api
    def predict(
        self, text: Annotated[str, Field(min_length=1, max_length=20_000)]
    ) -> dict[str, Any]:
        """Classify one text."""
        return self.model.answer(text)

"""A peer of the benchmark: LitServe serving the baseline's model.

Two workers and as many HTTP processes (its default), and what its documentation has for production
and for hundreds of requests a second: the log at "warning" (so none of requests), ZeroMQ between
the processes, no client file. Started by scripts/bench_servers.py; the port is the argument.
"""

# LitServe looks at the annotations themselves: no `from __future__ import annotations` here.
import sys
from typing import Any

import litserve as ls
from pydantic import BaseModel, Field

from scripts.sklearn_models import TermsOnly

WORKERS = 2


class PredictRequest(BaseModel):
    """A text."""

    text: str = Field(min_length=1, max_length=20_000)


class Sentiment(ls.LitAPI):
    """`POST /predict`, LitServe's own path."""

    def setup(self, device: str) -> None:
        """Load the model, once in each worker."""
        self.model = TermsOnly()

    def decode_request(self, request: PredictRequest) -> str:
        """Take the text out of a body that was checked."""
        return request.text

    def predict(self, text: str) -> dict[str, Any]:
        """Classify one text."""
        return self.model.answer(text)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Send the answer as it is."""
        return output


if __name__ == "__main__":
    server = ls.LitServer(
        Sentiment(), accelerator="cpu", workers_per_device=WORKERS, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )

"""What the service is measured against: `/predict` as it is usually written.

One `BaseHTTPMiddleware` for request id, metrics and log, slowapi on Redis, pydantic in and out,
scikit-learn in a `def` route. It has no API keys, its metrics are those of one process, and its
model leaves out the features that are not scikit-learn's own: all of it in its favour.
Started by scripts/bench_service.py with gunicorn and uvicorn workers.

Where its CPU goes, found by leaving out one part at a time under the same load: two fifths are
scikit-learn's (checks of its input more than arithmetic), a sixth the middleware's, next to
nothing slowapi's; the rest is FastAPI's, the thread's and uvicorn's. `async def` is no faster.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from prometheus_client import Counter, Histogram
from pydantic import BaseModel, Field
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address
from starlette.middleware.base import BaseHTTPMiddleware

from scripts.sklearn_models import TermsOnly

REQUESTS = Counter("requests_total", "Requests.", ["method", "endpoint", "status"])
LATENCY = Histogram("latency_seconds", "Latency.", ["method", "endpoint"])
log = logging.getLogger("baseline")
log.addHandler(logging.StreamHandler(sys.stdout))
log.setLevel(logging.INFO)
model = TermsOnly()
limiter = Limiter(key_func=get_remote_address, storage_uri=os.environ["REDIS_URL"])


class PredictRequest(BaseModel):
    """A text."""

    text: str = Field(min_length=1, max_length=20_000)


class PredictResponse(BaseModel):
    """What the model says of it."""

    label: str
    probability: float
    probabilities: dict[str, float]


class RequestMiddleware(BaseHTTPMiddleware):
    """Request id, metrics and one log line."""

    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Handle one request."""
        request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
        started = time.perf_counter()
        response = await call_next(request)
        seconds = time.perf_counter() - started
        response.headers["x-request-id"] = request_id
        path, status = request.url.path, response.status_code
        REQUESTS.labels(request.method, path, status).inc()
        LATENCY.labels(request.method, path).observe(seconds)
        log.info(
            json.dumps(
                {
                    "request_id": request_id,
                    "method": request.method,
                    "path": path,
                    "status": status,
                    "duration_ms": round(seconds * 1000, 2),
                }
            )
        )
        return response


app = FastAPI()
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]
app.add_middleware(RequestMiddleware)


@app.post("/predict")
@limiter.limit("100000000/minute")
def predict(request: Request, body: PredictRequest) -> PredictResponse:
    """Classify one text."""
    return PredictResponse(**model.answer(body.text))

"""Prometheus metrics, summed over all processes of a container.

gunicorn's workers share a directory of memory-mapped files (`PROMETHEUS_MULTIPROC_DIR`, which
`gunicorn_conf.py` sets before it imports this module). The worker that answers a scrape merges
them. Each gauge therefore declares how to merge the values of several processes.
"""

from __future__ import annotations

import os
from functools import lru_cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)

MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

if os.environ.get(MULTIPROC_DIR):
    # The library asks for the process id at each change; keep it, and update it after a fork.
    _process = [os.getpid()]
    os.register_at_fork(after_in_child=lambda: _process.__setitem__(0, os.getpid()))
    values.ValueClass = values.MultiProcessValue(lambda: _process[0])  # type: ignore[no-untyped-call]

# Disable the `_created` series: a third of all series, and no dashboard reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter(
    "app_requests_total",
    "Answered requests; endpoint is the route's template.",
    ["method", "endpoint", "http_status"],
)
LATENCY = Histogram(
    "app_request_latency_seconds",
    "Time from the request's head to the answer's last byte.",
    ["method", "endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10),
)
ERRORS = Counter(
    "app_errors_total",
    "Answers of the 5xx class, by the exception or the problem behind them.",
    ["endpoint", "error"],
)
IN_FLIGHT = Gauge(
    "app_requests_in_flight",
    "Requests being answered now.",
    multiprocess_mode="livesum",
)
AUTHENTICATIONS = Counter(
    "app_authentications_total",
    "Checks of an API key, by outcome.",
    ["outcome"],
)
RATE_LIMIT = Counter(
    "app_rate_limit_total",
    "Requests by result of the rate limit: allowed, limited, or unchecked without Redis.",
    ["outcome"],
)
REFUSED = Counter(
    "app_requests_refused_total",
    "Requests refused by a limit of time, size, form or concurrency.",
    ["limit"],
)

PREDICTIONS = Counter(
    "app_predictions_total", "Predictions made, by model and label.", ["model", "label"]
)
PREDICT_CACHE = Counter(
    "app_predict_cache_total", "Lookups in the cache of predictions, by outcome.", ["outcome"]
)
PREDICT_CACHE_BYTES = Gauge(
    "app_predict_cache_bytes",
    "Memory of cached predictions, in all processes.",
    multiprocess_mode="livesum",
)
MODEL_INFO = Gauge(
    "app_model_info",
    "Constant 1 for each loaded model.",
    ["model", "version", "sha256"],
    multiprocess_mode="livemax",
)
BUILD_INFO = Gauge(
    "app_build_info",
    "Constant 1; the labels identify the release.",
    ["version", "revision", "colour"],
    multiprocess_mode="livemax",
)
DEPENDENCY_UP = Gauge(
    "app_dependency_up",
    "Whether the last check of a dependency succeeded.",
    ["dependency"],
    multiprocess_mode="livemostrecent",
)
DRAINING = Gauge("app_draining", "One while this process drains.", multiprocess_mode="livemax")

JOBS_ACCEPTED = Counter("app_jobs_accepted_total", "Jobs recorded, by source.", ["source_type"])
JOBS_FINISHED = Counter(
    "app_jobs_finished_total",
    "Attempts that ended, by source and outcome.",
    ["source_type", "outcome"],
)
JOB_SECONDS = Histogram(
    "app_job_duration_seconds",
    "Duration of one attempt.",
    ["source_type"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
JOBS = Gauge("app_jobs", "Jobs by state.", ["state"], multiprocess_mode="livemostrecent")
QUEUE_AGE = Gauge(
    "app_jobs_queue_age_seconds",
    "Seconds that the longest due job has been waiting.",
    multiprocess_mode="livemostrecent",
)
HINTS = Counter(
    "app_job_hints_total", "Wake-up messages sent through Redis, by outcome.", ["outcome"]
)
LEASES_LOST = Counter(
    "app_job_leases_lost_total", "Jobs whose lease expired because their worker did not respond."
)
JOBS_CANCELLED = Counter("app_jobs_cancelled_total", "Jobs cancelled, by source.", ["source_type"])
WORKER_CONCURRENCY = Gauge(
    "app_worker_concurrency",
    "Maximum of concurrent jobs of this worker; follows the age of the queue.",
    multiprocess_mode="livesum",
)
WORKER_RUNNING = Gauge(
    "app_worker_jobs_running", "Jobs that this worker runs now.", multiprocess_mode="livesum"
)
RECORDS = Counter(
    "app_job_records_total", "Records collected, by source and outcome.", ["source_type", "outcome"]
)


def render() -> bytes:
    """Return the exposition text for all processes of this container."""
    if os.environ.get(MULTIPROC_DIR):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest(REGISTRY)


@lru_cache(maxsize=4096)
def request_series(method: str, endpoint: str, status: int) -> tuple[Counter, Histogram]:
    """Return counter and histogram of one kind of answer, kept to save the look-up of labels."""
    return (
        REQUESTS.labels(method, endpoint, str(status)),
        LATENCY.labels(method, endpoint),
    )


@lru_cache(maxsize=64)
def prediction_series(model: str, label: str) -> Counter:
    """Return the counter of one label of one model."""
    return PREDICTIONS.labels(model, label)

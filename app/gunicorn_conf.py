"""gunicorn's settings; `CMD` of the image names this module."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.listening import addresses
from app.settings import ConfigurationError, get_settings

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
    from gunicorn.workers.base import Worker  # type: ignore[import-untyped]

# Before prometheus_client is imported anywhere: it picks its kind of value by this variable.
multiproc_dir = Path(
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", "/tmp/prom")  # noqa: S108 - a tmpfs
)


def _clear_multiproc_dir() -> None:
    """Files of an earlier run on the same tmpfs would be added to this one's."""
    shutil.rmtree(multiproc_dir, ignore_errors=True)
    multiproc_dir.mkdir(parents=True, exist_ok=True)


try:
    _settings = get_settings()
except ConfigurationError as error:
    from app.observability.logging import configure, get_logger

    configure(service="app")
    get_logger("app").critical("the settings are wrong", reason=str(error))
    sys.exit(2)
_clear_multiproc_dir()

from prometheus_client import multiprocess  # noqa: E402 - after the variable is set

bind = [f"{host}:{_settings.port}" for host in addresses(_settings.listen_networks)]
workers = _settings.web_concurrency
worker_class = "app.serving.ServiceWorker"
logger_class = "app.serving.JsonLogger"
loglevel = _settings.log_level
# One import for all workers: they start at once and share the models' memory.
preload_app = True
# Longer than the proxy keeps an idle connection, or it sends into one that was just closed.
keepalive = 75
# Shorter than the container's stop timeout.
graceful_timeout = 110
timeout = 30
backlog = 2048
# The heartbeat's file: memory, never a disk that may be slow or read-only.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
control_socket_disable = True
# Whose X-Forwarded-For is believed: the edge's, and nobody's where there is none.
forwarded_allow_ips = ",".join(_settings.trusted_proxies)


def when_ready(server: Arbiter) -> None:
    """Freeze what was loaded, so that the collector never touches (and copies) shared pages."""
    gc.freeze()


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Drop the gauges of a worker that is gone; its counters stay, they happened."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

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

# Set this before any import of prometheus_client, which chooses its value class by it.
multiproc_dir = Path(
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", "/tmp/prom")  # noqa: S108 - a tmpfs
)


def _clear_multiproc_dir() -> None:
    """Delete the files of an earlier run: their counts would be added to those of this run."""
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
# Import once for all workers: they start together and share the memory of the models.
preload_app = True
# Keep idle connections longer than the proxy does, or it sends into a connection just closed.
keepalive = 75
# Stay below the container's stop timeout.
graceful_timeout = 110
timeout = 30
backlog = 2048
# The heartbeat file must be in memory: a disk may be slow or read-only.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
control_socket_disable = True
# Trust X-Forwarded-For from the edge only; without an edge, trust nobody.
forwarded_allow_ips = ",".join(_settings.trusted_proxies)


def when_ready(server: Arbiter) -> None:
    """Freeze loaded objects: the garbage collector must not touch (and copy) shared pages."""
    gc.freeze()


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Remove the gauges of an ended worker; keep its counters, because those events happened."""
    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

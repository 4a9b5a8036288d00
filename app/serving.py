"""Worker class and logger that gunicorn uses to run the service."""

from __future__ import annotations

import logging
import sys
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.config import Config as GunicornConfig  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from app.http.protocol import Protocol
from app.observability import logging as app_logging
from app.settings import get_settings


class JsonLogger(Logger):  # type: ignore[misc]
    """Writes gunicorn's messages as JSON lines; the application logs requests itself."""

    def setup(self, cfg: GunicornConfig) -> None:
        """Send all of gunicorn's loggers through one handler."""
        settings = get_settings()
        app_logging.configure(
            settings.log_level, service="app", release=settings.release, colour=settings.colour
        )
        self.loglevel = logging.getLevelNamesMapping()[settings.log_level.upper()]
        self.error_log.handlers = [app_logging.stdlib_handler()]
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = False
        self.access_log.handlers = [logging.NullHandler()]
        self.access_log.propagate = False

    def access(self, *_arguments: Any, **_named: Any) -> None:
        """Do nothing: the application logs each request once."""

    def reopen_files(self) -> None:
        """Do nothing: all logs go to standard output."""


class ServiceWorker(UvicornWorker):  # type: ignore[misc]
    """A uvicorn worker that reports unready as soon as it receives the stop signal."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the form of the parent class
        "loop": "uvloop",
        "http": Protocol,
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        # Keep this below gunicorn's graceful_timeout, so that the end of lifespan still runs.
        "timeout_graceful_shutdown": 105,
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = _DrainingServer(config=self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


class _DrainingServer(Server):
    def handle_exit(self, sig: int, frame: Any) -> None:
        self.config.app.state.drain.start()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)

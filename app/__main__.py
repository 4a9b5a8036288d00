"""The commands of the service's image: `python -m app`.

Exit codes: 0 success, 1 failure, 2 invalid command line or settings.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

from app import key_commands

if TYPE_CHECKING:
    from app.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "healthcheck":
        return _healthcheck(worker=options.worker, live=options.live)
    return _with_settings(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve HTTP with gunicorn (the image's default)")
    commands.add_parser("worker", help="run jobs until SIGTERM")
    migrate = commands.add_parser("migrate", help="bring the database schema up to date")
    migrate.add_argument(
        "--to", type=int, help="schema version to migrate to; the newest by default"
    )
    migrate.add_argument("--wait", type=float, default=30, help="seconds to wait for Postgres")
    keys = commands.add_parser("keys", help="make, revoke and list API keys")
    key_commands.add_commands(keys.add_subparsers(dest="keys_command", required=True))
    _add_jobs(commands.add_parser("jobs", help="list and requeue dead jobs"))
    check = commands.add_parser("healthcheck", help="check this container's readiness")
    check.add_argument("--worker", action="store_true", help="check a worker")
    check.add_argument("--live", action="store_true", help="check liveness instead of readiness")
    drain = commands.add_parser("drain", help="report not ready, finish running work")
    drain.add_argument("--off", action="store_true", help="report ready again")
    return parser


def _job_id(text: str) -> object:
    from uuid import UUID  # noqa: PLC0415 - the health check must not pay for this import

    return UUID(text)


def _add_jobs(jobs: argparse.ArgumentParser) -> None:
    job_commands = jobs.add_subparsers(dest="jobs_command", required=True)
    show = job_commands.add_parser("list-dead", help="print dead jobs as JSON, one per line")
    show.add_argument("--limit", type=int, default=100, help="maximal number of jobs")
    requeue = job_commands.add_parser("requeue", help="requeue dead jobs with all their attempts")
    which = requeue.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--id", type=_job_id, action="append", help="requeue this job; may be repeated"
    )
    which.add_argument(
        "--source-type",
        choices=("api", "database", "file"),
        help="requeue the jobs of this kind of source",
    )
    which.add_argument("--all", action="store_true", help="requeue every dead job")


def _healthcheck(*, worker: bool, live: bool) -> int:
    """Check readiness or liveness; import little, because the check runs every few seconds."""
    name, default = ("WORKER_METRICS_PORT", 8003) if worker else ("PORT", 8000)
    port = int(os.environ.get(name) or default)
    path = "/health/live" if live else "/health/ready"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=4) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
            while part := connection.recv(4096):
                answer += part
    except OSError as error:
        print(f"no answer on port {port}: {error}")
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode("utf-8", "replace"))
    return 0 if head.split(b" ")[1:2] == [b"200"] else 1


def _with_settings(options: argparse.Namespace) -> int:
    if options.command != "serve":
        # Each of these is one process. It must not write to the metric files of gunicorn's workers.
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    from app.observability import logging as app_logging  # noqa: PLC0415 - after the lines above
    from app.settings import ConfigurationError, get_settings  # noqa: PLC0415

    app_logging.configure(service=options.command)
    try:
        settings = get_settings()
    except ConfigurationError as error:
        app_logging.get_logger("app").critical("the settings are wrong", reason=str(error))
        return 2
    app_logging.configure(settings.log_level, service=options.command, release=settings.release)
    return _run(options, settings)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    if options.command == "serve":
        _serve()
        return 0
    from app.db.keys import KeysError  # noqa: PLC0415
    from app.db.pool import DatabaseUnavailableError  # noqa: PLC0415
    from app.jobs import dead  # noqa: PLC0415
    from app.observability.logging import get_logger  # noqa: PLC0415
    from app.predict.artefacts import ModelError  # noqa: PLC0415

    try:
        match options.command:
            case "worker":
                from app.jobs import worker  # noqa: PLC0415

                worker.run(settings)
            case "migrate":
                _migrate(options, settings)
            case "keys":
                key_commands.run(options, settings)
            case "jobs" if options.jobs_command == "list-dead":
                dead.show(settings, max(1, options.limit))
            case "jobs":
                dead.requeue(settings, dead.Which(options.id or (), options.source_type))
            case "drain" if options.off:
                settings.drain_file.unlink(missing_ok=True)
            case "drain":
                settings.drain_file.touch()
    except (
        KeysError,
        dead.DeadJobsError,
        DatabaseUnavailableError,
        ModelError,
        OSError,
    ) as error:
        get_logger("app").critical(f"{options.command} failed", reason=str(error))
        return 1
    return 0


def _serve() -> None:
    # Run gunicorn in this process, so that it receives the signals itself.
    from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]  # noqa: PLC0415

    sys.argv = ["gunicorn", "--config", "python:app.gunicorn_conf", "app.main:create_app()"]
    WSGIApplication("%(prog)s [OPTIONS]", prog="gunicorn").run()


def _migrate(options: argparse.Namespace, settings: Settings) -> None:
    from app.db import migrate  # noqa: PLC0415 - imports alembic and SQLAlchemy

    try:
        migrate.migrate(
            settings, target=migrate.target_of(options.to), connect_seconds=options.wait
        )
    except migrate.MigrationError as error:
        raise OSError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())

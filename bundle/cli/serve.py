"""`bundle serve`: serve a store as a registry, for any client."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.parser import add_command
from bundle.core.text import size
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import DEFAULT_HOME


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "serve",
        _serve,
        about="The playbooks do this themselves. By hand, it lets any registry client read a\n"
        "store: read-only, on 127.0.0.1 only, until Ctrl-C.",
        examples=("serve --store /opt/airlift/store --port 5000",),
    )
    home = os.environ.get("AIRLIFT_HOME", DEFAULT_HOME)
    one.add_argument(
        "--store",
        type=Path,
        default=Path(home, "store"),
        metavar="DIR",
        help=f"store to serve (default: the store of AIRLIFT_HOME, else {DEFAULT_HOME}/store)",
    )
    one.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="port to listen on (default: any free one); its address is printed",
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        message = f"{text!r} is not a port: 0 to 65535"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _serve(arguments: argparse.Namespace) -> Answer:
    from bundle.jumphost.registry import RegistryServer  # noqa: PLC0415 - an HTTP server is slow to load

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    server = RegistryServer(arguments.store, port=arguments.port, log=log)
    try:
        port = server.start()
    except OSError as error:
        raise AirliftError(
            Kind.HOME,
            f"cannot listen on 127.0.0.1:{arguments.port}: {error.strerror}",
            where=str(arguments.store),
            fix="choose another --port, or stop what listens there (ss -ltnp)",
        ) from error
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"127.0.0.1:{port}", flush=True)
    stop.wait()
    server.stop()
    sent = server.bytes_sent
    return Answer(f"{size(sent)} sent", {"bytes_sent": sent, "sent_bytes": sent})

"""``python -m scripts.load``: run a load for some seconds, and print a table of its results."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.load.options import Options
from scripts.load.run import Load


def _mix(text: str) -> dict[str, float]:
    pairs = (pair.partition("=") for pair in text.split(","))
    return {kind: float(weight) for kind, _, weight in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.load",
        description="Send requests at a constant rate, whatever the answers do; none is repeated.",
        epilog="Exit codes: 0 every request had the right answer, 1 some had not, 2 wrong usage.",
    )
    parser.add_argument("--url", required=True, help="root of the site: https://host[:port]")
    parser.add_argument("--ca", type=Path, help="PEM file with the authority to trust")
    parser.add_argument("--key-file", type=Path, help="file with the API key")
    parser.add_argument("--rate", type=float, default=Options.rate, help="requests/s (%(default)g)")
    parser.add_argument("--seconds", type=float, default=30, help="how long (%(default)g)")
    parser.add_argument(
        "--far", type=float, default=Options.far, help="share from far clients (%(default)g)"
    )
    parser.add_argument(
        "--delay", type=float, default=Options.delay, help="seconds to them, one way (%(default)g)"
    )
    parser.add_argument(
        "--slow-every",
        type=float,
        default=Options.slow_every,
        help="seconds between slow requests, 0 for none (%(default)g)",
    )
    parser.add_argument("--mix", type=_mix, help="weights: item=1,predict=1,ready=1,root=1,job=1")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a load; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.seconds <= 0:
        parser.error("--seconds: must be above 0")
    try:
        options = Options(
            arguments.url,
            ca=arguments.ca,
            key=arguments.key_file.read_text().strip() if arguments.key_file else "",
            rate=arguments.rate,
            far=arguments.far,
            delay=arguments.delay,
            slow_every=arguments.slow_every,
            **({"weights": arguments.mix} if arguments.mix else {}),
        )
        options.context()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    # Ctrl-C ends the load early, but the requests sent until then are reported.
    with Load(options) as load, contextlib.suppress(KeyboardInterrupt):
        time.sleep(arguments.seconds)
    print(json.dumps(load.result.as_json(), indent=2) if arguments.json else load.result)
    return 1 if load.result.failed else 0


if __name__ == "__main__":
    sys.exit(main())

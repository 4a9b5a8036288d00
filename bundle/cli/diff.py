"""`bundle diff`: show what changes between two releases."""

from __future__ import annotations

import argparse
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_trust, home_of, trust_of
from bundle.cli.parser import add_command
from bundle.review import diff, diff_text


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "diff",
        _diff,
        about="Compares two releases, from A to B: components, schema and migrations, settings,\n"
        "versions, bytes to carry, bill of materials, vulnerabilities. Each is a bundle\n"
        "(full or delta) or the directory of an imported release. Writes nothing. The\n"
        "exit code is 0 whether they differ or not.",
        examples=("diff /opt/airlift/current /media/usb/airlift-1.1.0-amd64.tar",),
    )
    one.add_argument("a", type=Path, metavar="A", help="the older release, such as the active one")
    one.add_argument("b", type=Path, metavar="B", help="the newer release")
    one.add_argument("-v", "--verbose", action="store_true", help="also list files and packages")
    add_trust(one)


def _diff(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = trust_of(arguments, home)
    a, b = (diff.load(path, trust=trust, home=home) for path in (arguments.a, arguments.b))
    found = diff.compare(a, b)
    return Answer(diff_text.render(found, verbose=arguments.verbose), found)

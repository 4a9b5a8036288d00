"""`bundle prune`: remove what no kept release needs."""

from __future__ import annotations

import argparse

from bundle.cli.answer import Answer
from bundle.cli.options import add_home, home_of, positive
from bundle.cli.parser import add_command
from bundle.core.text import size, table
from bundle.errors import AirliftError, Kind
from bundle.jumphost import prune


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "prune",
        _prune,
        about="Frees disk on the jump host. Keeps the newest accepted releases, at least two,\n"
        "and `current` with its previous release. Without --apply it is a dry run. A\n"
        "site that still runs an older release (see status.yml) needs that one for a\n"
        "repair: name it with --keep-release.",
        examples=("prune", "prune --keep 3 --apply"),
    )
    add_home(one)
    one.add_argument(
        "--keep",
        type=positive,
        default=prune.MINIMUM,
        metavar="N",
        help="number of newest releases to keep (default and minimum: 2)",
    )
    one.add_argument(
        "--keep-release",
        action="append",
        default=[],
        metavar="VERSION",
        help="further release to keep; may be repeated",
    )
    one.add_argument(
        "--apply", action="store_true", help="remove them (default: only list what would go)"
    )


def _prune(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    if not home.accepted.is_dir():
        raise AirliftError(
            Kind.HOME,
            "nothing was imported here",
            where=str(home.root),
            fix="name Airlift's directory with --home",
        )
    run = prune.apply if arguments.apply else prune.plan
    found = run(home, keep=arguments.keep, also=arguments.keep_release)
    done = "removed" if arguments.apply else "would go"
    rows = [
        (f"release {r.version}", f"serial {r.serial}: {'kept' if r in found.kept else done}")
        for r in sorted((*found.kept, *found.releases), key=lambda r: r.serial)
    ]
    left = f"left by an interrupted prune or import: {done}"
    rows += [(path.name, left) for path in found.leftovers]
    rows += [(path.name, "unknown: kept") for path in found.unknown]
    rows.append(("blobs", f"{len(found.blobs)} {done}"))
    rows.append(("disk", f"{size(found.freed)} {'freed' if arguments.apply else 'to be freed'}"))
    hint = "" if arguments.apply else "\n\nDry run: nothing was removed. To remove, add --apply."
    return Answer(
        table(rows) + hint,
        {
            "applied": arguments.apply,
            "kept": [record.version for record in found.kept],
            "releases": [record.version for record in found.releases],
            "leftovers": [path.name for path in found.leftovers],
            "unknown": [path.name for path in found.unknown],
            "blobs": [path.name for path in found.blobs],
            "freed_bytes": found.freed,
        },
    )

"""Commands about what a jump host has, and what a release brings: receipt, diff and prune."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.options import add_home, add_trust, home_of, positive, trust_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import Progress
from bundle.core.output import check_replaces
from bundle.core.text import size, table
from bundle.errors import AirliftError, Kind
from bundle.jumphost import prune, receipt
from bundle.review import diff, diff_text


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to the parser."""
    one = add_command(
        commands,
        "receipt",
        _receipt,
        about="Lists what is here of the releases that were imported, and signs the list with\n"
        "a key of the site. Carried back to the vendor, it makes the next bundle small:\n"
        "build --since site-receipt.json --receipt-signers FILE. Changes nothing here.",
        examples=("receipt -o /media/usb/acme.json --key ~/.ssh/receipt",),
    )
    add_home(one)
    one.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("site-receipt.json"),
        metavar="FILE",
        help="default: site-receipt.json; the signature goes to FILE.sig; carry both",
    )
    one.add_argument(
        "--key",
        type=Path,
        help="the site's private key, or a .pub in ssh-agent (default: AIRLIFT_RECEIPT_KEY)",
    )
    one.add_argument(
        "--hash", action="store_true", help="read every byte, not only look whether it is there"
    )
    one = add_command(
        commands,
        "diff",
        _diff,
        about="Compares two releases, each a bundle (full or delta) or the directory of an\n"
        "imported release, from A to B: components, schema and migrations, settings,\n"
        "versions, bytes to carry, bill of materials, vulnerabilities. Writes nothing,\n"
        "and ends with 0 whether they differ or not.",
        examples=("diff /opt/airlift/current /media/usb/airlift-1.1.0-amd64.tar",),
    )
    one.add_argument("a", type=Path, metavar="A", help="the release that is there")
    one.add_argument("b", type=Path, metavar="B", help="the one that may come")
    one.add_argument("-v", "--verbose", action="store_true", help="list files and packages, too")
    add_trust(one)
    one = add_command(
        commands,
        "prune",
        _prune,
        about="Frees disk on the jump host. Keeps the newest releases that were accepted, at\n"
        "least two, and `current` with the one before it. Only prints what it would do,\n"
        "unless --apply is given. A site that still runs an older release (status.yml\n"
        "shows it) needs that one for a repair: name it with --keep-release.",
        examples=("prune", "prune --keep 3 --apply"),
    )
    add_home(one)
    one.add_argument(
        "--keep", type=positive, default=prune.MINIMUM, metavar="N", help="default and least: 2"
    )
    one.add_argument(
        "--keep-release",
        action="append",
        default=[],
        metavar="VERSION",
        help="keep this one, too; may be repeated",
    )
    one.add_argument("--apply", action="store_true", help="remove; without it, only say what")


def _diff(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = trust_of(arguments, home)
    a, b = (diff.load(path, trust=trust, home=home) for path in (arguments.a, arguments.b))
    found = diff.compare(a, b)
    return Answer(diff_text.render(found, verbose=arguments.verbose), found)


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
    left = f"left by a prune or an import that was killed: {done}"
    rows += [(path.name, left) for path in found.leftovers]
    rows += [(path.name, "unknown here: left alone") for path in found.unknown]
    rows.append(("blobs", f"{len(found.blobs)} {done}"))
    rows.append(("disk", f"{size(found.freed)} {'freed' if arguments.apply else 'to be freed'}"))
    hint = "" if arguments.apply else "\n\nNothing was changed. To do it: the same with --apply"
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


def _receipt(arguments: argparse.Namespace) -> Answer:
    key = arguments.key or next(
        (Path(value) for value in [os.environ.get("AIRLIFT_RECEIPT_KEY")] if value), None
    )
    check_replaces(arguments.output, receipt.BEGINNING, "receipt")
    progress = Progress("hashing")
    try:
        made, notes = receipt.take(home_of(arguments), contents=arguments.hash, progress=progress)
    finally:
        progress.finish()
    line = receipt.write(made, arguments.output, key.expanduser() if key else None)
    releases = [{**release, "members": len(release["members"])} for release in made["releases"]]
    rows = [
        (f"release {release['version']}", f"serial {release['serial']}, {release['members']} files")
        for release in releases
    ]
    rows += [("not listed", note) for note in notes]
    signature = receipt.signature_of(arguments.output)
    return Answer(
        f"{arguments.output} and {signature.name}: what {made['host']} has, signed\n{table(rows)}\n"
        f"\nThe vendor needs in --receipt-signers, sent another way than the receipt:\n  {line}",
        {
            "receipt": str(arguments.output),
            "signature": str(signature),
            "host": made["host"],
            "created": made["created"],
            "hashed": made["hashed"],
            "releases": releases,
            "not_listed": notes,
            "allowed_signers": line,
        },
    )

"""`bundle inspect`: show what is inside a bundle, or in a custody log."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.custody import shown
from bundle.cli.options import add_trust, home_of, required_trust, revoked_of, trust_of
from bundle.cli.parser import add_command
from bundle.cli.terminal import columns
from bundle.core.files import open_regular
from bundle.errors import AirliftError, Kind
from bundle.format.parts import index_of, part_name
from bundle.jumphost import installed
from bundle.jumphost.store import Home
from bundle.review import inspect
from bundle.trust.sshsig import Trust
from bundle.verify import checks

_SIGNED = re.compile(r"manifest\.(json|sig(\.[2-8])?)")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "inspect",
        _inspect,
        about="Shows images, versions, sizes and requirements. Without a list of allowed\n"
        "signers it reports NOT CHECKED: do not use the bundle on that basis.",
        examples=(
            "inspect BUNDLE --allowed-signers allowed_signers",
            "inspect BUNDLE --json",
            "inspect /opt/airlift/current",
        ),
    )
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "bundle", type=Path, nargs="?", help="bundle file, its parts' index, or an imported release"
    )
    what.add_argument(
        "--custody",
        type=Path,
        metavar="FILE",
        help="custody log to show instead, with a check of its chain; add --allowed-signers to "
        "check its signatures",
    )
    one.add_argument(
        "--cat",
        metavar="PATH",
        help="member to write to standard output instead, such as about/dossier.html or "
        "about/sbom/release.cdx.json; it is hashed first, and not written if it was altered",
    )
    add_trust(one)


def _inspect(arguments: argparse.Namespace) -> Answer:
    if arguments.custody is not None:
        return _inspect_custody(arguments)
    home = home_of(arguments)
    if arguments.cat is not None:
        return _cat(arguments, home)
    trust = trust_of(arguments, home)
    if arguments.bundle.is_dir():
        subject = inspect.of_release(installed.known(arguments.bundle, trust=trust, home=home))
    else:
        with checks.opened(arguments.bundle, trust=trust, home=home, to_use=False) as bundle:
            subject = inspect.of_bundle(bundle)
    return Answer(inspect.text(subject, columns(sys.stdout)), inspect.facts(subject))


def _inspect_custody(arguments: argparse.Namespace) -> Answer:
    from bundle.trust import custody  # noqa: PLC0415 - not needed for a bundle

    # Only a list that is named: the one that an import kept is of those who sign bundles.
    signers = arguments.allowed_signers
    trust = Trust(signers, revoked=revoked_of(arguments)) if signers else None
    text, data, problems = shown(arguments.custody, trust)
    if problems:
        print(text, file=sys.stderr)
    custody.refuse(arguments.custody, problems)
    return Answer(text, data)


def _cat(arguments: argparse.Namespace, home: Home) -> Answer:
    if arguments.json:
        raise AirliftError(
            Kind.USAGE,
            "--cat writes the member itself, so it cannot be combined with --json",
            where=f"--cat {arguments.cat}",
            fix="omit one of them",
        )
    if _SIGNED.fullmatch(arguments.cat) and not arguments.bundle.is_dir():
        index = index_of(arguments.bundle)
        words = ["tar", "-xOf", str(arguments.bundle), arguments.cat]
        if index is not None:
            part = index.with_name(part_name(index.stem, 1))
            words = ["tar", "--occurrence=1", "-xOf", str(part), arguments.cat]
        raise AirliftError(
            Kind.USAGE,
            f"{arguments.cat} is not a member: it lists and signs the members",
            where=f"--cat {arguments.cat}",
            fix=f"to write it: {shlex.join(words)}",
        )
    trust = required_trust(arguments, home)
    from bundle.verify import members  # noqa: PLC0415 - needed for --cat only

    if arguments.bundle.is_dir():
        release = installed.known(arguments.bundle, trust=trust, home=home)
        member = members.named(release.manifest.contents, arguments.cat, where=release.folder)
        with open_regular(installed.file_of(release, home, member), member.size) as source:
            members.pour(source)
    else:
        with checks.opened(arguments.bundle, trust=trust, home=home, to_use=False) as bundle:
            members.cat(bundle, arguments.cat)
    return Answer("", {})

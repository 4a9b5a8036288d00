"""`bundle verify`: check a bundle, or an imported release, against its signed manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.cli.answer import Answer
from bundle.cli.options import add_custody, add_trust, home_of, required_trust
from bundle.cli.parser import add_command
from bundle.cli.terminal import GREEN, Progress, columns, paint, searching
from bundle.core.text import facts, size
from bundle.format import delta
from bundle.jumphost.store import Home, now
from bundle.review import inspect
from bundle.trust.sshsig import Verdict
from bundle.verify import checks
from bundle.verify.checks import Accepted

if TYPE_CHECKING:
    from bundle.jumphost.environment import Checked


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "verify",
        _verify,
        about="Run it when a bundle arrives, and whenever you doubt a copy. It reports who\n"
        "signed, with which key, and what is inside. Name the directory of an imported\n"
        "release to check every file of it against its signed manifest.",
        examples=(
            "verify /media/usb/airlift-1.0.0-amd64.tar --allowed-signers allowed_signers",
            "verify BUNDLE --identity release@airlift.example --require-signers 2",
            "verify /opt/airlift/current",
        ),
    )
    one.add_argument(
        "bundle",
        type=Path,
        help="bundle file, the index NAME.parts of its parts, or the directory of an imported "
        "release",
    )
    add_trust(one)
    add_custody(one)


def _verify(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = required_trust(arguments, home)
    progress = Progress("verifying")
    more: dict[str, Any] = {}
    if arguments.bundle.is_dir():
        # Not loaded for a bundle file, which does not need them.
        from bundle.jumphost import environment, installed  # noqa: PLC0415

        found, verdict, accepted = installed.check(
            arguments.bundle, trust=trust, home=home, progress=progress
        )
        made = environment.check(arguments.bundle.resolve())
        # Whatever bundles brought the release, all of it was hashed.
        members, lacks = found.contents, _environment_rows(made)
        more = {"environment": made._asdict()}
    else:
        with checks.opened(arguments.bundle, trust=trust, home=home, searching=searching) as bundle:
            progress.total = bundle.manifest.total_size
            checks.check_members(bundle, progress=progress)
            found, accepted = bundle.manifest, bundle.accepted
            members = found.members
            lacks = [("delta", delta.describe(found))] if found.bases else []
            assert bundle.verdict is not None  # noqa: S101 - `opened` was given a trust
            verdict = bundle.verdict
    seconds = progress.finish()
    total = sum(member.size for member in members)
    judged = _judged(accepted)
    rows = [*inspect.origin(found.data), *inspect.signers(verdict), ("validity", judged)]
    rows += inspect.inside(found.data)
    rows.append(("members", f"{len(members)}, {size(total)}, {seconds:.1f} s"))
    rows += lacks + _accepted_rows(home, accepted)
    valid = paint("VALID", GREEN, sys.stdout)
    title = (
        f"{valid}: airlift {found.version}, serial {found.serial}: every byte is what was signed"
    )
    return Answer(
        f"{title}\n{facts(rows, columns(sys.stdout))}",
        {
            "version": found.version,
            "serial": found.serial,
            "created": found.data["created"],
            "revision": found.data["revision"],
            "architecture": found.data["architecture"],
            "image_source": found.data["image_source"],
            "components": {name: c["version"] for name, c in found.components.items()},
            "absent": found.data["absent"],
            **_trusted(verdict),
            "judged": judged,
            "members": len(members),
            "bytes": total,
            "members_bytes": total,
            "delta": delta.facts(found),
            "seconds": round(seconds, 3),
            "elapsed_seconds": round(seconds, 3),
            "accepted": accepted.accepted if accepted else None,
            **more,
        },
    )


def _judged(accepted: Accepted | None) -> str:
    """Return the time at which key validity was checked: a signature carries none of its own."""
    if accepted is not None:
        return f"keys checked at {accepted.accepted}, when this jump host accepted it"
    return f"keys checked at {now()}, by this machine's clock"


def _environment_rows(made: Checked) -> list[tuple[str, str]]:
    words = f"{made.files} files match the signed wheels, {made.compiled} compiled match sources"
    return [("environment", words), ("not checked", "; ".join(made.not_checked))]


def _trusted(verdict: Verdict) -> dict[str, Any]:
    signers = [signer.as_dict() for signer in verdict.signers]
    return {"signers": signers, "ignored": list(verdict.ignored)}


def _accepted_rows(home: Home, accepted: Accepted | None) -> list[tuple[str, str]]:
    if accepted is None:
        return []
    rows = [("accepted", f"on this jump host at {accepted.accepted}")]
    newest = home.acceptances()[-1]
    if newest.serial > accepted.serial:
        rows.append(("older than", f"{newest.version}, serial {newest.serial}, also accepted here"))
    return rows

"""The command line. `verify.pyz` carries verify, inspect and import; a source tree has more."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import custody, delta, handover, importer, inspect, installed, members, verify
from bundle.errors import AirliftError, Kind
from bundle.report import Progress, size, table
from bundle.sshsig import Trust
from bundle.store import DEFAULT_HOME, Acceptance, Home, write_failed


@dataclass(frozen=True)
class Answer:
    """What a command found out, for people and for machines."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)


Command = Callable[[argparse.Namespace], Answer]


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.run
    try:
        answer = handover.recorded(command, arguments)
    except AirliftError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        what = "stopped; nothing half-done is used"
        return _fail(AirliftError(Kind.INTERRUPTED, what, fix="run it again"), arguments)
    except OSError as error:
        return _fail(write_failed(error, Path.cwd()), arguments)
    if arguments.json:
        print(json.dumps({"ok": True, "command": arguments.command, **answer.data}, indent=1))
    elif answer.text:
        print(answer.text)
    return 0


def _fail(error: AirliftError, arguments: argparse.Namespace) -> int:
    if arguments.json:
        found = {"ok": False, "command": arguments.command, "error": error.as_dict()}
        print(json.dumps(found, indent=1))
    print(f"airlift {arguments.command}: {error}", file=sys.stderr)
    return error.kind.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airlift-bundle",
        description="Checks, shows and imports Airlift bundles. docs/TRUST.md has the rules and "
        "the exit codes.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = add_command(commands, "verify", _verify, "check signatures and every byte; write nothing")
    one.add_argument(
        "bundle",
        type=Path,
        help="bundle file, the index NAME.parts of its parts, or the directory of a release",
    )
    add_trust(one)
    handover.add_options(one)
    one = add_command(commands, "inspect", _inspect, "show what is inside; members are not hashed")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("bundle", type=Path, nargs="?", help="bundle file, or its parts' index")
    what.add_argument(
        "--custody",
        type=Path,
        metavar="FILE",
        help="show who had a bundle when, and check the log's chain; its signatures are checked "
        "with --allowed-signers",
    )
    one.add_argument(
        "--cat",
        metavar="PATH",
        help="write this member to standard output instead, such as about/dossier.html or "
        "about/sbom/release.cdx.json; it is hashed first, and a bad one is not written",
    )
    add_trust(one)
    one = add_command(commands, "import", _import, "verify, store, and make the release current")
    one.add_argument("bundle", type=Path, help="bundle file, or the index NAME.parts of its parts")
    add_trust(one)
    handover.add_options(one)
    # verify.pyz does not carry these.
    if importlib.util.find_spec("bundle.commands") is not None:
        from bundle import commands as more  # noqa: PLC0415 - it imports this module

        more.register(commands)
    return parser


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Command,
    text: str,
) -> argparse.ArgumentParser:
    """Add a subcommand with the options that all have."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.set_defaults(run=run)
    return parser


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whom to believe."""
    home = os.environ.get("AIRLIFT_HOME", DEFAULT_HOME)
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="who may sign; got from the vendor, not from the stick (default: HOME/trust/…)",
    )
    parser.add_argument(
        "--identity",
        action="append",
        default=[],
        metavar="NAME",
        help="accept this signer only; may be repeated",
    )
    parser.add_argument(
        "--require-signers", type=positive, metavar="M", help="different keys that must sign"
    )
    parser.add_argument("--revoked", type=Path, metavar="KRL", help="revoked keys")
    parser.add_argument(
        "--home", type=Path, default=Path(home), metavar="DIR", help=f"default: {home}"
    )


def positive(text: str) -> int:
    """A number of things, from the command line."""
    if not text.isdigit() or int(text) < 1:
        message = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def trust_of(arguments: argparse.Namespace, home: Home) -> Trust | None:
    """Whom the operator named, or whom this jump host knows from its first import."""
    signers, revoked = arguments.allowed_signers, arguments.revoked
    if signers is None and (home.trust / "allowed_signers").is_file():
        signers = home.trust / "allowed_signers"
    if revoked is None and (home.trust / "revoked").is_file():
        revoked = home.trust / "revoked"
    if signers is None:
        return None
    required = max(arguments.require_signers or 1, importer.required_signers(home))
    return Trust(signers, tuple(arguments.identity), revoked, required)


def required_trust(arguments: argparse.Namespace, home: Home) -> Trust:
    """Whom to believe, or a refusal: nothing is used on nobody's word."""
    trust = trust_of(arguments, home)
    if trust is None:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "nobody is trusted yet: there is no list of allowed signers",
            where=str(home.trust / "allowed_signers"),
            fix="--allowed-signers FILE, with the file that the vendor sent another way",
        )
    return trust


def home_of(arguments: argparse.Namespace) -> Home:
    """Airlift's directory, as an absolute path."""
    return Home(Path(os.path.abspath(arguments.home)))  # noqa: PTH100 - keeps symbolic links


def _verify(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = required_trust(arguments, home)
    progress = Progress("verifying")
    if arguments.bundle.is_dir():
        found, verdict, accepted = installed.check(
            arguments.bundle, trust=trust, home=home, progress=progress
        )
        # However it came here, all of it was hashed.
        members, lacks = found.contents, []
    else:
        with verify.opened(arguments.bundle, trust=trust, home=home) as bundle:
            verify.check_members(bundle, progress=progress)
            found, accepted = bundle.manifest, bundle.accepted
            members = found.members
            lacks = [("delta", delta.describe(found))] if found.bases else []
            assert bundle.verdict is not None  # noqa: S101 - `opened` was given a trust
            verdict = bundle.verdict
    seconds = progress.finish()
    rows = [("signed by", str(signer)) for signer in verdict.signers]
    rows += [("not counted", reason) for reason in verdict.ignored]
    total = sum(member.size for member in members)
    rows.append(("members", f"{len(members)}, {size(total)}, {seconds:.1f} s"))
    rows += lacks + _accepted_rows(home, accepted)
    title = f"GOOD: airlift {found.version}, serial {found.serial}: every byte is what was signed"
    return Answer(
        f"{title}\n{table(rows)}",
        {
            "version": found.version,
            "serial": found.serial,
            "signers": [signer.as_dict() for signer in verdict.signers],
            "ignored": list(verdict.ignored),
            "members": len(members),
            "bytes": total,
            "delta": delta.facts(found),
            "seconds": round(seconds, 3),
            "accepted": accepted.accepted if accepted else None,
        },
    )


def _accepted_rows(home: Home, accepted: Acceptance | None) -> list[tuple[str, str]]:
    if accepted is None:
        return []
    rows = [("accepted", f"on this jump host at {accepted.accepted}")]
    newest = home.acceptances()[-1]
    if newest.serial > accepted.serial:
        rows.append(("older than", f"{newest.version}, serial {newest.serial}, accepted here too"))
    return rows


def _inspect(arguments: argparse.Namespace) -> Answer:
    if arguments.custody is not None:
        return _inspect_custody(arguments)
    home = home_of(arguments)
    if arguments.cat is not None:
        return _cat(arguments, home)
    with verify.opened(arguments.bundle, trust=trust_of(arguments, home), home=None) as bundle:
        return Answer(inspect.text(bundle), inspect.facts(bundle))


def _inspect_custody(arguments: argparse.Namespace) -> Answer:
    # Only a list that is named: the one that is kept here is of those who sign bundles.
    signers = arguments.allowed_signers
    trust = Trust(signers, revoked=arguments.revoked) if signers else None
    text, data, problems = handover.shown(arguments.custody, trust)
    if problems:
        print(text, file=sys.stderr)
    custody.refuse(arguments.custody, problems)
    return Answer(text, data)


def _cat(arguments: argparse.Namespace, home: Home) -> Answer:
    if arguments.json:
        raise AirliftError(
            Kind.USAGE,
            "--cat writes the member itself, so there is no answer for --json",
            where=f"--cat {arguments.cat}",
            fix="leave one of them out",
        )
    trust = required_trust(arguments, home)
    with verify.opened(arguments.bundle, trust=trust, home=None) as bundle:
        members.cat(bundle, arguments.cat)
    return Answer("")


def _import(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = required_trust(arguments, home)
    progress = Progress("verifying and storing")
    start = time.monotonic()

    def log(text: str) -> None:
        progress.clear()
        print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        done = importer.run(arguments.bundle, trust=trust, home=home, log=log, progress=progress)
    finally:
        progress.finish()
    data = {
        "version": done.version,
        "serial": done.serial,
        "already_imported": done.already,
        "release": str(done.release),
        "signers": [signer.as_dict() for signer in done.signers],
        "ignored": list(done.ignored),
        "accepted": done.accepted,
        "new_bytes": done.new_bytes,
    }
    state = "is already imported" if done.already else "is imported and current"
    rows = [("trusted", str(signer)) for signer in done.signers]
    rows += [("not counted", reason) for reason in done.ignored]
    rows += [("accepted", done.accepted), ("release", str(done.release))]
    rows.append(("signers", f"{home.trust / 'allowed_signers'}, used from now on"))
    return Answer(
        f"airlift {done.version}, serial {done.serial}, {state}\n{table(rows)}\n\n{_next(home)}",
        data,
    )


def _next(home: Home) -> str:
    sites = sorted(p.name for p in home.sites.iterdir()) if home.sites.is_dir() else []
    lines = ["Next:", f"  cd {home.current}"]
    if not sites:
        example = home.sites / "CLIENT"
        lines.append(f"  mkdir -p {home.sites} && cp -r inventories/example {example}")
        lines.append(f"  # fill in {example}: hosts.yml, group_vars/all/main.yml, vault.yml")
    for site in sites or ["CLIENT"]:
        for verb in ("preflight", "install"):
            playbook = f"playbooks/{verb}.yml"
            lines.append(f"  ./venv/bin/ansible-playbook -i {home.sites / site} {playbook}")
    return "\n".join(lines)

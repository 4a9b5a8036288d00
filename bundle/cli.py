"""The command line. `verify.pyz` carries verify, inspect and import; a source tree has more."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from bundle import delta, inspect, usage, verify
from bundle.errors import AirliftError, Kind
from bundle.report import GREEN, RED, Progress, facts, fold, paint, say, size
from bundle.sshsig import Trust, Verdict
from bundle.store import DEFAULT_HOME, Acceptance, Home, now, required_signers, write_failed
from bundle.usage import COURIER, OPERATOR, add_command

__all__ = ["Answer", "add_command", "add_trust", "main", "make_parser", "trust_of"]


@dataclass(frozen=True)
class Answer:
    """What a command found out, for people and for machines."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)


Command = Callable[[argparse.Namespace], Answer]


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    name = next((word for word in words if not word.startswith("-")), "")
    if not words:
        make_parser().print_help()
        return Kind.USAGE.exit_code
    try:
        with _signals_as_errors():
            arguments = make_parser(only=words[0]).parse_args(words)
            name = arguments.command
            command: Command = arguments.run
            if usage.names_custody(arguments):
                from bundle import handover  # noqa: PLC0415 - seldom asked for, and large

                answer = handover.recorded(command, arguments)
            else:
                answer = command(arguments)
        if arguments.json:
            say(json.dumps({"ok": True, "command": name, **answer.data}, indent=1))
        elif answer.text:
            say(answer.text)
    except AirliftError as error:
        return _fail(error, name, words)
    except KeyboardInterrupt:
        what = "stopped; nothing half-done is used"
        return _fail(AirliftError(Kind.INTERRUPTED, what, fix="run it again"), name, words)
    except OSError as error:
        return _fail(write_failed(error, Path.cwd()), name, words)
    return 0


def _fail(error: AirliftError, command: str, words: list[str]) -> int:
    if "--json" in words:
        found = {"ok": False, "command": command, "error": error.as_dict()}
        say(json.dumps(found, indent=1))
    # What was handed in is refused; other errors are this machine's, or its user's.
    refused = 10 <= error.kind.exit_code < 40
    head = f"airlift {command}".strip() + ": " + ("REFUSED: " if refused else "")
    # The lines after the first hold commands: those stay in one piece, for whoever copies them.
    what, *rest = str(error).split("\n")
    said = fold(head + what, sys.stderr).replace("REFUSED:", paint("REFUSED:", RED, sys.stderr), 1)
    say("\n".join((said, *rest)), sys.stderr)
    return error.kind.exit_code


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """Let `kill` and a closed terminal end a command as Ctrl-C does, with its cleaning up."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup it stays ignored.
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_parser(only: str = "") -> usage.Top:
    """All commands with their options, as `main` understands them.

    If only one of those that `verify.pyz` carries is wanted, the others are not loaded: on a jump
    host that would be a tenth of the time of a verification.
    """
    parser = usage.Top(
        prog=usage.program(),
        description="Airlift bundles: a release in one signed file, for a place with no internet.",
    )
    commands: Any = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=usage.Parser
    )
    parser.commands = commands
    one = add_command(
        commands,
        "verify",
        _verify,
        "check signatures and every byte; write nothing",
        role=COURIER,
        about="Run it when a bundle arrives, and whenever you doubt a copy. It says who signed,\n"
        "with which key, and what is inside. A release that was imported is checked\n"
        "against its signed manifest, file by file, when you name its directory.",
        examples=(
            "verify /media/usb/airlift-1.0.0-amd64.tar --allowed-signers allowed_signers",
            "verify BUNDLE --identity release@airlift.example --require-signers 2",
            "verify /opt/airlift/current",
        ),
    )
    one.add_argument(
        "bundle",
        type=Path,
        help="bundle file, the index NAME.parts of its parts, or the directory of a release",
    )
    add_trust(one)
    usage.add_custody(one)
    one = add_command(
        commands,
        "inspect",
        _inspect,
        "show what is inside; members are not hashed",
        role=COURIER,
        about="A quick look at images, versions, sizes and needs. Without a list of signers\n"
        "it says NOT CHECKED, and is good for looking only.",
        examples=("inspect BUNDLE --allowed-signers allowed_signers", "inspect BUNDLE --json"),
    )
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
    one = add_command(
        commands,
        "import",
        _import,
        "verify, store, and make the release current",
        role=OPERATOR,
        about="Everything that `verify` does, in the same pass in which the bundle is stored;\n"
        "nothing of it is used before all of it is good. Killed or short of disk, the\n"
        "same command continues. The first import keeps the list of signers.",
        examples=(
            "import /media/usb/airlift-1.0.0-amd64.tar --allowed-signers allowed_signers",
            "import /media/usb/airlift-1.1.0-since-1.0.0-amd64.tar",
        ),
    )
    one.add_argument("bundle", type=Path, help="bundle file, or the index NAME.parts of its parts")
    add_trust(one)
    usage.add_custody(one)
    add_command(
        commands,
        "exit-codes",
        lambda _: Answer(usage.exit_codes()[0], {"exit_codes": usage.exit_codes()[1]}),
        "list what each exit code means",
        role=usage.ANYBODY,
    )
    if only in commands.choices:
        return parser
    # verify.pyz does not carry these.
    if importlib.util.find_spec("bundle.commands") is not None:
        from bundle import commands as more  # noqa: PLC0415 - it imports this module

        more.register(commands)
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
    parser.add_argument(
        "--revoked", type=Path, metavar="FILE", help="revoked keys: a KRL, or one public key a line"
    )
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
    required = max(arguments.require_signers or 1, required_signers(home))
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
        from bundle import installed  # noqa: PLC0415 - a bundle's file needs nothing of it

        found, verdict, accepted = installed.check(
            arguments.bundle, trust=trust, home=home, progress=progress
        )
        # However it came here, all of it was hashed.
        members, lacks = found.contents, []
    else:
        with verify.opened(arguments.bundle, trust=trust, home=home) as bundle:
            progress.total = bundle.manifest.total_size
            verify.check_members(bundle, progress=progress)
            found, accepted = bundle.manifest, bundle.accepted
            members = found.members
            lacks = [("delta", delta.describe(found))] if found.bases else []
            assert bundle.verdict is not None  # noqa: S101 - `opened` was given a trust
            verdict = bundle.verdict
    seconds = progress.finish()
    total = sum(member.size for member in members)
    judged = _judged(accepted)
    rows = [*inspect.origin(found.data), *inspect.signers(verdict), ("judged", judged)]
    rows += inspect.inside(found.data)
    rows.append(("members", f"{len(members)}, {size(total)}, {seconds:.1f} s"))
    rows += lacks + _accepted_rows(home, accepted)
    good = paint("GOOD", GREEN, sys.stdout)
    title = f"{good}: airlift {found.version}, serial {found.serial}: every byte is what was signed"
    return Answer(
        f"{title}\n{facts(rows)}",
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
            "delta": delta.facts(found),
            "seconds": round(seconds, 3),
            "accepted": accepted.accepted if accepted else None,
        },
    )


def _judged(accepted: Acceptance | None) -> str:
    """At which time the keys' dates were looked at: a signature carries none of its own."""
    if accepted is not None:
        return f"keys as of {accepted.accepted}, when this jump host accepted it"
    return f"keys as of {now()}, by this machine's clock"


def _trusted(verdict: Verdict) -> dict[str, Any]:
    signers = [signer.as_dict() for signer in verdict.signers]
    return {"signers": signers, "ignored": list(verdict.ignored)}


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
    from bundle import custody, handover  # noqa: PLC0415 - as above

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
    from bundle import members  # noqa: PLC0415 - as above

    with verify.opened(arguments.bundle, trust=trust, home=None) as bundle:
        members.cat(bundle, arguments.cat)
    return Answer("")


def _import(arguments: argparse.Namespace) -> Answer:
    home = home_of(arguments)
    trust = required_trust(arguments, home)
    from bundle import importer  # noqa: PLC0415 - `verify` needs nothing of it

    progress = Progress("verifying and storing", _length(arguments.bundle))
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
        f"airlift {done.version}, serial {done.serial}, {state}\n{facts(rows)}\n\n{_next(home)}",
        data,
    )


def _length(path: Path) -> int:
    """About what there is to read; whether it is a bundle is asked later."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


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

"""Options that several commands have: whom to believe, Airlift's directory, the custody log."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.errors import AirliftError, Kind
from bundle.jumphost.kept_trust import RESTORE, as_strict
from bundle.jumphost.store import DEFAULT_HOME, Home
from bundle.trust.sshsig import CUSTODY, Trust

#: The source that this runs from.
TREE = Path(__file__).resolve().parents[2]
IDENTITY = "release@airlift.example"


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the options that say whom to believe."""
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
        "--revoked",
        type=Path,
        metavar="FILE",
        help="more revoked keys: a KRL, or one public key per line; an import keeps them",
    )
    parser.add_argument(
        RESTORE,
        action="append",
        default=[],
        metavar="SHA256:…",
        help="accept that the named list brings back this key, which was removed or revoked here; "
        "a revoked key still counts for nothing",
    )
    add_home(parser)


def add_home(parser: argparse.ArgumentParser) -> None:
    """Add the option that names Airlift's directory."""
    home = os.environ.get("AIRLIFT_HOME", DEFAULT_HOME)
    parser.add_argument(
        "--home", type=Path, default=Path(home), metavar="DIR", help=f"default: {home}"
    )


def positive(text: str) -> int:
    """A number of things, from the command line."""
    if not text.isdigit() or int(text) < 1:
        message = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def revoked_of(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """The list of revoked keys that the operator named, if any."""
    return (arguments.revoked,) if arguments.revoked else ()


def trust_of(arguments: argparse.Namespace, home: Home) -> Trust | None:
    """Whom the operator named, or whom this jump host knows from its first import."""
    signers = arguments.allowed_signers
    # Whatever lies there is meant as the list: what cannot be read as one is refused later.
    if signers is None and os.path.lexists(home.trust / "allowed_signers"):
        signers = home.trust / "allowed_signers"
    if signers is None:
        return None
    required = arguments.require_signers or 1
    restored = frozenset(arguments.restore_signer)
    identities, revoked = tuple(arguments.identity), revoked_of(arguments)
    named = Trust(signers, identities, revoked, required, restored=restored)
    return as_strict(named, home)


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


def add_custody(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a command keep a custody log."""
    group = parser.add_argument_group("custody log (docs/CARRYING.md)")
    group.add_argument(
        "--who", metavar="NAME", help="write into the custody log that this person did it"
    )
    group.add_argument(
        "--custody", type=Path, metavar="FILE", help="default: beside the bundle, BUNDLE.custody"
    )
    group.add_argument("--note", default="", metavar="TEXT", help="for the entry, one line")
    group.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help=f"sign the entry with that person's key (SSHSIG, namespace {CUSTODY})",
    )


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the options of whoever signs a bundle."""
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        help="private key, or a .pub whose key is in ssh-agent; may be repeated "
        "(default: AIRLIFT_SIGNING_KEY)",
    )
    parser.add_argument("--identity", default=IDENTITY, help=f"who signs (default: {IDENTITY})")


def keys_of(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """The keys that were named, or the one of the environment."""
    given = arguments.key or [Path(p) for p in [os.environ.get("AIRLIFT_SIGNING_KEY")] if p]
    return tuple(path.expanduser() for path in given)

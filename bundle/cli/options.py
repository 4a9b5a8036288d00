"""Options that several commands share: trusted signers, Airlift's directory, the custody log."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bundle.errors import AirliftError, Kind
from bundle.jumphost.kept_trust import RESTORE, as_strict
from bundle.jumphost.store import DEFAULT_HOME, Home
from bundle.trust.sshsig import CUSTODY, Trust

#: The source tree that this program runs from.
TREE = Path(__file__).resolve().parents[2]
IDENTITY = "release@airlift.example"


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the trusted signers."""
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help="list of allowed signers; get it separately from the bundle (default: the list that "
        "the first import kept, HOME/trust/allowed_signers)",
    )
    parser.add_argument(
        "--identity",
        action="append",
        default=[],
        metavar="NAME",
        help="accept this signer only; may be repeated",
    )
    parser.add_argument(
        "--require-signers",
        type=positive,
        metavar="M",
        help="number of different keys that must have signed (default: 1, or the highest number "
        "that an import here required)",
    )
    parser.add_argument(
        "--revoked",
        type=Path,
        metavar="FILE",
        help="list of further revoked keys: a KRL, or one public key per line; an import keeps it",
    )
    parser.add_argument(
        RESTORE,
        action="append",
        default=[],
        metavar="SHA256:…",
        help="accept this key in the named list, although it was removed or revoked here; may be "
        "repeated; signatures of a revoked key stay invalid",
    )
    add_home(parser)


def add_home(parser: argparse.ArgumentParser) -> None:
    """Add the option that names Airlift's directory."""
    home = os.environ.get("AIRLIFT_HOME", DEFAULT_HOME)
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(home),
        metavar="DIR",
        help="Airlift's directory on the jump host, with store, releases and trust "
        f"(default: AIRLIFT_HOME, else {DEFAULT_HOME})",
    )


def positive(text: str) -> int:
    """Read a number of things from the command line."""
    if not text.isdigit() or int(text) < 1:
        message = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def revoked_of(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """Return the list of revoked keys that the operator named, if any."""
    return (arguments.revoked,) if arguments.revoked else ()


def trust_of(arguments: argparse.Namespace, home: Home) -> Trust | None:
    """Return the trust that the operator named, or the one that the first import kept here."""
    signers = arguments.allowed_signers
    # Whatever exists at this path is meant as the list; if it cannot be read, it is refused later.
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
    """Return the trust; refuse to go on without one, because nothing is used unsigned."""
    trust = trust_of(arguments, home)
    if trust is None:
        raise AirliftError(
            Kind.SIGNERS_FILE,
            "no list of allowed signers",
            where=str(home.trust / "allowed_signers"),
            fix="add --allowed-signers FILE (ask the vendor)",
        )
    return trust


def home_of(arguments: argparse.Namespace) -> Home:
    """Return Airlift's directory as an absolute path."""
    return Home(Path(os.path.abspath(arguments.home)))  # noqa: PTH100 - keeps symbolic links


def add_custody(parser: argparse.ArgumentParser) -> None:
    """Add the options that make a command keep a custody log."""
    group = parser.add_argument_group("custody log (docs/CARRYING.md)")
    group.add_argument(
        "--who", metavar="NAME", help="add an entry to the custody log: this person did it"
    )
    group.add_argument(
        "--custody",
        type=Path,
        metavar="FILE",
        help="custody log to add the entry to (default: BUNDLE.custody beside the bundle)",
    )
    group.add_argument("--note", default="", metavar="TEXT", help="one line of text for the entry")
    group.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help=f"sign the entry with that person's key (SSHSIG, namespace {CUSTODY})",
    )


def add_keys(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that signs a bundle."""
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="private key to sign with, or a .pub whose key is in ssh-agent; may be repeated "
        "(default: the file that AIRLIFT_SIGNING_KEY names)",
    )
    parser.add_argument(
        "--identity",
        default=IDENTITY,
        metavar="NAME",
        help=f"signer's name for the list of allowed signers (default: {IDENTITY})",
    )


def keys_of(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """Return the keys that were named, or the one that the environment names."""
    given = arguments.key or [Path(p) for p in [os.environ.get("AIRLIFT_SIGNING_KEY")] if p]
    return tuple(path.expanduser() for path in given)

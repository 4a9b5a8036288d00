"""A revoked or removed key stays so, whatever list is named later."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import Home
from bundle.trust import allowed_signers, sshsig
from bundle.trust.allowed_signers import fingerprint
from tests.unit.bundle.bundlekit import Keys, Recipe

Craft = Callable[[Recipe], Path]
OTHER = "security@airlift.example"

pytestmark = pytest.mark.usefixtures("quick")


class Desk:
    """An operator's commands on a jump host, with lists from others."""

    def __init__(self, keys: Keys, home: Home, folder: Path) -> None:
        self.keys = keys
        self.home = home
        self.folder = folder

    def plain(self, *names: str) -> Path:
        """Return a plain list of revoked keys."""
        path = self.folder / f"revoked-{'-'.join(names)}"
        path.write_text("".join(f"{sshsig.public_key(self.keys.key(n))}\n" for n in names))
        return path

    def krl(self, *names: str) -> Path:
        """Return the same list as ssh-keygen's binary KRL."""
        path = self.folder / f"krl-{'-'.join(names)}"
        public = [f"{self.keys.key(name)}.pub" for name in names]
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(path), *public], check=True)
        return path

    def signers(self, *names: str) -> Path:
        """Return a list of these signers, with one identity per key."""
        lines = [self.keys.line(n, f"{n}@airlift.example") for n in names]
        return self.keys.signers(*lines)

    def run(self, command: str, bundle: Path, *options: str | Path) -> int:
        """Run a command; return its exit code."""
        words = [command, bundle, "--home", self.home.root, *options]
        return main([str(word) for word in words])


@pytest.fixture
def desk(keys: Keys, home: Home, tmp_path: Path) -> Desk:
    return Desk(keys, home, tmp_path)


def of(keys: Keys, name: str) -> str:
    (key,) = allowed_signers.load(keys.signers(keys.line(name))).keys
    return fingerprint(key.blob)


KINDS = ["plain", "krl"]


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("command", ["verify", "import"])
def test_a_stolen_key_stays_revoked_when_an_older_list_is_named(
    desk: Desk, craft: Craft, first: str, second: str, command: str
) -> None:
    signers = desk.signers("release", "stolen")
    stolen = craft(Recipe("1.1.0", 2, keys=("stolen",)))
    new = getattr(desk, first)("stolen", "gone")
    old = getattr(desk, second)("gone")
    options = ("--allowed-signers", signers)
    assert desk.run("import", craft(Recipe()), *options, "--revoked", new) == 0
    revoked = Kind.REVOKED.exit_code
    assert desk.run(command, stolen) == revoked
    assert desk.run(command, stolen, *options, "--revoked", old) == revoked
    # An import with the older list keeps the newer one.
    assert desk.run("import", craft(Recipe("1.2.0", 3)), *options, "--revoked", old) == 0
    assert desk.run(command, stolen) == revoked


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_what_a_later_list_revokes_is_kept_too(
    desk: Desk, craft: Craft, first: str, second: str
) -> None:
    signers = desk.signers("release", "stolen", "lost")
    options = ("--allowed-signers", signers)
    stolen, lost = (craft(Recipe("1.3.0", 4, keys=(name,))) for name in ("stolen", "lost"))
    lists = getattr(desk, first)("stolen"), getattr(desk, second)("lost")
    for serial, revoked in enumerate(lists, 1):
        bundle = craft(Recipe(f"1.{serial}.0", serial))
        assert desk.run("import", bundle, *options, "--revoked", revoked) == 0
    for bundle in (stolen, lost):
        assert desk.run("verify", bundle) == Kind.REVOKED.exit_code


@pytest.mark.parametrize("command", ["verify", "import"])
def test_a_list_that_brings_back_a_removed_key_is_refused_unless_said_so(
    desk: Desk, craft: Craft, keys: Keys, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both, one = desk.signers("release", "former"), desk.signers("release")
    assert desk.run("import", craft(Recipe()), "--allowed-signers", both) == 0
    assert desk.run("import", craft(Recipe("1.1.0", 2)), "--allowed-signers", one) == 0
    former = craft(Recipe("1.2.0", 3, keys=("former",)))
    capsys.readouterr()
    words = ("--allowed-signers", both)
    assert desk.run(command, former, *words) == Kind.SIGNERS_FILE.exit_code
    said = capsys.readouterr().err
    assert "which was removed from the list of this jump host" in said
    # A new key in the same list does not admit the removed one.
    more = desk.signers("release", "former", "new")
    assert desk.run(command, former, "--allowed-signers", more) == Kind.SIGNERS_FILE.exit_code
    capsys.readouterr()
    fix = re.search(r"add: (--restore-signer \S+)", said)
    assert fix
    who = ("--who", "Olga", "--custody", desk.folder / "log")
    assert desk.run(command, former, *words, *shlex.split(fix[1]), *who) == 0
    entry = json.loads((desk.folder / "log").read_text().splitlines()[-1])
    assert entry["result"] == {"kind": "good", "what": f"restored signer {of(keys, 'former')}"}


def test_a_refused_list_is_in_the_custody_log(desk: Desk, craft: Craft) -> None:
    both, one = desk.signers("release", "former"), desk.signers("release")
    for serial, signers in enumerate((both, one), 1):
        bundle = craft(Recipe(f"1.{serial}.0", serial))
        assert desk.run("import", bundle, "--allowed-signers", signers) == 0
    bundle = craft(Recipe("1.3.0", 3))
    who = ("--who", "Olga", "--custody", desk.folder / "log")
    assert desk.run("import", bundle, "--allowed-signers", both, *who) != 0
    entry = json.loads((desk.folder / "log").read_text().splitlines()[-1])
    assert entry["result"]["kind"] == Kind.SIGNERS_FILE.label


def test_a_key_that_came_back_and_left_again_is_remembered(
    desk: Desk, craft: Craft, keys: Keys
) -> None:
    both, one = desk.signers("release", "former"), desk.signers("release")
    restore = ("--restore-signer", of(keys, "former"))
    steps = [(both, ()), (one, ()), (both, restore), (one, ())]
    for serial, (signers, options) in enumerate(steps, 1):
        bundle = craft(Recipe(f"1.{serial}.0", serial))
        assert desk.run("import", bundle, "--allowed-signers", signers, *options) == 0
    bundle = craft(Recipe("1.9.0", 9))
    refused = Kind.SIGNERS_FILE.exit_code
    assert desk.run("import", bundle, "--allowed-signers", both) == refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_revoked_key_that_comes_back_counts_for_nothing(
    desk: Desk, craft: Craft, keys: Keys, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ("--allowed-signers", desk.signers("release"), "--revoked", getattr(desk, kind)("bad"))
    assert desk.run("import", craft(Recipe()), *first) == 0
    bundle = craft(Recipe("1.1.0", 2, keys=("bad",)))
    words = ("--allowed-signers", desk.signers("release", "bad"))
    assert desk.run("verify", bundle, *words) == Kind.SIGNERS_FILE.exit_code
    assert "which is revoked on this jump host" in capsys.readouterr().err
    restore = ("--restore-signer", of(keys, "bad"))
    assert desk.run("verify", bundle, *words, *restore) == Kind.REVOKED.exit_code
    # The list itself is accepted for its other keys.
    assert desk.run("import", craft(Recipe("1.2.0", 3)), *words, *restore) == 0
    assert desk.run("verify", bundle) == Kind.REVOKED.exit_code


def test_the_kept_list_may_be_named_again(desk: Desk, craft: Craft) -> None:
    """A key in it was revoked since."""
    words = ("--allowed-signers", desk.signers("release", "stolen"))
    bundle = craft(Recipe())
    assert desk.run("import", bundle, *words) == 0
    assert desk.run("import", bundle, *words, "--revoked", desk.plain("stolen")) == 0
    assert desk.run("verify", bundle, *words) == 0


@pytest.mark.parametrize("option", ["--allowed-signers", "--revoked"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_that_never_ends_is_refused(desk: Desk, small: Path, option: str, kind: str) -> None:
    path = desk.folder / "list"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    words: tuple[str | Path, ...] = ("--allowed-signers", desk.signers("release"), option, path)
    assert desk.run("verify", small, *words) == Kind.SIGNERS_FILE.exit_code
    with pytest.raises(AirliftError, match="not a regular file"):
        allowed_signers.load_revoked(path)

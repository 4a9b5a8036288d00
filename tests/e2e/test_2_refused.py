"""The jump host refuses untrusted bundles before anything is unpacked."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import Kind
from scripts.journey import IDENTITY, Journey, documented
from tests.e2e.support import FORGED, forge, last_words, snapshot

IMPORT = f"import --allowed-signers ~/allowed_signers --identity {IDENTITY}"
FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]), 2)
    byte = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([byte[0] ^ 1]))
"""


@pytest.fixture(scope="module")
def key(carried: Journey) -> Path:
    """The vendor's key of the demo."""
    return carried.cache / "signing_key"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key of another person, who is not an allowed signer."""
    key = tmp_path_factory.mktemp("stranger") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


@pytest.fixture(autouse=True)
def _untouched(carried: Journey) -> Iterator[None]:
    """Check that a test leaves nothing in Airlift's home; remove its forgery."""
    carried.lab.ssh(
        "test -e ~/verify.pyz || tar -xOf /media/usb/airlift-*.tar verify.pyz > ~/verify.pyz"
    )
    before = snapshot(carried)
    yield
    assert snapshot(carried) == before
    carried.lab.console("jump", f"rm -f {FORGED}")


def refusal(journey: Journey, kind: Kind, *, says: str) -> None:
    """The verifier refuses the forgery with the documented exit code and a sentence.

    An import verifies first; tests/unit/bundle shows that `verify` alone gives the same result.
    """
    command, options = IMPORT.split(" ", 1)
    done = journey.lab.ssh(f"python3 -I ~/verify.pyz {command} {FORGED} {options}", check=False)
    assert done.code == kind.exit_code, last_words(done)
    assert says in done.error
    assert "fix:" in done.error
    assert "Traceback" not in last_words(done)


def test_one_altered_bit_in_a_member(carried: Journey, key: Path) -> None:
    forge(carried, None, key=key)
    carried.lab.python("jump", FLIP, FORGED, "-5000000")
    refusal(carried, Kind.ALTERED, says="blobs/sha256/")


def test_cut_short(carried: Journey, key: Path) -> None:
    forge(carried, None, key=key, tail='truncate -s -3000000 "$1"')
    refusal(carried, Kind.CUT_SHORT, says="ends")


def test_not_signed(carried: Journey) -> None:
    forge(carried, None, key=None)
    refusal(carried, Kind.UNSIGNED, says="not signed")


def test_signed_by_a_stranger(carried: Journey, stranger: Path) -> None:
    forge(carried, None, key=stranger)
    refusal(carried, Kind.UNKNOWN_SIGNER, says="SHA256:")


def test_manifest_of_another_signature(carried: Journey, key: Path) -> None:
    """Put the signature of one manifest before another manifest."""
    forge(carried, {"version": "6.6.6"}, key=key)
    script = """
import re, sys
with open(sys.argv[1], "r+b") as file:
    head = file.read(1 << 20)
    file.seek(head.index(b'"version": "6.6.6"') + 12)
    file.write(b"7")
"""
    carried.lab.python("jump", script, FORGED)
    refusal(carried, Kind.BAD_SIGNATURE, says="signature")


def test_a_member_that_is_not_listed(carried: Journey, key: Path) -> None:
    append = 'echo evil > /tmp/evil && tar -rf "$1" -C /tmp evil && rm /tmp/evil'
    forge(carried, None, key=key, tail=append)
    refusal(carried, Kind.STRUCTURE, says="evil")


def test_a_path_that_climbs_out_even_when_signed(carried: Journey, key: Path) -> None:
    """Other such paths are tried in tests/unit/bundle/test_bundle_manifest.py."""
    members: list[dict[str, Any]] = carried.facts.manifest["members"]
    evil = {"path": "content/../../evil", "size": 0, "sha256": "0" * 64}
    forge(carried, {"members": [*members, evil]}, key=key)
    refusal(carried, Kind.MANIFEST, says="evil")


def test_the_documented_checks_by_hand_stop_at_an_altered_manifest(carried: Journey) -> None:
    """Use only tools of the OS: ssh-keygen refuses, and no program of the bundle is run."""
    forge(carried, {"created": "2001-01-01T00:00:00Z"}, key=None)
    checks = documented("by hand")
    settings = carried.settings().replace(f"/media/usb/{carried.facts.bundle.name}", FORGED)
    stick = f"/media/usb/{carried.facts.bundle.name}"
    script = f"{settings}cd $(mktemp -d)\n{checks}".replace(
        'tar -xOf "$BUNDLE" manifest.sig', f"tar -xOf {stick} manifest.sig"
    )
    done = carried.lab.ssh(script, check=False)
    assert done.code != 0
    assert "Could not verify signature" in last_words(done)
    assert "imported" not in last_words(done)


def test_the_documented_checks_by_hand_stop_at_an_altered_verifier(carried: Journey) -> None:
    """The signature is valid; sha256sum finds that the verifier was changed after signing."""
    checks = documented("by hand").replace(
        "> verify.pyz &&", "> verify.pyz && printf x >> verify.pyz &&"
    )
    done = carried.lab.ssh(f"{carried.settings()}cd $(mktemp -d)\n{checks}", check=False)
    assert done.code != 0
    assert "verify.pyz: FAILED" in last_words(done)
    assert "imported" not in last_words(done)


def test_an_older_bundle_after_a_newer_one(imported: Journey, key: Path) -> None:
    """Validly signed, but this jump host has accepted a higher serial."""
    serial = imported.facts.manifest["serial"] - 1
    forge(imported, {"serial": serial, "version": "0.9.0"}, key=key)
    command = f"python3 -I ~/verify.pyz {IMPORT.replace('import', f'import {FORGED}', 1)}"
    before = snapshot(imported)
    done = imported.lab.ssh(command, check=False)
    assert done.code == Kind.OLDER.exit_code, last_words(done)
    assert f"serial {serial}" in done.error
    assert "fix:" in done.error
    assert snapshot(imported) == before


def test_the_same_serial_with_other_content(imported: Journey, key: Path) -> None:
    forge(imported, {"created": "2001-01-01T00:00:00Z"}, key=key)
    command = f"python3 -I ~/verify.pyz {IMPORT.replace('import', f'import {FORGED}', 1)}"
    done = imported.lab.ssh(command, check=False)
    assert done.code == Kind.CONFLICT.exit_code, last_words(done)


def test_the_same_bundle_again_changes_nothing(imported: Journey) -> None:
    before = imported.lab.ssh("readlink /opt/airlift/current; ls /opt/airlift/releases").output
    imported.bootstrap()
    after = imported.lab.ssh("readlink /opt/airlift/current; ls /opt/airlift/releases").output
    assert after == before

"""A site's receipt goes to the vendor, who builds a bundle for that site.

The test imports it into a copy of the jump host's store, so the site's own release stays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import Kind
from scripts.journey import HOME, IDENTITY, STICK, Journey
from scripts.lab import stream
from tests.e2e.test_4_bundle import answer, tool

DESK = "~/receipt"
NEXT = "1.0.1"


@pytest.fixture(scope="module")
def receipt(installed: Journey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's receipt, as the courier brings it to the vendor."""
    folder = tmp_path_factory.mktemp("receipt")
    installed.lab.ssh(
        f"rm -rf {DESK} && mkdir {DESK} && ssh-keygen -q -t ed25519 -N '' -f {DESK}/key"
    )
    told = answer(installed, f"receipt -o {DESK}/site.json --key {DESK}/key --hash")
    assert told["ok"], told
    for name in ("site.json", "site.json.sig"):
        (folder / name).write_text(installed.lab.ssh(f"cat {DESK}/{name}").output)
    # It reaches the vendor through a separate channel.
    (folder / "signers").write_text(f"{told['allowed_signers']}\n")
    return folder / "site.json"


@pytest.fixture(scope="module")
def made_for_it(installed: Journey, receipt: Path) -> Path:
    """The next release, without what the receipt lists."""
    argv = [sys.executable, "-m", "bundle", "build", "--version", NEXT, "--serial", "50"]
    argv += ["--source", installed.source, "--key", str(installed.cache / "signing_key")]
    argv += ["--identity", IDENTITY, "--output", str(receipt.parent), "--since", str(receipt)]
    argv += ["--receipt-signers", str(receipt.with_name("signers"))]
    argv += ["--allow-dirty", "--allow-absent", "all"]
    stream(argv, what="the build", listen=installed.listen)
    (made,) = receipt.parent.glob("*.tar")
    target = f"{DESK}/{made.name}"
    installed.lab.ssh(f"mkdir -p {DESK}")
    with made.open("rb") as file:
        installed.lab.send("jump", 'cat > "$1"', f"{STICK}/{made.name}", data=file.read())
    installed.lab.ssh(f"cp {STICK}/{made.name} {target}")
    return made


def test_it_carries_what_the_site_lacks_and_no_more(installed: Journey, made_for_it: Path) -> None:
    assert made_for_it.stat().st_size < installed.facts.bundle_bytes / 20
    told = answer(installed, f"diff {HOME}/current {DESK}/{made_for_it.name}")
    assert told["ok"], told
    found = told["components"]
    assert (found["added"], found["removed"], list(found["changed"])) == ({}, {}, ["app"])
    # The version is in the image's configuration; its layers are the same.
    assert found["changed"]["app"]["new_layers"] == 0


def test_it_is_imported_where_its_base_is(installed: Journey, made_for_it: Path) -> None:
    home = f"{DESK}/home"
    installed.lab.ssh(f"cp -al {HOME} {home}")
    told = answer(installed, f"import {DESK}/{made_for_it.name} --home {home}")
    assert told["ok"], told
    assert answer(installed, f"verify {home}/releases/{NEXT} --home {home}")["version"] == NEXT
    # The site's own home is unchanged.
    assert installed.lab.ssh(f"readlink {HOME}/current").output.strip() == "releases/1.0.0"


def test_it_is_refused_where_its_base_is_not(installed: Journey, made_for_it: Path) -> None:
    empty = f"{DESK}/empty"
    said = answer(
        installed,
        f"import {DESK}/{made_for_it.name} --home {empty} "
        f"--allowed-signers {HOME}/trust/allowed_signers",
    )
    assert said["error"]["exit_code"] == Kind.NEEDS_BASE.exit_code
    assert "1.0.0" in json.dumps(said["error"])
    assert installed.lab.ssh(f"test ! -e {empty}/current && echo none").output == "none\n"


def test_an_officer_reads_what_changed(installed: Journey, made_for_it: Path) -> None:
    page = f"{DESK}/dossier.html"
    tool(installed, f"dossier {DESK}/{made_for_it.name} --previous {HOME}/current -o {page}")
    text = installed.lab.ssh(f"cat {page}").output
    assert text.lower().startswith("<!doctype html>")
    assert NEXT in text
    assert "1.0.0" in text


def test_a_receipt_that_was_altered_is_refused(installed: Journey, receipt: Path) -> None:
    altered: dict[str, Any] = json.loads(receipt.read_text())
    altered["host"] = "elsewhere"
    path = receipt.with_name("altered.json")
    path.write_text(json.dumps(altered, sort_keys=True, indent=1) + "\n")
    path.with_name("altered.json.sig").write_bytes(receipt.with_name("site.json.sig").read_bytes())
    argv = [sys.executable, "-m", "bundle", "build", "--since", str(path), "--json"]
    argv += ["--key", str(installed.cache / "signing_key")]
    argv += ["--receipt-signers", str(receipt.with_name("signers")), "--allow-dirty"]
    done = stream(argv, what="the build", listen=installed.listen, check=False)
    assert done.code == Kind.BAD_SIGNATURE.exit_code

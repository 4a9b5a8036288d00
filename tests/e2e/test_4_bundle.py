"""What an operator does with a bundle on the jump host, besides importing it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bundle.errors import Kind
from scripts.journey import HOME, STICK, Journey
from scripts.lab import Done

DESK = "~/desk"
PEOPLE = f"{DESK}/people"
TOOL = f"{HOME}/current/venv/bin/python -m bundle"


def tool(journey: Journey, command: str, *, check: bool = True) -> Done:
    """Run a command of the release's own tool, as the operator."""
    return journey.lab.ssh(f"cd {HOME}/current && {TOOL} {command}", check=check)


def answer(journey: Journey, command: str) -> dict[str, Any]:
    """Run it with `--json`; return its report, whether it accepts or refuses."""
    found: dict[str, Any] = json.loads(tool(journey, f"{command} --json", check=False).output)
    return found


@pytest.fixture(scope="module")
def desk(installed: Journey) -> Iterator[Journey]:
    """The operator's own directory on the jump host; the bundle is on the USB drive."""
    installed.lab.ssh(f"rm -rf {DESK} && mkdir {DESK}")
    yield installed
    installed.lab.ssh(f"rm -rf {DESK}")


@pytest.fixture(scope="module")
def index(desk: Journey) -> str:
    """The bundle of the active release, in parts."""
    name = f"airlift-{desk.facts.manifest['version']}-amd64.tar"
    tool(desk, f"split {STICK}/{name} --size 100M -o {DESK}/parts")
    return f"{DESK}/parts/{name}.parts"


def test_a_bad_part_is_named_and_the_rest_can_stay(desk: Journey, index: str) -> None:
    part = index.removesuffix("s") + "-02"
    desk.lab.ssh(f"cp {part} {DESK}/good && printf x | dd of={part} bs=1 seek=5000 conv=notrunc")
    said = answer(desk, f"verify {index}")
    assert said["error"]["exit_code"] == Kind.PART.exit_code
    assert "part 2 is bad" in said["error"]["what"]
    assert "part 1 " not in said["error"]["what"]
    desk.lab.ssh(f"mv {DESK}/good {part}")
    assert answer(desk, f"import {index}")["already_imported"]


def test_joined_parts_are_the_bundle(desk: Journey, index: str) -> None:
    name = index.rpartition("/")[2].removesuffix(".parts")
    tool(desk, f"join {index} -o {DESK}")
    sums = desk.lab.ssh(f"sha256sum {DESK}/{name} {STICK}/{name} | cut -c1-64").output.split()
    assert len(sums) == 2
    assert sums[0] == sums[1]


def test_a_custody_log_tells_who_did_what_and_shows_a_change(desk: Journey, index: str) -> None:
    person, key = "bob@client.example", f"{DESK}/bob"
    desk.lab.ssh(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
    line = f"""printf '%s namespaces="airlift-custody" %s\\n' {person}"""
    desk.lab.ssh(f"""{line} "$(cut -d' ' -f1,2 {key}.pub)" > {PEOPLE}""")
    tool(desk, f"verify {index} --who {person} --sign {key}")
    tool(desk, f"import {index} --who {person} --sign {key} --note 'at the jump host'")
    log = index.removesuffix(".parts") + ".custody"
    shown = answer(desk, f"inspect --custody {log} --allowed-signers {PEOPLE}")
    told = [(one["done"], one["who"], one["counts"]) for one in shown["entries"]]
    assert told == [("verify", person, "yes"), ("import", person, "yes")]
    desk.lab.ssh(f"sed -i 's/at the jump host/at home/' {log}")
    changed = answer(desk, f"inspect --custody {log} --allowed-signers {PEOPLE}")
    assert changed["error"]["exit_code"] == Kind.CUSTODY.exit_code
    assert "entry 2 was altered" in changed["error"]["what"]


def test_what_is_inside_is_shown_once_it_is_trusted(desk: Journey) -> None:
    name = f"airlift-{desk.facts.manifest['version']}-amd64.tar"
    page = tool(desk, f"inspect {STICK}/{name} --cat about/dossier.html").output
    assert page.lower().startswith("<!doctype html>")
    sbom = json.loads(
        tool(desk, f"inspect {STICK}/{name} --cat about/sbom/postgres.cdx.json").output
    )
    assert "postgresql-17" in {one["name"] for one in sbom["components"]}


def test_the_release_in_service_is_not_pruned(desk: Journey) -> None:
    found = answer(desk, "prune")
    assert (found["releases"], found["applied"]) == ([], False)
    assert desk.facts.manifest["version"] in found["kept"]

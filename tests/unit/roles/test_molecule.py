"""Each molecule scenario has its playbooks, because molecule only warns about missing ones."""

from pathlib import Path

import pytest
import yaml

from tests.unit.roles.conftest import ROOT

SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml"))
# Actions that run converge's playbook.
CONVERGE = {"converge", "idempotence", "check", "syntax"}
NONE = {"dependency", "cleanup"}


def test_there_are_scenarios() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_every_step_has_its_playbook(scenario: Path) -> None:
    config = yaml.safe_load((scenario / "molecule.yml").read_text())
    steps = config["scenario"]["test_sequence"]
    playbooks = config["ansible"]["playbooks"]
    assert "verify" in steps
    assert "idempotence" in steps
    for step in steps:
        words = step.split()
        if words[0] in NONE:
            continue
        name = words[1] if len(words) > 1 else None
        wanted = name or playbooks["converge" if words[0] in CONVERGE else words[0]]
        assert (scenario / wanted).resolve().is_file(), f"{scenario.name}: {step} has no playbook"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_verify_has_tests(scenario: Path) -> None:
    assert list((ROOT / "tests/molecule" / scenario.name).glob("test_*.py"))

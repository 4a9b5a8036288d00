"""docs/COSTS.md: all numbers come from the roles, the benchmarks or the assumptions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import costs

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "COSTS.md").read_text()


def values(*words: str) -> dict[str, float]:
    return {name: float(one["value"]) for name, one in costs.assumptions(words).items()}


def test_the_page_has_what_the_roles_and_the_benchmarks_say() -> None:
    assert costs.filled(PAGE, costs.parts(costs.assumptions())) == PAGE, (
        "run: .venv/bin/python -m scripts.costs --write"
    )


def test_every_memory_limit_of_the_roles_is_counted() -> None:
    files = sorted([*ROOT.glob("roles/*/vars/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")])
    roles = "".join(path.read_text() for path in files)
    limits = set(re.findall(r'\bmemory: "\{\{ (\w+_memory) \}\}"', roles))
    counted = {name for zone in costs.CONTAINERS.values() for name, _, _ in zone}
    assert limits == counted | {costs.EVERY_HOST}


def test_every_zone_of_a_site_has_a_size() -> None:
    zones = costs.settings()["site_zones"]
    assert set(costs.CONTAINERS) == set(zones) == set(costs.settings()["preflight_memory_mb"])
    for hosts in costs.SIZES.values():
        assert {zone for host in hosts for zone in host} == set(zones)


def test_an_upgrade_fits_into_the_memory_of_each_host() -> None:
    roles = costs.settings()
    for hosts in costs.SIZES.values():
        for zones in hosts:
            always, peak, least = costs.memory(zones, roles)
            given = costs.gib(zones, roles, values()["os_mib"]) * 1024
            assert always <= peak < given
            assert least * 1e6 < given * 2**20


def test_an_app_host_is_counted_with_both_colours_and_both_workers() -> None:
    limits = {"app_memory": "1g", "app_worker_memory": "100m", costs.EVERY_HOST: "10m"}
    roles = {**limits, "preflight_memory_mb": {"app": 7}}
    assert costs.memory(("app",), roles) == (1024 + 100 + 10, 2048 + 200 + 10, 7)
    assert costs.gib(("app",), roles, 814) == 3
    assert costs.gib(("app",), roles, 815) == 4


def test_hours_follow_the_formula_of_the_page() -> None:
    given = values("clients=4", "releases=3", "release_hours=10", "carry_hours=1", "attend_hours=2")
    rows = [line.split(" | ") for line in costs.people_table(given)]
    results = {row[0].strip("| *"): row[2] for row in rows}
    assert results["a release, everywhere"] == "22"
    assert results["releases of a year"] == "66"
    assert results["upkeep of a year"] == "72"
    assert results["a year"] == "138"


@pytest.mark.parametrize(("clients", "waves"), [(1, 1), (2, 1), (3, 2), (8, 2), (9, 3), (20, 4)])
def test_waves_begin_with_the_canaries(clients: int, waves: int) -> None:
    assert costs.waves(values(f"clients={clients}")) == waves


def test_at_the_even_number_of_releases_both_cost_the_same() -> None:
    even = costs.compared(values())["even"]
    there = costs.compared(values(f"releases={even}"))
    assert there["own"] == pytest.approx(there["cloud"])
    assert there["own"] < costs.compared(values(f"releases={even + 1}"))["own"]
    more = costs.compared(values(f"releases={even + 1}"))
    assert more["cloud"] < more["own"]


def test_a_cloud_that_saves_no_hours_is_never_even() -> None:
    said = "\n".join(costs.compared_table(values("cloud_attend_hours=9")))
    assert "| never | never |" in said


def test_every_assumption_is_used_and_explained() -> None:
    program = (ROOT / "scripts" / "costs.py").read_text()
    for name, one in costs.assumptions().items():
        assert f'"{name}"' in program, name
        assert one["unit"], name
        assert one["about"], name


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("client=4", "there is no assumption 'client'"),
        ("clients", "clients is '': give a number"),
        ("clients=many", "clients is 'many': give a number"),
        ("clients=-1", "clients is '-1': give a number"),
        ("clients=nan", "clients is 'nan': give a number"),
        ("clients=inf", "clients is 'inf': give a number"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(
    word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert costs.main([word]) == 2
    assert said in capsys.readouterr().err


def test_the_command_of_the_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = re.findall(r"^\.venv/bin/python -m scripts\.costs (.+=.+)$", PAGE, re.MULTILINE)
    assert costs.main(words.split()) == 0
    assert "| `clients` | 40 |" in capsys.readouterr().out


def test_sums_of_the_table_measured_by_hand_are_right() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d., ]+) \|$", PAGE, re.MULTILINE))
    images, packages, wheels = map(float, rows["of it: images, host packages, wheels"].split(", "))
    (others,) = (value for name, value in rows.items() if name.startswith("of it: playbooks"))
    content, about, verifier = map(float, others.split(", "))
    all_new = next(value for name, value in rows.items() if "every image changed" in name)
    assert float(all_new) == pytest.approx(images + content + about + verifier, abs=0.11)
    whole = float(rows["full bundle of 1.0.0"])
    # The rest is headers and padding of the archive.
    assert 0 < whole - (images + packages + wheels + content + about + verifier) < 2
    assert "50 MB" in PAGE
    assert round(6 * float(rows["delta to a release in which only app code changed"])) == 50
    assert round(6 * whole / 1000, 1) == 1.9

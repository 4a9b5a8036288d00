"""docs/DEPLOYMENT_STRATEGY.md: its tables match the program, its names match the workflows."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.deploy.outcome import Outcome
from scripts.deploy.settings import NAMES, NEEDED
from scripts.page_parts import table
from scripts.version import order, upcoming

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "DEPLOYMENT_STRATEGY.md").read_text()
WORKFLOWS = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))

#: Declared version and last tag, for the page's examples of commits without a tag.
CASES = [("1.1.0", "1.0.0"), ("1.0.0", "1.0.0"), ("1.1.0", "1.1.0-rc.1")]


def test_settings_are_the_programs() -> None:
    needed = NEEDED["smoke"]
    wanted = [
        [f"`{name}`{' (needed)' if name in needed else ''}", about] for name, about in NAMES.items()
    ]
    assert table(PAGE, "settings of a deployment") == wanted


def test_exit_codes_are_the_programs() -> None:
    wanted = [[str(one.code), f"`{one.label}`", one.meaning] for one in Outcome]
    assert table(PAGE, "exit codes of a deployment") == wanted


def test_every_variable_and_secret_of_the_pipelines_is_explained() -> None:
    used = set(re.findall(r"\b(?:vars|secrets)\.([A-Z_]+)", WORKFLOWS))
    rows = table(PAGE, "variables of the pipeline")
    assert used == {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}
    for names, kind, _ in rows:
        for name in re.findall(r"`([A-Z_]+)`", names):
            assert f"{'vars' if kind == 'variable' else 'secrets'}.{name}" in WORKFLOWS


def test_every_job_of_the_pipelines_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+\.yml)`: ([^|]*) \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    for file, jobs, calls in rows:
        text = (ROOT / ".github" / "workflows" / file).read_text()
        for job in jobs.split(", "):
            assert f"\n  {job}:\n" in text, (file, job)
        for target in re.findall(r"`make ([a-z-]+)`", calls):
            assert f"make {target}" in text or target == "test", (file, target)
    listed = {(file, job) for file, jobs, _ in rows for job in jobs.split(", ")}
    for file in ("ci.yml", "deploy.yml"):
        text = (ROOT / ".github" / "workflows" / file).read_text()
        there = re.findall(r"^  ([a-z-]+):$", text.partition("\njobs:\n")[2], re.MULTILINE)
        assert {job for one, job in listed if one == file} == set(there)


def test_the_time_that_tests_may_take_is_the_jobs() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    longest = max(job["timeout-minutes"] for job in ci.values())
    assert f"on 2 cores.\n  It may take {ci['test']['timeout-minutes']}.\n" in PAGE
    assert ci["test"]["timeout-minutes"] == longest
    # The limit is half as long again as the slowest run on the page.
    runs = re.search(r"`make test`: (\d+) and (\d+) minutes", PAGE)
    assert runs is not None
    assert longest >= 1.5 * max(map(int, runs.groups()))


def test_sums_of_the_measured_times_are_right() -> None:
    rows = {row[0]: row[1:] for row in table(PAGE, "times of a deployment")}
    for name, cells in rows.items():
        *phases, total = (cell.strip(" |") for cell in cells)
        assert sum(int(cell) for cell in phases if cell) == int(total), name
    said = re.search(r"\| a deployment took \[(\d+) minutes, a rollback (\d+) seconds\]", PAGE)
    assert said is not None
    assert int(said[1]) == round(int(rows["good release"][-1].strip(" |")) / 60)
    assert said[2] == rows["rollback by hand"][-1].strip(" |")
    shown = re.findall(r"^(?:import|preflight|upgrade|smoke|rollback) +\w+ +(\d+)  ", PAGE, re.M)
    measured = rows["release that fails the smoke test"][:-1]
    assert shown == [cell.strip() for cell in measured]


def test_image_tags_of_the_examples_are_what_the_program_says() -> None:
    rows = re.findall(r"^\| .*(?:tag|after) .*\| `([\d.]+)` \| `(\S+)` \|$", PAGE, re.MULTILINE)
    begins = [upcoming(declared, last) for declared, last in CASES]
    assert [tag for _, tag in rows[1:]] == [
        f"{begin}.{count}.g983e757019ac" for begin, count in zip(begins, (12, 12, 3), strict=True)
    ]
    assert rows[0] == ("1.1.0", "1.1.0-g983e757019ac")
    between = ["1.0.0", begins[1], begins[0], "1.1.0-rc.1", begins[2], "1.1.0"]
    assert sorted(between, key=order) == between


@pytest.mark.parametrize("label", ["airlift-staging", "airlift-production"])
def test_labels_of_runners_are_the_ones_that_lint_knows(label: str) -> None:
    assert f"`{label}`" in PAGE
    assert f"- {label}\n" in (ROOT / ".github" / "actionlint.yaml").read_text()
    assert f"[self-hosted, {label}]" in WORKFLOWS


def test_the_runbook_says_that_the_smoke_test_stores_items() -> None:
    swap = yaml.safe_load((ROOT / "roles" / "swap" / "defaults" / "main.yml").read_text())
    stored = [one for one in swap["swap_smoke_requests"] if one["method"] == "POST"]
    assert [one["path"] for one in stored if one["status"] == 201] == ["/items"]
    page = (ROOT / "docs" / "OPERATIONS.md").read_text()
    (row,) = re.findall(r"^\|.*`play playbooks/smoke\.yml`.*$", page, re.MULTILINE)
    assert "changes nothing" not in row
    assert "stores two items per app host" in row
    # The row counts two rounds of requests per app host.
    tasks = (ROOT / "roles" / "swap" / "tasks" / "smoke.yml").read_text()
    assert 'rounds: "{{ swap_app_hosts | length * 2 }}"' in tasks

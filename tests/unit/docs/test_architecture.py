"""Settings, numbers and tests in docs/ARCHITECTURE.md and docs/FAILURES.md are real."""

import json
import re
from pathlib import Path

import pytest
import yaml

from scripts import bench_page, metrics_doc
from scripts.page_parts import table
from tests.unit.docs.test_contract import PROOF, exists

ROOT = Path(__file__).resolve().parents[3]
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
FAILURES = (ROOT / "docs" / "FAILURES.md").read_text()
PAGES = {"ARCHITECTURE": ARCHITECTURE, "FAILURES": FAILURES}
DEFAULTS = {
    name: value
    for path in sorted((ROOT / "roles").glob("*/defaults/main.yml"))
    for name, value in yaml.safe_load(path.read_text()).items()
}
OPTIONS = {
    name
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml"))
    for entry in yaml.safe_load(path.read_text())["argument_specs"].values()
    for name in entry.get("options") or ()
}
MEASURED = json.loads((ROOT / "docs" / "benchmarks" / "results.json").read_text())
ALERTS = {one["alert"] for one in metrics_doc.rules() if "alert" in one}
METRICS = {one.name for one in metrics_doc.of_service(metrics_doc.SERVICE.read_text())}
METRICS |= set(metrics_doc.of_watch(metrics_doc.watch_source())) | set(metrics_doc.uses())
SCENARIOS = {
    section.partition("\n")[0]: section
    for section in FAILURES.split("\n## ")[1:]
    if not section.startswith("Not proven")
}
PARTS = ("Detect", "Recover", "Prevent", "Proof")


def missing(text: str) -> list[tuple[str, str, str]]:
    """Return the tests that a text names but that do not exist."""
    return [proof for proof in PROOF.findall(text) if not exists(*proof)]


def test_defaults_of_the_inventory_are_the_roles() -> None:
    hosts, *settings = table(ARCHITECTURE, "numbers of the inventory")
    assert hosts[0] == "hosts in group `app`"
    example = yaml.safe_load((ROOT / "inventories" / "example" / "hosts.yml").read_text())
    assert int(hosts[1]) == len(example["app"]["hosts"])
    for name, default, _ in settings:
        assert default == str(DEFAULTS[name.strip("`")]), name


def test_every_setting_of_a_role_that_is_named_exists() -> None:
    roles = "|".join(path.name for path in (ROOT / "roles").iterdir())
    for page, text in PAGES.items():
        for name in re.findall(rf"`((?:{roles})_[a-z_]+)(?:\b|:)", text):
            assert name in METRICS or name in OPTIONS or name in MEASURED, (page, name)


def test_measured_numbers_are_those_of_the_benchmarks() -> None:
    assert len(table(ARCHITECTURE, "measured")) > 5
    assert bench_page.quoted(ARCHITECTURE, MEASURED) == ARCHITECTURE
    other = MEASURED | {"predict_rps": 1.0}
    assert "| 1 | `predict_rps` |" in bench_page.quoted(ARCHITECTURE, other)


@pytest.mark.parametrize(
    ("page", "words", "setting"),
    [
        ("ARCHITECTURE", "Preflight asks for {app} MB.", "preflight_memory_mb"),
        ("ARCHITECTURE", "fewer than {} days left (`tls_renew_days`)", "tls_renew_days"),
        ("ARCHITECTURE", "(valid for {} days)", "tls_ca_days"),
        ("ARCHITECTURE", "scrapes every {0[0]}{0[1]} {0[2]} over", "monitoring_scrape_interval"),
        ("MONITORING", "Preflight asks for {monitor} GB in zone `monitor`", "preflight_data_gb"),
        ("MONITORING", "Samples are kept for {0[0]}{0[1]} days", "monitoring_retention_time"),
        ("MONITORING", "keeps {} files of", "container_log_files"),
        ("MONITORING", "files of {0[0]}{0[1]} MB", "container_log_size"),
    ],
)
def test_other_defaults_in_the_text_are_the_roles(page: str, words: str, setting: str) -> None:
    value = DEFAULTS[setting]
    said = words.format(**value) if isinstance(value, dict) else words.format(value)
    assert said in (ROOT / "docs" / f"{page}.md").read_text()


def test_there_are_enough_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("title", SCENARIOS)
def test_each_scenario_is_detected_repaired_prevented_and_proven(title: str) -> None:
    text = SCENARIOS[title]
    assert re.findall(r"^- \*\*(\w+):\*\*", text, re.MULTILINE) == list(PARTS)
    proof = text.partition("- **Proof:**")[2]
    assert PROOF.findall(proof)
    assert missing(proof) == []
    # The summary in ARCHITECTURE has a row for this scenario.
    words = re.sub(r"[^a-z0-9 -]", "", title.lower())
    assert f"(FAILURES.md#{words.replace(' ', '-')})" in ARCHITECTURE


def test_the_summary_has_no_other_rows() -> None:
    linked = re.findall(r"\(FAILURES\.md#([a-z0-9-]+)\)", ARCHITECTURE)
    assert len(linked) == len(SCENARIOS)


@pytest.mark.parametrize("page", PAGES)
def test_alerts_metrics_playbooks_and_proofs_exist(page: str) -> None:
    text = PAGES[page]
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z][A-Za-z]+)`", text))
    assert named - ALERTS == set()
    for name in re.findall(r"\b((?:app|airlift|pg|redis|nginx)_[a-z_]+)(?=[`{]| is | are )", text):
        assert name in METRICS or name in OPTIONS, name
    for name in re.findall(r"playbooks/([a-z]+\.yml)", text):
        assert (ROOT / "playbooks" / name).is_file(), name
    assert missing(text) == []


def test_a_proof_that_is_not_there_is_found() -> None:
    text = FAILURES.replace(
        "::test_a_frozen_app_host_is_taken_out_and_returns`", "::test_nobody_wrote_this`"
    )
    assert missing(text) == [("tests/e2e/test_6_sick_replica.py", "test_nobody_wrote_this", "")]


def test_each_alert_of_the_service_has_a_scenario_or_is_about_capacity() -> None:
    """Each other alert needs a scenario that says how to react."""
    capacity = {
        "HighErrorRatio",
        "HighLatency",
        "HostCpuHigh",
        "HostMemoryHigh",
        "ClockOff",
        "AlertmanagerDown",
        "RuleFailures",
    }
    assert {one for one in ALERTS if one not in FAILURES} == capacity


def test_the_example_of_receivers_has_known_settings() -> None:
    page = (ROOT / "docs" / "MONITORING.md").read_text()
    found = re.search(r"<!-- receivers -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    example = yaml.safe_load(found[1])
    assert set(example) <= OPTIONS
    named = {one["name"] for one in example["monitoring_receivers"]}
    assert {one["receiver"] for one in example["monitoring_routes"]} | {"site"} == named

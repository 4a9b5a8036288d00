"""docs/MONITORING.md lists each metric of code, rules and dashboards once."""

import re

import pytest
import yaml

from scripts import metrics_doc
from tests.unit.docs.test_contract import PROOF, exists

PAGE = metrics_doc.DOCUMENT.read_text()


def part(name: str) -> str:
    """Return the generated part with this name."""
    return PAGE.partition(f"<!-- {name}: made by")[2].partition(f"<!-- end of {name} -->")[0]


def first_cells(name: str) -> list[str]:
    """Return the first cells of a generated table."""
    return re.findall(r"^\| `([^`]+)` \|", part(name), re.MULTILINE)


def test_the_page_is_what_the_generator_writes() -> None:
    assert metrics_doc.render(PAGE, metrics_doc.parts()) == PAGE


def test_every_metric_of_the_service_is_listed_once_and_no_other() -> None:
    declared = re.findall(r'^    "(app_\w+)",', metrics_doc.SERVICE.read_text(), re.MULTILINE)
    declared += re.findall(r'Counter\(\s*"(app_\w+)"', metrics_doc.SERVICE.read_text())
    declared += re.findall(r'Gauge\("(app_\w+)"', metrics_doc.SERVICE.read_text())
    assert sorted(first_cells("service")) == sorted(set(declared))
    assert len(declared) > 20


def test_every_metric_that_is_read_is_listed() -> None:
    listed = {
        one for name in ("service", "watch", "recorded", "others") for one in first_cells(name)
    }
    assert set(metrics_doc.uses()) - listed == set()


def test_every_alert_and_scrape_is_listed() -> None:
    assert first_cells("alerts") == [one["alert"] for one in metrics_doc.rules() if "alert" in one]
    jobs = yaml.safe_load((metrics_doc.MONITORING / "defaults" / "main.yml").read_text())
    assert first_cells("scrapes") == list(jobs["monitoring_jobs"])


@pytest.mark.parametrize("part_of", ["service", "watch", "recorded", "others"])
def test_a_metric_without_words_and_words_without_a_metric_are_refused(
    part_of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = yaml.safe_load(metrics_doc.WORDS.read_text())
    taken = words[part_of].popitem()
    make = getattr(metrics_doc, part_of)
    with pytest.raises(SystemExit, match=f"has no line for {taken[0]}"):
        make(words[part_of], {name: [] for name in metrics_doc.uses()})
    words[part_of] |= {taken[0]: taken[1], "app_nobody_has_this": taken[1]}
    with pytest.raises(SystemExit, match="nothing has app_nobody_has_this"):
        make(words[part_of], {name: [] for name in metrics_doc.uses()})


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(app_x_seconds_bucket{a=~"b|c"}[5m]))', {"app_x_seconds"}),
        ("time() - a_b > 30 or on(host) (up == 1 unless on(host) a_b)", {"a_b", "up"}),
        ("airlift:error_ratio:rate5m or vector(0)", {"airlift:error_ratio:rate5m"}),
        ('predict_linear(free_bytes{x!~"a|b"}[6h], 86400) < 0', {"free_bytes"}),
        ("rate(app_y_total[$__rate_interval])", {"app_y_total"}),
    ],
)
def test_what_an_expression_reads(expression: str, names: set[str]) -> None:
    assert metrics_doc.read_by(expression) == names


def test_names_in_the_text_are_names_of_the_tables() -> None:
    alerts = set(first_cells("alerts"))
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", PAGE))
    assert named <= alerts | {"ReceiverTest"}, named - alerts


def test_proofs_exist() -> None:
    proofs = PROOF.findall(PAGE)
    assert len(proofs) > 2
    assert [proof for proof in proofs if not exists(*proof)] == []

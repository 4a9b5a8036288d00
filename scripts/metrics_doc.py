"""Write the tables of docs/MONITORING.md: scrape targets, metrics and alerts.

``python scripts/metrics_doc.py`` rewrites the parts between the markers; ``--check`` only reports
whether they are current (exit code 1 if not), for the tests. Names, types, labels and meanings
come from the code that exposes them; the readers of a metric come from rules and dashboards. More
descriptions are in ``scripts/metrics_doc.yml``: a metric without an entry there is an error, as is
an entry without a metric.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.flows_doc import COLOURS  # noqa: E402 - after the path
from scripts.page_parts import between, rewrite  # noqa: E402 - after the path

DOCUMENT = ROOT / "docs" / "MONITORING.md"
WORDS = Path(__file__).with_suffix(".yml")
SERVICE = ROOT / "app" / "observability" / "metrics.py"
AGENT = ROOT / "roles" / "swap_agent" / "files" / "swap_agent"
MONITORING = ROOT / "roles" / "monitoring"
SITE = ROOT / "roles" / "site" / "defaults" / "main.yml"

#: A histogram is stored as three series; a panel or rule reads one of them.
_SERIES = re.compile(r"_(bucket|sum|count)$")
#: Words in an expression that are not metrics.
_WORDS = {"by", "on", "or", "and", "unless", "without", "ignoring", "group_left", "offset", "bool"}


class Metric(NamedTuple):
    """One metric as its code declares it."""

    name: str
    kind: str
    labels: list[str]
    meaning: str


def of_service(source: str) -> list[Metric]:
    """Return the metrics that the service's module declares."""
    found = []
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call = node.value
        kind = call.func.id if isinstance(call.func, ast.Name) else ""
        if kind in {"Counter", "Gauge", "Histogram"}:
            name, meaning, *labels = [ast.literal_eval(one) for one in call.args]
            found.append(Metric(name, kind.lower(), labels[0] if labels else [], meaning))
    return found


def watch_source() -> str:
    """Return the source of what writes metrics on the edge."""
    return "".join((AGENT / name).read_text() for name in ("watch.py", "follow.py"))


def of_watch(source: str) -> dict[str, str]:
    """Return name: type of the metrics that the watch on the edge writes."""
    said = dict(re.findall(r"# TYPE (airlift_[a-z_]+) (counter|gauge)", source))
    return said | dict(re.findall(r'"(airlift_[a-z_]+)", "(counter|gauge)"', source))


def read_by(expression: str) -> set[str]:
    """Return the metrics that an expression reads."""
    text = re.sub(r'"[^"]*"', "", expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", text)
    names = re.findall(r"(?<![\w:.$])([a-zA-Z_][\w:]*)\b(?!\s*\()", text)
    return {_SERIES.sub("", name) if name.startswith("app_") else name for name in names} - _WORDS


class Reader(NamedTuple):
    """A reader of metrics: an alert, a panel, or a recorded series."""

    title: str
    expressions: list[str]


@cache
def rules() -> list[dict[str, Any]]:
    """Return every rule, in the order of its file."""
    return [
        rule
        for path in sorted((MONITORING / "files" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


def readers() -> Iterator[Reader]:
    """Return alerts, recorded series and panels."""
    for rule in rules():
        yield Reader(f"`{rule.get('alert') or rule['record']}`", [rule["expr"]])
    for path in sorted((MONITORING / "files" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for row in board["panels"]:
            for panel in [row, *row.get("panels", [])]:
                queries = [one["expr"] for one in panel.get("targets", [])]
                if queries:
                    yield Reader(f"panel *{panel['title']}*", queries)


def uses() -> dict[str, list[str]]:
    """Return metric: its readers."""
    found: dict[str, list[str]] = {}
    for reader in readers():
        for name in sorted(set().union(*map(read_by, reader.expressions))):
            found.setdefault(name, []).append(reader.title)
    return found


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    return "\n".join([_row(*head), "|---" * len(head) + "|", *(_row(*one) for one in rest)])


def _used(name: str, used: dict[str, list[str]]) -> str:
    return ", ".join(used.get(name, [])) or "-"


def _labels(names: list[str]) -> str:
    return ", ".join(f"`{one}`" for one in names) or "-"


def scrapes() -> str:
    """Return the table of Prometheus' targets and the flows that scrapes use."""
    jobs = yaml.safe_load((MONITORING / "defaults" / "main.yml").read_text())["monitoring_jobs"]
    site = yaml.safe_load(SITE.read_text())
    rows = []
    for name, job in jobs.items():
        both = [f"{job['port']}_{colour}" for colour in COLOURS]
        names = both if job.get("colours") else [job["port"]]
        sources = {"self"} if job["zone"] == "monitor" else {"monitor"}
        flow = next(
            one["name"]
            for one in site["site_flows"]
            if one["from"] in sources
            and one["to"] in {job["zone"], "all"}
            and set(names) <= {*one["ports"]}
        )
        which = {"all": "each colour that runs", "active": "the active colour"}
        hosts = "every host" if job["zone"] == "all" else f"hosts of zone {job['zone']}"
        where = f"{hosts}, {which[job['colours']]}" if job.get("colours") else hosts
        numbers = ", ".join(str(site["site_ports"][one]) for one in names)
        rows.append((f"`{name}`", where, numbers, job["scheme"], flow))
    return _table(("job", "where", "port", "scheme", "flow"), *rows)


def alerts() -> str:
    """Return the table of alerts: severity, delay, and the metrics that they read."""
    rows = [
        (
            f"`{rule['alert']}`",
            rule["labels"]["severity"],
            str(rule.get("for", "at once")),
            ", ".join(f"`{name}`" for name in sorted(read_by(rule["expr"]))),
        )
        for rule in rules()
        if "alert" in rule
    ]
    return _table(("alert", "severity", "after", "reads"), *rows)


def service(words: dict[str, str], used: dict[str, list[str]]) -> str:
    """Return the table of the service's own metrics."""
    metrics = of_service(SERVICE.read_text())
    _same(words, {one.name for one in metrics}, "service")
    rows = [
        (
            f"`{one.name}`",
            one.kind,
            _labels(one.labels),
            one.meaning,
            words[one.name],
            _used(one.name, used),
        )
        for one in metrics
    ]
    return _table(("metric", "type", "labels", "meaning", "what it is for", "read by"), *rows)


def watch(words: dict[str, list[str]], used: dict[str, list[str]]) -> str:
    """Return the table of the metrics of the watch on the edge."""
    kinds = of_watch(watch_source())
    _same(words, set(kinds), "watch")
    rows = [
        (f"`{name}`", kinds[name], labels, meaning, _used(name, used))
        for name, (labels, meaning) in words.items()
    ]
    return _table(("metric", "type", "labels", "meaning", "read by"), *rows)


def recorded(words: dict[str, str], used: dict[str, list[str]]) -> str:
    """Return the table of recorded series."""
    records = [rule["record"] for rule in rules() if "record" in rule]
    _same(words, set(records), "recorded")
    rows = [(f"`{name}`", words[name], _used(name, used)) for name in records]
    return _table(("series", "meaning", "read by"), *rows)


def others(words: dict[str, list[str]], used: dict[str, list[str]]) -> str:
    """Return the table of metrics of other programs that rules and panels read."""
    own = {one.name for one in of_service(SERVICE.read_text())}
    own |= {*of_watch(watch_source())} | {one["record"] for one in rules() if "record" in one}
    _same(words, set(used) - own, "others")
    rows = [
        (f"`{name}`", source, kind, meaning, _used(name, used))
        for name, (source, kind, meaning) in words.items()
    ]
    return _table(("metric", "exposed by", "type", "meaning", "read by"), *rows)


def _same(words: dict[str, Any], names: set[str], part: str) -> None:
    """Refuse a metric without a description, and a description without a metric."""
    if missing := sorted(names - set(words)):
        raise SystemExit(f"{WORDS}: {part} has no line for {', '.join(missing)}; add one")
    if gone := sorted(set(words) - names):
        raise SystemExit(f"{WORDS}: nothing has {', '.join(gone)} of {part}; remove the line")


def parts() -> dict[str, str]:
    """Return each part's name and its table."""
    words, used = yaml.safe_load(WORDS.read_text()), uses()
    return {
        "scrapes": scrapes(),
        "alerts": alerts(),
        "service": service(words["service"], used),
        "watch": watch(words["watch"], used),
        "recorded": recorded(words["recorded"], used),
        "others": others(words["others"], used),
    }


def render(document: str, tables: dict[str, str]) -> str:
    """Return ``document`` with the part between each pair of markers made again."""
    for name, text in tables.items():
        begin, end = f"<!-- {name}: made by scripts/metrics_doc.py -->", f"<!-- end of {name} -->"
        document = between(document, begin, end, text)
    return document


def main() -> int:
    """Rewrite the document, or compare it with ``--check``; return the exit code."""
    return rewrite(DOCUMENT, lambda document: render(document, parts()))


if __name__ == "__main__":
    sys.exit(main())

"""Compute what sites and releases cost: memory from the roles, times from the benchmarks.

    python3 -m scripts.costs [NAME=VALUE ...]   print it, optionally with other assumptions
    python3 -m scripts.costs --write            write it into docs/COSTS.md

All assumptions are in docs/costs.yml; everything else is measured.
"""

# ruff: noqa: RUF001 - formulas are written as people write them
from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scripts.page_parts import PartError, between

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "COSTS.md"

#: Zone: (memory limit setting, containers that always run, containers during a swap).
CONTAINERS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "dmz": (("edge_memory", 1, 1), ("edge_exporter_memory", 1, 1)),
    # Both colours in the rollback window; both workers until the old one has finished.
    "app": (("app_memory", 1, 2), ("app_worker_memory", 1, 2)),
    "data": (
        ("postgres_memory", 1, 1),
        ("redis_memory", 1, 1),
        ("postgres_exporter_memory", 1, 1),
        ("redis_exporter_memory", 1, 1),
        # The scratch server that a backup is restored into.
        ("backup_memory", 0, 1),
    ),
    "monitor": (
        ("monitoring_prometheus_memory", 1, 1),
        ("monitoring_alertmanager_memory", 1, 1),
        ("monitoring_grafana_memory", 1, 1),
    ),
}
EVERY_HOST = "monitoring_node_exporter_memory"

#: Size of a site: the zones of each of its hosts.
SIZES: dict[str, tuple[tuple[str, ...], ...]] = {
    "one host": (("dmz", "app", "data", "monitor"),),
    "standard": (("dmz",), ("app",), ("app",), ("data",), ("monitor",)),
    "large": (("dmz",), *(("app",),) * 4, ("data",), ("monitor",)),
}


class CostError(Exception):
    """An invalid input, described in one sentence."""


def settings() -> dict[str, Any]:
    """Return the defaults of all roles."""
    found: dict[str, Any] = {}
    for path in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def assumptions(words: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the assumptions; words such as `clients=40` override values."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docs" / "costs.yml").read_text())
    for word in words:
        name, _, value = word.partition("=")
        if name not in found:
            raise CostError(f"there is no assumption {name!r}; known are {', '.join(found)}")
        try:
            number = float(value)
        except ValueError:
            number = -1
        if not 0 <= number < math.inf:
            raise CostError(f"{name} is {value!r}: give a number, such as {name}=2")
        found[name]["value"] = int(number) if number == int(number) else number
    return found


def mib(limit: str) -> int:
    """Return a limit as the engine writes it, in MiB."""
    unit = {"m": 1, "g": 1024}[limit[-1].lower()]
    return int(limit[:-1]) * unit


def memory(zones: Sequence[str], roles: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return a host's limits in MiB (always, and at the peak), and preflight's minimum in MB."""
    counted = [one for zone in zones for one in CONTAINERS[zone]] + [(EVERY_HOST, 1, 1)]
    always = sum(mib(roles[name]) * count for name, count, _ in counted)
    peak = sum(mib(roles[name]) * count for name, _, count in counted)
    return always, peak, sum(roles["preflight_memory_mb"][zone] for zone in zones)


def gib(zones: Sequence[str], roles: Mapping[str, Any], os_mib: float) -> int:
    """Return a host's memory in whole GiB, so that no container can exhaust it."""
    return math.ceil((memory(zones, roles)[1] + os_mib) / 1024)


def measured() -> dict[str, float]:
    """Return the results of `make bench`."""
    found: dict[str, float] = json.loads((ROOT / "docs/benchmarks/results.json").read_text())
    return found


def number(value: float) -> str:
    """Return a number in the form of the tables."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; columns that begin with a number are aligned to the right."""
    right = ["---:" if re.fullmatch(r"[\d.,]+", cell) else "---" for cell in rows[0]]
    lines = [head, right, *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def machine_table(assumed: Mapping[str, float]) -> list[str]:
    """Return the measured bytes and seconds."""
    found, rate = measured(), assumed["usb_mb_per_second"]
    full = found["bundle_file_bytes"] / 1e6
    rows = [
        ["full bundle", number(full), "MB"],
        ["its images, each layer once", number(found["bundle_bytes"] / 1e6), "MB"],
        ["bytes to an app host, only app code changed", number(found["upgrade_bytes"] / 1e6), "MB"],
        ["a full bundle to the USB drive, at the assumed rate", number(full / rate), "s"],
        ["verify the full bundle", number(found["verify_seconds"]), "s"],
        ["first installation", number(found["install_seconds"]), "s"],
        ["installation again, nothing to do", number(found["reinstall_seconds"]), "s"],
        ["upgrade, backup and all gates included", number(found["upgrade_seconds"]), "s"],
        ["rollback, until the previous release serves", number(found["rollback_seconds"]), "s"],
    ]
    return table(["What", "Value", "Unit"], rows)


def zones_table(assumed: Mapping[str, float]) -> list[str]:
    """Return the memory limits of each zone's containers."""
    roles = settings()
    rows = []
    for zone in CONTAINERS:
        always, peak, least = memory((zone,), roles)
        rows.append(
            [
                f"`{zone}`",
                number(always),
                number(peak),
                number(least),
                number(gib((zone,), roles, assumed["os_mib"])),
                number(roles["preflight_data_gb"][zone]),
            ]
        )
    head = ["Zone of a host", "Limits, MiB", "During an upgrade, MiB", "Preflight asks for, MB"]
    return table([*head, "Give it, GiB", "Disk beside images, GB"], rows)


def site_gib(size: str, assumed: Mapping[str, float]) -> int:
    """Return the memory of all hosts of a site."""
    roles = settings()
    return sum(gib(host, roles, assumed["os_mib"]) for host in SIZES[size])


def sizes_table(assumed: Mapping[str, float]) -> list[str]:
    """Return the needs of a site of each size."""
    roles = settings()
    rows = []
    for size, hosts in SIZES.items():
        disk = sum(roles["preflight_data_gb"][zone] for host in hosts for zone in host)
        counts = ", ".join(
            f"{sum(zone in host for host in hosts)} {zone}" for zone in CONTAINERS if len(hosts) > 1
        )
        needs = sum(memory(host, roles)[2] for host in hosts)
        rows.append(
            [
                size,
                counts or "all zones on one",
                number(len(hosts)),
                number(needs),
                number(site_gib(size, assumed)),
                number(disk),
            ]
        )
    head = ["Size", "Hosts", "Number", "Preflight asks for, MB", "Give it, GiB"]
    return table([*head, "Disk beside images, GB"], rows)


def assumptions_table(assumed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the assumed values."""
    rows = [
        [f"`{name}`", str(one["value"]), one["unit"], one["about"]] for name, one in assumed.items()
    ]
    return table(["Assumption", "Value", "Unit", "Meaning"], rows)


def waves(assumed: Mapping[str, float]) -> int:
    """Return how many waves are needed to bring a release to all clients."""
    later = max(0.0, assumed["clients"] - assumed["canaries"])
    return 1 + math.ceil(later / max(1, assumed["wave"]))


def people_table(assumed: Mapping[str, float]) -> list[str]:
    """Return hours of work, and the time until all clients have a release."""
    clients, releases = assumed["clients"], assumed["releases"]
    each = assumed["carry_hours"] + assumed["attend_hours"]
    release = assumed["release_hours"] + clients * each
    upkeep = clients * (assumed["upkeep_hours"] + assumed["incident_hours"])
    days = (waves(assumed) - 1) * assumed["wave_days"]
    machine_hours = number(clients * measured()["upgrade_seconds"] / 3600)
    rows = [
        [
            "a release, everywhere",
            "release_hours + clients × (carry + attend)",
            number(release),
            "h",
        ],
        ["releases of a year", "the line above × releases", number(releases * release), "h"],
        ["upkeep of a year", "clients × (upkeep + incident)", number(upkeep), "h"],
        ["**a year**", "the two lines above", number(releases * release + upkeep), "h"],
        ["machines, a release", "clients × measured upgrade", machine_hours, "h"],
        ["waves", "1 + (clients − canaries) ÷ wave, rounded up", number(waves(assumed)), ""],
        ["first to last client", "(waves − 1) × wave_days", number(days), "working days"],
    ]
    return table(["What", "Formula", "Result", "Unit"], rows)


def compared(assumed: Mapping[str, float], size: str = "standard") -> dict[str, float]:
    """Return hours per client and year, on the client's premises and in a cloud."""
    memory_months = site_gib(size, assumed) * 12
    own = memory_months * assumed["own_gib_month"]
    cloud = memory_months * assumed["cloud_gib_month"] + 12 * assumed["cloud_services_month"]
    own_people = assumed["upkeep_hours"] + assumed["incident_hours"]
    cloud_people = assumed["cloud_upkeep_hours"] + assumed["cloud_incident_hours"]
    own_each = assumed["carry_hours"] + assumed["attend_hours"]
    cloud_each = assumed["cloud_attend_hours"]
    saved = own_each - cloud_each
    more = cloud + cloud_people - own - own_people
    return {
        "own_machines": own,
        "cloud_machines": cloud,
        "own_people": own_people,
        "cloud_people": cloud_people,
        "own_each": own_each,
        "cloud_each": cloud_each,
        "own": own + own_people + assumed["releases"] * own_each,
        "cloud": cloud + cloud_people + assumed["releases"] * cloud_each,
        # With more releases than this a cloud is cheaper; infinite if a release saves nothing.
        "even": max(0.0, more / saved) if saved > 0 else math.inf if more > 0 else 0.0,
    }


def compared_table(assumed: Mapping[str, float]) -> list[str]:
    """Compare the client's premises with a cloud, per client and year."""
    hours = compared(assumed)
    names = ["machines and services", "upkeep and incidents", "each release", "**a year**"]
    keys = ["machines", "people", "each", ""]
    rows = [
        [name, *(number(hours[f"{where}_{key}".rstrip("_")]) for where in ("own", "cloud"))]
        for name, key in zip(names, keys, strict=True)
    ]
    even = "never" if hours["even"] == math.inf else number(hours["even"])
    rows.append(["equal at this many releases a year", even, even])
    head = ["Hours per client and year", "On-premises", "Cloud"]
    return table(head, rows)


def parts(assumed: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the generated parts of the page."""
    values = {name: float(one["value"]) for name, one in assumed.items()}
    return {
        "machine": machine_table(values),
        "zones": zones_table(values),
        "sizes": sizes_table(values),
        "assumptions": assumptions_table(assumed),
        "people": people_table(values),
        "compared": compared_table(values),
    }


def filled(text: str, made: Mapping[str, Sequence[str]]) -> str:
    """Return the page with its generated parts renewed."""
    for name, lines in made.items():
        begin, end = f"<!-- costs: {name} -->", "<!-- end of costs -->"
        text = between(text, begin, end, "\n".join(lines))
    return text


def main(words: Sequence[str]) -> int:
    """Print the tables or write them; return the exit code."""
    if set(words) & {"-h", "--help"}:
        print(__doc__)
        return 0
    write = list(words) == ["--write"]
    try:
        made = parts(assumptions(() if write else words))
        if write:
            PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
        else:
            print("\n\n".join("\n".join(lines) for lines in made.values()))
    except PartError as error:
        print(f"costs: {PAGE}: {error}", file=sys.stderr)
        return 2
    except CostError as error:
        print(f"costs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

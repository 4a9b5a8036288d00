"""Draw the site's zones, containers and allowed flows into docs/ARCHITECTURE.md.

``python scripts/flows_doc.py`` rewrites the parts between the markers; ``--check`` only says
whether they are current (exit code 1 if not), for the tests. Zones, ports and flows come from the
role ``site``, the containers of each zone from ``status_expected`` of the role ``status``.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.page_parts import between, rewrite  # noqa: E402 - after the path

DEFAULTS = ROOT / "roles" / "site" / "defaults" / "main.yml"
EXPECTED = ROOT / "roles" / "status" / "defaults" / "main.yml"
DOCUMENT = ROOT / "docs" / "ARCHITECTURE.md"
SYSTEM = "<!-- system: made by scripts/flows_doc.py from roles/site and roles/status -->"
SYSTEM_END = "<!-- end of system -->"
BEGIN = "<!-- flows: made by scripts/flows_doc.py from roles/site/defaults/main.yml -->"
END = "<!-- end of flows -->"

COLOURS = yaml.safe_load((ROOT / "roles/site/vars/main.yml").read_text())["site_colours"]
#: What the sources of flows are called in the picture, where they are no zone.
OUTSIDE = {"any": "API clients", "mgmt": "jump host"}
#: Ports that Nginx publishes, though they do not bear its container's name.
EDGE_PORTS = ("http", "https", "edge_preview", "edge_status")
#: Who speaks a protocol without ports, and what the documents call it.
PORTLESS = {"vrrp": ("edge", "VRRP")}
#: Of a flow from a host to itself: the port, and the containers that use it.
SELF = {
    "postgres": ["postgres-exporter"],
    "redis": ["redis-exporter"],
    "edge_status": ["nginx-exporter"],
    "prometheus": ["grafana"],
    "alertmanager": ["prometheus"],
    "grafana": [],
}


def _names(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def service(port: str) -> str:
    """Return the container (or program) behind a port's name."""
    if port == "ssh":
        return "sshd"
    return "edge" if port in EDGE_PORTS else port.replace("_", "-")


def containers(expected: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return each zone's containers, both colours included."""
    return {
        zone: [
            one.replace("COLOUR", colour)
            for one in services
            for colour in (COLOURS if "COLOUR" in one else COLOURS[:1])
        ]
        for zone, services in expected.items()
    }


def system(site: dict[str, Any], expected: dict[str, list[str]]) -> str:
    """Return the Mermaid graph of zones, their containers, and every allowed flow."""
    ports: dict[str, int] = site["site_ports"]
    lines = ["```mermaid", "flowchart LR"]
    lines += [f'  {name}(["{title}"])' for name, title in OUTSIDE.items()]
    for zone, services in containers(expected).items():
        title = "on every host" if zone == "all" else f"zone {zone}"
        lines.append(f'  subgraph {zone}_zone["{title}"]')
        shown = ["sshd", *services] if zone == "all" else services
        lines += [f'    {one}["{one}"]' for one in shown]
        lines.append("  end")
    arrows: dict[tuple[str, str], list[str]] = {}
    for flow in site["site_flows"]:
        if "protocol" in flow:
            program, word = PORTLESS[flow["protocol"]]
            lines.append(f'  {flow["from"]}_zone -- "{word}" --> {program}')
        for port in flow["ports"]:
            for source in _names(flow["from"]):
                begins = SELF[port] if source == "self" else [source]
                for one in begins:
                    start = one if one in OUTSIDE or source == "self" else f"{one}_zone"
                    arrows.setdefault((start, service(port)), []).append(str(ports[port]))
    lines += [
        f'  {start} -- "{", ".join(dict.fromkeys(numbers))}" --> {end}'
        for (start, end), numbers in arrows.items()
    ]
    return "\n".join([*lines, "```"])


def table(site: dict[str, Any]) -> str:
    """Return the table of flows."""
    ports: dict[str, int] = site["site_ports"]
    rows = ["| flow | from | to | TCP ports |", "|---|---|---|---|"]
    for flow in site["site_flows"]:
        names = ", ".join(f"{name} {ports[name]}" for name in flow["ports"])
        if "protocol" in flow:
            names = f"none: {PORTLESS[flow['protocol']][1]}, with site_shared_address"
        sources, targets = _names(flow["from"]), _names(flow["to"])
        rows.append(f"| {flow['name']} | {', '.join(sources)} | {', '.join(targets)} | {names} |")
    return "\n".join(rows)


def render(document: str, site: dict[str, Any], expected: dict[str, list[str]]) -> str:
    """Return ``document`` with the parts between the markers made again."""
    document = between(document, SYSTEM, SYSTEM_END, system(site, expected))
    return between(document, BEGIN, END, table(site))


def sources() -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the site's defaults, and the containers that each zone should run."""
    expected = yaml.safe_load(EXPECTED.read_text())["status_expected"]
    return yaml.safe_load(DEFAULTS.read_text()), expected


def main() -> int:
    """Rewrite the document, or compare it with ``--check``; return the exit code."""
    return rewrite(DOCUMENT, lambda document: render(document, *sources()))


if __name__ == "__main__":
    sys.exit(main())

"""Draw the table of allowed flows (``site_flows``) into docs/ARCHITECTURE.md.

``python scripts/flows_doc.py`` rewrites the part between the two markers; ``--check`` only says
whether it is current (exit code 1 if not), for the tests.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ROOT / "roles" / "site" / "defaults" / "main.yml"
DOCUMENT = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN = "<!-- flows: made by scripts/flows_doc.py from roles/site/defaults/main.yml -->"
END = "<!-- end of flows -->"


def _names(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def picture(site: dict[str, Any]) -> str:
    """Return the Mermaid graph and the table for ``site`` (the role's defaults)."""
    ports: dict[str, int] = site["site_ports"]
    graph, rows = [], []
    for flow in site["site_flows"]:
        numbers = ", ".join(str(ports[name]) for name in flow["ports"])
        names = ", ".join(f"{name} {ports[name]}" for name in flow["ports"])
        sources, targets = _names(flow["from"]), _names(flow["to"])
        graph += [
            f'  {source} -- "{numbers}" --> {target}' for source in sources for target in targets
        ]
        rows.append(f"| {flow['name']} | {', '.join(sources)} | {', '.join(targets)} | {names} |")
    return "\n".join(
        [
            "```mermaid",
            "flowchart LR",
            *graph,
            "```",
            "",
            "| flow | from | to | TCP ports |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def render(document: str, site: dict[str, Any]) -> str:
    """Return ``document`` with the part between the markers generated again."""
    head, _, rest = document.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{picture(site)}\n{END}{tail}"


def main() -> int:
    """Rewrite the document, or compare it with ``--check``; return the exit code."""
    before = DOCUMENT.read_text()
    after = render(before, yaml.safe_load(DEFAULTS.read_text()))
    if "--check" in sys.argv[1:]:
        if before != after:
            print(f"{DOCUMENT}: the flows are not those of {DEFAULTS}; run: {sys.argv[0]}")
        return int(before != after)
    DOCUMENT.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

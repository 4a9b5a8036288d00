"""The data that all parts of the report share: table rows, problems, findings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from roles.site.module_utils.http_probe import failed_checks
from roles.site.module_utils.image_identity import image_id

Findings = Mapping[str, Any]
Facts = Mapping[str, Any]
#: States of a healthy container.
WELL = frozenset({"healthy", "running", "starting"})


class Rank(IntEnum):
    """The order of problems in a report: causes before their effects."""

    RUN = 0
    HOST = 1
    RULES = 2
    DATA = 3
    SERVICE = 4
    REPLICA = 5
    EXPORTER = 6
    EDGE = 7
    STATE = 8
    #: The active release is not affected.
    WARNING = 9


class Row(NamedTuple):
    """One row of the table."""

    host: str
    service: str
    release: str
    colour: str
    image: str
    health: str
    #: For people: how long it has run, or has been down.
    since: str
    #: For machines; None if it does not run.
    uptime_seconds: int | None = None


class Problem(NamedTuple):
    """One problem and its fix."""

    rank: Rank
    host: str
    found: str
    #: Last error line of the service.
    said: str = ""
    #: The playbook that repairs it, or an empty string.
    fix: str = "install.yml"
    #: Whether only this host needs the playbook.
    limit: bool = True
    #: The manual step before it.
    before: str = ""
    #: The failed service; problems that only follow from it are omitted.
    service: str = ""
    #: The release from whose directory the playbook runs; empty for the active release.
    release: str = ""

    @property
    def text(self) -> str:
        """Return the problem with its last error line."""
        return f"{self.found}: {self.said}" if self.said else self.found

    @property
    def warning(self) -> bool:
        """Return whether the active release is not affected."""
        return self.rank is Rank.WARNING


def hosts_of(findings: Findings) -> list[str]:
    """Return every host of the site, in the order of the zones."""
    return list(dict.fromkeys(host for hosts in findings["zones"].values() for host in hosts))


def asked(findings: Findings) -> list[str]:
    """Return the queried hosts, in the order of the zones."""
    return [host for host in hosts_of(findings) if host in findings["asked"]]


def answer_of(findings: Findings, host: str) -> Mapping[str, Any]:
    """Return Ansible's result of a host; empty if it was not queried."""
    said = findings["hosts"].get(host)
    return said if isinstance(said, Mapping) else {}


def drained_of(findings: Findings) -> dict[str, Mapping[str, Any]]:
    """Return the hosts that an operator has drained: who did it (C(by)) and when (C(since))."""
    said = edge_of(findings).get("drained")
    hosts = hosts_of(findings)
    return {
        host: one
        for host, one in (said.items() if isinstance(said, Mapping) else ())
        if host in hosts and isinstance(one, Mapping)
    }


def app_hosts(findings: Findings) -> list[str]:
    """Return the hosts that should serve."""
    out = drained_of(findings)
    return [host for host in findings["zones"].get("app", []) if host not in out]


def facts_of(findings: Findings, host: str) -> Facts:
    """Return the facts of a host; empty when it did not answer."""
    return dict(answer_of(findings, host).get("facts") or {})


def container_of(facts: Facts, service: str) -> Mapping[str, Any]:
    """Return the container of a service; empty when there is none."""
    found = [one for one in facts.get("containers") or [] if one["service"] == service]
    return found[0] if found else {}


def edge_of(findings: Findings) -> dict[str, Any]:
    """Return what the swap agent reports of an installed site, else nothing."""
    said = findings["edge"]
    return dict(said) if isinstance(said, Mapping) and said.get("installed") else {}


def edge_host(findings: Findings) -> str:
    """Return the host that records the active release."""
    hosts = findings["zones"].get("dmz") or ["the edge"]
    return str(hosts[0])


def active_of(findings: Findings, edge: Mapping[str, Any]) -> str:
    """Return the active colour; without the edge's answer, the one whose workers run."""
    if edge:
        return str(edge["active"])
    found = [
        one for host in asked(findings) for one in facts_of(findings, host).get("containers") or []
    ]
    workers = Counter(
        one["colour"] for one in found if one["service"].startswith("worker-") and one["running"]
    )
    replicas = Counter(one["colour"] for one in found if one["service"].startswith("app-"))
    best = (workers or replicas).most_common(1)
    return str(best[0][0] if best else findings["colours"][0])


def manifest_of(findings: Findings, release: str | None) -> dict[str, Any]:
    """Return a release's manifest on this jump host; empty if it is missing or damaged."""
    path = Path(findings["releases_dir"], str(release), "manifest.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def image_of(component: Mapping[str, Any], facts: Facts) -> str:
    """Return the id of a component's image in a host's image store."""
    return image_id(component, str(facts["engine"].get("store")))


def wrong_checks(answer: Mapping[str, Any]) -> str:
    """Return what keeps a service from being ready, of its readiness answer."""
    return failed_checks(answer) or str(answer["error"]) or f"HTTP {answer['status']}"

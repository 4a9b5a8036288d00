"""Filters for a site with several edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError


def swap_generation(
    tested: Mapping[str, Any], staged: Sequence[Mapping[str, Any]], lead: str
) -> int | None:
    """Return the number of the generation that all edges will serve; None when it is unknown.

    A number stands for one configuration, so it is a new one as soon as the lead changes, or an
    edge that has the highest number. `tested` and `staged` are the agents' answers.
    """
    if "live_generation" not in tested:
        return None
    known = [one for one in staged if "live_generation" in one]
    mine = int(tested["live_generation"])
    highest = max([mine, *(int(one["live_generation"]) for one in known)])
    if mine < highest:
        raise AnsibleFilterError(
            f"another edge serves generation {highest}, {lead} only {mine}: its record is older, "
            f"as after a restore. To take over what is served, run on {lead}: "
            "sudo airlift-swap adopt --from EDGE"
        )
    new = tested["differs"] or any(
        one["differs"] for one in known if int(one["live_generation"]) == highest
    )
    return highest + 1 if new else highest


def swap_together(
    tested: Mapping[str, Any], staged: Sequence[Mapping[str, Any]], lead: str
) -> dict[str, Any]:
    """Return the options with which the lead's command changes it together with the others."""
    number = swap_generation(tested, staged, lead)
    return {"later": None, **({"generation": number} if number else {})}


def without_lead(found: Mapping[str, Any]) -> str:
    """Return what follows on a site with several edges; empty with one."""
    lead, *others = found.get("edges") or [""]
    if not others:
        return ""
    return (
        f". {lead} holds the record of the site, so nothing is changed without it; what "
        f"{', '.join(others)} serves goes on. Bring {lead} back, or remove it from hosts.yml and "
        f"run {found['command']}install.yml"
    )


def older_record(found: Mapping[str, Any]) -> str:
    """Return that the lead's record is older than what another edge serves; empty when not."""
    unfit = str((found["edge"].get("edges") or {}).get("unfit") or "")
    if "airlift-swap adopt --from" not in unfit:
        return ""
    return f"{found['edges'][0]}: {unfit}" if found.get("edges") else unfit


def swap_edges_ready(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the edges that answer and are set up; `found` is edge: what the play found there."""
    return [name for name, one in found.items() if _stat(one).get("exists")]


def swap_edges_silent(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the edges that did not answer."""
    return [name for name, one in found.items() if not one.get("answered")]


def _stat(found: Mapping[str, Any]) -> Mapping[str, Any]:
    result = found.get("result") or {}
    said: Mapping[str, Any] = result.get("stat") or {}
    return said


class FilterModule:
    """The filters, under the names that templates use."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name: function."""
        return {
            "swap_edges_ready": swap_edges_ready,
            "swap_edges_silent": swap_edges_silent,
            "swap_together": swap_together,
        }

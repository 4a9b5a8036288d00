"""Who holds the address that the edges share, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from roles.status.logic import model
from roles.status.logic.model import Findings, Problem, Rank


def _said(findings: Findings) -> dict[str, Mapping[str, Any]]:
    """Return what each edge that answered says of the address."""
    found = {
        host: model.facts_of(findings, host).get("shared_address")
        for host in findings["zones"].get("dmz", [])
    }
    return {host: one for host, one in found.items() if one and not one["error"]}


def holders(findings: Findings) -> list[str]:
    """Return the edges that have the address on an interface now."""
    return [host for host, one in _said(findings).items() if one["held"]]


def shared_line(findings: Findings) -> list[str]:
    """Return the line of the report; none on a site without a shared address."""
    shared = findings.get("shared") or {}
    if not shared.get("address"):
        return []
    there, silent = holders(findings), _silent(findings)
    words = f"held by {' and '.join(there)}" if there else "held by no edge"
    if silent and not there:
        words += f" that was asked; no answer of {', '.join(silent)}"
    return [f"shared address {shared['address']} {words}"]


def held_address(findings: Findings) -> dict[str, Any]:
    """Return the address and who holds it, for machines."""
    shared = findings.get("shared") or {}
    return {"address": shared.get("address") or None, "held_by": holders(findings)}


def _silent(findings: Findings) -> list[str]:
    said = _said(findings)
    return [host for host in findings["zones"].get("dmz", []) if host not in said]


def of_shared(findings: Findings) -> Iterator[Problem]:
    """Return the problems of the shared address."""
    shared = findings.get("shared") or {}
    if not shared.get("address"):
        return
    address, unit, said = shared["address"], shared["unit"], _said(findings)
    there = holders(findings)
    if len(there) > 1:
        yield _split(findings, there)
    elif not there and said and not _silent(findings):
        why = "; ".join(f"{host}: {one['unfit']}" for host, one in said.items() if one["unfit"])
        found = f"no edge holds the shared address {address}"
        yield Problem(Rank.EDGE, next(iter(said)), found, why, limit=False)
    for host in there:
        answer = (model.facts_of(findings, host).get("answers") or {}).get("shared address")
        if answer and (answer["error"] or answer["status"] != 200):
            found = f"{address} on {host} does not answer as the service"
            wrong = str(answer["error"]) or model.wrong_checks(answer)
            yield Problem(Rank.EDGE, host, found, wrong)
    for host, one in said.items():
        # What serves is not affected while another edge has the address.
        rank = Rank.WARNING if [other for other in there if other != host] else Rank.EDGE
        if not one["runs"]:
            found = f"{unit} (keepalived) of {host} does not run: it cannot take {address}"
            yield Problem(rank, host, found)
        elif not one["enabled"]:
            yield Problem(rank, host, f"{unit} (keepalived) of {host} would not start at boot")


def _split(findings: Findings, there: list[str]) -> Problem:
    """Return the problem of an address that several edges hold at once."""
    shared = findings["shared"]
    found = (
        f"{' and '.join(there)} both hold the shared address {shared['address']} (split brain): "
        "they do not hear each other"
    )
    ends = " and ".join(str(shared["edges"].get(host, host)) for host in there)
    before = (
        f"let IP protocol 112 (VRRP) pass between {ends}, in the hypervisor's filters too; until "
        f"then, on {there[-1]}: systemctl stop {shared['unit']}"
    )
    return Problem(Rank.EDGE, there[0], found, limit=False, before=before)

"""Command line of the agent."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import swap_agent
from swap_agent import lease, swap
from swap_agent.nginx import Edge
from swap_agent.state import COLOURS, SETTINGS, Settings, SwapError, exclusive


def parser() -> argparse.ArgumentParser:
    """Return the parser of the agent's commands."""
    found = argparse.ArgumentParser(
        prog="airlift-swap", description=(swap_agent.__doc__ or "").split("\n")[0]
    )
    found.add_argument("--settings", type=Path, default=SETTINGS)
    commands = found.add_subparsers(dest="command", required=True)
    wanted = commands.add_parser("apply", help="put the wanted configuration into service")
    wanted.add_argument("--release", required=True)
    wanted.add_argument("--serial", required=True, type=int)
    commands.add_parser("verify", help="prove that Nginx serves the live configuration")
    commands.add_parser("show", help="what is recorded, what is served, who is at work")
    one = commands.add_parser("lock", help="take or prolong the right to change the site")
    one.add_argument("--run", required=True)
    one.add_argument("--owner", required=True)
    one.add_argument("--verb", required=True)
    one.add_argument("--seconds", type=float, default=600)
    one = commands.add_parser("unlock", help="give it back")
    one.add_argument("--run", required=True)
    one = commands.add_parser("switch", help="let a colour serve; the other one stands by")
    one.add_argument("--run", required=True)
    one.add_argument("--to", required=True, choices=COLOURS)
    one.add_argument("--release", required=True)
    one.add_argument("--serial", required=True, type=int)
    one = commands.add_parser("note", help="write into the journal")
    one.add_argument("--run", required=True)
    one.add_argument("--step", required=True)
    one.add_argument("--event", required=True, choices=["intent", "done", "failed"])
    one.add_argument("--data", type=json.loads, default={})
    commands.add_parser("journal", help="show the journal")
    return found


def answer(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Do what a command asks; return its answer."""
    match given.command:
        case "apply":
            return swap.apply(edge, given.release, given.serial)
        case "verify":
            return swap.verify(edge)
        case "lock":
            taken = lease.acquire(
                swap.lease_file(edge),
                run=given.run,
                owner=given.owner,
                verb=given.verb,
                seconds=given.seconds,
            )
            return {"changed": True, **dataclasses.asdict(taken)}
        case "unlock":
            return {"changed": lease.release(swap.lease_file(edge), given.run)}
        case "switch":
            return swap.switch(
                edge, run=given.run, to=given.to, release=given.release, serial=given.serial
            )
        case _:
            lease.check(swap.lease_file(edge), given.run)
            swap.journal_of(edge).append(given.run, given.step, given.event, given.data)
            return {"changed": True}


def main() -> None:
    """Run one command; the answer is one JSON object."""
    given = parser().parse_args()
    try:
        edge = Edge(Settings.load(given.settings))
        if given.command == "show":
            said = swap.show(edge)
        elif given.command == "journal":
            said = {"records": swap.journal_of(edge).records()}
        else:
            with exclusive(edge.settings):
                said = answer(edge, given)
    except SwapError as error:
        sys.exit(f"airlift-swap: {error}")
    print(json.dumps(said, sort_keys=True))


if __name__ == "__main__":
    main()

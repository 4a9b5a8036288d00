"""Command line of the agent."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import swap_agent
from swap_agent import reserve, runs, swap, watch
from swap_agent.journal import VERBS
from swap_agent.lease import SECONDS, HeldError
from swap_agent.nginx import Edge
from swap_agent.state import (
    COLOURS,
    SETTINGS,
    NoRoomError,
    Settings,
    SwapError,
    exclusive,
    in_words,
)

#: Exit code when another run holds the lease; who it is stands on standard output.
HELD = 3


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
    commands.add_parser("watch", help="the daemon: keep requests from replicas that are not ready")
    one = _of_run(commands, "lock", "begin a run: take or prolong the right to change the site")
    one.add_argument("--owner", required=True)
    one.add_argument("--verb", required=True, choices=VERBS)
    one.add_argument("--instead-of", default="", help="a run that is known to be dead")
    one.add_argument("--seconds", type=float, default=SECONDS, help="how long the lease then holds")
    one = _of_run(commands, "beat", "give a sign of life")
    one.add_argument("--seconds", type=float, required=True, help="how long the lease then holds")
    one = _of_run(commands, "step", "note that the next step of a run begins")
    one.add_argument("--name", required=True)
    one = _of_run(commands, "switch", "let a colour serve; the other one stands by")
    one.add_argument("--to", required=True, choices=COLOURS)
    one.add_argument("--release", required=True)
    one.add_argument("--serial", required=True, type=int)
    one.add_argument("--warm", type=float, default=86400, help="seconds that the other is kept")
    _of_run(commands, "retire", "send nothing to the standby any more")
    _of_run(commands, "undo", "put back what served before an unfinished run switched")
    one = _of_run(commands, "unlock", "end a run and give the right back")
    one.add_argument("--failed", default="", metavar="WHY", help="it did not succeed")
    one = commands.add_parser("journal", help="show the journal, a line a record")
    one.add_argument("--json", action="store_true", help="as one JSON object")
    return found


def _of_run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str
) -> argparse.ArgumentParser:
    """Add a command that only the holder of the lease may give."""
    one = commands.add_parser(name, help=about)
    one.add_argument("--run", required=True)
    one.add_argument("--data", type=json.loads, default={}, help="JSON, for the journal")
    return one


def answer(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Do what a command asks; return its answer."""
    if given.command == "apply":
        return swap.apply(edge, given.release, given.serial)
    if given.command == "verify":
        return swap.verify(edge)
    if given.command == "lock":
        return runs.begin(
            edge,
            run=given.run,
            owner=given.owner,
            verb=given.verb,
            seconds=given.seconds,
            instead_of=given.instead_of,
            data=given.data,
        )
    if given.command == "step":
        return runs.step(edge, run=given.run, name=given.name)
    if given.command == "switch":
        return swap.switch(
            edge,
            run=given.run,
            to=given.to,
            release=given.release,
            serial=given.serial,
            warm=given.warm,
        )
    if given.command in ("retire", "undo"):
        act = swap.retire if given.command == "retire" else swap.undo
        return act(edge, run=given.run)
    return runs.end(edge, run=given.run, why=given.failed, data=given.data)


def obey(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Do what a command asks; on a full disk what takes a release back uses the reserve."""
    back = given.command == "undo" or (given.command == "unlock" and given.failed)
    with exclusive(edge.settings):
        try:
            with in_words():
                said = answer(edge, given)
        except NoRoomError:
            if not back or not reserve.free(edge):
                raise
            with in_words():
                return answer(edge, given)
        if given.command in ("apply", "lock", "step"):
            reserve.keep(edge)
        return said


def line(record: dict[str, Any]) -> str:
    """Return a record of the journal for people."""
    data = record["data"]
    told = [f"to {data['release']}" if "release" in data else ""]
    told += [f"by {data['owner']}" if "owner" in data else "", str(data.get("why", ""))]
    event = "begun" if record["event"] == "intent" else record["event"]
    words = [record["time"], f"{record['step']:<9}", f"{event:<9}", *filter(None, told)]
    return " ".join(words).rstrip()


def respond(edge: Edge, given: argparse.Namespace) -> dict[str, Any] | str:
    """Return what a command is answered with: an object, or lines for people."""
    if given.command == "show":
        return swap.show(edge)
    if given.command == "journal":
        records = swap.journal_of(edge).records()
        return {"records": records} if given.json else "\n".join(map(line, records))
    if given.command == "beat":
        return runs.beat(edge, run=given.run, seconds=given.seconds)
    return obey(edge, given)


def main() -> None:
    """Run one command; the answer is one JSON object."""
    # Modes are set here, not inherited: Nginx is another user and has to enter.
    os.umask(0o022)
    given = parser().parse_args()
    try:
        with in_words():
            edge = Edge(Settings.load(given.settings))
            if given.command == "watch":
                watch.run(edge, given.settings)
                return
            said = respond(edge, given)
    except HeldError as error:
        print(json.dumps({"holder": dataclasses.asdict(error.lease)}, sort_keys=True))
        print(f"airlift-swap: {error}", file=sys.stderr)
        sys.exit(HELD)
    except SwapError as error:
        sys.exit(f"airlift-swap: {error}")
    print(said if isinstance(said, str) else json.dumps(said, sort_keys=True))


if __name__ == "__main__":
    main()

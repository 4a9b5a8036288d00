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
from swap_agent import drain, fit, follow, reserve, runs, swap, watch
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

#: Exit code when another run holds the lease; standard output names it.
HELD = 3


def parser() -> argparse.ArgumentParser:
    """Return the parser of the agent's commands."""
    found = argparse.ArgumentParser(
        prog="airlift-swap", description=(swap_agent.__doc__ or "").split("\n")[0]
    )
    found.add_argument("--settings", type=Path, default=SETTINGS, help="settings of this agent")
    commands = found.add_subparsers(dest="command", required=True)
    wanted = commands.add_parser("apply", help="activate the wanted configuration")
    _of_release(wanted)
    _together(wanted)
    wanted.add_argument("--run", default="", help="name of the run")
    commands.add_parser("verify", help="verify that Nginx serves the live configuration")
    commands.add_parser("show", help="show what is recorded, what is served, which run is active")
    commands.add_parser("watch", help="the daemon: keep requests from replicas that are not ready")
    one = _of_run(commands, "lock", "begin a run: take or prolong the lock of the site")
    one.add_argument("--owner", required=True, help="who runs it, as USER@HOST")
    one.add_argument("--verb", required=True, choices=VERBS, help="operation of the run")
    one.add_argument(
        "--instead-of", default="", metavar="RUN", help="take over from this ended run"
    )
    one.add_argument("--seconds", type=float, default=SECONDS, help="how long the lock then holds")
    one = _of_run(commands, "beat", "send a heartbeat of a run")
    one.add_argument("--seconds", type=float, required=True, help="how long the lock then holds")
    one = _of_run(commands, "step", "record that the next step of a run begins")
    one.add_argument("--name", required=True, help="name of the step")
    one = _of_run(commands, "switch", "make a colour active and the other one the standby")
    one.add_argument("--to", required=True, choices=COLOURS, help="colour that will serve")
    _of_release(one)
    one.add_argument("--warm", type=float, default=86400, help="seconds to keep the standby")
    _together(one)
    one = _of_run(commands, "retire", "stop sending requests to the standby")
    one.add_argument(
        "--returns", action="store_true", help="keep the rollback window, for stand-by"
    )
    _together(one)
    _together(_of_run(commands, "stand-by", "restore the standby in the other colour"))
    one = _of_run(
        commands, "drain", "take app hosts out of service; requests in progress end first"
    )
    one.add_argument("--host", required=True, action="append", help="host of the inventory")
    one.add_argument("--look", action="store_true", help="only say whether that is refused")
    one.add_argument("--gone", action="store_true", help="the hosts have left the inventory")
    _together(one)
    one = _of_run(commands, "bring-back", "put a drained app host back that is ready")
    one.add_argument("--host", required=True, help="host of the inventory")
    _together(one)
    one = _of_run(commands, "undo", "restore what served before an unfinished run switched")
    _together(one)
    one = _of_run(commands, "unlock", "end a run and release the lock")
    one.add_argument("--failed", default="", metavar="WHY", help="record that it failed, and why")
    _of_followers(commands)
    one = commands.add_parser("fit", help="whether this edge may take traffic: code 0 or 1")
    one.add_argument("--json", action="store_true", help="as one JSON object")
    one = commands.add_parser("journal", help="show the journal, one record per line")
    one.add_argument("--json", action="store_true", help="as one JSON object")
    return found


def _of_release(command: argparse.ArgumentParser) -> None:
    command.add_argument("--release", required=True, help="release that will serve")
    command.add_argument("--serial", required=True, type=int, help="its serial")


def _together(command: argparse.ArgumentParser) -> None:
    """Add the options for a site with several edges."""
    command.add_argument("--test", action="store_true", help="only test what would serve")
    command.add_argument("--generation", type=int, help="number of the new generation")
    command.add_argument("--later", action="store_true", help="do not wait for old workers")


def _of_followers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of an edge that follows another one."""
    one = commands.add_parser("stage", help="test what the lead will serve; change nothing")
    two = commands.add_parser("adopt", help="serve what another edge of the site serves")
    two.add_argument("--from", dest="source", default="", metavar="EDGE", help="ask that edge")
    two.add_argument("--later", action="store_true", help="do not wait for old workers")
    for each in (one, two):
        each.add_argument("--record", default="", help="JSON: what the lead serves, as it answers")
    three = commands.add_parser("settle", help="wait until no old worker of Nginx serves")
    for each in (one, two, three):
        each.add_argument("--run", default="", help="name of the run")


def _of_run(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str
) -> argparse.ArgumentParser:
    """Add a command that only the holder of the lock may give."""
    one = commands.add_parser(name, help=about)
    one.add_argument("--run", required=True, help="name of the run")
    one.add_argument("--data", type=json.loads, default={}, help="JSON, for the journal")
    return one


def answer(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Run a command; return its answer."""
    if given.command in ("lock", "step", "unlock"):
        return of_run(edge, given)
    if given.command in ("stage", "adopt"):
        return of_follower(edge, given)
    if given.command == "verify":
        return swap.verify(edge)
    how = swap.Together(given.test, given.generation, given.later)
    if given.command == "apply":
        said = swap.apply(edge, given.release, given.serial, how)
        if not how.test:
            drain.forget(edge)
        return said
    if given.command == "drain":
        about = {"hosts": given.host, "look": given.look, "gone": given.gone}
        return drain.drain(edge, run=given.run, how=how, **about)
    if given.command == "bring-back":
        return drain.bring_back(edge, run=given.run, host=given.host, how=how)
    if given.command == "switch":
        return swap.switch(
            edge,
            run=given.run,
            to=given.to,
            release=given.release,
            serial=given.serial,
            warm=given.warm,
            how=how,
        )
    if given.command == "retire":
        return swap.retire(edge, run=given.run, returns=given.returns, how=how)
    act = swap.undo if given.command == "undo" else swap.stand_by
    return act(edge, run=given.run, how=how)


def of_run(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Run a command that begins, marks or ends a run."""
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
    return runs.end(edge, run=given.run, why=given.failed, data=given.data)


def of_follower(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Run a command of an edge that follows another one."""
    if given.command == "adopt" and given.source:
        return follow.take_over(edge, given.source)
    state, out = follow.record_of(given.record)
    if given.command == "stage":
        return follow.stage(edge, state, out)
    return follow.adopt(edge, state, out, later=given.later)


def obey(edge: Edge, given: argparse.Namespace) -> dict[str, Any]:
    """Run a command; on a full disk, restoring a release uses the reserve."""
    back = given.command in ("undo", "adopt") or (given.command == "unlock" and given.failed)
    with exclusive(edge.settings):
        try:
            with in_words():
                said = answer(edge, given)
        except NoRoomError:
            if not back or not reserve.free(edge):
                raise
            with in_words():
                return answer(edge, given)
        if given.command in ("apply", "adopt", "lock", "step"):
            reserve.keep(edge)
        return said


def line(record: dict[str, Any]) -> str:
    """Return a record of the journal as one readable line."""
    data = record["data"]
    told = [f"of {data['host']}" if "host" in data else ""]
    told += [f"to {data['release']}" if "release" in data and "host" not in data else ""]
    told += [f"by {data['owner']}" if "owner" in data else "", str(data.get("why", ""))]
    event = "begun" if record["event"] == "intent" else record["event"]
    words = [record["time"], f"{record['step']:<9}", f"{event:<9}", *filter(None, told)]
    return " ".join(words).rstrip()


def respond(edge: Edge, given: argparse.Namespace) -> dict[str, Any] | str:
    """Return the answer of a command: an object, or readable lines."""
    if given.command == "show":
        return swap.show(edge)
    if given.command == "journal":
        records = swap.journal_of(edge).records()
        return {"records": records} if given.json else "\n".join(map(line, records))
    if given.command == "beat":
        return runs.beat(edge, run=given.run, seconds=given.seconds)
    if given.command == "settle":
        # Without the lock: meanwhile the watch may mark replicas.
        return follow.settle(edge)
    return obey(edge, given)


def main() -> None:
    """Run one command; the answer is one JSON object."""
    # Modes are set here, not inherited: Nginx is another user and has to enter.
    os.umask(0o022)
    given = parser().parse_args()
    if given.command == "fit":
        sys.exit(fit.main(["--json"] if given.json else [], str(given.settings)))
    try:
        with in_words():
            edge = Edge(Settings.load(given.settings))
            if given.command == "watch":
                watch.run(edge, given.settings, follow.Follower(edge).comparing)
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

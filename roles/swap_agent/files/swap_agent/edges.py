"""What the edges of a site tell each other, and what an edge does about a difference.

The first edge is the lead: it holds lock and journal, and runs change it first. Every other edge
follows: it serves what the lead serves, under the same generation number. Each edge offers what it
serves as a file, which Nginx shows to the other edges only. No secret is in it.

An edge with a lower number than another one has missed something. It may take no traffic until it
has put that in place. While a run is in progress it waits: the run brings the change itself.
"""

from __future__ import annotations

import dataclasses
import email.utils
import http.client
import json
import time
from pathlib import Path
from typing import Any

from swap_agent import drained, lease
from swap_agent.nginx import UPSTREAM_FILE, Edge, fingerprint
from swap_agent.state import COLOURS, Settings, State, SwapError, parsed

#: Seconds for the answer of another edge, and between two questions.
PATIENCE = 1.0
#: An edge that was frozen serves what it has until it has asked once: so this is short.
PAUSE = 1.0
#: Seconds after which an offer is too old: the watch that writes it has ended.
OLD = 20.0
#: Seconds after which an unchanged offer is written again.
AGAIN = 5.0
FILE = "edges.json"
_LONGEST = 65536
_WORD = 200
_NUMBER = 1_000_000
#: The fields of a state that decide where requests go.
_SERVED = ("active", "standby", "release", "serial")


def shared(files: dict[str, Path], out: drained.Drained) -> str:
    """Return one hash over what is the same on all edges: not certificates, nor tuning."""
    same = {name: path for name, path in files.items() if name.startswith("conf.d/")}
    same[UPSTREAM_FILE] = files[UPSTREAM_FILE]
    return fingerprint(same, out, rights=False)


@dataclasses.dataclass(frozen=True)
class Offer:
    """What one edge serves, as it says itself."""

    name: str
    state: State
    drained: drained.Drained
    shared: str
    #: Whether a run holds the lease there.
    run: bool

    def same(self, other: Offer) -> bool:
        """Return whether requests go to the same places."""
        served = [getattr(self.state, field) for field in _SERVED]
        return served == [getattr(other.state, field) for field in _SERVED] and (
            set(self.drained) == set(other.drained)
        )


def offer(edge: Edge) -> Offer | None:
    """Return what this edge serves; None before the first installation."""
    settings = edge.settings
    state = State.load(settings.state_file)
    if state is None or not edge.live.is_dir():
        return None
    holder = lease.held(settings.state_file.with_name("lease.json"))
    return Offer(
        settings.name,
        state,
        drained.load(settings),
        shared(edge.served(), {}),
        run=bool(holder and not holder.given_back() and holder.left() > 0),
    )


def file_of(settings: Settings) -> Path:
    """Return the file that Nginx shows to the other edges."""
    return settings.root / "offer" / "edge.json"


def write(edge: Edge) -> None:
    """Write the offer where it differs, or is so old that the others would not believe it."""
    said = offer(edge)
    if said is None:
        return
    path = file_of(edge.settings)
    body = json.dumps({"format": 1, **dataclasses.asdict(said)}, indent=1, sort_keys=True) + "\n"
    try:
        if time.time() - path.stat().st_mtime < AGAIN and path.read_text() == body:
            return
    except OSError:
        pass
    path.parent.mkdir(mode=0o755, exist_ok=True)
    put(path, body)


def put(path: Path, text: str) -> None:
    """Replace a file in one step; it need not survive a power cut."""
    fresh = path.with_suffix(f"{path.suffix}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)


def record_of(raw: dict[str, Any]) -> tuple[State, drained.Drained]:
    """Return what another edge serves; ValueError if this is no such record.

    Its words become a part of configurations, of paths and of messages.
    """
    try:
        state = State.read(raw["state"])
        out = {
            str(host): {"by": str(one["by"]), "since": str(one["since"])}
            for host, one in raw["drained"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error} is missing or of another type") from None
    words = [one for one in dataclasses.asdict(state).values() if isinstance(one, str)]
    words += [word for host, one in out.items() for word in (host, *one.values())]
    if not all(0 < len(one) < _WORD and one.isprintable() for one in words):
        raise ValueError("a text in it is empty, too long or not printable")
    if state.active not in COLOURS or state.standby not in (None, *COLOURS):
        raise ValueError("a colour in it is unknown")
    if state.active == state.standby or not 0 < state.generation < _NUMBER:
        raise ValueError("its generation is impossible")
    return state, out


def read(body: str) -> Offer:
    """Return the offer in a text of another edge; ValueError if it is none."""
    raw = parsed(body)
    state, out = record_of(raw)
    if not isinstance(raw.get("name"), str) or not isinstance(raw.get("shared"), str):
        raise ValueError("its name or its hash is missing")
    return Offer(raw["name"], state, out, raw["shared"], run=raw.get("run") is not False)


def ask(name: str, address: str) -> Offer:
    """Return what another edge offers; SwapError when that is unknown."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request("GET", "/_swap/edge", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(_LONGEST).decode("utf-8", "replace")
        if answer.status != 200:
            raise SwapError(f"HTTP {answer.status}")
        # Both times are of that host's clock: this one's may differ.
        moments = [_moment(answer.headers.get(one)) for one in ("Date", "Last-Modified")]
        if moments[0] - moments[1] > OLD:
            raise SwapError("its watch does not run; see there: systemctl status airlift-edge")
        found = read(body)
    except OSError as error:
        raise SwapError(error.strerror or str(error) or "no answer") from error
    except (ValueError, http.client.HTTPException) as error:
        raise SwapError(f"its answer cannot be read: {error}") from error
    finally:
        connection.close()
    if found.name != name:
        raise SwapError(f"{address} answers as {found.name}")
    return found


def _moment(text: str | None) -> float:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (TypeError, ValueError, IndexError):
        raise ValueError("it has no time") from None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether an edge may take traffic, and what it has to put in place first."""

    unfit: str = ""
    #: The offer to put in place; None when there is nothing to do, or it may not be done now.
    adopt: Offer | None = None
    #: Whether it serves less than another edge, also while that is expected.
    behind: bool = False


def judge(mine: Offer, others: list[Offer], lead: str, *, joined: bool) -> Verdict:
    """Compare this edge with those that answer.

    `joined` says that this edge saw the run begin and was not behind: the run then changes it soon,
    one after the other.
    """
    newest = max(others, key=lambda one: one.state.generation, default=None)
    if newest is None or newest.state.generation < mine.state.generation:
        return Verdict()
    serves = f"{newest.name} serves generation {newest.state.generation}"
    if newest.state.generation == mine.state.generation:
        other = next((one for one in others if one.name == lead), newest)
        equal = other.state.generation == mine.state.generation
        if mine.name == lead or not equal or mine.same(other):
            return Verdict()
        return Verdict(
            f"{other.name} serves something else under the same generation, "
            f"{mine.state.generation}; run install.yml",
            behind=True,
        )
    if mine.name == lead:
        return Verdict(
            f"{serves}, this edge, which holds the site's record, {mine.state.generation}: its "
            "record is older than what is served, as after a restore; to take over what "
            f"{newest.name} serves, run here: sudo airlift-swap adopt --from {newest.name}",
            behind=True,
        )
    here = f"{serves}, this edge {mine.state.generation}"
    if any(one.run for one in others):
        return Verdict("" if joined else f"{here}; a run is in progress", behind=True)
    return Verdict(f"{here}", newest, behind=True)


def shown(settings: Settings) -> dict[str, Any]:
    """Return what the watch last read from the other edges, for `show`; empty without any."""
    try:
        found = parsed((settings.watch_dir / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if settings.edges else {}

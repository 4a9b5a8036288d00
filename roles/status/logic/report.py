"""The complete report: findings, the verdict in one sentence, and the next command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from roles.status.logic import edges, flows, model, rollback, runs, services
from roles.status.logic.model import Findings, Problem, Rank, Row
from roles.status.logic.shared import held_address, of_shared, shared_line

FORMAT = 1
#: Maximum characters of a reason in a line.
REASON = 80


class Conclusion(NamedTuple):
    """The end of the report: what to do next."""

    verdict: str
    sentence: str
    #: One complete command line.
    following: str
    #: The manual step before it, or an empty string.
    first: str = ""
    #: The command that cancels an interrupted upgrade instead; empty when there is none.
    cancel: str = ""

    @property
    def lines(self) -> list[str]:
        """Return the last lines of the report; the next command is the very last."""
        return [
            *([f"First: {self.first}"] if self.first else []),
            *([f"To cancel it: {self.cancel}"] if self.cancel else []),
            f"Next: {self.following}",
        ]


def reason_of(entry: object) -> str:
    """Return why a component is absent, in one line; preflight shows the full text."""
    reason = str(entry.get("reason", "")) if isinstance(entry, Mapping) else str(entry)
    return reason if len(reason) <= REASON else f"{reason[:REASON].rpartition(' ')[0]} …"


def newer(findings: Findings, edge: Mapping[str, Any]) -> bool:
    """Return whether this directory's release is newer than the active release."""
    return bool(edge) and int(findings["serial"]) > int(edge["serial"])


def of_edge(findings: Findings, edge: Mapping[str, Any]) -> list[Problem]:
    """Return the problems in the edge's answer, or that there is no answer."""
    host = model.edge_host(findings)
    if not edge:
        said = findings["edge"] if isinstance(findings["edge"], Mapping) else {}
        if said.get("installed") is False:
            return [Problem(Rank.HOST, host, "the edge serves nothing yet", limit=False)]
        why = " ".join(str(said.get("msg") or "").split())[:200]
        found = f"{host} does not report what the site serves"
        return [Problem(Rank.HOST, host, found, why)]
    problems = []
    if edge["served_generation"] != edge["live_generation"]:
        found = (
            f"Nginx serves generation {edge['served_generation']}, "
            f"the disk holds {edge['live_generation']}"
        )
        problems.append(Problem(Rank.STATE, host, found))
    if edge["release"] != findings["release"] and not model.manifest_of(findings, edge["release"]):
        found = (
            f"the active release, {edge['release']}, is not on this jump host, so its images were "
            "not compared"
        )
        before = f"import the bundle of {edge['release']} again"
        problems.append(Problem(Rank.WARNING, host, found, fix="", before=before))
    return problems


def facts_of_site(findings: Findings, edge: Mapping[str, Any]) -> list[str]:
    """Return facts about the active release and about the release of this directory."""
    if not edge:
        return []
    facts = [
        f"release {edge['release']} (serial {edge['serial']}), {edge['active']} active, "
        f"generation {edge['live_generation']}, since {edge['since']}"
    ]
    if newer(findings, edge):
        facts.append(f"release {findings['release']} is ready to upgrade to")
    elif findings["release"] != edge["release"] and model.manifest_of(findings, edge["release"]):
        facts.append(
            f"this directory holds release {findings['release']}; images were compared with the "
            f"active release, {edge['release']}"
        )
    return facts


def set_aside(findings: Findings) -> list[str]:
    """Return the damaged files that services have set aside."""
    return [
        f"redis on {host} had damaged files and started empty; they are in {path}"
        for host in model.asked(findings)
        for path in model.facts_of(findings, host).get("set_aside") or []
    ]


def without_effects(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems in order, without the effects of a container that is down."""
    ordered = sorted(dict.fromkeys(problems), key=lambda one: one.rank)
    down = {one.host for one in ordered if one.rank is Rank.HOST}
    broken = {(one.host, one.service) for one in ordered if one.rank in {Rank.DATA, Rank.SERVICE}}
    # A missing standby is only a warning, but it causes missing Prometheus targets.
    standby = {(one.host, one.service) for one in ordered if one.rank is Rank.WARNING}
    causes = {Rank.REPLICA: broken, Rank.EXPORTER: broken | standby}
    return [
        one
        for one in ordered
        if one.rank not in causes
        or (one.host not in down and (one.host, one.service) not in causes[one.rank])
    ]


def command_for(findings: Findings, edge: Mapping[str, Any], one: Problem, limit: str) -> str:
    """Return the complete line that repairs a problem, from the directory of the right release."""
    if not one.fix:
        return f"{findings['command']}status.yml" if one.before else ""
    serves = str(edge.get("release", findings["release"]))
    wanted = one.release or serves
    # Install repairs the active release, so it runs in that directory; status runs in any.
    here = one.fix.partition(" ")[0] in {"install.yml", "upgrade.yml", "drain_host.yml"}
    elsewhere = wanted != findings["release"] and here
    place = f"cd {findings['releases_dir']}/{wanted} && " if elsewhere else ""
    words = f"{place}{findings['command']}{one.fix}"
    return f"{words} --limit {limit}" if limit and one.fix == "install.yml" else words


def next_line(findings: Findings, edge: Mapping[str, Any], problems: Sequence[Problem]) -> str:
    """Return the command that repairs the first cause, for all hosts that need it."""
    first = problems[0]
    # An effect needs no repair of its own.
    last = max(first.rank, Rank.SERVICE)
    same = [one for one in problems if one.fix == first.fix and one.rank <= last]
    hosts = {one.host for one in same}
    limited = all(one.limit for one in same) and len(hosts) == 1
    return command_for(findings, edge, first, first.host if limited else "")


def conclusion(
    findings: Findings, edge: Mapping[str, Any], problems: Sequence[Problem], done: runs.Runs
) -> Conclusion:
    """Return the verdict and what to do next."""
    site, command = findings["site"], findings["command"]
    release = edge.get("release", findings["release"])
    again = f"{command}status.yml"
    everyone = rollback.everyone_asked(findings)
    if done.at_work:
        active = model.active_of(findings, edge)
        sentence = f"Site {site} serves release {release} ({active}); a run is in progress."
        return Conclusion("in progress", sentence, again, first="wait for its end")
    if not problems:
        scope = "everything is as it" if everyone else "the hosts asked are as they"
        sentence = f"Site {site} runs release {release}: {scope} should be."
        following = f"{command}upgrade.yml --check" if newer(findings, edge) else again
        return Conclusion("ok", sentence, following)
    if everyone and services.nothing_installed(findings):
        sentence = f"Site {site} is not installed yet."
        return Conclusion("not installed", sentence, f"{command}install.yml")
    following = next_line(findings, edge, problems) or again
    cancel = following.replace("upgrade.yml", "rollback.yml") if done.give_up else ""
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    problem = f"{problems[0].text.rstrip('.')}{more}."
    first = problems[0].before
    if problems[0].warning:
        sentence = f"Site {site} runs release {release}: what serves is as it should be, but "
        return Conclusion("warning", sentence + problem, following, first, cancel)
    sentence = f"Site {site} needs attention: {problem}"
    return Conclusion("attention", sentence, following, first, cancel)


def as_json(row: Row) -> dict[str, Any]:
    """Return a table row for machines."""
    return {name: value for name, value in row._asdict().items() if name != "host"}


def make(findings: Findings) -> dict[str, Any]:
    """Return {text, report}: the same content for people and for machines."""
    edge = model.edge_of(findings)
    active = model.active_of(findings, edge)
    known = services.known_releases(findings, edge)
    host = model.edge_host(findings)
    asked = model.asked(findings)
    left_out = [one for one in model.hosts_of(findings) if one not in asked]
    rows: list[Row] = []
    problems = of_edge(findings, edge)
    for one in asked:
        lines, wrong = services.host_lines(findings, one, active, known)
        rows += lines
        problems += wrong
    if any(one.rank is Rank.HOST and one.host == host for one in problems[1:]) and not edge:
        # The list has a better description of the same problem.
        problems = problems[1:]
    answer, wrong_edge = flows.through_the_edge(findings)
    problems += flows.of_replicas(findings, edge, active)
    problems += flows.of_logins(findings, active)
    problems += flows.of_watcher(findings, edge)
    problems += edges.of_edges(findings, edge)
    problems += flows.of_exporters(findings)
    problems += flows.of_targets(findings, active, str(edge.get("standby") or ""))
    problems += flows.of_database(findings)
    problems += of_shared(findings)
    if wrong_edge:
        problems.append(Problem(Rank.EDGE, host, wrong_edge, limit=False))
    facts = [f"/health/ready through the edge: {answer}", *facts_of_site(findings, edge)]
    done, target = runs.Runs([], []), rollback.Target("", False, [])
    if edge:
        done, target = runs.runs_of(edge, host), rollback.target_of(findings, edge)
        facts[2:2] = [target.line]
        facts += edges.facts_of(findings, edge)
        facts += done.facts
        problems += [*done.problems, *target.problems]
    # What is missing on a host in maintenance is no fault of the site.
    out = model.drained_of(findings)
    problems = [one for one in problems if one.host not in out]
    problems += flows.of_drained(findings, active)
    facts += [*shared_line(findings), *set_aside(findings)]
    facts += [f"absent: {name}: {reason_of(entry)}" for name, entry in findings["absent"].items()]
    problems = without_effects(problems)
    end = conclusion(findings, edge, problems, done)
    verb = "was" if len(asked) == 1 else "were"
    some = f"only {len(asked)} of {len(asked) + len(left_out)} hosts {verb} asked: "
    some += ", ".join(asked)
    told = problems if end.verdict == "in progress" else problems[1:]
    text = [
        *([some, ""] if left_out else []),
        services.lines_of(rows),
        "",
        *facts,
        "",
        end.sentence,
        *(f"  - {one.text}" for one in (told if end.verdict != "not installed" else [])),
        *end.lines,
    ]
    report = {
        "format": FORMAT,
        "site": findings["site"],
        "verdict": end.verdict,
        "sentence": end.sentence,
        "first": end.first,
        "next": end.following,
        "cancel": end.cancel,
        "release": edge.get("release"),
        "since": edge.get("since"),
        "serial": edge.get("serial"),
        "active": edge.get("active"),
        "standby": edge.get("standby"),
        "drained": model.drained_of(findings),
        "edges": edges.rows(findings, edge),
        "this_directory": findings["release"],
        "asked": asked,
        "not_asked": left_out,
        "shared_address": held_address(findings),
        "facts": facts,
        "rollback": {
            "warm": target.warm,
            "warm_until": edge["warm_until"] if target.warm else None,
            "line": target.line.partition(": ")[2],
        },
        "problems": [
            {
                "level": "warning" if one.warning else "problem",
                "host": one.host,
                "found": one.found,
                "error": one.said,
                "before": one.before,
                "fix": command_for(findings, edge, one, one.host if one.limit else ""),
            }
            for one in problems
        ],
        "services": {one: [as_json(row) for row in rows if row.host == one] for one in asked},
    }
    return {"text": "\n".join(text), "report": report}

"""A model of GitHub workflows: jobs, conditions, and which jobs an event starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scripts.version import ROOT

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))

_TOKEN = re.compile(r"\s*('(?:[^']|'')*'|&&|\|\||==|!=|[!(),]|[A-Za-z_][\w.-]*|\d+)")
_STATUS = re.compile(r"\b(success|failure|cancelled|always)\(\)")


def load(path: Path) -> dict[str, Any]:
    """Read a workflow; keep the key `on` as a string."""
    text = re.sub(r"^on:", '"on":', path.read_text(), flags=re.MULTILINE)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def needs(job: dict[str, Any]) -> list[str]:
    """Return the jobs that a job waits for."""
    found = job.get("needs", [])
    return [found] if isinstance(found, str) else list(found)


def labels(job: dict[str, Any]) -> list[str]:
    """Return the labels that a job requires of its runner."""
    found = job.get("runs-on", [])
    return [found] if isinstance(found, str) else list(found)


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps; a job that calls a workflow has none."""
    return list(job.get("steps", []))


def made(job: dict[str, Any]) -> list[str]:
    """Return the `make` targets that the steps call, in order."""
    return [
        target
        for step in steps(job)
        for target in re.findall(r"\bmake ([a-z][a-z-]*)", step.get("run", ""))
    ]


class Expression:
    """A GitHub expression, limited to what these workflows use."""

    def __init__(self, text: str, context: dict[str, Any]) -> None:
        text = text.strip().removeprefix("${{").removesuffix("}}").strip()
        self.context = context
        self.tokens: list[str] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            assert found, f"cannot parse: {text[place:]!r}"
            self.tokens.append(found[1])
            place = found.end()

    def value(self) -> Any:
        """Return its value; `&&` and `||` return one of their operands, as in JavaScript."""
        found = self._any()
        assert not self.tokens, f"unparsed: {self.tokens}"
        return found

    def _take(self, *wanted: str) -> str:
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in wanted else ""

    def _any(self) -> Any:
        left = self._all()
        while self._take("||"):
            right = self._all()
            left = left or right
        return left

    def _all(self) -> Any:
        left = self._compared()
        while self._take("&&"):
            right = self._compared()
            left = left and right
        return left

    def _compared(self) -> Any:
        left = self._one()
        if sign := self._take("==", "!="):
            right = self._one()
            # Null equals the empty string here, and neither is one of the choices.
            same = (left or "") == (right or "")
            return same if sign == "==" else not same
        return left

    def _one(self) -> Any:
        if self._take("!"):
            return not self._one()
        if self._take("("):
            inner = self._any()
            assert self._take(")")
            return inner
        token = self.tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if self._take("("):
            arguments = []
            while not self._take(")"):
                arguments.append(self._any())
                self._take(",")
            return self._call(token, arguments)
        if token in ("true", "false"):
            return token == "true"
        found: Any = self.context
        for name in token.split("."):
            found = (found or {}).get(name)
        return found

    def _call(self, name: str, arguments: list[Any]) -> bool:
        results = [one["result"] for one in self.context["needs"].values()]
        match name:
            case "success":
                return all(one == "success" for one in results)
            case "failure":
                return "failure" in results
            case "cancelled":
                return bool(self.context["cancelled"])
            case "always":
                return True
            case "startsWith":
                return str(arguments[0] or "").startswith(arguments[1])
            case "endsWith":
                return str(arguments[0] or "").endswith(arguments[1])
            case "contains":
                return arguments[1] in (arguments[0] or "")
        raise AssertionError(f"not understood: {name}()")


@dataclass
class Event:
    """An event that starts a workflow, with the results of its jobs."""

    name: str = "push"
    ref: str = "refs/tags/v1.1.0"
    inputs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(
        default_factory=lambda: {
            "STAGING_SITE": "/opt/airlift/sites/staging",
            "PRODUCTION_SITE": "/opt/airlift/sites/acme",
            "REGISTRY": "registry.example/acme/airlift",
        }
    )
    #: Result by job; a job without an entry succeeds.
    ends: dict[str, str] = field(default_factory=dict)
    #: Outputs by job, whatever its result.
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    cancelled: bool = False
    #: The workflow that the event started; a called workflow sees this name.
    workflow: str = "ci"

    def context(self, waited_for: dict[str, Any]) -> dict[str, Any]:
        """Return the context of a job's expressions."""
        return {
            "github": {"event_name": self.name, "ref": self.ref, "workflow": self.workflow},
            "inputs": self.inputs,
            "vars": self.variables,
            "needs": waited_for,
            "cancelled": self.cancelled,
        }

    def run(self, workflow: dict[str, Any]) -> dict[str, str]:
        """Return the result of each job: success, failure or skipped."""
        results: dict[str, str] = {}
        for name, job in workflow["jobs"].items():
            condition = str(job.get("if", "success()"))
            if not _STATUS.search(condition):
                condition = f"success() && ({condition})"
            due = Expression(condition, self.context(self.waited_for(job, results))).value()
            results[name] = self.ends.get(name, "success") if due else "skipped"
        return results

    def waited_for(self, job: dict[str, Any], results: dict[str, str]) -> dict[str, Any]:
        """Return the context `needs` of a job."""
        return {
            one: {"result": results[one], "outputs": self.outputs.get(one, {})}
            for one in needs(job)
        }

    def ran(self, workflow: dict[str, Any]) -> set[str]:
        """Return the jobs that run."""
        return {name for name, result in self.run(workflow).items() if result != "skipped"}

"""The report of a run: a table, the same as Markdown, and values for a pipeline's next job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.deploy import commands
from scripts.deploy.outcome import DeployError, Interrupted, Outcome
from scripts.deploy.settings import Settings


@dataclass
class Row:
    """One phase: its result, its time, and a note."""

    phase: str
    result: str = "running"
    seconds: float = 0.0
    note: str = ""


@dataclass
class Report:
    """The phases of one run."""

    title: str
    settings: Settings
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Row]:
        """Record the result of a phase, however it ends."""
        row = Row(name)
        self.rows.append(row)
        start = time.monotonic()
        try:
            with commands.folded(name, actions=self.settings.actions):
                yield row
        except DeployError as error:
            row.result, row.note = "FAILED", error.what
            raise
        except Interrupted as signal:
            row.result, row.note = "stopped", f"by {signal}"
            raise
        except BaseException:
            row.result = "FAILED"
            raise
        else:
            row.result = "ok"
        finally:
            row.seconds = time.monotonic() - start

    def output(self, name: str, value: str) -> None:
        """Pass a value to the pipeline's next job."""
        if path := self.settings.file("DEPLOY_OUTPUT"):
            append(path, f"{name}={' '.join(value.split())}\n")

    def finish(self, outcome: Outcome, error: DeployError | None = None) -> None:
        """Print the table and the result, and write them to the pipeline's summary."""
        self.output("outcome", outcome.label)
        commands.say("")
        for line in table(self.rows):
            commands.say(line)
        commands.say(f"\n{self.title}: {outcome.meaning} (exit code {outcome.code})")
        if error and error.fix:
            commands.say(f"Next: {error.fix}")
        if path := self.settings.file("DEPLOY_SUMMARY"):
            append(path, self.markdown(outcome, error))

    def markdown(self, outcome: Outcome, error: DeployError | None) -> str:
        """Return the summary that a pipeline shows on its page."""
        lines = [f"### {self.title}: {outcome.meaning}", ""]
        if self.rows:
            lines += ["| phase | result | seconds | note |", "|---|---|---:|---|"]
        for row in self.rows:
            cells = (row.phase, row.result, f"{row.seconds:.0f}", row.note)
            lines.append(f"| {' | '.join(plain(cell) for cell in cells)} |")
        if error and not any(row.note == error.what for row in self.rows):
            lines += ["", plain(error.what)]
        if error and error.fix:
            fence = "```"
            lines += ["", "Next:", fence, error.fix.replace(fence, "'''"), fence]
        return "\n".join(lines) + "\n\n"


def plain(text: str) -> str:
    """Return a text without markup, because it may come from a failed service."""
    text = " ".join(text.split())
    for character, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(character, instead)
    return text.replace("`", "'")


def table(rows: list[Row]) -> list[str]:
    """Return the table for a terminal or a log."""
    if not rows:
        return []
    cells = [(one.phase, one.result, f"{one.seconds:.0f}", one.note) for one in rows]
    return [
        f"{phase:<10}  {result:<7}  {seconds:>7}  {note}".rstrip()
        for phase, result, seconds, note in [("PHASE", "RESULT", "SECONDS", "NOTE"), *cells]
    ]


def append(path: Path, text: str) -> None:
    """Add to a file of the pipeline; a failure does not stop the deployment."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        commands.say(f"warning: cannot write {path}: {error.strerror}")

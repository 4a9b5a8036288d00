"""Wait until a container runs and answers, and tell the reason if it does not.

Gives up at once when the container does not stay up, with what it said last. One that the engine
lets wait for its next start, longer after each, is started again first.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from ansible.module_utils.engine_client import docker, last_words
from ansible.module_utils.engine_socket import EngineError
from ansible.module_utils.http_probe import ask

PAUSE = 0.5
#: One that was started again so often while we watched will not stay up.
RESTARTS = 3
#: Characters of a container's last words.
WORDS = 300


def short(text: str) -> str:
    """Return a text as one line; of a long one its end, where the reason stands."""
    line = " ".join(text.split())
    return line if len(line) <= WORDS else f"… {line[-WORDS:].partition(' ')[2] or line[-WORDS:]}"


class Watch:
    """A container, since the wait for it began."""

    def __init__(self, name: str, *, kicks: bool = True) -> None:
        self.name = name
        self.kicks = kicks
        self.before = -1
        self.kicked = False

    def look(self, *, healthy: bool) -> tuple[bool, str]:
        """Return (it is lost, what is wrong with it); nothing is wrong with one that runs well."""
        shown = docker("container", "inspect", self.name, timeout=60)
        if shown.returncode != 0:
            words = short(shown.stderr)
            return "no such" in words.lower(), f"it cannot be inspected: {words}"
        found = json.loads(shown.stdout)[0]
        state, restarts = found["State"], int(found["RestartCount"])
        if self.kicks and self.before < 0 and state.get("Restarting"):
            # The engine doubles its pause after each failure, up to a minute: not ours to sit out.
            self.kicked = docker("restart", "--time", "0", self.name, timeout=60).returncode == 0
            self.before = 0 if self.kicked else restarts
            return False, "it is started again"
        # A restart that the engine's count does not know begins it anew.
        self.before = restarts if self.before < 0 else min(self.before, restarts)
        if restarts - self.before >= RESTARTS:
            return True, f"it does not stay up, restarted {RESTARTS} times"
        if state.get("Restarting"):
            return False, f"it ended with code {state['ExitCode']}"
        if not state["Running"] or state.get("Paused"):
            return True, f"it is {state['Status']} (code {state['ExitCode']})"
        return (False, self.health(state)) if healthy else (False, "")

    def health(self, state: dict[str, Any]) -> str:
        """Return what keeps the engine from calling it healthy."""
        checked = state.get("Health") or {}
        if checked.get("Status") == "healthy":
            return ""
        said = [one["Output"] for one in checked.get("Log") or () if one.get("ExitCode")]
        check = f" ({short(said[-1])})" if said else ""
        return f"it is {checked.get('Status', 'without a health check')}{check}"


def answers(url: str, good: list[int], ca: str) -> str:
    """Return what is wrong with the answer of a URL, or nothing."""
    answer = ask(url, ca=ca)
    if answer.status in good:
        return ""
    if answer.status:
        return f"{url} answers {answer.status}"
    return f"{url} does not answer ({answer.error})"


def wait(options: dict[str, Any]) -> tuple[str, bool]:
    """Return (what is wrong after so many seconds, or nothing; whether it was started again).

    With `look` it looks once, and starts nothing.
    """
    look = options.get("look", False)
    watch = Watch(options["container"], kicks=not look) if options["container"] else None
    deadline = time.monotonic() + (0 if look else options["seconds"])
    while True:
        try:
            lost, problem = watch.look(healthy=options["healthy"]) if watch else (False, "")
        except EngineError as error:
            lost, problem = False, f"it cannot be inspected: {error}"
        if not problem and options["url"]:
            problem = answers(options["url"], options["status"], options["ca"])
        late = time.monotonic() >= deadline
        if not problem or lost or late:
            break
        time.sleep(PAUSE)
    if problem and not lost and not look:
        problem += f", after {options['seconds']} s"
    if problem and watch:
        with contextlib.suppress(EngineError):
            problem += f": {short(last_words(watch.name))}"
    return problem, bool(watch and watch.kicked)

"""Wait until a container runs and answers, and return the reason if it does not.

The wait ends at once, with the container's last message, if the container does not stay up. The
engine delays restarts more and more; a container in such a delay is started again first.
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
#: A container with this many restarts during the wait will not stay up.
RESTARTS = 3
#: Maximum characters of a container's last message.
WORDS = 300


def short(text: str) -> str:
    """Return a text as one line; of a long text its end, which has the reason."""
    line = " ".join(text.split())
    return line if len(line) <= WORDS else f"… {line[-WORDS:].partition(' ')[2] or line[-WORDS:]}"


class Watch:
    """The state of a container since the wait for it began."""

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
        # A restart that the engine's counter omits starts the count again.
        self.before = restarts if self.before < 0 else min(self.before, restarts)
        if restarts - self.before >= RESTARTS:
            return True, f"it does not stay up, restarted {RESTARTS} times"
        if state.get("Restarting"):
            return False, f"it ended with code {state['ExitCode']}"
        if not state["Running"] or state.get("Paused"):
            return True, f"it is {state['Status']} (code {state['ExitCode']})"
        return (False, self.health(state)) if healthy else (False, "")

    def health(self, state: dict[str, Any]) -> str:
        """Return the reason why the engine does not report it as healthy."""
        checked = state.get("Health") or {}
        if checked.get("Status") == "healthy":
            return ""
        said = [one["Output"] for one in checked.get("Log") or () if one.get("ExitCode")]
        check = f" ({short(said[-1])})" if said else ""
        return f"it is {checked.get('Status', 'without a health check')}{check}"


def answers(url: str, good: list[int], ca: str) -> str:
    """Return the problem of a URL's answer, or an empty string."""
    answer = ask(url, ca=ca)
    if answer.status in good:
        return ""
    if answer.status:
        return f"{url} answers {answer.status}"
    return f"{url} does not answer ({answer.error})"


def wait(options: dict[str, Any]) -> tuple[str, bool]:
    """Return (the problem after the time limit, or an empty string; whether it was restarted).

    With `look`, check once and start nothing.
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

"""What a container's log says is wrong: the service logs JSON objects, all others plain lines."""

from __future__ import annotations

import json
import re

LEVELS = {"error", "critical", "fatal"}
#: A plain line that tells an error.
TROUBLE = re.compile(
    r"error|fatal|panic|critical|emerg|can'?t|cannot|could not|unable|fail|denied|refused|invalid"
    r"|bad |no such|corrupt|wrong",
    re.IGNORECASE,
)
#: How Redis quotes a setting that it refuses; its next line says why.
SETTING = re.compile(r"^.*>>> (?P<setting>'.*')\n(?:\d+:\w .* # )?(?P<why>.+)$", re.MULTILINE)


def last_error(text: str, *, plain: bool = True) -> str:
    """Return the reason in the last line that tells an error, else the last line, else nothing.

    Without ``plain`` only JSON objects count as errors: in the service's own log, lines of another
    form are what Python or the engine adds.
    """
    text = SETTING.sub(r"wrong setting \g<setting>: \g<why>", text) if plain else text
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            # Whatever a service logs as its level, a list for instance, is compared as text.
            if str(record.get("level")) in LEVELS:
                said = record.get("reason") or record.get("exception") or record.get("event")
                return str(said or line)
        elif plain and TROUBLE.search(line):
            return line
    return lines[-1] if lines else ""

"""Find the error in a container's log: the service logs JSON objects, others plain lines."""

from __future__ import annotations

import json
import re

LEVELS = {"error", "critical", "fatal"}
#: A plain line that reports an error.
TROUBLE = re.compile(
    r"error|fatal|panic|critical|emerg|can'?t|cannot|could not|unable|fail|denied|refused|invalid"
    r"|bad |no such|corrupt|wrong",
    re.IGNORECASE,
)
#: How Redis quotes a setting that it refuses; its next line says why.
SETTING = re.compile(r"^.*>>> (?P<setting>'.*')\n(?:\d+:\w .* # )?(?P<why>.+)$", re.MULTILINE)


def last_error(text: str, *, plain: bool = True) -> str:
    """Return the reason in the last line with an error, else the last line, else ''.

    Without ``plain`` only JSON objects count as errors: other lines in the service's own log come
    from Python or the engine.
    """
    text = SETTING.sub(r"wrong setting \g<setting>: \g<why>", text) if plain else text
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            # Compare the level as text, whatever type a service logs.
            if str(record.get("level")) in LEVELS:
                said = record.get("reason") or record.get("exception") or record.get("event")
                return str(said or line)
        elif plain and TROUBLE.search(line):
            return line
    return lines[-1] if lines else ""

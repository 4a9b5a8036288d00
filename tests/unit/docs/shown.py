"""Compare commands and output that a page shows with those of a run."""

from __future__ import annotations

import re

from scripts.lab import ROOT

#: Values that differ between runs: how a page shows them, and what a run may print.
VARIABLE = (
    (r"SHA256:[\w+/]{43}", r"SHA256:[\w+/]{43}"),
    (r"\d{4}-\d\d-\d\dT[\d:]{8}Z", r"\d{4}-\d\d-\d\dT[\d:]{8}Z"),
    (r"[0-9a-f]{12}(?=of)", r"[0-9a-f]{12}"),
    (r"main\.yml:\d+", r"main\.yml:\d+"),
    (r"\d+findings", r"\d+findings"),
    (r"-{3,}", "-{3,}"),
    ("airlift_…", r"airlift_[\w-]{43}"),
    ("…", ".*"),
)


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def pattern(block: str) -> re.Pattern[str]:
    """Return a pattern for the block's words in order, ignoring white space."""
    words = "".join(block.split())
    any_of = "|".join(f"(?P<v{number}>{shown})" for number, (shown, _) in enumerate(VARIABLE))
    said, end = "", 0
    for found in re.finditer(any_of, words):
        assert found.lastgroup is not None
        number = next(n for n in range(len(VARIABLE)) if found[f"v{n}"] is not None)
        said += re.escape(words[end : found.start()]) + VARIABLE[number][1]
        end = found.end()
    return re.compile(said + re.escape(words[end:]))


def is_shown(block: str, output: str) -> bool:
    """Return whether a run printed the block that a page shows.

    White space is ignored, because lines fold at different places for longer paths.
    """
    return pattern(block).search("".join(output.split())) is not None

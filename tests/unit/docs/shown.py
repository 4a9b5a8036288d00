"""Commands and output that a page shows, and whether a run printed the like."""

from __future__ import annotations

import re

from scripts.lab import ROOT

#: What differs from run to run, as it stands in a page, and what it may be.
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
    """Return what matches a run's output that has the block's words in the block's order."""
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
    """Whether a run printed what the page shows, lines that the page omits aside.

    Where lines are folded depends on the length of a path, so white space does not count.
    """
    return pattern(block).search("".join(output.split())) is not None

"""Licence names as SPDX expressions, which other tools understand.

A licence without a name in SPDX keeps its stated name, as `LicenseRef-…`: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from cyclonedx import spdx
from debian.deb822 import Deb822

#: Part of the cache's keys.
FORMAT = 1

_MACHINE_READABLE = "packaging-manuals/copyright-format"
_FAMILY = re.compile(r"(A?GPL|LGPL|GFDL)[- ]?v?(\d)(\.\d)?(\.0)?(\+|-or-later|-only)?", re.I)
# Names of Debian's copyright format and of Python's classifiers that SPDX spells otherwise.
_ALIASES = {
    "expat": "MIT",
    "mit license": "MIT",
    "mit/x11": "LicenseRef-MIT-X11",
    "apache-2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "artistic": "Artistic-1.0",
    "artistic-2": "Artistic-2.0",
    "bsd-2": "BSD-2-Clause",
    "bsd-3": "BSD-3-Clause",
    "bsd-4": "BSD-4-Clause",
    "boost": "BSL-1.0",
    "cc0": "CC0-1.0",
    "cc0-1": "CC0-1.0",
    "isc license (iscl)": "ISC",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl-2": "MPL-2.0",
    "psf-2": "PSF-2.0",
    "python-2": "Python-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zope-2.1": "ZPL-2.1",
}
_WORDS = re.compile(r"\s+(and|or)\s+", re.IGNORECASE)


@lru_cache(maxsize=4096)  # images share their base's files
def of_copyright(text: str) -> str | None:
    """Return all licences of a machine-readable Debian copyright file.

    Return None for a file in prose.
    """
    if _MACHINE_READABLE not in text[:2000]:
        return None
    stated: list[str] = []
    try:
        for number, paragraph in enumerate(Deb822.iter_paragraphs(text.splitlines(keepends=True))):
            # Paragraphs with only a licence are texts that others refer to.
            if number == 0 or "Files" in paragraph:
                stated += paragraph.get("License", "").splitlines()[:1]
    except ValueError:
        return None
    return all_of(normal(line) for line in stated if line.strip())


def all_of(expressions: Iterable[str]) -> str | None:
    """Join licences that all apply."""
    found: set[str] = set()
    for expression in expressions:
        found |= {expression} if re.search(" OR |[()]", expression) else set(_and(expression))
    unique = sorted(found)
    if len(unique) == 1:
        return unique[0]
    return " AND ".join(f"({e})" if " OR " in e else e for e in unique) or None


def _and(expression: str) -> list[str]:
    return expression.split(" AND ")


def normal(stated: str) -> str:
    """Turn one statement into an SPDX expression."""
    if re.search(r"[()]| WITH ", stated) and spdx.is_expression(stated):
        return stated
    # In Debian's format a comma ends the range of `or`: A or B, and C.
    groups = re.split(r",\s+and\s+", stated.strip(), flags=re.IGNORECASE)
    if len(groups) > 1:
        return " AND ".join(f"({one})" if " OR " in one else one for one in map(normal, groups))
    parts = _WORDS.split(re.sub(r",\s+or\s+", " or ", stated.strip()))
    if len(parts) == 1:
        return _one(parts[0])
    return " ".join(part.upper() if i % 2 else _one(part) for i, part in enumerate(parts))


def _one(name: str) -> str:
    name = " ".join(name.split()).strip(",;")
    if match := _FAMILY.fullmatch(name):
        kind, major, minor, _, later = match.groups()
        ending = "or-later" if later in ("+", "-or-later") else "only"
        found = spdx.fixup_id(f"{kind.upper()}-{major}{minor or '.0'}-{ending}")
        if found:
            return found
    known = _ALIASES.get(name.lower()) or spdx.fixup_id(name)
    return known or "LicenseRef-" + (re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") or "unnamed")

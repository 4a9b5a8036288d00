"""Map paths to route templates: the label of metrics and logs, known before a handler runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.routing import compile_path

UNMATCHED = "unmatched"


class RouteTable:
    """Finds the template of a path; all unknown paths share one label."""

    def __init__(self, templates: Iterable[str], prefixes: Iterable[str] = ()) -> None:
        self._exact: dict[str, str] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self._prefixes = tuple(prefixes)
        for template in templates:
            if "{" in template:
                self._patterns.append((compile_path(template)[0], template))
            else:
                self._exact[template] = template

    def template(self, path: str) -> str:
        """Return the template that `path` matches, or `UNMATCHED`."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for pattern, template in self._patterns:
            if pattern.match(path):
                return template
        for prefix in self._prefixes:
            if path.startswith(f"{prefix}/"):
                return prefix
        return UNMATCHED

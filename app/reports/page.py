"""The report as one HTML page for readers: no script, no external resource, all values escaped.

The page's security policy allows its own style by hash and forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.jobs.processing import Row
from app.reports.document import COLUMNS, Report

MOST_ROWS = 1000
_FOLDER = Path(__file__).parent / "templates"
_STYLE = (_FOLDER / "report.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number)
    return environment


_TEMPLATE = _environment().get_template("report.html.j2")


def render(report: Report, rows: list[Row]) -> bytes:
    """Return the page as UTF-8, with the given rows."""
    return _TEMPLATE.render(
        report=report,
        result=report.result,
        style=_STYLE,
        columns=[name for name in COLUMNS if used(report, name)],
        rows=[dict(zip(COLUMNS, row, strict=True)) for row in rows],
        most=MOST_ROWS,
    ).encode("utf-8", "replace")


def used(report: Report, column: str) -> bool:
    """Return whether a column can hold a value in this report."""
    wanted = {
        "sentiment": "sentiment",
        "probability": "sentiment",
        "class": "tabular",
        "class_probability": "tabular",
    }.get(column)
    return wanted is None or wanted in report.result

"""The report as PDF for readers: A4, with an embedded font that covers most alphabets."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.lib.utils import simpleSplit
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import CondPageBreak, Flowable, LongTable, SimpleDocTemplate, Spacer

from app.jobs.processing import Row
from app.reports.document import COLUMNS, Report
from app.reports.page import used

MOST_ROWS = 500
_FONT = "DejaVuSans"
_NORMAL, _SMALL, _PADDING = 8.5, 7.5, 4
_WIDTH = A4[0] - 36 * mm
_ACCENT, _MUTED, _LINE = HexColor("#1f6f8b"), HexColor("#5b6b7a"), HexColor("#e1e8ed")
_PALE, _BAD = HexColor("#f3f7f9"), HexColor("#fdf3f1")
# The library keeps fonts in a global of the process that is not thread-safe.
_LOCK = threading.Lock()
_SHARES = {
    "record": 1.1,
    "line": 1.0,
    "id": 3.0,
    "sentiment": 1.6,
    "probability": 1.8,
    "class": 1.8,
    "class_probability": 1.8,
    "error": 3.6,
}


def render(report: Report, rows: Sequence[Row]) -> bytes:
    """Return the document; the same job always gives the same bytes."""
    with _LOCK:
        if _FONT not in pdfmetrics.getRegisteredFontNames():
            path = Path(__file__).parent / "fonts" / f"{_FONT}.ttf"
            pdfmetrics.registerFont(TTFont(_FONT, str(path)))
        output = io.BytesIO()
        document = SimpleDocTemplate(
            output,
            pagesize=A4,
            leftMargin=18 * mm,
            rightMargin=18 * mm,
            topMargin=18 * mm,
            bottomMargin=18 * mm,
            title=report.title,
            author="Airlift",
            invariant=1,
        )

        def footer(canvas: Canvas, _document: object) -> None:
            canvas.setFont(_FONT, 7.5)
            canvas.setFillColor(_MUTED)
            canvas.drawString(18 * mm, 10 * mm, report.title)
            canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, f"page {canvas.getPageNumber()}")

        document.build(_story(report, rows), onFirstPage=footer, onLaterPages=footer)
        return output.getvalue()


def _story(report: Report, rows: Sequence[Row]) -> list[Flowable]:
    result = report.result
    story: list[Flowable] = [
        _Line("Collection report", 18, space=4),
        _Line(f"Job {report.job['job_id']}, finished {report.job['finished_at']}", 9, _MUTED),
        Spacer(1, 4 * mm),
    ]
    totals = [(name, result["records"][name]) for name in ("collected", "processed", "rejected")]
    totals += [(f"classified by {model['model']}", model["classified"]) for model in report.models]
    story += _section("Totals", [*totals, ("errors", result["errors"]["total"])])
    for model in report.models:
        story += _heading(model["kind"].capitalize())
        story += [
            _Bar(label, count, model["shares"][label]) for label, count in model["counts"].items()
        ]
        story.append(Spacer(1, 2 * mm))
        story.append(_pairs([(f"probability {k}", n) for k, n in model["confidence"].items()]))
        if "no_known_word" in model:
            share = f"{(model['mean_coverage'] or 0) * 100:.1f} %"
            story.append(
                _pairs(
                    [
                        ("known words of a text, mean", share),
                        ("texts without any, neutral", model["no_known_word"]),
                    ]
                )
            )
        looked = f"Model {model['model']} {model['version']}, looking at {model['looked_at']}."
        story += [_Line(line, 8, _MUTED) for line in _wrapped(looked, _WIDTH, 8)]
    if result["errors"]["reasons"]:
        story += _section("Errors", list(result["errors"]["reasons"].items()))
    source = [*result["source"].items()]
    times = [(name, report.job[name]) for name in ("created_at", "started_at", "attempts")]
    story += _section("Where it comes from", source + times)
    story += _rows(report, rows)
    return story


def _section(title: str, pairs: Sequence[tuple[str, Any]]) -> list[Flowable]:
    return [*_heading(title), _pairs(pairs)]


def _heading(title: str) -> list[Flowable]:
    # Keep the heading with its content: never alone at the foot of a page.
    return [CondPageBreak(35 * mm), Spacer(1, 3 * mm), _Line(title, 12, _ACCENT, space=4)]


def _pairs(pairs: Sequence[tuple[str, Any]]) -> Flowable:
    name = 55 * mm
    cells = [
        [_cell(key.replace("_", " "), name), _cell(value, _WIDTH - name)] for key, value in pairs
    ]
    table = LongTable(cells, colWidths=[name, _WIDTH - name], hAlign="LEFT")
    table.setStyle([*_style(_NORMAL), ("TEXTCOLOR", (0, 0), (0, -1), _MUTED)])
    return table


def _rows(report: Report, rows: Sequence[Row]) -> list[Flowable]:
    story = _heading("Records")
    total = report.result["records"]["collected"]
    if total > len(rows):
        text = f"The first {len(rows)} of {total}; all of them are in the report as CSV or JSON."
        story.append(_Line(text, 8, _MUTED))
    if not rows:
        return story
    names = [name for name in COLUMNS if used(report, name)]
    places = [COLUMNS.index(name) for name in names]
    whole = sum(_SHARES[name] for name in names)
    widths = [_WIDTH * _SHARES[name] / whole for name in names]
    cells = [[name.replace("_", "\n") for name in names]]
    cells += [
        [_cell(row[place], width, _SMALL) for place, width in zip(places, widths, strict=True)]
        for row in rows
    ]
    table = LongTable(cells, colWidths=widths, repeatRows=1)
    bad = [
        ("BACKGROUND", (0, number), (-1, number), _BAD)
        for number, row in enumerate(rows, start=1)
        if row.error
    ]
    table.setStyle([*_style(_SMALL), ("BACKGROUND", (0, 0), (-1, 0), _PALE), *bad])
    return [*story, table]


def _style(size: float) -> list[tuple[Any, ...]]:
    whole = (0, 0), (-1, -1)
    return [
        ("FONT", *whole, _FONT, size, size * 1.3),
        ("LINEBELOW", *whole, 0.4, _LINE),
        ("VALIGN", *whole, "TOP"),
        ("LEFTPADDING", *whole, _PADDING),
        ("RIGHTPADDING", *whole, _PADDING),
        ("TOPPADDING", *whole, 2.5),
        ("BOTTOMPADDING", *whole, 2.5),
    ]


def _cell(value: Any, width: float, size: float = _NORMAL) -> str:
    """Return a value as a table cell: plain text without markup, wrapped to the column."""
    if value is None:
        return ""
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return "\n".join(_wrapped(text, width - 2 * _PADDING, size))


def _wrapped(text: str, width: float, size: float) -> list[str]:
    printable = "".join(one if one.isprintable() else " " for one in text)[:400]
    lines: list[str] = []
    for line in simpleSplit(printable, _FONT, size, width):
        rest = line
        # Break a word that is wider than its column, such as a checksum.
        while pdfmetrics.stringWidth(rest, _FONT, size) > width and len(rest) > 1:
            most = max(1, int(len(rest) * width / pdfmetrics.stringWidth(rest, _FONT, size)))
            lines.append(rest[:most])
            rest = rest[most:]
        lines.append(rest)
    return lines


class _Line(Flowable):  # type: ignore[misc]
    """One line of text."""

    def __init__(self, text: str, size: float, colour: Any = None, space: float = 2) -> None:
        super().__init__()
        self._text, self._size, self._colour = text, size, colour or HexColor("#1c2733")
        self._space = space

    def wrap(self, width: float, _height: float) -> tuple[float, float]:
        """Return width and height in points, for the layout."""
        return width, self._size * 1.3 + 2 * self._space

    def draw(self) -> None:
        """Draw the line on the page."""
        self.canv.setFont(_FONT, self._size)
        self.canv.setFillColor(self._colour)
        self.canv.drawString(0, self._space + self._size * 0.25, self._text)


class _Bar(Flowable):  # type: ignore[misc]
    """A label, its count and its share as a bar."""

    def __init__(self, label: str, count: int, share: float) -> None:
        super().__init__()
        self._label, self._count, self._share = label, count, share

    def wrap(self, width: float, _height: float) -> tuple[float, float]:
        """Return width and height in points, for the layout."""
        self._width = width
        return width, 6 * mm

    def draw(self) -> None:
        """Draw the bar on the page."""
        canvas, left = self.canv, 75 * mm
        canvas.setFont(_FONT, 9)
        canvas.setFillColor(HexColor("#1c2733"))
        canvas.drawString(0, 2 * mm, self._label)
        canvas.drawRightString(50 * mm, 2 * mm, f"{self._count:,}")
        canvas.drawRightString(70 * mm, 2 * mm, f"{self._share * 100:.1f} %")
        canvas.setFillColor(_LINE)
        canvas.rect(left, 1.5 * mm, self._width - left, 3.5 * mm, stroke=0, fill=1)
        canvas.setFillColor(_ACCENT)
        canvas.rect(left, 1.5 * mm, (self._width - left) * self._share, 3.5 * mm, stroke=0, fill=1)

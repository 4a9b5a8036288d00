"""Make docs/PRINT.html, one side of A4 to carry with the USB drive, from docs/INSTALL.md.

``make print-page`` runs it. Commands, headings and the table of refusals come from INSTALL.md; this
program only adds order and layout.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.page_parts import blocks, rows  # noqa: E402 - after the path

SOURCE = ROOT / "docs" / "INSTALL.md"
TARGET = ROOT / "docs" / "PRINT.html"

#: Number of output lines on the sheet, by marker; counted from the end if negative.
SHOWN = {
    "output of the import": 3,
    "output of the first key": 3,
    "output of status": -1,
    "output of smoke": 1,
}
#: The fields that people fill in.
FIELDS = ("Site", "Release", "USB drive, seal", "Carried by", "Received by, date")
FINGERPRINT = "Fingerprint of the signer's key, asked of the vendor by phone: SHA256:"

STYLE = """\
@page { size: A4; margin: 10mm 12mm }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 186mm; color: #000; background: #fff;
  font: 8.4pt/1.22 "DejaVu Sans", Helvetica, Arial, sans-serif }
h1 { font-size: 14pt; margin: 0 0 1.5mm }
h2 { font-size: 9.4pt; margin: 1.9mm 0 .6mm }
p { margin: 0 0 .8mm }
code, pre { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 7.2pt }
pre { margin: 0 0 .9mm; padding: .5mm 1.6mm; border-left: .6mm solid #000; background: #f1f1f1 }
pre.out { border-left-style: dotted; background: none }
pre.out::before { content: "it prints"; float: right; font: italic 7pt "DejaVu Sans", sans-serif }
pre span { display: block; padding-left: 4ch; text-indent: -4ch; white-space: pre-wrap }
pre i { font-style: normal; white-space: nowrap }
table { border-collapse: collapse; width: 100% }
td { border: .2mm solid #666; padding: .35mm 1.5mm; vertical-align: top }
.fields { margin-bottom: 1.5mm }
.fields td { height: 9mm; width: 20%; font-size: 7pt }
.fields tr + tr td { height: 6mm }
.foot { margin-top: 2mm; font-size: 7.2pt }
@media screen { body { padding: 8mm 0 } }
"""


def inline(text: str) -> str:
    """Return one line of Markdown as HTML; for paper, a link becomes its text and its page."""
    text = re.sub(r"\[([^\]]+)\]\(([^)#]+)[^)]*\)", r"\1 (`\2`)", text)
    parts = re.split(r"`([^`]+)`", text)
    made = [html.escape(part, quote=False) for part in parts]
    made[0::2] = [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", part) for part in made[0::2]]
    made[1::2] = [f"<code>{part}</code>" for part in made[1::2]]
    return "".join(made)


def listing(text: str, kind: str = "") -> str:
    """Return lines of a terminal; a long line is folded between words and indented."""
    lines = [line for line in text.split("\n") if line]
    return f"<pre{kind}>{''.join(f'<span>{_words(line)}</span>' for line in lines)}</pre>"


def _words(line: str) -> str:
    """Return a line with unbreakable words: browsers break them at hyphens and slashes."""
    return re.sub(r"(\S*[-/]\S*)", r"<i>\1</i>", html.escape(line, quote=False))


def table(text: str) -> str:
    """Return a Markdown table's rows as HTML."""
    cells = (
        "".join(f"<td>{inline(cell.replace(chr(92) + '|', '|'))}</td>" for cell in row)
        for row in rows(text)
    )
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def kept(mark: str, block: str) -> str:
    """Return the lines of an output that the sheet shows."""
    count, lines = SHOWN.get(mark, 0), block.rstrip("\n").split("\n")
    return "\n".join(lines[count:] if count < 0 else lines[:count])


def section(title: str, text: str) -> str:
    """Return a numbered step: commands, expected output and tables, in the page's order."""
    made = [f"<h2>{inline(title)}</h2>"]
    parts = r"<!-- ([^>]+?) -->\n```(sh|text)\n(.*?)```|((?:^\|[^\n]*\n)+)"
    for mark, kind, block, cells in re.findall(parts, text, re.DOTALL | re.MULTILINE):
        if cells:
            made.append(table(cells))
        elif kind == "sh":
            made.append(listing(block))
        elif shown := kept(mark, block):
            made.append(listing(shown, ' class="out"'))
    return "\n".join(made)


def render(source: str) -> str:
    """Return the sheet that belongs to the page for operators."""
    sections = re.split(r"^## (.+)\n", source, flags=re.MULTILINE)
    titles = dict(zip(sections[1::2], sections[2::2], strict=True))
    before = blocks(titles["Before you begin"])
    steps = [section(title, text) for title, text in titles.items() if re.match(r"\d+\. ", title)]
    fields = "".join(f"<td>{html.escape(name)}</td>" for name in FIELDS)
    return f"""\
<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Airlift: check, import, install</title>
<style>
{STYLE}</style>
</head>
<body>
<h1>Airlift: check, import, install</h1>
<table class="fields"><tr>{fields}</tr>
<tr><td colspan="{len(FIELDS)}">{html.escape(FINGERPRINT, quote=False)}</td></tr></table>
<p>Type everything on the jump host, as the operator.
The list of allowed signers comes through a separate channel, never on this USB drive.
A line that begins four letters further in continues the line above.
What status and smoke print is from the demo's site, <code>lab</code>.</p>
<h2>Once</h2>
{"".join(map(listing, before.values()))}
{chr(10).join(steps)}
<p class="foot">Whole text: <code>/opt/airlift/current/docs/INSTALL.md</code> after the import.
Failures: <code>TROUBLESHOOTING.md</code> and <code>TRUST.md</code> beside it.</p>
</body>
</html>
"""


def main() -> int:
    """Write the sheet."""
    TARGET.write_text(render(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)} written: print it on A4, one side")
    return 0


if __name__ == "__main__":
    sys.exit(main())

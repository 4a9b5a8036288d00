"""Draw the pictures of the documents from recorded output and measurements.

``make pictures`` runs it. The terminal's text comes from the newest log of the demo, the dossier
from the demo's bundle, the response times from docs/benchmarks/results.json. A picture whose source
is missing on this machine is kept, and the program names it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "benchmarks" / "results.json"
#: Maximum milliseconds of each endpoint.
GOAL = 200
COLUMNS = 110
MARK = "<!-- ten lines of the demo's log -->\n```text\n"

#: One line of the demo's log each; of several patterns the first match counts.
TELLING: tuple[tuple[str, ...], ...] = (
    (r"===  1/\d+",),
    (r'Good "airlift-bundle" signature',),
    (r"verify\.pyz: OK",),
    (r"is imported and current",),
    (r"\S+ serves release [\d.]+$",),
    (r"\d+ requests, \d+ failed", r"=== .* the site through Nginx"),
    (r"=== .* Upgrade",),
    (r"serves release [\d.]+ \(green\)$",),
    (r"serves release [\d.]+ \(blue\)$",),
    (r"Site \S+ runs release .*everything is as it should be",),
)


class MissingSourceError(Exception):
    """This machine has no source for a picture."""


# ---------------------------------------------------------------- what the demo printed
def newest(folder: Path, names: str) -> Path:
    """Return the newest file; for bundles, ignore deltas."""
    files = (path for path in folder.glob(names) if "-since-" not in path.name)
    found = sorted(files, key=lambda path: path.stat().st_mtime_ns)
    if not found:
        message = f"{folder} has no {names}: run the demo first"
        raise MissingSourceError(message)
    return found[-1]


def telling_lines(log: str) -> list[str]:
    """Return the lines of a demo's log that show its result, in the log's order."""
    lines = [re.sub(r"^(\S+) {2,}(?!=)", r"\1 ", line.rstrip()) for line in log.splitlines()]
    found: set[int] = set()
    for patterns in TELLING:
        # Use the last one: an interrupted demo did its steps twice.
        hits = [
            [number for number, line in enumerate(lines) if re.search(pattern, line)][-1:]
            for pattern in patterns
        ]
        if not any(hits):
            message = f"the demo's newest log has no line with {patterns[0]!r}: run it again"
            raise MissingSourceError(message)
        found.add(next(hit[0] for hit in hits if hit))
    return [_cut(lines[number]) for number in sorted(found)]


def last_status(log: str) -> list[str]:
    """Return the output of the last `status` in a demo's log."""
    lines = [line.partition(" ")[2] for line in log.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.lstrip().startswith("HOST   ")]
    if not starts:
        message = "the newest log of the demo has no status: run it again"
        raise MissingSourceError(message)
    indent = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
    text = []
    for line in lines[starts[-1] :]:
        if re.match(r"\d+ changed, \d+ failed", line):  # the playbook's summary
            break
        text.append(line[indent:].rstrip())
    return "\n".join(text).rstrip().split("\n")


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…"


# ---------------------------------------------------------------- terminal
#: Words of a status, and their colours.
_WORDS = {"ok": "good", "running": "good", "healthy": "good", "exited": "dim"}


def folded(line: str) -> Iterator[str]:
    """Fold a line as a terminal does."""
    while len(line) > COLUMNS:
        yield line[:COLUMNS]
        line = line[COLUMNS:]
    yield line


def terminal(command: str, lines: Sequence[str]) -> str:
    """Return a terminal with a command and its output, as SVG."""
    rows = [row for line in lines for row in folded(line)]
    width, height = 16 * 2 + COLUMNS * 7.2, 44 + (len(rows) + 1) * 17
    drawn = [_row(0, f'<tspan class="dim">$ </tspan>{escape(command)}')]
    drawn += [_row(number, _coloured(row)) for number, row in enumerate(rows, 1)]
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" \
viewBox="0 0 {width:.0f} {height}" role="img">
<title>{escape(command)}</title>
<style>
text {{ font: 12px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d6deeb }}
text {{ white-space: pre }}
.good {{ fill: #7ddf8a }} .dim {{ fill: #7f8ea3 }}
</style>
<rect width="100%" height="100%" rx="8" fill="#0f1722"/>
{"".join(drawn)}</svg>
"""


def _row(number: int, text: str) -> str:
    return f'<text x="16" y="{30 + number * 17}" xml:space="preserve">{text}</text>\n'


def _coloured(row: str) -> str:
    def paint(found: re.Match[str]) -> str:
        return f'<tspan class="{_WORDS[found[0]]}">{found[0]}</tspan>'

    return re.sub(rf"\b({'|'.join(_WORDS)})\b", paint, escape(row))


# ---------------------------------------------------------------- response times
def latency(results: dict[str, object]) -> str:
    """Return the 95th percentile of each endpoint's response time as bars, as SVG."""
    prefix = "p95_ms_"
    times = {
        name.removeprefix(prefix).replace("_", " "): float(str(value))
        for name, value in results.items()
        if name.startswith(prefix)
    }
    rows = sorted(times.items(), key=lambda row: row[1])
    left, scale, step, top = 170, 2.2, 20, 58
    bottom = top + len(rows) * step
    goal = left + GOAL * scale
    bars = []
    for number, (name, value) in enumerate(rows):
        y, end = top + number * step, left + value * scale
        bars += [
            f'<text class="name" x="{left - 8}" y="{y + 13}">{escape(name)}</text>',
            f'<rect x="{left}" y="{y + 3}" width="{value * scale:.0f}" height="{step - 6}"/>',
            f'<text x="{end + 6:.0f}" y="{y + 13}">{value:.0f}</text>',
        ]
    about = f"100 clients at a time, on the {results['cores']} cores of the service"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{bottom + 34}" \
viewBox="0 0 700 {bottom + 34}" role="img">
<title>95th percentile of response times, by endpoint</title>
<style>
text {{ font: 12px "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #24303f }}
.name {{ text-anchor: end }} .head {{ font-size: 15px; font-weight: bold }}
rect {{ fill: #2f6fb3 }}
</style>
<rect width="100%" height="100%" style="fill: #ffffff"/>
<text class="head" x="16" y="24">Milliseconds within which 95 of 100 answers come</text>
<text x="16" y="44">{escape(about)}</text>
{chr(10).join(bars)}
<line x1="{left}" y1="{top}" x2="{left}" y2="{bottom}" stroke="#24303f"/>
<line x1="{goal:.0f}" y1="{top - 6}" x2="{goal:.0f}" y2="{bottom + 6}" stroke="#b3402f" \
stroke-dasharray="4 3"/>
<text x="{goal - 60:.0f}" y="{bottom + 22}">goal: below {GOAL} ms</text>
</svg>
"""


# ---------------------------------------------------------------- dossier
def browser() -> str:
    """Return the browser that draws pages."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    message = "no chromium here: apt-get install chromium"
    raise MissingSourceError(message)


def dossier(bundle: Path, target: Path) -> None:
    """Draw the top of a bundle's dossier."""
    program = browser()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(bundle) as archive:
        page = archive.extractfile("about/dossier.html")
        if page is None:
            message = f"{bundle} has no about/dossier.html"
            raise MissingSourceError(message)
        source, drawn = Path(folder, "dossier.html"), Path(folder, "dossier.png")
        source.write_bytes(page.read())
        draw(program, source, drawn, "900,660")
        shutil.copyfile(drawn, target)


def draw(program: str, source: Path, target: Path, size: str) -> None:
    """Draw a page into a file with the browser, which gets a temporary profile."""
    with tempfile.TemporaryDirectory() as profile:
        argv = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        argv += [f"--user-data-dir={profile}", f"--window-size={size}"]
        argv += [f"--screenshot={target}", source.as_uri()]
        subprocess.run(argv, check=True, capture_output=True, timeout=120)


# ---------------------------------------------------------------- all of it
def recorded(name: str) -> list[str]:
    """Return the lines of a recorded text."""
    return (PICTURES / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def with_lines(readme: str, lines: Sequence[str]) -> str:
    """Return the README with these lines of the demo's log."""
    before, mark, rest = readme.partition(MARK)
    return before + mark + "\n".join(lines) + "\n" + rest[rest.index("```") :]


def record(demo: Path) -> None:
    """Record the texts from the newest log of the demo."""
    log = newest(demo / "log", "*.log").read_text(encoding="utf-8")
    for name, lines in (("demo", telling_lines(log)), ("status", last_status(log))):
        (PICTURES / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def status() -> str:
    """Return the picture of the recorded status."""
    return terminal("ansible-playbook … playbooks/status.yml", recorded("status"))


def main() -> int:
    """Draw the pictures whose sources exist; name the others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--demo",
        type=Path,
        default=ROOT / ".cache" / "demo",
        metavar="DIR",
        help="where a demo left its log and bundle (default: .cache/demo)",
    )
    demo: Path = parser.parse_args().demo
    PICTURES.mkdir(exist_ok=True)

    def write(name: str, text: str) -> None:
        (PICTURES / name).write_text(text, encoding="utf-8")

    def readme() -> None:
        README.write_text(with_lines(README.read_text("utf-8"), recorded("demo")), "utf-8")

    steps: list[tuple[str, Callable[[], object]]] = [
        ("recorded texts", lambda: record(demo)),
        ("README.md", readme),
        ("status.svg", lambda: write("status.svg", status())),
        ("latency.svg", lambda: write("latency.svg", latency(json.loads(RESULTS.read_text())))),
        (
            "dossier.png",
            lambda: dossier(newest(demo / "dist", "airlift-*.tar"), PICTURES / "dossier.png"),
        ),
    ]
    for name, step in steps:
        try:
            step()
        except MissingSourceError as error:
            print(f"{name:<16}kept   {error}")
        else:
            print(f"{name:<16}drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Pictures of the documents exist, are small, and match their sources."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from scripts import pictures
from scripts.lab import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LARGEST = 200_000


def named() -> set[Path]:
    """Return the pictures that pages include."""
    return {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }


def text_of(svg: str) -> list[str]:
    """Return the lines of a terminal picture."""
    root = ET.fromstring(svg)  # noqa: S314 - our own file
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_each_picture_is_shown_by_a_page_and_each_shown_one_exists() -> None:
    there = {path for path in pictures.PICTURES.iterdir() if path.suffix != ".txt"}
    assert there
    assert named() == there


def test_pictures_are_small() -> None:
    assert [path for path in pictures.PICTURES.iterdir() if path.stat().st_size > LARGEST] == []


def test_the_terminal_shows_the_recorded_status() -> None:
    svg = (pictures.PICTURES / "status.svg").read_text(encoding="utf-8")
    assert svg == pictures.status()
    assert "".join(text_of(svg)[1:]) == "".join(pictures.recorded("status"))


def test_the_bars_are_the_measured_times() -> None:
    results = json.loads(pictures.RESULTS.read_text())
    svg = (pictures.PICTURES / "latency.svg").read_text(encoding="utf-8")
    assert svg == pictures.latency(results)
    times = [value for name, value in results.items() if name.startswith("p95_ms_")]
    assert {f"{value:.0f}" for value in times} <= set(text_of(svg))
    assert pictures.latency(results | {"p95_ms_root": 199.0}) != svg


def test_the_readme_has_ten_lines_of_the_recorded_demo() -> None:
    readme = pictures.README.read_text(encoding="utf-8")
    lines = pictures.recorded("demo")
    assert len(lines) == 10
    assert pictures.with_lines(readme, lines) == readme


LOG = """\
10:00:00 ===  1/17  Build and sign the bundle
10:01:00 Good "airlift-bundle" signature for release@airlift.example with ED25519 key SHA256:abc
10:01:00 verify.pyz: OK
10:01:05 airlift 2.0.0, serial 9, is imported and current
10:03:00 lab serves release 2.0.0
10:03:09 === 10/17  Ask the site through Nginx
10:04:00 === 14/17  Upgrade, and nobody notices
10:05:00 lab serves release 2.1.0 (green)
10:05:30 lab serves release 2.0.0 (blue)
10:05:40 ok  6016 requests, 0 failed
10:05:41
10:05:41 HOST    SERVICE
10:05:41 edge-1  edge
10:05:41
10:05:41 Site lab runs release 2.0.0: everything is as it should be.
10:05:41
10:05:41 0 changed, 0 failed, 9.1 s
"""


def test_a_demo_is_told_by_ten_of_its_lines() -> None:
    lines = pictures.telling_lines(LOG)
    assert len(lines) == 10
    assert lines[-1] == "10:05:41 Site lab runs release 2.0.0: everything is as it should be."
    assert "10:05:40 ok  6016 requests, 0 failed" in lines
    assert "10:03:09 === 10/17  Ask the site through Nginx" not in lines
    assert pictures.last_status(LOG) == [
        "HOST    SERVICE",
        "edge-1  edge",
        "",
        "Site lab runs release 2.0.0: everything is as it should be.",
    ]


#: Text that finds a line in a demo's log, and the file that prints it.
SAID = [
    ("is imported and current", "bundle/cli/import_release.py"),
    (" the site through Nginx", "scripts/demo.py"),
    ('"Upgrade', "scripts/roundtrip.py"),
    ("requests, {found.failed} failed", "scripts/roundtrip.py"),
    ("serves release {{ site_version }}", "roles/edge/tasks/prove.yml"),
    ("serves release {{ site_version }} ({{ swap_target }})", "roles/swap/tasks/finish.yml"),
    ("everything is as it", "roles/status/logic/report.py"),
]


@pytest.mark.parametrize(("words", "file"), SAID)
def test_the_lines_that_tell_of_a_demo_are_still_said(words: str, file: str) -> None:
    assert words in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("lost", ["verify.pyz", "(blue)", "runs release"])
def test_a_demo_that_did_not_end_well_is_no_source(lost: str) -> None:
    log = "\n".join(line for line in LOG.splitlines() if lost not in line)
    with pytest.raises(pictures.MissingSourceError, match="run it again"):
        pictures.telling_lines(log)


def test_without_a_demo_the_pictures_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pictures.PICTURES, tmp_path / "pictures")
    shutil.copy(pictures.README, tmp_path / "README.md")
    monkeypatch.setattr(pictures, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(pictures, "README", tmp_path / "README.md")
    monkeypatch.setattr("sys.argv", ["pictures", "--demo", str(tmp_path / "none")])
    before = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert pictures.main() == 0
    assert "run the demo first" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()} == before

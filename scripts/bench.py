"""Measure Airlift beside its peers, in one run on one machine, as ratios.

``make bench`` writes docs/benchmarks/results.json (flat keys) and docs/benchmarks/README.md. It
uses the images of the last build. Both sides start with the same page cache, and the better of two
runs counts for each. `python scripts/bench.py bundle`, or another of PARTS, measures one part and
keeps the other results. `commands` compares with an older tree, which REV names.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle.builder import cache
from bundle.core.text import table
from scripts import bench_page
from scripts.bench_bundle import peers, vendor, verification
from scripts.bench_commands import commands, scale
from scripts.bench_site import site
from scripts.lab import ROOT

PARTS = ("site", "commands", "scale", "bundle", "verify", "peers")
#: Those that measure with the demo's bundle; the others build their own.
OF_A_BUNDLE = {"bundle", "verify", "peers"}


def manifest_of(bundle: Path) -> dict[str, Any]:
    """Return the manifest of a bundle file."""
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None  # noqa: S101 - every bundle has one
        found: dict[str, Any] = json.load(member)
    return found


def main() -> int:
    """Measure, write the results, and print them; return the exit code."""
    parts = sys.argv[1:] or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        print(f"no such part: {', '.join(sorted(unknown))}; parts: {' '.join(PARTS)}")
        return 2
    release = yaml.safe_load((ROOT / "bundle" / "release.yml").read_text())
    bundle = ROOT / ".cache/demo/dist" / f"airlift-{release['version']}-amd64.tar"
    manifest: dict[str, Any] = {}
    if set(parts) & OF_A_BUNDLE:
        if not bundle.exists():
            print("no bundle to measure with: run `make demo` once", file=sys.stderr)
            return 1
        manifest = manifest_of(bundle)
    ROOT.joinpath(".cache/reports").mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=cache.root(), prefix="bench-") as folder,
        (ROOT / ".cache/reports/bench.log").open("w") as log,
    ):
        work = Path(folder)
        results: dict[str, Any] = {
            "cores": os.cpu_count(),
            "machine": f"{platform.machine()}, Linux {platform.release().split('-')[0]}",
        }
        if manifest:
            results |= {
                "bundle_file_bytes": bundle.stat().st_size,
                "images": len(manifest["components"]),
                "image_source": manifest["image_source"],
            }

        def listen(line: str) -> None:
            print(line, file=log)

        def say(text: str) -> None:
            print(text, flush=True)

        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "site": lambda: site(listen, say),
            "commands": lambda: commands(listen, say),
            "scale": lambda: scale(listen, say),
            "bundle": lambda: vendor(manifest, work),
            "peers": lambda: peers(manifest, work),
            "verify": lambda: verification(bundle, ROOT / ".cache/demo", work),
        }
        for part in parts:
            print(f"measuring: {part}", flush=True)
            results |= measures[part]()
            # Keep the results of this part, even if the next one fails.
            bench_page.save(results)
    rows = bench_page.ratios(bench_page.load())
    print(table([(what, ratio, goal) for what, _, ratio, goal, _ in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

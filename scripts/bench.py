"""Measures Airlift's ways beside its peers' ways, in one run on one machine, as ratios.

``make bench`` writes docs/benchmarks/results.json (flat keys) and docs/benchmarks/README.md. The
images of the last build are used; both sides start with the same page cache, and the better of
two runs counts for both. One part alone is measured with `python scripts/bench.py bundle`, or
`verify`, `peers`, or `site`; the others' results stay.
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

from bundle import cache
from bundle.report import size, table
from scripts.bench_bundle import RUNS, peers, vendor, verification
from scripts.bench_site import site
from scripts.lab import ROOT

RESULTS = ROOT / "docs" / "benchmarks"
PARTS = ("site", "bundle", "verify", "peers")
#: key: (what a person reads, the peer's way, goal of the ratio)
MEASURED: dict[str, tuple[str, str, float]] = {
    "bundle_build_time_ratio": (
        "images in the engine to blobs of a bundle, nothing cached",
        "docker save piped to gzip -6",
        0.40,
    ),
    "bundle_rebuild_time_ratio": (
        "the same when only app code changed",
        "docker save piped to gzip -6",
        0.10,
    ),
    "bundle_size_ratio": ("size of the blobs", "size of the .tar.gz", 0.85),
    "verify_time_ratio": (
        "verify the whole bundle: signature, headers, every byte",
        "openssl dgst -sha256 over its members, all cores",
        1.15,
    ),
    "load_time_ratio": (
        "a host's images: pull them through the tunnel",
        "copy one .tar.gz of them and docker load it",
        0.45,
    ),
    "load_proven_time_ratio": (
        "the whole task: Ansible, tunnel, pull, proof in containers, flush to the disk",
        "the same, with no proof and no flush",
        1.0,
    ),
    "upgrade_bytes_ratio": (
        "upgrade, only app code changed: bytes to an app host",
        "the same image in full",
        0.01,
    ),
    "upgrade_time_ratio": (
        "upgrade, only app code changed: pull the image through the tunnel",
        "copy its .tar.gz and docker load it",
        0.05,
    ),
    "upgrade_proven_time_ratio": (
        "the whole task: Ansible, tunnel, pull, proof in a container, flush to the disk",
        "the same, with no proof and no flush",
        1.0,
    ),
    "reinstall_time_ratio": ("install again, nothing to do", "the first install", 0.25),
    "swap_p99_ratio": (
        "p99 of requests during upgrades and rollbacks",
        "p99 of the same clients before",
        2.0,
    ),
}

#: Key of the other peers: what a person reads.
OTHERS = {
    "each": "each image by itself, docker save piped to gzip -6 (Harbor, Kubespray)",
    "archive": "one archive of all, not compressed (k0s)",
    "zstd16": "one archive, zstd -T0 -16 --long=25 (RKE2)",
}


def unregistry(results: dict[str, Any]) -> str:
    """Say how unregistry's way compares, once it was measured."""
    if "peer_unregistry_seconds" not in results:
        return "not measured."
    whole = (
        f"{results['peer_unregistry_seconds']:.1f} s for {size(results['peer_unregistry_bytes'])}"
    )
    ours = f"{results['upgrade_pull_seconds']:.2f} s for {size(results['upgrade_bytes'])}"
    return f"{whole}; Airlift's upgrade, in the same run: {ours}."


def page(results: dict[str, Any]) -> str:
    """Return the page for people."""
    rows = [
        f"| {what} | {peer} | {results[key]:.2f} | {goal:.2f} |"
        for key, (what, peer, goal) in MEASURED.items()
    ]
    others = [
        f"| {what} | {results[f'peer_{key}_seconds']:.0f} | {size(results[f'peer_{key}_bytes'])} |"
        for key, what in OTHERS.items()
        if f"peer_{key}_seconds" in results
    ] or ["| not measured | | |"]
    return f"""# Benchmarks

Both sides of a row in one run on {results["cores"]} cores ({results["machine"]}). Of the first
four rows the better of {RUNS} runs on each side; what happens on a site was measured once.
`make bench` measures again and writes this page and [results.json](results.json).

| Airlift | against | ratio | goal: at most |
|---|---|---|---|
{chr(10).join(rows)}

During {results["swaps"]} swaps (upgrade and rollback in turn) {results["swap_requests"]} requests
were sent and {results["swap_failed"]} failed (goal: 0). A rollback had the old release serving
{results["rollback_seconds"]:.1f} s after the command was typed, Ansible's start included
(goal: below 15 s). The site's hosts, the jump host and the clients share these cores.

Other ways to carry these images, without a goal ({size(results["bundle_bytes"])} in
{results["bundle_build_seconds"]:.0f} s is Airlift's):

| way | seconds | size |
|---|---|---|
{chr(10).join(others)}

The service's image in full from a registry over SSH (unregistry's way, nothing skipped):
{unregistry(results)}

Memory of the verifier at its peak: {results["verify_peak_mib"]:.0f} MiB (goal: below 100 MiB).
{results["images"]} images of the source `{results["image_source"]}`, in a bundle of
{results["bundle_file_bytes"] / 1e6:.0f} MB. The changed image's `docker build` is in its time.
"""


def main() -> int:
    """Measure, write, print."""
    parts = sys.argv[1:] or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        print(f"no such part: {', '.join(sorted(unknown))}; parts: {' '.join(PARTS)}")
        return 2
    release = yaml.safe_load((ROOT / "bundle" / "release.yml").read_text())
    bundle = ROOT / ".cache/demo/dist" / f"airlift-{release['version']}-amd64.tar"
    if not bundle.exists():
        print("no bundle to measure with: run `make demo` once", file=sys.stderr)
        return 1
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None  # noqa: S101 - a bundle has one
        manifest = json.load(member)
    ROOT.joinpath(".cache/reports").mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=cache.root(), prefix="bench-") as folder,
        (ROOT / ".cache/reports/bench.log").open("w") as log,
    ):
        work, known = Path(folder), RESULTS / "results.json"
        results: dict[str, Any] = {
            **(json.loads(known.read_text()) if len(parts) < len(PARTS) else {}),
            "bundle_file_bytes": bundle.stat().st_size,
            "images": len(manifest["components"]),
            "image_source": manifest["image_source"],
            "cores": os.cpu_count(),
            "machine": f"{platform.machine()}, Linux {platform.release().split('-')[0]}",
        }
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "site": lambda: site(
                lambda line: print(line, file=log), lambda text: print(text, flush=True)
            ),
            "bundle": lambda: vendor(manifest, work),
            "peers": lambda: peers(manifest, work),
            "verify": lambda: verification(bundle, ROOT / ".cache/demo", work),
        }
        for part in parts:
            print(f"measuring: {part}", flush=True)
            results |= measures[part]()
            # What was measured is kept, whatever becomes of the next part.
            save(known, results)
    missing = [key for key in MEASURED if key not in results]
    if missing:
        print(f"not measured yet, so {RESULTS / 'README.md'} stays: {', '.join(missing)}")
        return 0
    (RESULTS / "README.md").write_text(page(results))
    lines = [(what, f"{results[key]:.2f}") for key, (what, _, _) in MEASURED.items()]
    print(table(lines))
    return 0


def save(path: Path, results: dict[str, Any]) -> None:
    """Write the results as flat keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in results.items()}
    path.write_text(json.dumps(rounded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())

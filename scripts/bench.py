"""Measures Airlift's ways beside its peers' ways, in one run on one machine, as ratios.

``make bench`` writes docs/benchmarks/results.json (flat keys) and docs/benchmarks/README.md. The
images of the last build are used; both sides start with the same page cache, and the better of
two runs counts for both.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bundle import cache, engine, oci
from bundle.blobs import BlobCache
from bundle.report import table
from scripts.bench_site import site
from scripts.lab import ROOT

RESULTS = ROOT / "docs" / "benchmarks"
RUNS = 2
#: key: (what a person reads, the peer's way, goal of the ratio)
MEASURED: dict[str, tuple[str, str, float]] = {
    "bundle_cold_time_ratio": (
        "images in the engine to blobs of a bundle, nothing cached",
        "docker save piped to gzip -6",
        0.40,
    ),
    "bundle_app_time_ratio": (
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
    "upgrade_bytes_ratio": (
        "upgrade, only app code changed: bytes to an app host",
        "the same image in full",
        0.01,
    ),
    "upgrade_time_ratio": (
        "upgrade, only app code changed: time to bring and prove the image",
        "copy its .tar.gz and docker load it",
        0.05,
    ),
    "reinstall_time_ratio": ("install again, nothing to do", "the first install", 0.25),
    "swap_p99_ratio": (
        "p99 of requests during upgrades and rollbacks",
        "p99 of the same clients before",
        2.0,
    ),
}


#: Runs the verifier and tells its peak in kB. Not getrusage: that starts from what the parent used.
VERIFY_AND_TELL_PEAK = """
import re, sys
from bundle.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of the better of a few runs."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def shell(script: str, *arguments: str) -> None:
    """Run a pipeline of the peer."""
    command = ["bash", "-euo", "pipefail", "-c", script, "bash", *arguments]
    subprocess.run(command, check=True)


def vendor(manifest: dict[str, Any], work: Path) -> dict[str, float]:
    """Measure how images become something to carry."""
    source = manifest["image_source"]
    names = sorted(manifest["components"])
    references = [f"airlift/{name}:{source}" for name in names]
    docker = " ".join(engine.docker())
    saved = work / "images.tar.gz"
    peer = timed(
        lambda: shell(f'{docker} save "${{@:2}}" | gzip -6 > "$1"', str(saved), *references)
    )

    def cold() -> None:
        shutil.rmtree(work / "blobs", ignore_errors=True)
        export(BlobCache(work / "blobs"))

    def export(blobs: BlobCache) -> None:
        images = oci.export(references, blobs, lambda _line: None)
        oci.write_layout(work / "layout", dict(zip(names, images.values(), strict=True)), blobs)

    ours = timed(cold)
    size = sum(path.stat().st_size for path in (work / "layout/blobs/sha256").iterdir())
    changed = timed(lambda: app_change(references[names.index("app")], work, export, docker))
    return {
        "bundle_peer_seconds": peer,
        "bundle_cold_seconds": ours,
        "bundle_app_seconds": changed,
        "bundle_peer_bytes": saved.stat().st_size,
        "bundle_bytes": size,
        "bundle_cold_time_ratio": ours / peer,
        "bundle_app_time_ratio": changed / peer,
        "bundle_size_ratio": size / saved.stat().st_size,
    }


def app_change(
    reference: str, work: Path, export: Callable[[BlobCache], None], docker: str
) -> None:
    """Put another app layer on the engine's image, export with a warm cache, and take it back."""
    before = engine.image_id(reference)
    assert before is not None  # noqa: S101 - it was exported a moment ago
    code = f"FROM {before}\nCOPY code /app/bench.py\n"
    folder = work / "context"
    folder.mkdir(exist_ok=True)
    (folder / "code").write_text(f"# {time.time_ns()}\n" * 10_000)
    (folder / "Dockerfile").write_text(code)
    shell(
        f'DOCKER_BUILDKIT=0 {docker} build --quiet --tag "$1" "$2" > /dev/null',
        reference,
        str(folder),
    )
    try:
        export(BlobCache(work / "blobs"))
    finally:
        after = engine.image_id(reference)
        engine.tag(before, reference)
        if after is not None:
            shell(f'{docker} rmi "$1" > /dev/null', after)


def verification(bundle: Path, cache_dir: Path, work: Path) -> dict[str, float]:
    """Measure how the bundle is checked."""
    members = work / "members"
    members.mkdir()
    with tarfile.open(bundle) as archive:
        archive.extractall(members, filter="data")
    files = [path for path in members.rglob("*") if path.is_file()]
    # Largest first and one list a core, so that no core of the peer waits for another.
    lists: list[list[str]] = [[] for _ in range(os.cpu_count() or 1)]
    sizes = [0] * len(lists)
    for path in sorted(files, key=lambda item: -item.stat().st_size):
        least = sizes.index(min(sizes))
        lists[least].append(str(path))
        sizes[least] += path.stat().st_size

    def openssl() -> None:
        with ThreadPoolExecutor(len(lists)) as pool:
            list(pool.map(_digest, lists))

    argv = [
        sys.executable,
        "-c",
        VERIFY_AND_TELL_PEAK,
        "verify",
        str(bundle),
        "--home",
        str(work / "home"),
    ]
    argv += ["--allowed-signers", str(cache_dir / "allowed_signers"), "--json"]
    peak = 0

    def ours() -> None:
        nonlocal peak
        said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        peak = max(peak, int(said.split()[-1]))

    theirs, mine = timed(openssl), timed(ours)
    return {
        "verify_peer_seconds": theirs,
        "verify_seconds": mine,
        "verify_time_ratio": mine / theirs,
        "verify_peak_mb": peak / 1000,
    }


def _digest(paths: list[str]) -> None:
    command = ["openssl", "dgst", "-sha256", *paths]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def page(results: dict[str, Any]) -> str:
    """Return the page for people."""
    rows = [
        f"| {what} | {peer} | {results[key]:.2f} | {goal:.2f} |"
        for key, (what, peer, goal) in MEASURED.items()
    ]
    return f"""# Benchmarks

Both sides in one run on {results["cores"]} cores ({results["machine"]}),
the better of {RUNS} runs on each side. `make bench` measures again and writes
this page and [results.json](results.json).

| Airlift | against | ratio | goal: at most |
|---|---|---|---|
{chr(10).join(rows)}

During {results["swaps"]} swaps (upgrade and rollback in turn) {results["swap_requests"]} requests
were sent and {results["swap_failed"]} failed (goal: 0). A rollback had the old release serving
{results["rollback_seconds"]:.1f} s after the command was typed, Ansible's start included
(goal: below 15 s). The site's hosts, the jump host and the clients share these cores.

Memory of the verifier at its peak: {results["verify_peak_mb"]:.0f} MB (goal: below 100 MB).
{results["images"]} images of the source `{results["image_source"]}`, in a bundle of
{results["bundle_file_bytes"] / 1e6:.0f} MB. The changed image's `docker build` is in its time.
"""


def main() -> int:
    """Measure, write, print."""
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
        work = Path(folder)
        results: dict[str, Any] = {
            "bundle_file_bytes": bundle.stat().st_size,
            "images": len(manifest["components"]),
            "image_source": manifest["image_source"],
            "cores": os.cpu_count(),
            "machine": f"{platform.machine()}, Linux {platform.release().split('-')[0]}",
            **vendor(manifest, work),
            **verification(bundle, ROOT / ".cache/demo", work),
            **site(lambda line: print(line, file=log), lambda text: print(text, flush=True)),
        }
    RESULTS.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in results.items()}
    (RESULTS / "results.json").write_text(json.dumps(rounded, indent=1, sort_keys=True) + "\n")
    (RESULTS / "README.md").write_text(page(results))
    lines = [(what, f"{results[key]:.2f}") for key, (what, _, _) in MEASURED.items()]
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

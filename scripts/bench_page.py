"""Writes docs/benchmarks/README.md from the flat results of `make bench`."""

from __future__ import annotations

import json
from typing import Any

from bundle.core.text import size
from scripts.lab import ROOT

RESULTS = ROOT / "docs" / "benchmarks"
UNKNOWN = "not measured"
#: key: (what a person reads, the peer's way, goal of the ratio: at most so much, or at least)
MEASURED: dict[str, tuple[str, str, str]] = {
    "bundle_build_time_ratio": (
        "images in the engine to blobs of a bundle, nothing cached",
        "docker save piped to gzip -6",
        "≤ 0.40",
    ),
    "bundle_rebuild_time_ratio": (
        "the same when only app code changed",
        "docker save piped to gzip -6",
        "≤ 0.10",
    ),
    "bundle_size_ratio": ("size of the blobs", "size of the .tar.gz", "≤ 0.85"),
    "verify_time_ratio": (
        "verify the whole bundle: signature, headers, every byte",
        "openssl dgst -sha256 over its members, all cores",
        "≤ 1.15",
    ),
    "verify_large_time_ratio": (
        "the same with random bytes added to it, 1.2 GB in all",
        "the same",
        "≤ 1.15",
    ),
    "load_time_ratio": (
        "a host's images: pull them through the tunnel",
        "copy one .tar.gz of them and docker load it",
        "≤ 0.45",
    ),
    "load_proven_time_ratio": (
        "the whole task: Ansible, tunnel, pull, proof in containers, flush to the disk",
        "the same, with no proof and no flush",
        "≤ 1.00",
    ),
    "upgrade_bytes_ratio": (
        "upgrade, only app code changed: bytes to an app host",
        "the same image in full",
        "≤ 0.01",
    ),
    "upgrade_time_ratio": (
        "upgrade, only app code changed: pull the image through the tunnel",
        "copy its .tar.gz and docker load it",
        "≤ 0.05",
    ),
    "upgrade_proven_time_ratio": (
        "the whole task: Ansible, tunnel, pull, proof in a container, flush to the disk",
        "the same, with no proof and no flush",
        "≤ 1.00",
    ),
    "reinstall_time_ratio": ("install again, nothing to do", "the first install", "≤ 0.25"),
    "swap_p99_ratio": (
        "p99 of requests during upgrades and rollbacks",
        "p99 of the same clients before",
        "≤ 2.00",
    ),
    "predict_rps_ratio": (
        "predictions a second, each of another text",
        "scikit-learn in a def route, slowapi on Redis, one BaseHTTPMiddleware",
        "≥ 3.00",
    ),
    "predict_cpu_ratio": ("CPU of the server for one of them", "the same", "≤ 0.33"),
    "predict_p95_ratio": ("p95 of them", "the same", "≤ 0.50"),
    "predict_vs_litserve_rps_ratio": ("predictions a second", "LitServe, two workers", "none"),
    "predict_vs_bentoml_rps_ratio": ("predictions a second", "BentoML, two workers", "none"),
    "health_rps_ratio": ("health answers a second", "one JSON route of bare Starlette", "≥ 0.60"),
}


#: Key of the other peers: what a person reads.
OTHERS = {
    "each": "each image by itself, docker save piped to gzip -6 (Harbor, Kubespray)",
    "archive": "one archive of all, not compressed (k0s)",
    "zstd16": "one archive, zstd -T0 -16 --long=25 (RKE2)",
}

#: Key of the servers made for models: name, and what they do and do not do here.
SERVERS = {
    "litserve": (
        "LitServe",
        "checks the body, hands it over ZeroMQ from two HTTP processes to two workers; it asks for"
        " no key, limits no rate, counts nothing and, as its documentation has it for production,"
        " logs no requests",
    ),
    "bentoml": (
        "BentoML",
        "checks the body, counts each request, gives it a trace id and logs a line of it, in two"
        " workers; it asks for no key and limits no rate",
    ),
}


def load() -> dict[str, Any]:
    """Read the results so far, as flat keys."""
    path = RESULTS / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def save(results: dict[str, Any]) -> None:
    """Merge new results into those so far, and write the page."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in results.items()}
    merged = load() | rounded
    (RESULTS / "results.json").write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
    (RESULTS / "README.md").write_text(page(merged))


def ratios(results: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return the rows: what, the peer's way, the ratio, the goal, whether it is met."""
    return [
        (what, peer, f"{results[key]:.3f}" if key in results else UNKNOWN, goal, met(results, key))
        for key, (what, peer, goal) in MEASURED.items()
    ]


def met(results: dict[str, Any], key: str) -> str:
    """Return whether a ratio reaches its goal."""
    sign, _, number = MEASURED[key][2].partition(" ")
    if key not in results or not number:
        return ""
    good = results[key] <= float(number) if sign == "≤" else results[key] >= float(number)
    return "yes" if good else "no"


def page(results: dict[str, Any]) -> str:
    """Return the page; parts without results are omitted or marked."""
    table = "\n".join(f"| {' | '.join(row)} |" for row in ratios(results))
    parts = [part(results) for part in (_swaps, _jobs, _service, _servers, _carried, _verifier)]
    return f"""# Benchmarks

Both sides of a row in one run on {results["cores"]} cores ({results["machine"]}). Of the first
four rows the better of two runs on each side, of the service's the median of several rounds in
turn; what happens on a site was measured once. `make bench` and `make kills` measure again and
write this page and [results.json](results.json).

| Airlift | against | ratio | goal | met |
|---|---|---|---|---|
{table}

{chr(10).join(part for part in parts if part)}"""


def _swaps(results: dict[str, Any]) -> str:
    if "swaps" not in results:
        return ""
    return f"""During {results["swaps"]} swaps (upgrade and rollback in turn)
{results["swap_requests"]} requests were sent and {results["swap_failed"]} failed (goal: 0).
A rollback had the old release serving {results["rollback_seconds"]:.1f} s after the command
was typed, Ansible's start included (goal: below 15 s). The site's hosts, the jump host and the
clients share these cores.{_sick(results)}{_recovery(results)}
"""


def _sick(results: dict[str, Any]) -> str:
    if "sick_replica_failed" not in results:
        return ""
    return f"""
With one app host frozen, {results["sick_replica_failed"]} of {results["sick_replica_requests"]}
requests failed that were sent later than 5 s after it froze (goal: 0)."""


def _recovery(results: dict[str, Any]) -> str:
    if "reboot_recovery_seconds" not in results:
        return ""
    return f"""
After a power cut of all hosts at once the site served {results["reboot_recovery_seconds"]:.0f} s
after they started, with nobody there (goal: 90 s at most)."""


def _jobs(results: dict[str, Any]) -> str:
    if "jobs_accepted" not in results:
        return ""
    return f"""Of {results["jobs_accepted"]} accepted jobs {results["jobs_lost"]} were lost and
{results["jobs_duplicated"]} doubled (goal: 0 of 2000) while web processes, workers, Postgres and
Redis were killed {results["jobs_kills"]} times in {results["jobs_seconds"]:.0f} s (`make kills`).
"""


def _service(results: dict[str, Any]) -> str:
    prefix = "p95_ms_"
    rows = [
        f"| {key.removeprefix(prefix)} | {value:.0f} |"
        for key, value in sorted(results.items())
        if key.startswith(prefix)
    ]
    if not rows:
        return ""
    return f"""p95 of each endpoint with 100 clients at a time, on the same cores
(goal: below 200 ms):

| endpoint | ms |
|---|---|
{chr(10).join(rows)}
"""


def _servers(results: dict[str, Any]) -> str:
    rows = []
    for key, (name, does) in SERVERS.items():
        numbers = [results.get(f"peer_{key}_{unit}") for unit in ("rps", "p95_ms", "cpu_us")]
        cells = [UNKNOWN if number is None else f"{number:.0f}" for number in numbers]
        rows.append(f"| {' | '.join((name, *cells, does))} |")
    return f"""Servers made for models, each with the scikit-learn model that the usual way above
serves, 100 clients and the same texts:

| server | predictions a second | p95, ms | CPU for one, µs | what it does for one |
|---|---|---|---|---|
{chr(10).join(rows)}

Neither has to look up a key or write to Redis, as the service does here, and their model leaves
out the rated words. Part of the CPU is scikit-learn's, whose sums the service does itself, at less
cost for a single text; it would cost less per text in batches. Both can gather requests into
batches and use GPUs, which is what they are made for; a small model on a CPU, with batches off as
they come, shows neither.
"""


def _carried(results: dict[str, Any]) -> str:
    if "bundle_bytes" not in results:
        return ""
    others = [
        f"| {what} | {results[f'peer_{key}_seconds']:.0f} | {size(results[f'peer_{key}_bytes'])} |"
        for key, what in OTHERS.items()
        if f"peer_{key}_seconds" in results
    ] or [f"| {UNKNOWN} | | |"]
    return f"""Other ways to carry these images, without a goal ({size(results["bundle_bytes"])} in
{results["bundle_build_seconds"]:.0f} s is Airlift's):

| way | seconds | size |
|---|---|---|
{chr(10).join(others)}

The service's image in full from a registry over SSH (unregistry's way, nothing skipped):
{_unregistry(results)}
"""


def _unregistry(results: dict[str, Any]) -> str:
    if "peer_unregistry_seconds" not in results:
        return f"{UNKNOWN}."
    whole = size(results["peer_unregistry_bytes"])
    ours = f"{results['upgrade_pull_seconds']:.2f} s for {size(results['upgrade_bytes'])}"
    return (
        f"{results['peer_unregistry_seconds']:.1f} s for {whole}; "
        f"Airlift's upgrade, in the same run: {ours}."
    )


def _verifier(results: dict[str, Any]) -> str:
    if "verify_peak_mib" not in results:
        return ""
    whole, fixed, peer = (
        results.get(f"verify_{name}seconds", 0.0) for name in ("", "fixed_", "peer_")
    )
    each = f"""
Of the verifier's {whole:.2f} s {fixed:.2f} s are the same for a bundle of any size (start of
Python, signatures, manifest, headers); the bytes take {(whole - fixed) / peer:.2f} of the peer's
time."""
    return f"""Memory of the verifier at its peak: {results["verify_peak_mib"]:.0f} MiB
(goal: below 100 MiB).{each if fixed else ""}
{results["images"]} images of the source `{results["image_source"]}`, in a bundle of
{results["bundle_file_bytes"] / 1e6:.0f} MB. The changed image's `docker build` is not in its time.
"""

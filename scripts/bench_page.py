"""Write docs/benchmarks/README.md for `make bench`, and the numbers that other pages quote."""

from __future__ import annotations

import json
import re
from typing import Any

from bundle.core.text import size
from scripts.lab import ROOT

RESULTS = ROOT / "docs" / "benchmarks"
ARCHITECTURE = ROOT / "docs" / "ARCHITECTURE.md"
UNKNOWN = "not measured"
#: key: (description, the peer's command, target of the ratio: at most, or at least)
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
        "the whole task: Ansible, tunnel, pull, test in containers, flush to the disk",
        "the same, with no test and no flush",
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
        "the whole task: Ansible, tunnel, pull, test in a container, flush to the disk",
        "the same, with no test and no flush",
        "≤ 1.00",
    ),
    "install_time_ratio": ("the first install", "that of the older tree", "≤ 0.70"),
    "reinstall_time_ratio": (
        "install again, nothing to do",
        "the first install of the older tree",
        "≤ 0.15",
    ),
    "reinstall_own_time_ratio": ("the same", "the first install of this tree", "none"),
    "hosts_scale_ratio": ("the same on eight small hosts", "the same on one", "≤ 1.50"),
    "upgrade_whole_time_ratio": ("the whole upgrade command", "that of the older tree", "≤ 0.60"),
    "upgrade_overhead_ratio": (
        "the same",
        "what its hosts did and waited for: pull, backup, start, gates",
        "none",
    ),
    "rollback_time_ratio": ("rollback, until all is done", "that of the older tree", "≤ 0.50"),
    "status_time_ratio": ("status", "that of the older tree", "≤ 0.60"),
    "swap_p99_ratio": (
        "p99 of requests during upgrades and rollbacks",
        "p99 of the same clients before",
        "≤ 2.00",
    ),
    "predict_rps_ratio": (
        "predictions per second, each of another text",
        "scikit-learn in a def route, slowapi on Redis, one BaseHTTPMiddleware",
        "≥ 3.00",
    ),
    "predict_cpu_ratio": ("CPU of the server for one of them", "the same", "≤ 0.33"),
    "predict_p95_ratio": ("p95 of them", "the same", "≤ 0.50"),
    "predict_vs_litserve_rps_ratio": ("predictions per second", "LitServe, two workers", "none"),
    "predict_vs_bentoml_rps_ratio": ("predictions per second", "BentoML, two workers", "none"),
    "health_rps_ratio": ("health answers per second", "one JSON route of bare Starlette", "≥ 0.60"),
}


#: Key of the other peers: description.
OTHERS = {
    "each": "each image by itself, docker save piped to gzip -6 (Harbor, Kubespray)",
    "archive": "one archive of all, not compressed (k0s)",
    "zstd16": "one archive, zstd -T0 -16 --long=25 (RKE2)",
}

#: Key of the model servers: name, and what they do and do not do here.
SERVERS = {
    "litserve": (
        "LitServe",
        "two HTTP processes, two workers over ZeroMQ; no key, no rate limit, no metrics, no log",
    ),
    "bentoml": (
        "BentoML",
        "two workers, metrics, a trace ID and a log line per request; no key, no rate limit",
    ),
}


def load() -> dict[str, Any]:
    """Read the results so far, as flat keys."""
    path = RESULTS / "results.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def save(results: dict[str, Any]) -> None:
    """Merge results with the earlier ones, and write the pages that show them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in results.items()}
    merged = load() | rounded
    (RESULTS / "results.json").write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
    (RESULTS / "README.md").write_text(page(merged))
    ARCHITECTURE.write_text(quoted(ARCHITECTURE.read_text(), merged))


def quoted(document: str, results: dict[str, Any]) -> str:
    """Return a document with new values in the rows that end with a key of the results."""

    def renew(row: re.Match[str]) -> str:
        if row[4] not in results:
            return row[0]
        digits = len(row[2].partition(".")[2])
        return f"{row[1]}{results[row[4]]:.{digits}f}{row[3]}"

    return re.sub(r"^(\| .* \| )([\d.]+)( \| `(\w+)` \|)$", renew, document, flags=re.MULTILINE)


def ratios(results: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return the rows: description, the peer's command, ratio, target, whether it is met."""
    return [
        (what, peer, f"{results[key]:.3f}" if key in results else UNKNOWN, goal, met(results, key))
        for key, (what, peer, goal) in MEASURED.items()
    ]


def met(results: dict[str, Any], key: str) -> str:
    """Return whether a ratio meets its target."""
    sign, _, number = MEASURED[key][2].partition(" ")
    if key not in results or not number:
        return ""
    good = results[key] <= float(number) if sign == "≤" else results[key] >= float(number)
    return "yes" if good else "no"


def page(results: dict[str, Any]) -> str:
    """Return the page; omit results that were never measured, or show `not measured`."""
    table = "\n".join(f"| {' | '.join(row)} |" for row in ratios(results))
    parts = [
        part(results)
        for part in (_swaps, _commands, _jobs, _service, _servers, _carried, _verifier)
    ]
    return f"""# Benchmarks

| | |
|---|---|
| **For** | evaluators and developers |
| **Use when** | you compare Airlift with other ways, or look for a regression |
| **Time** | 5 minutes to read |
| **You need** | nothing to read; Docker and 2 cores to measure again |
| **Result** | measured ratios, their goals, and whether they are met |

`make bench` and `make kills` measure again, and write this page and [results.json](results.json).

Both sides of a row were measured in one run on {results["cores"]} cores ({results["machine"]}).
The first four rows have the better of two runs on each side.
The rows of the service have the median of several rounds in turn.
The rows of a site were measured once.

| Airlift | against | ratio | goal | met |
|---|---|---|---|---|
{table}

{chr(10).join(part for part in parts if part)}"""


def _swaps(results: dict[str, Any]) -> str:
    if "swaps" not in results:
        return ""
    return f"""## Upgrades, rollbacks and failures

The site's hosts, the jump host and the clients shared the cores.

| Measurement | Result | Goal |
|---|---|---|
| requests during {results["swaps"]} swaps (upgrade and rollback in turn) | {
        results["swap_requests"]
    } | |
| failed requests among them | {results["swap_failed"]} | 0 |
| rollback: from command to service, Ansible's start included | {
        results["rollback_seconds"]:.1f} s | below 15 s |{_sick(results)}{_recovery(results)}
"""


def _sick(results: dict[str, Any]) -> str:
    if "sick_replica_failed" not in results:
        return ""
    failed, sent = results["sick_replica_failed"], results["sick_replica_requests"]
    what = "failed requests later than 5 s after an app host froze"
    return f"\n| {what} | {failed} of {sent} | 0 |"


def _recovery(results: dict[str, Any]) -> str:
    if "reboot_recovery_seconds" not in results:
        return ""
    seconds = f"{results['reboot_recovery_seconds']:.0f} s"
    return f"\n| service after a power cut of all hosts, without help | {seconds} | 90 s at most |"


#: Prefix of a command's keys: description.
COMMANDS = {
    "install": "install",
    "reinstall": "install again, nothing to do",
    "status": "status",
    "upgrade": "upgrade",
    "rollback_whole": "rollback, until all is done",
}


def _commands(results: dict[str, Any]) -> str:
    if "before_revision" not in results:
        return ""
    rows = []
    for key, what in COMMANDS.items():
        cells = [
            f"{results[f'{tree}{key}_{kind}']:.0f}"
            for kind in ("seconds", "remote_steps", "remote_steps_alone")
            for tree in ("before_", "")
        ]
        rows.append(f"| {' | '.join((what, *cells))} |")
    return f"""## Commands

The older tree is `{results["before_revision"]}`.
Each tree built its bundle and installed its site of five hosts, in one run and without load.
A *remote step* is a module that runs on a host.
The steps are those of the critical path; *alone* are those with one host busy.
The goal for install again is 25 steps at most, and it changed {results["reinstall_changed"]}.

| command | s before | s now | steps before | steps now | alone before | alone now |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _jobs(results: dict[str, Any]) -> str:
    if "jobs_accepted" not in results:
        return ""
    return f"""## Jobs under kills

`make kills` killed web processes, workers, Postgres and Redis {results["jobs_kills"]} times in {
        results["jobs_seconds"]:.0f} s.

| Jobs | Number | Goal |
|---|---|---|
| accepted | {results["jobs_accepted"]} | at least 2000 |
| lost | {results["jobs_lost"]} | 0 |
| doubled | {results["jobs_duplicated"]} | 0 |
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
    return f"""## Latency of each endpoint

p95 with 100 concurrent clients, on the same cores; the goal is below 200 ms.

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
    return f"""## Model servers

Each serves the scikit-learn model of the rows above, to 100 clients with the same texts.

| server | predictions per second | p95, ms | CPU for one, µs | setup |
|---|---|---|---|---|
{chr(10).join(rows)}

Read these numbers with their differences:

- Neither server checks a key or writes to Redis, as the service does.
- Their model lacks the rated words.
- LitServe logs no requests, as its documentation recommends for production.
- Part of the CPU is scikit-learn's.
  The service calculates the same sums itself, at less cost for a single text.
  In batches, scikit-learn would cost less per text.
- Both servers can gather requests into batches and use GPUs, their main purpose.
  A small model on a CPU, with batches off (the default), shows neither.
"""


def _carried(results: dict[str, Any]) -> str:
    if "bundle_bytes" not in results:
        return ""
    others = [
        f"| {what} | {results[f'peer_{key}_seconds']:.0f} | {size(results[f'peer_{key}_bytes'])} |"
        for key, what in OTHERS.items()
        if f"peer_{key}_seconds" in results
    ] or [f"| {UNKNOWN} | | |"]
    return f"""## Other ways to carry images

These ways have no goal.
Airlift's bundle of the same images: {size(results["bundle_bytes"])} in {
        results["bundle_build_seconds"]:.0f} s.

| way | seconds | size |
|---|---|---|
{chr(10).join(others)}

The service's image in full from a registry over SSH (unregistry's way): {_unregistry(results)}
"""


def _unregistry(results: dict[str, Any]) -> str:
    if "peer_unregistry_seconds" not in results:
        return f"{UNKNOWN}."
    whole = size(results["peer_unregistry_bytes"])
    ours = f"{results['upgrade_pull_seconds']:.2f} s for {size(results['upgrade_bytes'])}"
    return (
        f"{results['peer_unregistry_seconds']:.1f} s for {whole}.\n"
        f"Airlift's upgrade, in the same run: {ours}."
    )


def _verifier(results: dict[str, Any]) -> str:
    if "verify_peak_mib" not in results:
        return ""
    whole, fixed, peer = (
        results.get(f"verify_{name}seconds", 0.0) for name in ("", "fixed_", "peer_")
    )
    each = f"""
| time | {whole:.2f} s |
| of which the same for any bundle (start of Python, signatures, manifest, headers) | {
        fixed:.2f} s |
| the bytes, as share of the peer's time | {(whole - fixed) / peer if peer else 0:.2f} |"""
    return f"""## Verifier

The bundle has {results["images"]} images of the source `{results["image_source"]}`, and {
        results["bundle_file_bytes"] / 1e6:.0f} MB.
The time of a changed image excludes its `docker build`.

| Measurement | Result |
|---|---|
| peak memory (goal: below 100 MiB) | {results["verify_peak_mib"]:.0f} MiB |{each if fixed else ""}
"""

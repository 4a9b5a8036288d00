"""Measure how long making and checking a bundle takes, beside the peers' tools."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bundle.builder.build import write
from bundle.builder.images import engine, layout
from bundle.builder.images.blobs import BlobCache
from bundle.format import manifest
from bundle.trust import sshsig
from scripts.lab import ROOT

RUNS = 2
#: Random bytes that are added to a bundle to measure one of some 1.2 GB.
LARGE_MEMBERS, LARGE_MEMBER_BYTES = 12, 75_000_000

#: Runs the verifier and prints its peak in kB. Not getrusage, which includes the parent's peak.
VERIFY_AND_TELL_PEAK = """
import re, sys
from bundle.cli.main import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
sys.exit(code)
"""


def timed(
    run: Callable[[], object],
    given: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> float:
    """Return the seconds of the best of a few runs; `given` prepares each run, untimed."""
    best = float("inf")
    for _ in range(RUNS):
        with given():
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
    return best


def shell(script: str, *arguments: str) -> None:
    """Run a pipeline of the peer."""
    command = ["bash", "-euo", "pipefail", "-c", script, "bash", *arguments]
    subprocess.run(command, check=True)


def vendor(about: dict[str, Any], work: Path) -> dict[str, float]:
    """Measure packing images for transport."""
    source = about["image_source"]
    names = sorted(about["components"])
    references = [f"airlift/{name}:{source}" for name in names]
    docker = " ".join(engine.docker())
    saved = work / "images.tar.gz"
    peer = timed(
        lambda: shell(f'{docker} save "${{@:2}}" | gzip -6 > "$1"', str(saved), *references)
    )

    def clear(*places: str) -> None:
        # A cache that cannot be cleared is an error, because the run is reported as cold.
        for place in places:
            if (work / place).exists():
                shutil.rmtree(work / place)

    @contextmanager
    def nothing_cached() -> Iterator[None]:
        clear("blobs", "layout")
        yield

    @contextmanager
    def app_changed() -> Iterator[None]:
        clear("layout")
        with changed_image(references[names.index("app")], work / "context", docker):
            yield

    def export() -> None:
        blobs = BlobCache(work / "blobs")
        images = layout.export(references, blobs, lambda _line: None)
        layout.write_layout(work / "layout", dict(zip(names, images.values(), strict=True)), blobs)

    ours = timed(export, nothing_cached)
    size = sum(path.stat().st_size for path in (work / "layout/blobs/sha256").iterdir())
    changed = timed(export, app_changed)
    return {
        "bundle_peer_seconds": peer,
        "bundle_build_seconds": ours,
        "bundle_rebuild_seconds": changed,
        "bundle_peer_bytes": saved.stat().st_size,
        "bundle_bytes": size,
        "bundle_build_time_ratio": ours / peer,
        "bundle_rebuild_time_ratio": changed / peer,
        "bundle_size_ratio": size / saved.stat().st_size,
    }


#: Name: (what the peer does, as a pipeline; "$1" is the output, the rest are images).
PEERS = {
    "each": 'for i in "${@:2}"; do DOCKER save "$i" | gzip -6 > "$1.${i//\\//-}"; done',
    "archive": 'DOCKER save "${@:2}" > "$1"',
    "zstd16": 'DOCKER save "${@:2}" | zstd -q -T0 -16 --long=25 > "$1"',
}


def peers(about: dict[str, Any], work: Path) -> dict[str, float]:
    """Measure the other tools once each; there is no target ratio for them."""
    references = [f"airlift/{name}:{about['image_source']}" for name in about["components"]]
    docker, found = " ".join(engine.docker()), {}
    for name, script in PEERS.items():
        folder = work / f"peer-{name}"
        folder.mkdir()
        start = time.perf_counter()
        shell(script.replace("DOCKER", docker), str(folder / "images"), *references)
        found[f"peer_{name}_seconds"] = time.perf_counter() - start
        found[f"peer_{name}_bytes"] = sum(path.stat().st_size for path in folder.iterdir())
        shutil.rmtree(folder)
    return found


@contextmanager
def changed_image(reference: str, folder: Path, docker: str) -> Iterator[None]:
    """Add another app layer to the engine's image, and remove it at the end."""
    before = engine.image_id(reference)
    assert before is not None  # noqa: S101 - it was exported just before
    folder.mkdir(exist_ok=True)
    (folder / "code").write_text(f"# {time.time_ns()}\n" * 10_000)
    (folder / "Dockerfile").write_text(f"FROM {before}\nCOPY code /app/bench.py\n")
    build = f'DOCKER_BUILDKIT=0 {docker} build --quiet --tag "$1" "$2" > /dev/null'
    shell(build, reference, str(folder))
    try:
        yield
    finally:
        after = engine.image_id(reference)
        engine.tag(before, reference)
        if after is not None:
            shell(f'{docker} rmi "$1" > /dev/null', after)


def verification(bundle: Path, cache_dir: Path, work: Path) -> dict[str, float]:
    """Measure checking the bundle, and one of several times its size."""
    members = work / "members"
    members.mkdir()
    with tarfile.open(bundle) as archive:
        archive.extractall(members, filter="data")
    found = _verified(bundle, members, cache_dir, work)
    found |= {"verify_fixed_seconds": timed(lambda: _bundle("inspect", bundle, cache_dir, work))}
    large = _larger(members, cache_dir / "signing_key", work / "large.tar")
    more = _verified(large, members, cache_dir, work)
    found |= {name.replace("verify_", "verify_large_"): value for name, value in more.items()}
    return {**found, "verify_large_bytes": large.stat().st_size}


def _verified(bundle: Path, members: Path, cache_dir: Path, work: Path) -> dict[str, float]:
    """Time the verifier over a bundle, and openssl over the bundle's members."""
    # Largest first and one list per core, so that no core of the peer waits for another.
    lists: list[list[str]] = [[] for _ in range(os.cpu_count() or 1)]
    sizes = [0] * len(lists)
    files = [path for path in members.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda item: -item.stat().st_size):
        least = sizes.index(min(sizes))
        lists[least].append(str(path))
        sizes[least] += path.stat().st_size

    def openssl() -> None:
        with ThreadPoolExecutor(len(lists)) as pool:
            list(pool.map(_digest, lists))

    peaks: list[int] = []
    theirs = timed(openssl)
    mine = timed(lambda: peaks.append(_bundle("verify", bundle, cache_dir, work)))
    return {
        "verify_peer_seconds": theirs,
        "verify_seconds": mine,
        "verify_time_ratio": mine / theirs,
        "verify_peak_mib": max(peaks) / 1024,
    }


def _bundle(command: str, bundle: Path, cache_dir: Path, work: Path) -> int:
    """Run a command of `bundle` as its users do; return its peak memory in kB."""
    words = [command, str(bundle), "--home", str(work / "home"), "--json"]
    words += ["--allowed-signers", str(cache_dir / "allowed_signers")]
    # Compile once, as on a site, whatever the developer's environment says.
    shell_of_a_user = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    said = subprocess.run(
        [sys.executable, "-c", VERIFY_AND_TELL_PEAK, *words],
        cwd=ROOT,
        env=shell_of_a_user,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return int(said.split()[-1])


def _larger(members: Path, key: Path, bundle: Path) -> Path:
    """Make a bundle of these members and of random bytes, about 1.2 GB in all.

    Each added member is as large as an image's layer. The members are kept in `members`' folder.
    """
    data = json.loads((members / manifest.MANIFEST).read_text())
    for number in range(LARGE_MEMBERS):
        name = f"packages/filler-{number}"
        content = os.urandom(LARGE_MEMBER_BYTES)
        (members / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        data["members"].append({"path": name, "size": len(content), "sha256": digest})
    raw = manifest.encode(data)
    (members / manifest.MANIFEST).write_bytes(raw)
    listed = [(item["path"], members / item["path"], item["size"]) for item in data["members"]]
    write(bundle, raw, [sshsig.sign(raw, key)], listed)
    # No process may write to the disk while either side reads.
    os.sync()
    return bundle


def _digest(paths: list[str]) -> None:
    command = ["openssl", "dgst", "-sha256", *paths]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

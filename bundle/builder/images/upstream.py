"""The `registry` source: images pulled by digest, kept byte for byte.

`skopeo` talks to the registries, with tokens, credentials (`docker login`), proxies and TLS. Every
byte that it returns is hashed here, and every layer's content is compared with the image's config.

AIRLIFT_REGISTRY_MIRROR=HOST[:PORT][/PREFIX] replaces every registry of the lock. Plain HTTP is used
for loopback only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bundle.builder import machine
from bundle.builder.images import engine
from bundle.builder.images.blobs import BlobCache, Image, Layer, measure, plain_stream
from bundle.builder.images.lockfile import Platform, Upstream
from bundle.builder.problems import Problem
from bundle.core.events import Log
from bundle.format.manifest import ARCHITECTURES

MIRROR = "AIRLIFT_REGISTRY_MIRROR"

_PROBE_SECONDS = 2.5
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?(/.*)?")
# Error codes of the distribution specification and of the network, with their meaning. No numbers,
# because a digest, a port or a tag may contain any.
_REASONS = (
    (r"\b(manifest|name|blob) unknown\b", "does not exist there"),
    (
        r"\btoo ?many ?requests\b",
        "the registry limits how often one may pull; `docker login` raises it",
    ),
    (r"\bunauthorized:|\bdenied:|\bUnauthorized\b", "the registry wants a login: docker login"),
    (
        r"\bno such host\b|\bconnection refused\b|\bi/o timeout\b|\bdeadline exceeded\b"
        r"|\bnetwork is unreachable\b|\bno route to host\b|\bconnection reset\b",
        "the registry cannot be reached",
    ),
)


def require() -> None:
    """Raise a `Problem` with the fix unless skopeo is installed."""
    if not shutil.which("skopeo"):
        raise Problem(
            "skopeo, which pulls images by digest, is not installed",
            fix="apt-get install skopeo, or build with --source debian",
        )


def unreachable(hosts: list[str]) -> list[str]:
    """Return the registries that cannot be reached, within three seconds."""
    mirror = os.environ.get(MIRROR)
    targets = {mirror.partition("/")[0]} if mirror else set(hosts)
    reached: set[str] = set()

    def knock(target: str) -> None:
        host, port = _endpoint(target)
        try:
            with socket.create_connection((host, port), timeout=_PROBE_SECONDS):
                reached.add(target)
        except OSError:
            pass

    # Daemon threads, because a name lookup has no timeout.
    threads = [threading.Thread(target=knock, args=(one,), daemon=True) for one in targets]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PROBE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return sorted(targets - set(reached))


def resolve(upstream: Upstream) -> tuple[str, dict[str, Platform]]:
    """Return the current digest of a tag, and its image for each architecture."""
    index = _skopeo("inspect", ["--raw"], upstream, f":{upstream.tag}")
    try:
        platforms = _platforms(upstream, json.loads(index))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Problem(
            f"{upstream.image}:{upstream.tag}: the registry answers with no index of images",
            where=f"{type(error).__name__}: {error}",
            fix=f"see what answers there: skopeo inspect --raw docker://{upstream.image}:"
            f"{upstream.tag}",
        ) from error
    return f"sha256:{hashlib.sha256(index).hexdigest()}", platforms


def _platforms(upstream: Upstream, document: Any) -> dict[str, Platform]:
    if "manifests" not in document:
        raise Problem(
            f"{upstream.image}:{upstream.tag} is a single image, not an index of several",
            fix="pin a tag that its publisher offers for several architectures",
        )
    platforms: dict[str, Platform] = {}
    for entry in document["manifests"]:
        offered = entry.get("platform", {})
        if offered.get("os") == "linux" and offered.get("architecture") in ARCHITECTURES:
            platforms[str(offered["architecture"])] = _platform(upstream, entry["digest"])
    return platforms


def _platform(upstream: Upstream, digest: str) -> Platform:
    raw = _skopeo("inspect", ["--raw"], upstream, f"@{digest}")
    config_digest = str(json.loads(raw)["config"]["digest"])
    config = _skopeo("inspect", ["--config", "--raw"], upstream, f"@{digest}")
    for data, wanted in ((raw, digest), (config, config_digest)):
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != wanted:
            raise Problem(f"{upstream.image}: the registry gives other bytes than {wanted}")
    return Platform(digest, config_digest, tuple(json.loads(config)["rootfs"]["diff_ids"]))


def pull(upstream: Upstream, blobs: BlobCache, log: Log) -> Image:
    """Return a pinned image for this platform, requested by digest only.

    A build ignores the tag, which may move or vanish while the same release is built again.
    `bundle lock --check` checks it.
    """
    # The image of an index depends on the machine's architecture.
    note = f"{upstream.digest}.{machine.architecture()}"
    known = blobs.image(note)
    if known is not None:
        return known
    log(f"pulling {upstream}")
    digest = _for_platform(_index(upstream), upstream)
    with tempfile.TemporaryDirectory(dir=blobs.directory, prefix=".pull-") as folder:
        options = ["--quiet", "--preserve-digests", "--retry-times", "3"]
        _skopeo("copy", options, upstream, f"@{digest}", f"dir:{folder}")
        image = _adopt(Path(folder), digest, upstream, blobs)
    pulled = Platform(digest, image.config_digest, tuple(x.diff_id for x in image.layers))
    if upstream.platforms.get(machine.architecture(), pulled) != pulled:
        raise Problem(
            f"{upstream}: the lock's platforms are not those of its digest",
            fix="update them from the registry: python -m bundle lock",
        )
    blobs.remember(note, image)
    return image


def _index(upstream: Upstream) -> bytes:
    index = _skopeo("inspect", ["--raw"], upstream, f"@{upstream.digest}")
    found = f"sha256:{hashlib.sha256(index).hexdigest()}"
    if found != upstream.digest:
        raise Problem(
            f"{upstream}: the registry gives other bytes than the pinned digest, {found}",
            fix="run the same command again; if it fails again, check the registry and proxies",
        )
    return index


def load(upstream: Upstream, blobs: BlobCache, log: Log) -> str:
    """Pull an image and load it into the engine, byte for byte; return its name there."""
    image = pull(upstream, blobs, log)
    reference = f"{_name(upstream)}:{upstream.digest.removeprefix('sha256:')[:20]}"
    if not engine.image_id(reference):
        _load(upstream, image, blobs, reference)
    return reference


@contextmanager
def loaded(upstream: Upstream, image: Image, blobs: BlobCache) -> Iterator[str]:
    """Load a pulled image into the engine, under a name that no other build uses or removes."""
    reference = engine.own_name(_name(upstream))
    _load(upstream, image, blobs, reference)
    try:
        yield reference
    finally:
        engine.remove(reference)


def _name(upstream: Upstream) -> str:
    return f"airlift-upstream/{upstream.repository.rpartition('/')[2]}"


def _load(upstream: Upstream, image: Image, blobs: BlobCache, reference: str) -> None:
    config = blobs.path(image.config_digest).read_bytes()
    layers = [f"{layer.diff_id.removeprefix('sha256:')}/layer.tar" for layer in image.layers]
    entry = {"Config": "config.json", "RepoTags": [reference], "Layers": layers}
    with tempfile.TemporaryFile(dir=blobs.directory) as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            _add(archive, "config.json", len(config), io.BytesIO(config))
            for path, layer in dict(zip(layers, image.layers, strict=True)).items():
                blob = blobs.path(layer.digest)
                with blob.open("rb") as packed, plain_stream(packed) as plain:
                    _add(archive, path, layer.unpacked_size, plain)
            manifest = json.dumps([entry]).encode()
            _add(archive, "manifest.json", len(manifest), io.BytesIO(manifest))
        stream.seek(0)
        engine.run(["load", "--quiet"], stdin=stream, what=f"loading {upstream.image}")


def _adopt(folder: Path, digest: str, upstream: Upstream, blobs: BlobCache) -> Image:
    """Move skopeo's result into the cache, after checking it against the digests."""
    raw = (folder / "manifest.json").read_bytes()
    if f"sha256:{hashlib.sha256(raw).hexdigest()}" != digest:
        raise Problem(f"{upstream}: the manifest for this platform is not {digest}")
    manifest = json.loads(raw)
    if "config" not in manifest:
        raise Problem(f"{upstream} has a manifest of an unknown kind")
    config_digest = manifest["config"]["digest"]
    config_size = blobs.adopt(folder / config_digest.removeprefix("sha256:"), config_digest)
    config = json.loads(blobs.path(config_digest).read_bytes())
    diff_ids = config["rootfs"]["diff_ids"]
    if len(diff_ids) != len(manifest["layers"]):
        raise Problem(f"{upstream} has another number of layers than its config says")
    layers: list[Layer] = []
    for entry, diff_id in zip(manifest["layers"], diff_ids, strict=True):
        file = folder / entry["digest"].removeprefix("sha256:")
        if file.exists():  # an image may have the same layer twice
            blobs.adopt(file, entry["digest"])
        found, unpacked = measure(blobs.path(entry["digest"]))
        if found != diff_id:
            raise Problem(f"{upstream}: layer {entry['digest']} unpacks to {found}, not {diff_id}")
        media_type = entry["mediaType"]
        layers.append(Layer(entry["digest"], entry["size"], media_type, diff_id, unpacked))
    return Image(
        manifest_digest=blobs.add(raw),
        manifest_size=len(raw),
        media_type=manifest.get("mediaType", "application/vnd.oci.image.manifest.v1+json"),
        config_digest=config_digest,
        config_size=config_size,
        layers=tuple(layers),
    )


def _for_platform(index: bytes, upstream: Upstream) -> str:
    """Return the digest of this platform's manifest; a pin can also name a single manifest."""
    document = json.loads(index)
    if "manifests" not in document:
        return upstream.digest
    wanted = {"os": "linux", "architecture": machine.architecture()}
    for entry in document["manifests"]:
        platform = entry.get("platform", {})
        if all(platform.get(key) == value for key, value in wanted.items()):
            return str(entry["digest"])
    raise Problem(f"{upstream} has no image for linux/{machine.architecture()}")


def _skopeo(verb: str, options: list[str], upstream: Upstream, which: str, *to: str) -> bytes:
    """Call skopeo on an image; an error names the image and the probable reason."""
    location = f"{os.environ.get(MIRROR) or upstream.host}/{upstream.repository}"
    secure = "src-tls-verify" if verb == "copy" else "tls-verify"
    plain = [f"--{secure}=false"] if _LOOPBACK.fullmatch(location) else []
    # Signatures of publishers are not checked, because the digest is pinned.
    command = ["skopeo", "--insecure-policy", verb, *options, *plain]
    done = subprocess.run(
        [*command, f"docker://{location}{which}", *to], capture_output=True, check=False
    )
    if done.returncode != 0:
        message = done.stderr.decode(errors="replace").strip()
        # The message repeats the image's name, which may contain any word.
        answer = message.replace(f"{location}{which}", "")
        reason = next((text for pattern, text in _REASONS if re.search(pattern, answer)), "")
        raise Problem(
            f"{upstream} cannot be pulled{': ' + reason if reason else ''}\n{message[-800:]}",
            fix="check the pin in bundle/images.lock.yml and the connection to the registry; "
            "without one, build with --source debian",
        )
    return done.stdout


def _endpoint(target: str) -> tuple[str, int]:
    """Return host and port to connect to for a registry: its own, or those of the proxy."""
    split = urllib.parse.urlsplit(f"//{target}")
    host = split.hostname or target
    proxy = urllib.request.getproxies().get("https")
    if proxy and not _LOOPBACK.fullmatch(target) and not urllib.request.proxy_bypass(host):
        split = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
        return split.hostname or host, split.port or 3128
    return host, split.port or 443


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member: Any = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, content)

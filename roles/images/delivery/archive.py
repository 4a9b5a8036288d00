"""Write an image archive for `docker load` as a stream, without a temporary copy.

The archive is both an OCI layout (for engines with the containerd image store) and Docker's own
format (for the others), over the same blobs.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

Component = Mapping[str, Any]


class Sink(Protocol):
    """Accepts bytes in order."""

    def write(self, data: bytes, /) -> int:
        """Accept some bytes."""


MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def blob_path(digest: str) -> str:
    """Return a blob's path in a layout."""
    return "blobs/" + digest.replace(":", "/", 1)


def lacking_blobs(store: Path, component: Component) -> list[str]:
    """Return the digests of the blobs that a store lacks or has only partly."""
    sizes = dict.fromkeys([component["manifest_digest"], component["config_digest"]])
    sizes |= {layer["digest"]: layer["size"] for layer in component["layers"]}
    paths = {digest: store / blob_path(digest) for digest in sizes}
    return [
        digest
        for digest, path in paths.items()
        if not path.is_file() or sizes[digest] not in (None, path.stat().st_size)
    ]


def known_chains(layers: Iterable[Sequence[str]]) -> set[tuple[str, ...]]:
    """Return every chain of layers in the host's images."""
    return {tuple(chain[: length + 1]) for chain in layers for length in range(len(chain))}


def layers_to_send(component: Component, chains: set[tuple[str, ...]]) -> list[str]:
    """Return the digests of the layers that are on no chain of the host."""
    diff_ids = component["diff_ids"]
    return [
        layer["digest"]
        for index, layer in enumerate(component["layers"])
        if tuple(diff_ids[: index + 1]) not in chains
    ]


def bytes_to_send(components: Iterable[Component], chains: set[tuple[str, ...]]) -> int:
    """Return the size of the layers that the host lacks, each counted once."""
    return sum(size for size, _ in _lacking(components, chains).values())


def disk_needed(
    components: Iterable[Component], chains: set[tuple[str, ...]], *, keeps_packed: bool
) -> int:
    """Return the bytes that missing layers will take on the host's disk, each counted once.

    The unpacked size of a single layer is unknown, so it is estimated by the ratio of its image.
    The containerd store also keeps the compressed layers.
    """
    lacking = _lacking(components, chains).values()
    return sum(unpacked + (size if keeps_packed else 0) for size, unpacked in lacking)


def _lacking(
    components: Iterable[Component], chains: set[tuple[str, ...]]
) -> dict[str, tuple[int, int]]:
    """Return digest: (size, estimated unpacked size) of the layers that the host lacks."""
    found: dict[str, tuple[int, int]] = {}
    for component in components:
        wanted = set(layers_to_send(component, chains))
        packed = sum(layer["size"] for layer in component["layers"]) or 1
        for layer in component["layers"]:
            if layer["digest"] in wanted:
                unpacked = layer["size"] * component["unpacked_size"] // packed
                known = found.get(layer["digest"], (0, 0))[1]
                found[layer["digest"]] = layer["size"], max(unpacked, known)
    return found


def _add_text(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _add_blob(archive: tarfile.TarFile, store: Path, digest: str) -> None:
    path = store / blob_path(digest)
    entry = tarfile.TarInfo(blob_path(digest))
    entry.size = path.stat().st_size
    with path.open("rb") as stream:
        archive.addfile(entry, stream)


def write_archive(
    stream: Sink,
    store: Path,
    components: Sequence[Component],
    chains: set[tuple[str, ...]],
) -> None:
    """Write the images to a stream, without layers that the host has."""
    index: dict[str, Any] = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": MANIFEST_TYPE,
                "digest": component["manifest_digest"],
                "size": (store / blob_path(component["manifest_digest"])).stat().st_size,
                # The containerd image store keeps an image only if it has a name.
                "annotations": {
                    "io.containerd.image.name": f"docker.io/{component['repository']}:incoming",
                    "org.opencontainers.image.ref.name": "incoming",
                },
            }
            for component in components
        ],
    }
    docker_manifest = [
        {
            "Config": blob_path(component["config_digest"]),
            "RepoTags": None,
            "Layers": [blob_path(layer["digest"]) for layer in component["layers"]],
        }
        for component in components
    ]
    blobs: dict[str, None] = {}
    for component in components:
        blobs.update(dict.fromkeys([component["manifest_digest"], component["config_digest"]]))
        blobs.update(dict.fromkeys(layers_to_send(component, chains)))
    with tarfile.open(
        fileobj=cast(IO[bytes], stream), mode="w|", format=tarfile.PAX_FORMAT
    ) as archive:
        _add_text(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add_text(archive, "index.json", json.dumps(index).encode())
        _add_text(archive, "manifest.json", json.dumps(docker_manifest).encode())
        for digest in blobs:
            _add_blob(archive, store, digest)

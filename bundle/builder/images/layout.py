"""Turns the engine's images into one OCI image layout that stores each layer once.

`docker save` is read as a stream. Its members are recognised by hash, not by name, so that all of
Docker's layouts work: the classic one, the OCI one, and that of the containerd store, whose layers
are compressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from bundle.builder import machine
from bundle.builder.images import engine
from bundle.builder.images.blobs import BlobCache, Image, Layer, plain_stream
from bundle.builder.problems import Problem
from bundle.core.events import Log

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"

_CHUNK = 1 << 20
_DOCUMENT_LIMIT = (
    4 << 20
)  # configs and manifests are far smaller; layers of this size may be held as well
_AT_ONCE = 2


def export(references: list[str], blobs: BlobCache, log: Log) -> dict[str, Image]:
    """Return the engine's images as OCI images; save only those that are not cached."""
    ids: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    for reference, found in engine.inspect_all(references).items():
        ids[reference] = str(found["Id"])
        if blobs.image(ids[reference]) is None:
            missing[ids[reference]] = list(found["RootFS"].get("Layers") or [])
    if missing:
        log(f"saving {len(missing)} image(s) from the engine, compressing new layers")
        for image_id, image in _save(missing, blobs).items():
            blobs.remember(image_id, image)
    exported: dict[str, Image] = {}
    for reference, image_id in ids.items():
        known = blobs.image(image_id)
        if known is None:
            raise Problem(f"the cache lost the image {reference}", fix="run the same command again")
        exported[reference] = known
    return exported


def write_layout(layout: Path, images: Mapping[str, Image], blobs: BlobCache) -> None:
    """Write an OCI image layout with these images and nothing else."""
    directory = layout / "blobs" / "sha256"
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    wanted = sorted({digest for image in images.values() for digest in image.blobs})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda digest: blobs.place(digest, directory), wanted))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}\n')
    entries = [
        {
            "mediaType": image.media_type,
            "digest": image.manifest_digest,
            "size": image.manifest_size,
            "annotations": {"org.opencontainers.image.ref.name": name},
            "platform": {"architecture": machine.architecture(), "os": "linux"},
        }
        for name, image in sorted(images.items())
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}
    (layout / "index.json").write_bytes(encode(index))


def encode(document: Any) -> bytes:
    """Return the only form in which documents are written here."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _save(wanted: Mapping[str, list[str]], blobs: BlobCache) -> dict[str, Image]:
    """Run `docker save` once for several images (id -> diff-ids); keep new layers."""
    new = {diff_id for layers in wanted.values() for diff_id in layers if not blobs.layer(diff_id)}
    command = [*engine.docker(), "save", *wanted]
    with (
        # Beside the cache, because a layer may be larger than /tmp.
        tempfile.TemporaryDirectory(dir=blobs.directory, prefix=".save-") as spool,
        tempfile.TemporaryFile(dir=spool) as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        stream = cast("io.BufferedReader", process.stdout)
        try:
            documents = _read_archive(stream, Path(spool), new, blobs)
        except (tarfile.TarError, EOFError) as error:
            documents = {}
            problem = str(error)
        else:
            problem = ""
        stream.close()
        if process.wait() != 0 or problem:
            errors.seek(0)
            message = errors.read().decode(errors="replace").strip()
            raise Problem(f"docker save failed: {message or problem}")
    return {
        image_id: _as_oci(image_id, layers, documents, blobs) for image_id, layers in wanted.items()
    }


def _read_archive(
    stream: io.BufferedReader, spool: Path, new: set[str], blobs: BlobCache
) -> dict[str, bytes]:
    """Compress the layers in `new`, two at a time; return the small members by digest."""
    documents: dict[str, bytes] = {}
    running: list[Future[Layer]] = []

    def compress(file: Path, diff_id: str) -> Layer:
        try:
            return blobs.compress(file, diff_id)
        finally:
            file.unlink()

    with (
        tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            digest, file = _spool(cast("io.BufferedReader", content), spool)
            if file.stat().st_size <= _DOCUMENT_LIMIT and digest not in new:
                documents[digest] = file.read_bytes()
            if digest in new:
                new.discard(digest)
                running.append(pool.submit(compress, file, digest))
                # The stream waits for the compressors, to limit the files on disk.
                if len(running) > _AT_ONCE:
                    running.pop(0).result()
            else:
                file.unlink()
        for future in running:
            future.result()
    if new:
        raise Problem(
            f"the engine's copy of the layer {min(new)} is missing or damaged",
            fix="remove the image that has it (docker image rm) and build again",
        )
    return documents


def _spool(content: io.BufferedReader, spool: Path) -> tuple[str, Path]:
    """Write a member's plain bytes to a file and return their digest."""
    handle, name = tempfile.mkstemp(dir=spool)
    digest = hashlib.sha256()
    with os.fdopen(handle, "wb") as target, plain_stream(content) as reader:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return f"sha256:{digest.hexdigest()}", Path(name)


def _as_oci(
    image_id: str, diff_ids: list[str], documents: Mapping[str, bytes], blobs: BlobCache
) -> Image:
    """Write the OCI manifest of a saved image; its config keeps its bytes, and so its digest."""
    config = _config(image_id, documents)
    layers = [blobs.layer(diff_id) for diff_id in diff_ids]
    if json.loads(config).get("rootfs", {}).get("diff_ids", []) != diff_ids or None in layers:
        raise Problem(f"docker save gave another image than {image_id}")
    found = tuple(layer for layer in layers if layer is not None)
    config_digest = blobs.add(config)
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": config_digest, "size": len(config)},
            "layers": [
                {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                for layer in found
            ],
        }
    )
    return Image(
        manifest_digest=blobs.add(manifest),
        manifest_size=len(manifest),
        media_type=MANIFEST_TYPE,
        config_digest=config_digest,
        config_size=len(config),
        layers=found,
    )


def _config(image_id: str, documents: Mapping[str, bytes]) -> bytes:
    """Return the config of an image id, which is a digest of a config, manifest or index."""
    digest = image_id
    for _ in range(3):
        raw = documents.get(digest)
        if raw is None:
            break
        document = json.loads(raw)
        if "rootfs" in document:
            return raw
        if "config" in document:
            digest = document["config"]["digest"]
        else:
            digest = next(
                (
                    entry["digest"]
                    for entry in document.get("manifests", [])
                    if entry.get("platform", {}).get("architecture") == machine.architecture()
                    and entry["digest"] in documents
                ),
                "",
            )
    raise Problem(f"docker save gave no config for {image_id}")

"""Make a release of one small image: what a bundle brings, without building one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from bundle.builder.hosts import packages, systems  # noqa: E402
from bundle.builder.images import engine  # noqa: E402

IMAGE = "airlift-lab/trixie"


def put(blobs: Path, data: bytes) -> str:
    """Store one blob; return its digest."""
    sha256 = hashlib.sha256(data).hexdigest()
    (blobs / sha256).write_bytes(data)
    return f"sha256:{sha256}"


def component(blobs: Path) -> dict[str, Any]:
    """Store the image; return its entry in the manifest."""
    saved = subprocess.check_output([*engine.docker(), "save", IMAGE])
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(name)
            assert member is not None
            return member.read()

        (entry,) = json.loads(read("manifest.json"))
        config = read(entry["Config"])
        plain = [read(name) for name in entry["Layers"]]
    layers = []
    for layer in plain:
        data = gzip.compress(layer, 1, mtime=0)
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        layers.append({"digest": put(blobs, data), "size": len(data), "mediaType": media_type})
    digest = put(blobs, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest,
            "size": len(config),
        },
        "layers": layers,
    }
    return {
        "version": "1.0",
        "repository": "airlift/app",
        "manifest_digest": put(blobs, json.dumps(manifest, sort_keys=True).encode()),
        "config_digest": digest,
        "diff_ids": json.loads(config)["rootfs"]["diff_ids"],
        "layers": [
            {"digest": layer["digest"], "size": layer["size"], "media_type": layer["mediaType"]}
            for layer in layers
        ],
        "unpacked_size": sum(len(layer) for layer in plain),
        "probe": ["perl", "-v"],
    }


def main() -> None:
    """Fill the folder given as argument, unless that was done."""
    release = Path(sys.argv[1])
    manifest = release / "manifest.json"
    if manifest.exists():
        return
    # What an interrupted run left.
    shutil.rmtree(release, ignore_errors=True)
    blobs = release / "store/blobs/sha256"
    blobs.mkdir(parents=True)
    for name in ("roles", "playbooks", "bundle"):
        (release / name).symlink_to(ROOT / name)
    (debian,) = (one for one in systems.load() if one.required)
    packages.fetch(debian, release / "packages" / debian.folder)
    app = component(blobs)
    data = {
        "version": "1.0.0",
        "architecture": "amd64",
        "components": {"app": app},
        "absent": {},
        "zones": {"app": {"bytes": app["unpacked_size"]}},
    }
    manifest.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

"""The builder's cache of OCI blobs: layers found by diff-id, images by their engine id.

A blob is trusted again only after it was hashed again: `place` hashes what it puts into a layout.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from bundle.builder import cache
from bundle.builder.problems import Problem
from bundle.core.files import sha256

#: Chosen by measurement on the product's images: 0.849 of gzip -6's size. Long matches looked for
#: twice as often (rate 7) make 0.844 of it in 1.08 times the CPU time, level 5 makes 0.854 in 0.99
#: times. Matches reach back 32 MiB: what an engine needs to unpack a layer.
ZSTD_LEVEL, ZSTD_WINDOW_LOG, ZSTD_HASH_LOG, ZSTD_LDM_RATE_LOG = 6, 25, 18, 8
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

#: What reading a layer raises that is damaged, or is none.
UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError)
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
#: How a zstd frame begins.
ZSTD = b"\x28\xb5\x2f\xfd"
# Another level or library gives other bytes for the same layer, so each has its own index.
_SETTINGS = f"zstd{ZSTD_LEVEL}w{ZSTD_WINDOW_LOG}h{ZSTD_HASH_LOG}r{ZSTD_LDM_RATE_LOG}"
_ENCODER = f"{_SETTINGS}-{'.'.join(map(str, zstandard.ZSTD_VERSION))}"


class DamagedBlobError(Problem):
    """A cached blob was not what its name says; it is gone now, and trying again helps."""


@dataclass(frozen=True)
class Layer:
    """One layer as it travels."""

    digest: str
    size: int
    media_type: str
    diff_id: str
    unpacked_size: int


@dataclass(frozen=True)
class Image:
    """One image as it travels: everything that the manifest of a bundle says of it."""

    manifest_digest: str
    manifest_size: int
    media_type: str
    config_digest: str
    config_size: int
    layers: tuple[Layer, ...]

    @property
    def unpacked_size(self) -> int:
        """Bytes of all layers as tar files."""
        return sum({layer.diff_id: layer.unpacked_size for layer in self.layers}.values())

    @property
    def blobs(self) -> dict[str, int]:
        """Every blob with its size."""
        found = {layer.digest: layer.size for layer in self.layers}
        return {
            **found,
            self.config_digest: self.config_size,
            self.manifest_digest: self.manifest_size,
        }


class BlobCache:
    """Blobs and what is known of them, below one directory."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache.root() / "oci"
        self._blobs = self.directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob lies."""
        return self._blobs / digest.removeprefix("sha256:")

    def holds(self, digest: str, size: int) -> bool:
        """Whether a blob is there in full length; `place` proves its content."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, data: bytes) -> str:
        """Keep a small blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.holds(digest, len(data)):
            with cache.replacing(self.path(digest)) as part:
                part.write_bytes(data)
        return digest

    def adopt(self, file: Path, digest: str) -> int:
        """Keep a downloaded blob after checking its digest, and return its size."""
        found = f"sha256:{sha256(file)}"
        if found != digest:
            raise Problem(
                f"the registry sent bytes that are not the blob {digest}",
                fix="run the same command again; if it stays so, a registry or proxy is damaged",
            )
        size = file.stat().st_size
        if not self.holds(digest, size):
            target = self.path(digest)
            file.chmod(0o644)
            file.replace(target)
        return size

    def compress(self, plain: Path, diff_id: str) -> Layer:
        """Compress a layer's tar file and remember the result under its diff-id."""
        size = plain.stat().st_size
        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL,
            source_size=size,
            window_log=ZSTD_WINDOW_LOG,
            hash_log=ZSTD_HASH_LOG,
            enable_ldm=True,
            ldm_hash_rate_log=ZSTD_LDM_RATE_LOG,
            write_checksum=True,
            write_content_size=True,
        )
        compressor = zstandard.ZstdCompressor(compression_params=parameters)
        digest = hashlib.sha256()
        handle, part = tempfile.mkstemp(dir=self._blobs, prefix=".part-")
        try:
            with plain.open("rb") as source, os.fdopen(handle, "wb") as target:
                compressor.copy_stream(source, cast("IO[bytes]", _Tee(target, digest)), size=size)
            name = f"sha256:{digest.hexdigest()}"
            compressed = Path(part).stat().st_size
            Path(part).chmod(0o644)
            Path(part).replace(self.path(name))
        finally:
            Path(part).unlink(missing_ok=True)
        layer = Layer(name, compressed, LAYER_ZSTD, diff_id, size)
        cache.write_json(self._note(f"layers/{_ENCODER}", diff_id), asdict(layer))
        return layer

    def layer(self, diff_id: str) -> Layer | None:
        """Return the compressed form of a layer, if it is here."""
        note = cache.read_json(self._note(f"layers/{_ENCODER}", diff_id))
        if note is None:
            return None
        layer = Layer(**note)
        return layer if self.holds(layer.digest, layer.size) else None

    def remember(self, image_id: str, image: Image) -> None:
        """Note what an image of the engine, or an index of a registry, became."""
        cache.write_json(self._note(f"images/{_ENCODER}", image_id), asdict(image))

    def image(self, image_id: str) -> Image | None:
        """Return what `remember` noted, if every blob is still here."""
        note: dict[str, Any] | None = cache.read_json(self._note(f"images/{_ENCODER}", image_id))
        if note is None:
            return None
        layers = tuple(Layer(**layer) for layer in note.pop("layers"))
        image = Image(**note, layers=layers)
        return image if all(self.holds(*item) for item in image.blobs.items()) else None

    def place(self, digest: str, directory: Path) -> None:
        """Put a blob into a new layout and hash it there; a damaged one is dropped.

        It is the cache's own file under a second name: nobody writes into a blob.
        """
        source, target = self.path(digest), directory / digest.removeprefix("sha256:")
        try:
            os.link(source, target)
        except FileNotFoundError as error:  # another build found it damaged
            raise DamagedBlobError(
                f"the cached blob {digest} is gone",
                fix="run the same command again; it is made anew",
            ) from error
        except OSError:  # another file system, or another owner
            shutil.copyfile(source, target)
        if f"sha256:{sha256(target)}" != digest:
            target.unlink()
            source.unlink(missing_ok=True)
            raise DamagedBlobError(
                f"the cached blob {digest} was damaged on this disk and has been removed",
                fix="run the same command again; it is made anew",
            )
        with suppress(FileNotFoundError):
            os.utime(source)

    def forget_unused(self) -> None:
        """Remove what no build has used for weeks."""
        cache.forget_unused(self.directory)

    def _note(self, kind: str, digest: str) -> Path:
        return self.directory / kind / f"{digest.removeprefix('sha256:')}.json"


@contextmanager
def plain_stream(buffered: io.BufferedReader) -> Iterator[IO[bytes]]:
    """Yield a layer's tar bytes, whichever way it was compressed."""
    magic = buffered.peek(4)[:4]
    if magic.startswith(_GZIP):
        with gzip.GzipFile(fileobj=buffered, mode="rb") as reader:
            yield cast("IO[bytes]", reader)
    elif magic == ZSTD:
        decompressor = zstandard.ZstdDecompressor()
        with decompressor.stream_reader(buffered, read_across_frames=True) as reader:
            yield cast("IO[bytes]", reader)
    else:
        yield cast("IO[bytes]", buffered)


def measure(file: Path) -> tuple[str, int]:
    """Return the diff-id and the unpacked size of a compressed layer."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as stream, plain_stream(stream) as reader:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return f"sha256:{digest.hexdigest()}", size


class _Tee:
    """Writes and hashes in one pass."""

    def __init__(self, target: IO[bytes], digest: Any) -> None:
        self._target, self._digest = target, digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._target.write(data)

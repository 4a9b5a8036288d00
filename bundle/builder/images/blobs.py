"""The builder's cache of OCI blobs: layers by diff-id, images by their engine id.

`place` hashes every blob again when it puts it into a layout, because the cache is not trusted.
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

#: Measured on the product's images: 0.849 of gzip -6's size. Level 6 gives 0.852 in 0.98 times the
#: CPU time, searching long matches twice as often (rate 7) a thousandth less than that in 1.07
#: times. The window is 33.6 MB (2**25 bytes), which an engine needs to unpack a layer.
ZSTD_LEVEL, ZSTD_WINDOW_LOG, ZSTD_HASH_LOG, ZSTD_LDM_RATE_LOG = 7, 25, 18, 8
#: Bytes of a layer in each block. A verifier counts the most that a block can give, 128 KiB, and
#: unpacks the layer only if that is too much. libzstd splits full blocks in two or more, of which
#: each would count; it leaves one alone that has a byte less. With level 7 in place of 6, whole
#: blocks cost no size.
ZSTD_BLOCK = (128 << 10) - 1
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"

#: The errors of reading a layer that is damaged or of another form.
UNREADABLE = (tarfile.TarError, EOFError, OSError, zlib.error, zstandard.ZstdError)
_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
#: How a zstd frame begins.
ZSTD = b"\x28\xb5\x2f\xfd"
# Each setting and library version has its own index, because it gives other bytes.
_SETTINGS = f"zstd{ZSTD_LEVEL}w{ZSTD_WINDOW_LOG}h{ZSTD_HASH_LOG}r{ZSTD_LDM_RATE_LOG}b{ZSTD_BLOCK}"
_ENCODER = f"{_SETTINGS}-{'.'.join(map(str, zstandard.ZSTD_VERSION))}"


class DamagedBlobError(Problem):
    """A cached blob did not match its name and was removed; a second try helps."""


@dataclass(frozen=True)
class Layer:
    """One layer in the form of a bundle."""

    digest: str
    size: int
    media_type: str
    diff_id: str
    unpacked_size: int


@dataclass(frozen=True)
class Image:
    """One image in the form of a bundle, with all that a manifest states of it."""

    manifest_digest: str
    manifest_size: int
    media_type: str
    config_digest: str
    config_size: int
    layers: tuple[Layer, ...]

    @property
    def unpacked_size(self) -> int:
        """Return the bytes of all layers as tar files."""
        return sum({layer.diff_id: layer.unpacked_size for layer in self.layers}.values())

    @property
    def blobs(self) -> dict[str, int]:
        """Return every blob with its size."""
        found = {layer.digest: layer.size for layer in self.layers}
        return {
            **found,
            self.config_digest: self.config_size,
            self.manifest_digest: self.manifest_size,
        }


class BlobCache:
    """Blobs and notes about them, in one directory."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or cache.root() / "oci"
        self._blobs = self.directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return the path of a blob."""
        return self._blobs / digest.removeprefix("sha256:")

    def holds(self, digest: str, size: int) -> bool:
        """Return whether a blob exists in full length; `place` checks its content."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, data: bytes) -> str:
        """Keep a small blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.holds(digest, len(data)):
            cache.write(self.path(digest), data)
        return digest

    def adopt(self, file: Path, digest: str) -> int:
        """Keep a downloaded blob after checking its digest, and return its size."""
        found = f"sha256:{sha256(file)}"
        if found != digest:
            raise Problem(
                f"the registry sent bytes that are not the blob {digest}",
                fix="run the same command again; if it fails again, check the registry and proxies",
            )
        size = file.stat().st_size
        if not self.holds(digest, size):
            target = self.path(digest)
            file.chmod(0o644)
            file.replace(target)
        return size

    def compress(self, plain: Path, diff_id: str) -> Layer:
        """Compress a layer's tar file, and note the result under its diff-id."""
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
                for piece in _blocks(compressor.compressobj(size=size), source):
                    digest.update(piece)
                    target.write(piece)
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
        """Return the compressed form of a layer, or None if it is not cached."""
        note = cache.read_json(self._note(f"layers/{_ENCODER}", diff_id))
        if note is None:
            return None
        layer = Layer(**note)
        return layer if self.holds(layer.digest, layer.size) else None

    def remember(self, image_id: str, image: Image) -> None:
        """Note the bundle form of an image of the engine, or of an index of a registry."""
        cache.write_json(self._note(f"images/{_ENCODER}", image_id), asdict(image))

    def image(self, image_id: str) -> Image | None:
        """Return what `remember` noted, or None if a blob is missing."""
        note: dict[str, Any] | None = cache.read_json(self._note(f"images/{_ENCODER}", image_id))
        if note is None:
            return None
        layers = tuple(Layer(**layer) for layer in note.pop("layers"))
        image = Image(**note, layers=layers)
        return image if all(self.holds(*item) for item in image.blobs.items()) else None

    def place(self, digest: str, directory: Path) -> None:
        """Link a blob into a new layout and hash it there; remove a damaged one.

        A hard link is safe, because no program writes into a blob.
        """
        source, target = self.path(digest), directory / digest.removeprefix("sha256:")
        try:
            os.link(source, target)
        except FileNotFoundError as error:  # another build found it damaged
            raise DamagedBlobError(
                f"the cached blob {digest} is missing",
                fix="run the same command again, which recreates it",
            ) from error
        except OSError:  # another file system, or another owner
            shutil.copyfile(source, target)
        if f"sha256:{sha256(target)}" != digest:
            target.unlink()
            source.unlink(missing_ok=True)
            raise DamagedBlobError(
                f"the cached blob {digest} was damaged on this disk and has been removed",
                fix="run the same command again, which recreates it",
            )
        with suppress(FileNotFoundError):
            os.utime(source)

    def forget_unused(self) -> None:
        """Remove files that no build has used for weeks."""
        cache.forget_unused(self.directory)

    def _note(self, kind: str, digest: str) -> Path:
        return self.directory / kind / f"{digest.removeprefix('sha256:')}.json"


@contextmanager
def plain_stream(buffered: io.BufferedReader) -> Iterator[IO[bytes]]:
    """Yield a layer's tar bytes, for any of its compressions."""
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


def _blocks(packer: zstandard.ZstdCompressionObj, source: IO[bytes]) -> Iterator[bytes]:
    """Yield the frame of a stream, with as many of its bytes in each block."""
    while data := source.read(ZSTD_BLOCK):
        yield packer.compress(data)
        yield packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    yield packer.flush()

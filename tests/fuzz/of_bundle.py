"""What `bundle/` reads of others: bundles, their signatures and parts, logs, records, requests."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zstandard

from bundle.builder import build
from bundle.carry import join, split
from bundle.core.files import sha256_bytes
from bundle.errors import Kind
from bundle.format import manifest, parts, tar
from bundle.format.layer_size import Unpacked
from bundle.jumphost import environment, receipt, registry, store
from bundle.review import diff, documents, dossier
from bundle.trust import allowed_signers, custody, sshsig
from bundle.verify import checks
from tests.fuzz.mutate import (
    SEAM,
    Armour,
    Bytes,
    Files,
    Json,
    Lines,
    Tar,
)
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.bundle.bundlekit import Recipe

TORN = (Kind.UNREADABLE, Kind.CUT_SHORT, Kind.STRUCTURE, Kind.ALTERED)
UNTRUSTED = (Kind.UNSIGNED, Kind.UNKNOWN_SIGNER, Kind.BAD_SIGNATURE)
SIGNER = sshsig.Signer("jump@site", "SHA256:x", "ssh-ed25519", "from 20260101")


def _quiet(*_: object) -> None:
    """Take what is told about progress."""


def _small(kit: Kit, **options: Any) -> Path:
    """Return a bundle in which everything is small, so that most of it is what gets parsed."""
    recipe = Recipe(files={"verify.pyz": b"v"}, app_layer=b"a" * 700, **options)
    return recipe.make(kit.folder / "airlift-1.0.0-amd64.tar", kit.keys)


def _delta(kit: Kit) -> Path:
    base = Recipe(files={"verify.pyz": b"v"})
    return _small(kit, version="1.1.0", serial=2, since=base)


def _raw(path: Path) -> bytes:
    with checks.opened(path, trust=None, home=None) as opened:
        return opened.raw_manifest


@fuzzed(
    "manifest",
    "bundle.format.manifest.parse",
    *("bundle/format/manifest.py", "bundle/format/delta.py", "bundle/core/schema.py"),
    form=Json(manifest.encode, (b'"members"', b"1.0.0-rc.1", b"blobs/sha256/", b"content/")),
    kinds=(Kind.MANIFEST,),
)
def of_manifest(kit: Kit) -> Case:
    """What is accepted is canonical, and all that is asked of a manifest has an answer."""
    seeds = [_raw(_small(kit)), _raw(_delta(kit))]

    def check(data: bytes) -> None:
        found = manifest.parse(data)
        assert manifest.encode(found.data) == data
        assert len(found.release_sha256) == 64
        assert found.total_size >= 0
        for member in found.contents:
            path = Path("/r") / member.release_path
            assert path.resolve().is_relative_to("/r"), member.path
            tar.header(member.path, member.size)

    return Case(seeds, check)


@fuzzed(
    "archive",
    "bundle.verify.checks.opened, without trust",
    *("bundle/format/tar.py", "bundle/verify/checks.py", "bundle/format/parts.py"),
    form=Tar(),
    kinds=(*TORN, Kind.MANIFEST, Kind.UNSIGNED),
)
def of_archive(kit: Kit) -> Case:
    """What is accepted is, byte for byte, what the product's writer makes of it again."""
    seeds = [_small(kit).read_bytes(), _delta(kit).read_bytes()]
    again = kit.folder / "again.tar"

    def check(data: bytes) -> None:
        path = kit.file("bundle.tar", data)
        with checks.opened(path, trust=None, home=None) as opened:
            checks.check_members(opened)
            members = [
                (member.path, data[start : start + member.size], member.size)
                for member, start in zip(opened.manifest.members, opened.offsets, strict=True)
            ]
            again.unlink(missing_ok=True)
            build.write(again, opened.raw_manifest, opened.signatures, members)
        assert again.read_bytes() == data

    return Case(seeds, check)


@fuzzed(
    "bundle",
    "bundle.verify.checks.opened, with trust",
    *("bundle/verify/checks.py", "bundle/trust/sshsig.py"),
    form=Tar(),
    kinds=(*TORN, *UNTRUSTED, Kind.MANIFEST, Kind.TOO_FEW_SIGNERS),
    slow=True,
)
def of_bundle(kit: Kit) -> Case:
    """No altered bundle is good."""
    seeds = [_small(kit).read_bytes(), _small(kit, keys=("release", "second")).read_bytes()]
    trust = kit.keys.trust(kit.keys.line(), kit.keys.line("second", "second@airlift.example"))

    def check(data: bytes) -> None:
        with checks.opened(kit.file("bundle.tar", data), trust=trust, home=None) as opened:
            checks.check_members(opened)
        # A signature may be left out or come twice: nobody can sign another manifest or member.
        good = _without_signatures(data)
        assert any(_without_signatures(seed) == good for seed in seeds)

    return Case(seeds, check)


def _without_signatures(data: bytes) -> bytes:
    start = tar.BLOCK + int(data[124:135], 8)
    start += -start % tar.BLOCK
    end = start
    while data[end:].startswith(manifest.SIGNATURE.encode()):
        end += tar.BLOCK + int(data[end + 124 : end + 135], 8)
        end += -end % tar.BLOCK
    return data[:start] + data[end:]


def _split(kit: Kit) -> parts.Index:
    folder = kit.folder / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    path = _small(kit)
    size = path.stat().st_size // 3 + 1
    return split.split(path, size=size, out=folder, key=None, log=_quiet, progress=_quiet)


@fuzzed(
    "index of parts",
    "bundle.format.parts.read_index",
    "bundle/format/parts.py",
    form=Json(words=(b".part-01", b".parts", b'"bytes": ')),
    kinds=(Kind.PART,),
)
def of_index(kit: Kit) -> Case:
    """What is accepted is written as `split` writes it, and its parts make the bundle."""

    def check(data: bytes) -> None:
        found = parts.read_index(kit.file("x.tar.parts", data))
        assert found.encode() == data
        assert found.starts()[-1] + found.parts[-1].size == found.bundle.size

    return Case([_split(kit).encode()], check)


@fuzzed(
    "parts, joined",
    "bundle.carry.join.join",
    *("bundle/carry/join.py", "bundle/format/parts.py"),
    form=Files((Json(), Bytes())),
    kinds=(Kind.PART, Kind.OUTPUT, Kind.NO_SPACE),
    slow=True,
)
def of_parts(kit: Kit) -> Case:
    """What is joined has the hash of its index; with the index as it was, it is the bundle."""
    index = _split(kit)
    folder = kit.folder / "parts"
    whole = _small(kit).read_bytes()
    files = [index.encode(), *((folder / part.name).read_bytes() for part in index.parts)]
    out = kit.folder / "joined"

    def check(data: bytes) -> None:
        shutil.rmtree(out, ignore_errors=True)
        first, *others = data.split(SEAM)
        place = kit.file(index.name, first)
        for number, each in enumerate(others, 1):
            kit.file(parts.part_name(index.bundle.name, number), each)
        made = join.join([place], out=out, trust=None, log=_quiet, progress=_quiet)
        assert store_sha(made.path) == made.index.bundle.sha256
        assert first != files[0] or made.path.read_bytes() == whole

    return Case([SEAM.join(files)], check)


def store_sha(path: Path) -> str:
    """Return the hash of a file."""
    with tar.Source(path) as source:
        return parts.sha256_of(source)


def _frames(data: bytes) -> list[bytes]:
    """Return what encoders make of some bytes, whole and streamed."""
    streamed = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    whole = zstandard.ZstdCompressor(level=3)
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    return [
        whole.compress(data),
        streamed.compress(data) + streamed.flush(),
        whole.compress(data[:300]) + skippable + whole.compress(data[300:]),
        gzip.compress(data, 1, mtime=0),
        gzip.compress(data[:70], 9, mtime=0) + gzip.compress(data[70:], 1, mtime=0),
        data,
    ]


def _unpacked(data: bytes, limit: int) -> int | None:
    """Return what a layer really unpacks to; None where no decoder takes it."""
    try:
        if data.startswith(b"\x1f\x8b"):
            return _gunzipped(data, limit)
        decoder = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        size = 0
        while piece := decoder.read(1 << 16):
            size += len(piece)
            if size > limit:
                break
    except (zstandard.ZstdError, zlib.error, EOFError):
        return None
    return size


def _gunzipped(data: bytes, limit: int) -> int:
    size = 0
    while data and size <= limit:
        decoder = zlib.decompressobj(wbits=31)
        while data and not decoder.eof and size <= limit:
            size += len(decoder.decompress(data, 1 << 16))
            data = decoder.unconsumed_tail
        data = decoder.unused_data
    return size


@fuzzed(
    "layer",
    "bundle.format.layer_size.Unpacked",
    "bundle/format/layer_size.py",
    form=Bytes((b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\0\0\0\0", b"\x1f\x8b\x08\0", b"BZh9")),
    kinds=(Kind.MANIFEST,),
)
def of_layer(kit: Kit) -> Case:
    """However its bytes come the verdict is one, and no decoder gets more out than was counted."""
    text = b"".join(b"%d lines of a layer\n" % number for number in range(3000))
    seeds = [frame for data in (text, bytes(5000), b"x" * 800_000) for frame in _frames(data)]
    limit = 1 << 20

    def counted(data: bytes, step: int) -> Unpacked:
        found = Unpacked("blobs/sha256/0", limit)
        view = memoryview(data)
        for start in range(0, len(data), step):
            found.feed(view[start : start + step])
        return found

    def check(data: bytes) -> None:
        whole, pieces = counted(data, len(data) or 1), counted(data, 1 + len(data) % 97)
        verdicts = []
        for one in (whole, pieces):
            try:
                one.check()
                verdicts.append(True)
            except Exception as error:
                verdicts.append(False)
                refusal = error
        assert verdicts[0] == verdicts[1], verdicts
        if not verdicts[0]:
            raise refusal
        assert whole.size == pieces.size
        really = _unpacked(data, limit) if whole._kind in ("gzip", "zstd") else None
        # Of a zstd frame that does not say its size, a block counts for a quarter of the largest.
        most = whole.size * (4 if whole._kind == "zstd" else 1)
        assert really is None or really <= most, (really, whole.size)

    return Case(seeds, check)


TOKENS = [
    b"release@x",
    b"*",
    b"a,b",
    b'"a b"',
    b'namespaces="x"',
    b"cert-authority",
    b"ssh-ed25519",
]
TOKENS += [b'valid-after="20260101"', b"valid-before=x", b"AAAA", b"\t", b"\\", b"\0", b"#", b'"']


@fuzzed(
    "allowed signers",
    "bundle.trust.allowed_signers.parse",
    *("bundle/trust/allowed_signers.py", "bundle/jumphost/kept_trust.py"),
    form=Lines(TOKENS),
    kinds=(Kind.SIGNERS_FILE,),
)
def of_signers(kit: Kit) -> Case:
    """Whoever is accepted is named, is no pattern, and has a key."""
    dates = f'namespaces="{sshsig.NAMESPACE}",valid-after="20260101",valid-before="20271231"'
    text = f"# signers\n{kit.keys.line()}{kit.keys.line('second', 'a@x,b@x', dates)}\n"
    seeds = [text.encode(), kit.keys.line().encode()]

    def check(data: bytes) -> None:
        found = allowed_signers.parse(Path("list"), data)
        assert found.keys
        for key in found.keys:
            assert all(name and not set(name) & set("*?!") for name in key.identities)
            assert "cert-authority" not in key.options.lower()
            name = key.identities[0]
            assert name in found.identities_of(key.blob)
            assert found.validity(name, key.blob).isprintable()

    return Case(seeds, check)


@fuzzed(
    "revoked keys",
    "bundle.trust.allowed_signers.load_revoked",
    *("bundle/trust/allowed_signers.py", "bundle/jumphost/kept_trust.py"),
    form=Lines([b"ssh-ed25519", b"#", b"SSHKRL\n\0", b"AAAAC3NzaC1lZDI1NTE5AAAAIA", b"\x1c"]),
    kinds=(Kind.SIGNERS_FILE,),
)
def of_revoked(kit: Kit) -> Case:
    """A plain list says the same to ssh-keygen as to this reader."""
    line = " ".join(sshsig.public_key(kit.keys.key()).split()) + "\n"
    krl = b"SSHKRL\n\0" + bytes(28) + b"\0\0\0\0" * 2 + b"\1\0\0\0\4\0\0\0\0"
    seeds = [f"# gone\n{line}".encode(), line.encode(), krl]

    def check(data: bytes) -> None:
        found = allowed_signers.load_revoked(kit.file("revoked", data))
        if found.keys is not None:
            again = allowed_signers.load_revoked(kit.file("again", found.for_ssh_keygen))
            assert again.keys == found.keys
            assert all(found.names(blob) for _, blob in found.keys)

    return Case(seeds, check)


@fuzzed(
    "signature",
    "bundle.trust.sshsig.parse",
    "bundle/trust/sshsig.py",
    form=Armour(),
    kinds=(Kind.UNSIGNED,),
)
def of_signature(kit: Kit) -> Case:
    """What is accepted is armoured as ssh-keygen does it, and can be printed."""
    seeds = [sshsig.sign(b"message", kit.keys.key(), namespace=name) for name in ("a", "airlift")]

    def check(data: bytes) -> None:
        found = sshsig.parse(data, "manifest.sig")
        assert found.raw == data
        assert found.key_type.isprintable()
        assert found.fingerprint.startswith("SHA256:")
        assert repr(found.namespace).isprintable()

    return Case(seeds, check)


def _log(kit: Kit) -> bytes:
    path = kit.folder / "airlift.custody"
    path.unlink(missing_ok=True)
    facts: dict[str, Any] = {
        "bundle": {"bytes": 7, "manifest_sha256": "0" * 64, "name": "a.tar"},
        "done": "import",
        "host": "jump",
        "note": "as agreed",
        "result": {"kind": "good", "what": "GOOD"},
        "time": "2026-01-02T03:04:05Z",
        "who": "release@x",
    }
    facts["bundle"] |= {"parts": ["1" * 64, None], "sha256": None}
    for who, key in (("a@x", None), ("Zoë", kit.keys.key()), ("b@x", None)):
        custody.append(path, {**facts, "who": who}, key=key)
    return path.read_bytes()


@fuzzed(
    "custody log",
    "bundle.trust.custody.parse",
    "bundle/trust/custody.py",
    form=Lines(
        inner=Json(lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
    ),
    refusals=(),
)
def of_custody(kit: Kit) -> Case:
    """Nothing is a crash; what is wrong is said in few short lines; a sound log is whole."""
    log = _log(kit)

    def check(data: bytes) -> None:
        found = custody.parse(data)
        assert len(found.problems) <= custody.MAX_PROBLEMS + 1
        for problem in found.problems:
            assert problem.isprintable(), problem
            problem.encode("utf-8")
        if not found.problems:
            assert b"".join(entry.line() for entry in found.entries) == data
            assert [entry.number for entry in found.entries] == list(
                range(1, len(found.entries) + 1)
            )
        for entry in found.entries:
            assert entry.signed_bytes

    return Case([log, log.split(b"\n")[0] + b"\n", b""], check)


@fuzzed(
    "receipt",
    "bundle.jumphost.receipt.read",
    "bundle/jumphost/receipt.py",
    form=Json(manifest.encode),
    kinds=(Kind.BUILD_INPUT,),
)
def of_receipt(kit: Kit) -> Case:
    """Whatever a known site signs, its receipt is read or refused."""
    rows = manifest.parse(_raw(_small(kit))).contents
    release = {
        "version": "1.0.0",
        "serial": 1,
        "release_sha256": "0" * 64,
        "image_source": "debian",
        "architecture": "amd64",
        "members": [{"path": m.path, "size": m.size, "sha256": m.sha256} for m in rows],
    }
    data = {"format": 1, "product": "airlift", "host": "jump", "created": store.now()}
    seed = manifest.encode({**data, "hashed": True, "releases": [release]})
    path = kit.folder / "site.receipt"
    current = [seed]
    # Signing each input would be all of the time; the signature has a row of its own.
    kit.patch.setattr(receipt, "_authenticate", lambda *_: (current[0], SIGNER))

    def check(data: bytes) -> None:
        current[0] = data
        found = receipt.read(path, path)
        assert found.releases
        for one in found.releases:
            assert manifest.is_version(one["version"])
            assert all(len(each["path"]) <= manifest.MAX_PATH for each in one["members"])

    return Case([seed], check)


@fuzzed(
    "acceptance record",
    "bundle.jumphost.store.Home.acceptances",
    "bundle/jumphost/store.py",
    form=Json(),
    kinds=(Kind.HOME,),
)
def of_acceptance(kit: Kit) -> Case:
    """What is read is what would be written, and says when it was."""
    home = store.Home(kit.folder / "home")
    home.create()
    record = store.Acceptance(3, "1.0.0", store.now(), "0" * 64, "1" * 64, (SIGNER,))
    home.accept(record)
    (place,) = home.accepted.iterdir()

    def check(data: bytes) -> None:
        place.write_bytes(data)
        (found,) = home.acceptances()
        assert found.time > -(10**12)
        json.dumps(found.as_dict())
        assert home.acceptance_of(found.manifest_sha256) == found

    return Case([place.read_bytes()], check)


HTTP = [b"GET /v2/ HTTP/1.1", b"HEAD /v2/x/blobs/sha256:", b"Range: bytes=", b"0-", b"-1", b"5-2"]
HTTP += [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close", b"manifests"]
HTTP += [
    b"Expect: 100-continue",
    b"HTTP/0.9",
    b"%2e%2e%2f",
    b"sha256:" + b"0" * 64,
    b"\x16\x03\x01",
]


@fuzzed(
    "registry request",
    "bundle.jumphost.registry.RegistryServer",
    "bundle/jumphost/registry.py",
    form=Lines(HTTP, end=b"\r\n"),
    refusals=(ConnectionError,),
    slow=True,
)
def of_registry(kit: Kit) -> Case:
    """Every answer is whole, and nothing but blobs of the store is ever sent."""
    home = store.Home(kit.folder / "home")
    home.create()
    blob = bytes(range(256)) * 8
    name = "a" * 64
    home.blob(name).write_bytes(blob)
    home.blob("b" * 64).write_bytes(b'{"schemaVersion": 2}')
    (home.store / "secret").write_bytes(b"SECRET OF THE STORE")
    server = registry.RegistryServer(home.store)
    address = ("127.0.0.1", server.start())
    kit.later.callback(server.stop)
    wrong: list[BaseException] = []

    def noted(*_: object) -> None:
        """Keep what the server takes for a client that went away."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            wrong.append(error)

    kit.patch.setattr(registry._Server, "handle_error", noted)
    where = b"/v2/airlift/app/blobs/sha256:" + name.encode()
    head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    seeds = [
        b"GET " + where + head + b"Range: bytes=5-20\r\n\r\n",
        b"GET " + where + head + b"Range: bytes=-7\r\nConnection: close\r\n\r\n",
        b"HEAD " + where + head + b"\r\nGET /v2/" + head + b"\r\n",
        b"GET /v2/airlift/app/manifests/sha256:" + b"b" * 64 + head + b"\r\n",
        b"GET /v2/airlift/app/manifests/latest?x=1" + head + b"\r\n",
    ]

    def check(data: bytes) -> None:
        answer = b""
        with socket.create_connection(address, timeout=30) as mine:
            mine.sendall(data[: 1 << 15] or b"x")
            mine.shutdown(socket.SHUT_WR)
            while piece := mine.recv(1 << 16):
                answer += piece
        if wrong:
            raise AssertionError from wrong.pop()
        _check_answers(data, answer, blob)

    return Case(seeds, check)


def _check_answers(request: bytes, answer: bytes, blob: bytes) -> None:
    assert b"SECRET" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    if request.startswith(b"GET ") and head.startswith(b"HTTP/1.1 20") and b"octet" in head:
        assert length is not None
        size = int(length[1])
        assert len(body) >= size, (len(body), size)
        assert body[:size] in blob


ABOUT: dict[str, Any] = {
    "migrations": {"migrations": [{"revision": "0001", "title": "first"}]},
    "settings": {"settings": {"site_name": {"default": "x", "type": "str"}}, "renamed": {"a": "b"}},
    "sbom": {"components": [{"purl": "pkg:deb/debian/libc6@2.36?arch=amd64"}]},
    "vulnerabilities": {
        "scanned": True,
        "reason": None,
        "scanner": "x",
        "findings": [{"id": "CVE-2026-1", "component": "app", "package": "libc6"}],
    },
}


@fuzzed(
    "documents of a bundle",
    "bundle.review.diff, documents; bundle.review.dossier",
    *("bundle/review/documents.py", "bundle/review/diff.py", "bundle/review/dossier.py"),
    form=Json(),
    kinds=(Kind.MANIFEST, Kind.BUILD_INPUT, Kind.UNREADABLE),
)
def of_documents(kit: Kit) -> Case:
    """Two releases are compared, or it is said why this document is not."""
    parsed = manifest.parse(_raw(_small(kit)))
    paths = {name: document.path for name, document in documents.DOCUMENTS.items()}

    def side(raw: dict[str, bytes]) -> Any:
        digests = {path: sha256_bytes(raw[name]) for name, path in paths.items()}
        held = {path: raw[name] for name, path in paths.items()}
        return SimpleNamespace(
            digests=digests, documents=held, manifest=parsed, path=kit.folder / "a.tar"
        )

    known = {name: json.dumps(data).encode() for name, data in ABOUT.items()}

    def check(data: bytes) -> None:
        a, b = side(known), side(dict.fromkeys(known, data))
        for name in paths:
            for pair in ((a, b), (b, a)):
                found = diff._about(*pair, name)
                json.dumps(found)
                assert str(found.get("unknown", "")).isprintable()
        dossier._read(lambda _: data, {})

    return Case(list(known.values()), check)


PROGRAM = """#!{folder}/bin/python
import sys
from tool.main import run
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(run())
"""


@fuzzed(
    "program of a venv",
    "bundle.jumphost.environment._check_program",
    "bundle/jumphost/environment.py",
    form=Lines([b"#!", b"/bin/sh", b"'''exec'", b"(" * 300, b"-" * 9000, b"1j", b"\0", b"lambda:"]),
    kinds=(Kind.RELEASE_ALTERED,),
)
def of_program(kit: Kit) -> Case:
    """Only what pip writes is accepted, whatever Python makes of the rest."""
    seed = PROGRAM.format(folder=kit.folder).encode()
    whole = _tokens(seed)

    def check(data: bytes) -> None:
        path = kit.file("tool", data)
        environment._check_program(kit.folder, path, "tool.main:run")
        assert _tokens(data) == whole

    return Case([seed], check)


def _tokens(data: bytes) -> Any:
    """Return what Python runs of a program."""
    code = compile(data.partition(b"\n")[2], "tool", "exec")
    return (code.co_code, code.co_names, [c for c in code.co_consts if c is not None])

"""Each reader accepts any content or refuses it in one sentence, and never crashes.

These grammars imitate people's files; `tests/fuzz` changes what the product wrote, guided by
coverage.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bundle.errors import AirliftError, Kind
from bundle.format import manifest
from bundle.trust import allowed_signers, sshsig
from bundle.verify import checks
from tests.fuzz.mutate import places
from tests.fuzz.parser import assert_in_words
from tests.unit.bundle.bundlekit import SOAK, Keys

fuzz = settings(
    max_examples=5000 if SOAK else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


def judged(read: Callable[[], object], *kinds: Kind) -> bool:
    """Return whether the input is accepted; check a refusal's kind, and that it is one line."""
    error = None
    try:
        read()
    except AirliftError as caught:
        error = caught
    if error is not None:
        assert_in_words(error, kinds)
    return error is None


@fuzz
@given(data=st.data())
def test_a_manifest_with_anything_anywhere(data: st.DataObject, small: Path) -> None:
    with checks.opened(small, trust=None, home=None) as bundle:
        found = json.loads(bundle.raw_manifest)
    place = data.draw(st.sampled_from(places(found)[1:]))
    target = found
    for key in place[:-1]:
        target = target[key]
    before, target[place[-1]] = target[place[-1]], data.draw(JSON)
    good = judged(lambda: manifest.parse(manifest.encode(found)), Kind.MANIFEST)
    # An accepted value has its old type; only these two may be null.
    nullable = {"drift", "pinned"} & set(place)
    assert not good or type(target[place[-1]]) is type(before) or nullable


@fuzz
@given(raw=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(raw=b'{"format": 1e999}')
@example(raw=b'{"a":' * 50_000)
def test_any_bytes_as_a_manifest(raw: bytes) -> None:
    assert not judged(lambda: manifest.parse(raw), Kind.MANIFEST)


@fuzz
@given(body=st.binary(max_size=300), armoured=st.booleans())
@example(body=b"SSHSIG\0\0\0\1" + b"\0\0\0\0" * 5, armoured=True)
@example(body=b"SSHSIG\0\0\0\1" + b"\0\0\0\4\0\0\0\0" + b"\0\0\0\1\xff" * 4, armoured=True)
def test_any_bytes_as_a_signature(body: bytes, armoured: bool) -> None:
    raw = sshsig.armour(body) if armoured else body
    assert not judged(lambda: sshsig.parse(raw, "manifest.sig"), Kind.UNSIGNED)


@fuzz
@given(data=st.data())
@pytest.mark.slow
def test_a_signature_with_a_changed_body(data: st.DataObject, keys: Keys) -> None:
    """The body may still look valid; then ssh-keygen decides, not our reader."""
    lines = sshsig.sign(b"message", keys.key()).decode().splitlines()[1:-1]
    body = bytearray(base64.b64decode("".join(lines)))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    raw = sshsig.armour(bytes(body))
    kinds = Kind.UNSIGNED, Kind.BAD_SIGNATURE, Kind.UNKNOWN_SIGNER
    signatures = [("manifest.sig", raw)]
    assert not judged(lambda: sshsig.verify(b"message", signatures, keys.trust()), *kinds)


TOKENS = ["release@x", "*", "a,b", '"a b"', 'namespaces="x"', "cert-authority", "ssh-ed25519", "#"]
TOKENS += ['valid-after="20260101"', "valid-before=x", "AAAA", "\t", "\\", "\0", "\r", "\x85", '"']
WORDS = st.sampled_from(TOKENS)
LINES = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=4).map("\n".join)


@fuzz
@given(raw=st.binary(max_size=100) | LINES.map(str.encode))
@example(raw="release@x ssh-ed25519 ÄÖ".encode())
@example(raw="ssh-ed25519 ÄÖ".encode())
def test_any_bytes_as_a_list(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(raw)
    for read in (allowed_signers.load, allowed_signers.load_revoked):
        judged(lambda read=read: read(path), Kind.SIGNERS_FILE)  # type: ignore[misc]


@fuzz
@given(raw=st.binary(max_size=4096))
@example(raw=b"\0" * 4096)
def test_any_bytes_as_a_bundle(raw: bytes, tmp_path: Path, keys: Keys) -> None:
    path = tmp_path / "bundle.tar"
    path.write_bytes(raw)
    kinds = Kind.UNREADABLE, Kind.CUT_SHORT, Kind.STRUCTURE, Kind.ALTERED
    with pytest.raises(AirliftError) as caught, checks.opened(path, trust=keys.trust(), home=None):
        pass
    assert caught.value.kind in kinds

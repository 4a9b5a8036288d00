"""The custody log records who had a bundle when; each later change of it is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import AirliftError, Kind
from bundle.trust import custody, sshsig
from bundle.trust.custody import Entry
from bundle.trust.sshsig import Trust
from tests.unit.bundle.bundlekit import SOAK, Keys, sha

NAME = "airlift-1.0.0-amd64.tar"
PEOPLE = ("ann", "bob", "cy", "dee", "eve")
EXAMPLES = settings(
    max_examples=1000 if SOAK else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def facts(number: int) -> dict[str, Any]:
    return {
        "time": f"2026-03-0{number}T10:00:00Z",
        "who": f"{PEOPLE[number - 1]}@example.org",
        "host": "desk",
        "done": "verify",
        "note": "",
        "result": {"kind": "good", "what": ""},
        "bundle": {
            "name": NAME,
            "bytes": 1,
            "sha256": sha(b"x"),
            "parts": None,
            "manifest_sha256": sha(b"m"),
        },
    }


def lines_of(tmp_path: Path, keys: Keys | None = None) -> list[bytes]:
    """Return a log of five entries, each signed by its person if there are keys."""
    log = tmp_path / f"log-{keys is not None}"
    for number in range(1, 6):
        key = keys.key(PEOPLE[number - 1]) if keys else None
        custody.append(log, facts(number), key=key)
    return log.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return lines_of(tmp_path_factory.mktemp("custody"))


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> list[bytes]:
    return lines_of(tmp_path_factory.mktemp("custody"), keys)


@pytest.fixture
def persons(keys: Keys) -> Trust:
    namespace = f'namespaces="{custody.NAMESPACE}"'
    lines = [keys.line(name, f"{name}@example.org", namespace) for name in PEOPLE]
    return Trust(keys.signers(*lines))


def problems(lines: list[bytes]) -> str:
    return "; ".join(custody.parse(b"".join(lines)).problems)


def changed(line: bytes, **values: Any) -> bytes:
    """Return an entry with other content and a matching hash, as a forger would make it."""
    return Entry({**json.loads(line), **values}).sealed().line()


# ---------------------------------------------------------------- the chain
def test_a_sound_chain(plain: list[bytes], signed: list[bytes], persons: Trust) -> None:
    for lines in (plain, signed):
        chain = custody.parse(b"".join(lines))
        assert chain.problems == ()
        assert [entry.number for entry in chain.entries] == [1, 2, 3, 4, 5]
        assert custody.check_signatures(chain, persons) == {}


@EXAMPLES
@given(data=st.data())
def test_any_altered_byte_is_found_and_its_entry_named(
    plain: list[bytes], data: st.DataObject
) -> None:
    number = data.draw(st.integers(1, 5))
    line = bytearray(plain[number - 1])
    place = data.draw(st.integers(0, len(line) - 2))
    line[place] ^= data.draw(st.integers(1, 255))
    found = problems([*plain[: number - 1], bytes(line), *plain[number:]])
    assert f"entry {number} was altered" in found or f"line {number} was altered" in found


@EXAMPLES
@given(number=st.integers(1, 4), field=st.sampled_from(["who", "time", "note", "host", "result"]))
def test_an_entry_that_is_forged_with_its_hash_is_named_by_the_next(
    plain: list[bytes], number: int, field: str
) -> None:
    value: Any = {"result": {"kind": "good", "what": "?"}, "time": "2020-01-01T00:00:00Z"}
    lines = list(plain)
    lines[number - 1] = changed(lines[number - 1], **{field: value.get(field, "mallory")})
    assert problems(lines) == (
        f"entry {number + 1} follows another entry {number} than the one in this "
        "log: one of them was altered or inserted"
    )


@EXAMPLES
@given(gone=st.sets(st.integers(1, 4), min_size=1))
def test_removed_entries_are_named(plain: list[bytes], gone: set[int]) -> None:
    found = problems([line for number, line in enumerate(plain, 1) if number not in gone])
    assert found == "; ".join(f"entry {number} was removed" for number in sorted(gone))


@EXAMPLES
@given(order=st.permutations(range(1, 6)))
def test_entries_in_another_order_are_named(plain: list[bytes], order: list[int]) -> None:
    found = problems([plain[number - 1] for number in order])
    moved = [after for before, after in pairwise(order) if after < before]
    assert bool(found) == bool(moved)
    assert all(f"entry {number} was moved" in found for number in moved)


@EXAMPLES
@given(place=st.integers(0, 4), of=st.integers(1, 5), forged=st.booleans())
def test_inserted_entries_are_named(plain: list[bytes], place: int, of: int, forged: bool) -> None:
    """Insert a copy of another entry, or one made to follow the entry before it."""
    new = plain[of - 1]
    number = of
    if forged:
        before = json.loads(plain[place - 1])["sha256"] if place else custody.BEGINNING
        number = place + 1
        new = changed(new, number=number, previous=before, who="mallory")
    lines = [*plain[:place], new, *plain[place:]]
    assert f"entry {number} is there 2 times: one was inserted" in problems(lines)


@EXAMPLES
@given(data=st.data())
def test_a_torn_log_is_named(plain: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(plain)
    end = data.draw(st.integers(1, len(raw) - 1).filter(lambda n: raw[n - 1 : n] != b"\n"))
    found = custody.parse(raw[:end]).problems
    whole = raw[:end].count(b"\n")
    assert found == (
        f"the log is torn: it ends inside entry {whole + 1}; a write or copy was interrupted",
    )


# ---------------------------------------------------------------- limits of a chain
def rewritten(lines: list[bytes], number: int, **values: Any) -> list[bytes]:
    """Return the log with all entries from one on rewritten, as a holder of the drive could."""
    out = lines[: number - 1]
    for line in lines[number - 1 :]:
        who = {"who": "mallory@example.org"} if len(out) == number - 1 else {}
        head = custody.parse(b"".join(out)).head
        out.append(changed(line, previous=head, **who, **values))
    return out


def test_an_unsigned_chain_can_be_written_anew_and_a_signed_one_cannot(
    plain: list[bytes], signed: list[bytes], persons: Trust
) -> None:
    assert problems(rewritten(plain, 2)) == ""
    forged = custody.parse(b"".join(rewritten(signed, 2)))
    assert forged.problems == ()
    bad = custody.check_signatures(forged, persons)
    # The changed entry fails, and so do all that follow: their signatures cover it.
    assert sorted(bad) == [2, 3, 4, 5]
    # Without signatures the chain is valid, but shows that nobody signed it.
    stripped = custody.parse(b"".join(rewritten(signed, 1, signature=None)))
    assert stripped.problems == ()
    assert all(entry.data["signature"] is None for entry in stripped.entries)


def test_entries_that_are_missing_at_the_end_are_not_seen(signed: list[bytes]) -> None:
    """The document says so: only the head or the number of entries reveals it."""
    whole, short = custody.parse(b"".join(signed)), custody.parse(b"".join(signed[:3]))
    assert short.problems == ()
    assert short.head != whole.head
    assert short.head == json.loads(signed[3])["previous"]


def test_a_signature_counts_for_the_person_whom_the_entry_names(
    signed: list[bytes], keys: Keys, tmp_path: Path
) -> None:
    chain = custody.parse(b"".join(signed))
    namespace = f'namespaces="{custody.NAMESPACE}"'
    # The list assigns the key to another person.
    other = Trust(keys.signers(keys.line("ann", "bob@example.org", namespace)))
    found = custody.check_signatures(chain, other)
    assert "signed by bob@example.org" in found[1]
    assert "not in the list" in found[2]
    # The key may sign bundles, not entries.
    vendor = Trust(keys.signers(keys.line("ann", "ann@example.org")))
    assert "not for airlift-custody" in custody.check_signatures(chain, vendor)[1]
    # The key had expired at the entry's time.
    ended = f'{namespace},valid-before="20260228"'
    old = Trust(keys.signers(keys.line("ann", "ann@example.org", ended)))
    assert "has expired" in custody.check_signatures(chain, old)[1]
    # The key expired later: what it signed before stays valid.
    since = f'{namespace},valid-before="20260302"'
    kept = Trust(keys.signers(keys.line("ann", "ann@example.org", since)))
    assert 1 not in custody.check_signatures(chain, kept)
    # The key is revoked as stolen.
    krl = tmp_path / "krl"
    command = ["ssh-keygen", "-q", "-k", "-f", str(krl), f"{keys.key('ann')}.pub"]
    subprocess.run(command, check=True)
    right = keys.signers(keys.line("ann", "ann@example.org", namespace))
    assert "is revoked" in custody.check_signatures(chain, Trust(right, revoked=(krl,)))[1]


def test_a_bundle_signature_is_no_custody_signature(
    plain: list[bytes], keys: Keys, persons: Trust
) -> None:
    entry = custody.parse_line(plain[0].rstrip())
    foreign = sshsig.sign(entry.signed_bytes, keys.key("ann")).decode()
    line = changed(plain[0], signature=foreign)
    found = custody.check_signatures(custody.parse(line), persons)
    assert "made for 'airlift-bundle'" in found[1]


# ---------------------------------------------------------------- writing
def test_killed_while_it_writes_the_log_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    custody.append(log, facts(1), key=None)
    old, counts, step = log.read_bytes(), set(), 0
    while True:
        step += 1
        log.write_bytes(old)
        child = os.fork()
        if child == 0:
            left = step

            def dying(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args, **options)

                return call

            for name in ("open", "fsync", "replace", "close"):
                setattr(os, name, dying(getattr(os, name)))
            custody.append(log, facts(2), key=None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        chain = custody.parse(log.read_bytes())
        assert chain.problems == ()
        counts.add(len(chain.entries))
        if not os.WIFSIGNALED(status):
            break
    assert step > 5
    assert counts == {1, 2}


def test_two_writers_at_once_lose_no_entry(tmp_path: Path) -> None:
    log = tmp_path / "log"
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(5):
                custody.append(log, facts(1), key=None)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    chain = custody.parse(log.read_bytes())
    assert (len(chain.entries), chain.problems) == (20, ())


def test_what_an_entry_may_hold(tmp_path: Path) -> None:
    with pytest.raises(AirliftError) as caught:
        custody.append(tmp_path / "log", {**facts(1), "host": "a\nb"}, key=None)
    assert caught.value.kind is Kind.USAGE
    assert not list(tmp_path.iterdir())

"""The trust of this jump host: the lists that its imports keep. It only grows stricter.

Keys that any kept list revokes stay revoked, whatever list a later command names. A list of signers
may lose a key. A list that contains a lost or revoked key again is refused, unless an operator
confirms that key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from bundle.core.events import Log
from bundle.core.files import UNFINISHED, read_file, write_atomic
from bundle.errors import AirliftError, Kind
from bundle.jumphost.store import Home
from bundle.trust import allowed_signers, sshsig
from bundle.trust.allowed_signers import Revoked, fingerprint
from bundle.trust.sshsig import Trust, Verdict

#: What an operator types after the vendor has confirmed that the key is valid again.
RESTORE = "--restore-signer"


def required_signers(home: Home) -> int:
    """Return how many different keys this jump host requires."""
    path = home.trust / "required_signers"
    if not os.path.lexists(path):
        return 1
    try:
        return max(1, int(read_file(path, 100, links=True).decode("ascii")))
    except (OSError, ValueError) as error:
        raise AirliftError(
            Kind.HOME,
            "cannot read the number of required signers",
            where=str(path),
            fix="write a whole number into it, such as 2",
        ) from error


def revocations(home: Home) -> tuple[Path, ...]:
    """Return the kept lists of revoked keys: a plain one, and all KRLs, which cannot be merged."""
    first, more = home.trust / "revoked", home.trust / "revoked.d"
    # Whatever exists at this path is meant as a list; if it cannot be read, it is refused later.
    kept = [first] if os.path.lexists(first) else []
    if os.path.lexists(more):
        kept += sorted(path for path in more.iterdir() if path.suffix != UNFINISHED)
    return tuple(kept)


def as_strict(trust: Trust, home: Home) -> Trust:
    """Return the trust, made at least as strict as this jump host requires.

    Raises:
        AirliftError: the named list of signers has a key again that was removed or revoked here.
    """
    named = [path for path in trust.revoked if path not in revocations(home)]
    trust = trust._replace(
        required=max(trust.required, required_signers(home)),
        revoked=(*revocations(home), *named),
    )
    _check_returning(trust, home)
    return trust


def keep(home: Home, trust: Trust, verdict: Verdict, log: Log) -> None:
    """Keep the lists that a bundle was checked with, for later commands."""
    kept = home.trust / "allowed_signers"
    old = allowed_signers.load(kept).raw if kept.exists() else None
    new = verdict.allowed_signers
    if old is not None and old != new:
        # Record removed keys first: if this is interrupted, none is forgotten.
        _remember_removed(home, trust, old, new)
        write_atomic(kept.with_name(f"{kept.name}.old"), old)
        log(f"replacing {kept}; its previous content is in {kept}.old")
    if old != new:
        write_atomic(kept, new)
    for one in verdict.revoked:
        _keep_revoked(home, one)
    if trust.required > required_signers(home):
        write_atomic(home.trust / "required_signers", f"{trust.required}\n".encode())


def take_in(home: Home, saved: Path) -> None:
    """Add the lists of a saved state to those of this jump host, which stay as strict as before.

    Everything that makes it stricter comes first: killed between two steps, it trusts nobody more.

    Args:
        home: of this jump host.
        saved: the directory of the other lists. Its list of signers replaces the one here.
    """
    other = Home(saved.parent)
    home.trust.mkdir(mode=0o755, parents=True, exist_ok=True)
    for path in revocations(other):
        _keep_revoked(home, allowed_signers.load_revoked(path))
    removed = sorted({*_keys_of(_removed(home)), *_keys_of(_removed(other))})
    if removed != sorted(_keys_of(_removed(home))):
        _write_removed(home, removed)
    if required_signers(other) > required_signers(home):
        write_atomic(home.trust / "required_signers", f"{required_signers(other)}\n".encode())
    new, kept = saved / "allowed_signers", home.trust / "allowed_signers"
    old = allowed_signers.load(kept).raw if kept.exists() else None
    raw = allowed_signers.load(new).raw if new.exists() else old
    if raw is None or raw == old:
        return
    if old is not None:
        write_atomic(kept.with_name(f"{kept.name}.old"), old)
    write_atomic(kept, raw)


def _write_removed(home: Home, keys: Iterable[tuple[str, bytes]]) -> None:
    text = b"# Keys of earlier lists of signers. Only --restore-signer restores one.\n"
    listed = Revoked(_removed(home), b"", tuple(sorted(keys)))
    write_atomic(_removed(home), text + listed.for_ssh_keygen)


def _keep_revoked(home: Home, new: Revoked) -> None:
    """Add to the kept lists; a revoked key is never removed from them."""
    first = home.trust / "revoked"
    if new.path in revocations(home):
        return
    known = allowed_signers.load_revoked(first) if first.exists() else None
    if known is None:
        write_atomic(first, new.raw)
    elif known.keys is not None and new.keys is not None:
        if more := [key for key in new.keys if key not in known.keys]:
            text = known.raw.rstrip(b"\n") + b"\n" + new._replace(keys=tuple(more)).for_ssh_keygen
            write_atomic(first, text)
    elif new.raw != known.raw:
        folder = home.trust / "revoked.d"
        folder.mkdir(mode=0o755, exist_ok=True)
        write_atomic(folder / hashlib.sha256(new.raw).hexdigest()[:16], new.raw)


def _removed(home: Home) -> Path:
    return home.trust / "removed_signers"


def _remember_removed(home: Home, trust: Trust, old: bytes, new: bytes) -> None:
    """Record the keys that the new list no longer has; drop those that it has again."""
    kept = home.trust / "allowed_signers"
    now = {key.blob for key in allowed_signers.parse(trust.allowed_signers, new).keys}
    gone = {
        (key.key_type, key.blob)
        for key in allowed_signers.parse(kept, old).keys
        if key.blob not in now
    }
    before = set(_keys_of(_removed(home)))
    after = {key for key in before | gone if key[1] not in now}
    if after != before:
        _write_removed(home, after)


def _keys_of(path: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the keys of a plain list; none if it does not exist."""
    return (allowed_signers.load_revoked(path).keys or ()) if os.path.lexists(path) else ()


def _check_returning(trust: Trust, home: Home) -> None:
    """Refuse a list of signers that has a key again that was removed or revoked here."""
    kept = home.trust / "allowed_signers"
    if not kept.exists() or trust.allowed_signers == kept:
        return
    named = allowed_signers.load(trust.allowed_signers)
    known = {key.blob for key in allowed_signers.load(kept).keys}
    fresh = [key for key in named.keys if key.blob not in known]
    removed = {blob for _, blob in _keys_of(_removed(home))}
    lists = [allowed_signers.load_revoked(path) for path in revocations(home)] if fresh else []
    for key in fresh:
        mark = fingerprint(key.blob)
        if mark in trust.restored:
            continue
        why = "was removed from the list of this jump host" if key.blob in removed else ""
        if any(sshsig.is_revoked(one, key.key_type, key.blob) for one in lists):
            why = "is revoked on this jump host"
        if why:
            raise _comes_back(trust.allowed_signers, key.identities, mark, why)


def _comes_back(path: Path, names: Iterable[str], mark: str, why: str) -> AirliftError:
    return AirliftError(
        Kind.SIGNERS_FILE,
        f"the list of allowed signers has the key {mark} of {', '.join(names)} again, which {why}",
        where=str(path),
        fix="ask the vendor for the current list; if the vendor confirms this key through a "
        f"separate channel, add: {RESTORE} {mark}",
    )

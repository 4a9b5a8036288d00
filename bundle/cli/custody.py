"""Records what a command did with a bundle in its custody log, and shows such a log."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.cli.parser import program
from bundle.cli.terminal import Progress, columns, file_size
from bundle.core.files import open_regular
from bundle.core.text import table
from bundle.errors import AirliftError, Kind
from bundle.format.parts import BUFFER, SUFFIX, index_of, open_source, read_index
from bundle.jumphost.store import DEFAULT_HOME, now
from bundle.trust import custody, sshsig
from bundle.trust.sshsig import Trust
from bundle.verify.checks import read_preamble

if TYPE_CHECKING:
    from bundle.cli.answer import Answer

_SHORT = 12


def recorded(
    command: Callable[[argparse.Namespace], Answer], arguments: argparse.Namespace
) -> Answer:
    """Run a command; with --who, record its result in the custody log, good or refused."""
    if getattr(arguments, "who", None) is None:
        _check_unused(arguments)
        return command(arguments)
    _check_words(arguments)
    _check_key(arguments.sign)
    log = _log_of(arguments)
    if log is not None:
        _prepare(log, arguments)
    try:
        answer = command(arguments)
    except AirliftError as error:
        if log is not None and arguments.command != "build":
            _record_refusal(log, arguments, error)
        raise
    subject = Path(answer.data.get("index") or answer.data.get("bundle") or arguments.bundle)
    log = log or _Log(subject.with_name(subject.name + custody.SUFFIX))
    entry = _append_done(log, arguments, subject)
    facts = {"log": str(log.path), "entry": entry.number, "sha256": entry.sha256}
    line = f"custody: entry {entry.number} in {log.path}, sha256 {entry.sha256}"
    if entry.data["signature"] is not None:
        # The key is reported, not its owner: only a list of people can say whose it is.
        raw = entry.data["signature"].encode()
        facts["key"] = sshsig.parse(raw, "the entry's signature").fingerprint
        line += f", signed with key {facts['key']}"
    # Commands to type next stay last.
    body, following, commands = answer.text.rpartition("\n\nNext:")
    rest = f"{following}{commands}" if following else ""
    text = f"{body if following else commands}\n{line}{rest}"
    return answer._replace(text=text, data={**answer.data, "custody": facts})


@dataclass(frozen=True)
class _Log:
    path: Path
    # What a new log begins with: the log of the place that the bundle came from.
    seed: bytes = b""


def _log_of(arguments: argparse.Namespace) -> _Log | None:
    """Return the log beside the bundle; `split` and `join` copy it to where they write.

    Unless the log is named, that of `build` is unknown until there is a bundle.
    """
    if arguments.command == "build":
        return _Log(arguments.custody) if arguments.custody is not None else None
    source = arguments.bundle[0] if isinstance(arguments.bundle, list) else arguments.bundle
    if source.is_dir():
        raise AirliftError(
            Kind.USAGE,
            "a custody log is kept for a bundle; this is a directory",
            where=str(source),
            fix="name the bundle file or its parts, or omit --who",
        )
    index = index_of(source)
    name = (index.name.removesuffix(SUFFIX) if index else source.name) + custody.SUFFIX
    beside = source.with_name(name)
    if arguments.custody is not None:
        return _Log(arguments.custody)
    if arguments.command in {"split", "join"} and arguments.output is not None:
        return _Log(arguments.output / name, custody.read(beside))
    return _Log(beside)


def _prepare(log: _Log, arguments: argparse.Namespace) -> None:
    """Refuse before the work, not after it, a log that cannot be continued."""
    custody.check_sound(log.path, custody.read(log.path) or log.seed)
    folder = log.path.absolute().parent
    if not folder.exists() and not _will_make(arguments, folder):
        raise AirliftError(
            Kind.OUTPUT,
            "cannot write the custody log: its directory does not exist",
            where=str(log.path),
            fix=f"mkdir -p {shlex.quote(str(folder))}, or name another file: --custody FILE",
        )
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AirliftError(
            Kind.OUTPUT,
            "cannot write the custody log: no permission to write to its directory",
            where=str(log.path),
            fix="mount the drive writable, or name a file of this machine: --custody FILE",
        )


def _will_make(arguments: argparse.Namespace, folder: Path) -> bool:
    """Return whether the command itself makes the directory, for what it writes."""
    output: Path | None = getattr(arguments, "output", None)
    if arguments.command not in {"build", "split", "join"} or output is None:
        return False
    return output.absolute().is_relative_to(folder)


def _check_key(key: Path | None) -> None:
    # A hardware key needs a touch for every signature, so it is not tested.
    if key is None:
        return
    if not key.is_file():
        raise AirliftError(
            Kind.SIGNING,
            "the key to sign the entry with does not exist",
            where=str(key),
            fix="name your own key: --sign ~/.ssh/id_ed25519; or omit --sign",
        )
    if not sshsig.public_key(key).startswith("sk-"):
        sshsig.sign(b"", key, namespace="airlift-try")


def _check_words(arguments: argparse.Namespace) -> None:
    for name in ("who", "note"):
        text = getattr(arguments, name)
        if not text.isprintable() or len(text) > custody.MAX_TEXT or (name == "who" and not text):
            raise AirliftError(
                Kind.USAGE,
                f"--{name} {text!r} cannot be written into a custody log",
                where=f"--{name}",
                fix=f"use one line of printable text, up to {custody.MAX_TEXT} characters",
            )


def _check_unused(arguments: argparse.Namespace) -> None:
    if hasattr(arguments, "who") and (arguments.custody or arguments.note or arguments.sign):
        raise AirliftError(
            Kind.USAGE,
            "a custody log entry needs a name",
            where="--custody, --note, --sign",
            fix="add --who NAME",
        )


def _record_refusal(log: _Log, arguments: argparse.Namespace, error: AirliftError) -> None:
    """Record a refusal; if that fails, still report why the command was refused."""
    first = arguments.bundle[0] if isinstance(arguments.bundle, list) else arguments.bundle
    try:
        _append(log, arguments, index_of(first) or first, error.kind.label, error.what)
    except AirliftError as second:
        error.fix += f"; the custody log has no entry of this: {second.what}"


def _append_done(log: _Log, arguments: argparse.Namespace, subject: Path) -> custody.Entry:
    """Record what was done; if that fails, say that the work itself was done."""
    try:
        restored = ", ".join(getattr(arguments, "restore_signer", ()))
        return _append(log, arguments, subject, "good", restored and f"restored signer {restored}")
    except AirliftError as error:
        fix = error.fix
        if error.kind in {Kind.OUTPUT, Kind.NO_SPACE}:
            words = shlex.join(["verify", str(subject), *_same_options(arguments)])
            fix = f"to add an entry for what exists now: {program()} {words}"
        raise AirliftError(
            error.kind,
            f"{arguments.command} was done, but not its custody log entry: {error.what}",
            where=error.where,
            fix=fix,
        ) from error


def _same_options(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the options that `verify` has as well, without the log that cannot be written."""
    for name in ("who", "note", "sign", "home", "allowed_signers", "revoked"):
        if (value := getattr(arguments, name, None)) and value != Path(DEFAULT_HOME):
            yield from (f"--{name.replace('_', '-')}", str(value))


def _append(
    log: _Log, arguments: argparse.Namespace, subject: Path, kind: str, what: str
) -> custody.Entry:
    shown = "".join(char if char.isprintable() else "?" for char in what)[: custody.MAX_TEXT]
    facts = {
        "time": now(),
        "who": arguments.who,
        "host": socket.gethostname(),
        "done": arguments.command,
        "note": arguments.note,
        "result": {"kind": kind, "what": shown},
        "bundle": evidence(subject),
    }
    return custody.append(log.path, facts, key=arguments.sign, seed=log.seed)


def evidence(path: Path) -> dict[str, Any]:
    """Return name, length, hash, and each part's hash; null for what cannot be read."""
    places = [path]
    if path.name.endswith(SUFFIX):
        try:
            places = [path.with_name(part.name) for part in read_index(path).parts]
        except AirliftError:
            places = []
    size, whole, alone = _hashed(places)
    return {
        "name": path.name,
        "bytes": size,
        "sha256": whole,
        "parts": alone if path.name.endswith(SUFFIX) else None,
        "manifest_sha256": _manifest_sha256(path),
    }


def _hashed(places: Iterable[Path]) -> tuple[int | None, str | None, list[str | None]]:
    """Return the length and hash of all files as one, and each file's own hash."""
    size, whole, found = 0, hashlib.sha256(), list[str | None]()
    places = list(places)
    progress = Progress("hashing for the custody log", sum(map(file_size, places)))
    for place in places:
        alone = hashlib.sha256()
        try:
            with open_regular(place, None, links=True) as stream:
                left = os.fstat(stream.fileno()).st_size
                while data := stream.read(min(BUFFER, left)):
                    whole.update(data)
                    alone.update(data)
                    size += len(data)
                    left -= len(data)
                    progress(len(data))
        except OSError:
            found.append(None)
        else:
            found.append(alone.hexdigest())
    progress.finish()
    if not found or None in found:
        return None, None, found
    return size, whole.hexdigest(), found


def _manifest_sha256(path: Path) -> str | None:
    try:
        with open_source(path) as source:
            preamble = read_preamble(source)
    except AirliftError:
        return None
    return hashlib.sha256(preamble.manifest).hexdigest()


def shown(path: Path, trust: Trust | None) -> tuple[str, dict[str, Any], list[str]]:
    """Return a log as a table, as data, and what is wrong with it."""
    raw = custody.read(path)
    chain = custody.parse(raw)
    bad = custody.check_signatures(chain, trust) if trust else {}
    problems = [*chain.problems, *bad.values()]
    if not raw:
        problems.append("there is no entry")
    rows = [
        (
            str(entry.number),
            entry.data["time"],
            entry.data["who"],
            entry.data["host"],
            entry.data["done"],
            entry.data["result"]["kind"],
            (entry.data["bundle"]["manifest_sha256"] or "unreadable")[:_SHORT],
            _signed(entry, bad, asked=trust is not None),
            entry.data["note"],
        )
        for entry in chain.entries
    ]
    heads = ["no", "time", "who", "host", "command", "result", "manifest", "signed", "note"]
    shown = table(rows, heads, columns(sys.stdout))
    text = f"{shown}\n\n{_count(len(rows))}; SHA-256 of the last: {chain.head}"
    data = {
        "entries": [
            {**entry.data, "counts": _signed(entry, bad, asked=trust is not None)}
            for entry in chain.entries
        ],
        "head": chain.head,
    }
    return text, data, problems


def _count(entries: int) -> str:
    return f"{entries} entr" + ("ies" if entries != 1 else "y")


def _signed(entry: custody.Entry, bad: dict[int, str], *, asked: bool) -> str:
    if entry.data["signature"] is None:
        return "no"
    if not asked:
        return "not checked"
    return "BAD" if entry.number in bad else "yes"

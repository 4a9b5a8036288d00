"""Mutations that keep the format of an input: a tar stays a tar, JSON stays JSON.

A parser's first check rejects random bytes. These mutations start from what the product wrote
and change a little: lengths, types, order, ends. The same seed gives the same input again.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import Record, join, records

#: Numbers at the limits of lengths and counters.
NUMBERS: tuple[int, ...] = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    511,
    512,
    513,
    4095,
    4096,
    65535,
    65536,
)
NUMBERS += (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64)
#: Texts that break readers of text.
TEXTS: tuple[str, ...] = (
    "",
    "\0",
    "\n",
    "\r\n",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "é",
    "e\u0301",
)
TEXTS += ("😀", "..", "/", "a/../b", "-", "NaN", "1e999", "9" * 5000, "x" * 70_000, "%s", "{}")
DEPTHS = (30, 65, 900, 3000)
#: Longer lists are not multiplied: one such input would take the whole run.
MOST_ITEMS = 40


class Form(Protocol):
    """A way to change an input."""

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Return a changed input; `others` are inputs to copy parts from."""


@dataclass(frozen=True)
class Bytes:
    """Any bytes: flipped, cut, duplicated, spliced, with wrong lengths."""

    words: Sequence[bytes] = ()

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change one place."""
        size = len(data)
        start = random.randrange(size + 1)
        end = min(size, start + random.choice((1, 1, 2, 4, 8, 16, 64, 512, size)))
        piece = data[start:end]
        act = random.randrange(11)
        if act == 0 and piece:
            return data[:start] + bytes([piece[0] ^ 1 << random.randrange(8)]) + data[start + 1 :]
        if act == 1:
            return data[:start] + bytes([random.randrange(256)]) + data[start + 1 :]
        if act == 2:
            return data[:start]
        if act == 3:
            return data[:start] + data[end:]
        if act == 4:
            return data[:end] + piece * random.choice((1, 2, 30)) + data[end:]
        if act == 5 and others:
            other = random.choice(others)
            return data[:start] + other[random.randrange(len(other) + 1) :]
        if act == 6:
            width = random.choice((1, 2, 3, 4, 8))
            number = random.choice(NUMBERS) % (1 << 8 * width)
            raw = number.to_bytes(width, random.choice(("little", "big")))
            return data[:start] + raw + data[start + width :]
        if act == 7:
            return self._number(data, random)
        if act == 8 and self.words:
            word = random.choice(self.words)
            return data[:start] + word + data[random.choice((start, start + len(word), end)) :]
        if act == 9:
            place = random.randrange(size + 1)
            return data[:place] + piece + data[place + len(piece) * random.randrange(2) :]
        fill = bytes([random.choice((0, 32, 255, random.randrange(256)))])
        return data[:start] + fill * (end - start) + data[end:]

    @staticmethod
    def _number(data: bytes, random: Random) -> bytes:
        """Replace a number that is written in digits."""
        found = list(re.finditer(rb"\d+", data))
        if not found:
            return data + b"0"
        match = random.choice(found)
        number = random.choice((*NUMBERS, int(match[0][:19]) + random.choice((-1, 1)), -1))
        text = f"{number:o}" if random.random() < 0.2 else str(number)
        return data[: match.start()] + text.encode() + data[match.end() :]


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place in a JSON value, the whole value included."""
    found, left = [], [(here, value)]
    while left:
        place, item = left.pop()
        found.append(place)
        if isinstance(item, dict | list):
            inner: Any = item.items() if isinstance(item, dict) else enumerate(item)
            left += [((*place, key), one) for key, one in inner]
    return found


def anything(random: Random, levels: int = 2) -> Any:
    """Return any JSON value."""
    kind = random.randrange(9)
    if kind == 0:
        return random.choice((None, True, False))
    if kind == 1:
        return random.choice(NUMBERS) * random.choice((1, -1))
    if kind == 2:
        return random.choice((0.0, -0.0, 1.5, 1e308, float("inf"), float("nan")))
    if kind <= 5 or not levels:
        return random.choice(TEXTS)
    count = random.randrange(4)
    if kind == 6:
        return [anything(random, levels - 1) for _ in range(count)]
    if kind == 7:
        return {random.choice(TEXTS): anything(random, levels - 1) for _ in range(count)}
    return random.choice(([], {}, [[]], [{}], {"": {}}))


@dataclass(frozen=True)
class Json:
    """A JSON document with another value, key or type at any place, encoded as the product does."""

    encode: Callable[[Any], bytes] = _encode
    words: Sequence[bytes] = ()

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change one place of the document, or sometimes its bytes."""
        act = random.random()
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            act = 1.0
        if act < 0.75:
            try:
                return self.encode(_changed(value, others, random))
            except (ValueError, RecursionError):
                return data
        if act < 0.85:
            depth = random.choice(DEPTHS)
            opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
            text = opening * depth + "1" + closing * (depth if random.random() < 0.5 else 0)
            match = random.choice(list(re.finditer(rb"[\w\"]+|$", data)))
            return data[: match.start()] + text.encode() + data[match.end() :]
        return Bytes(self.words)(data, others, random)


def _changed(value: Any, others: Sequence[bytes], random: Random) -> Any:
    place = random.choice(places(value))
    if not place:
        return random.choice(([value], {"": value}, anything(random)))
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    key = place[-1]
    act = random.randrange(7)
    if act == 0:
        holder[key] = anything(random)
    elif act == 1:
        del holder[key]
    elif act == 2 and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), holder[key])
    elif act == 2:
        holder[random.choice(TEXTS)] = holder.pop(key)
    elif act == 3 and isinstance(holder[key], str):
        holder[key] = _text(holder[key], random)
    elif act == 3 and isinstance(holder[key], int | float):
        holder[key] += random.choice((-1, 1, 0.5))
    elif act == 4:
        other = value
        for step in random.choice(places(value)):
            other = other[step]
        holder[key] = json.loads(json.dumps(other))
    elif act == 5 and isinstance(holder, list):
        random.shuffle(holder)
    elif act == 6 and isinstance(holder[key], list) and len(holder[key]) < MOST_ITEMS:
        holder[key] *= random.choice((2, 50))
    else:
        holder[key] = random.choice((str(holder[key]), [holder[key]], {str(key): holder[key]}))
    return value


def _text(text: str, random: Random) -> str:
    place = random.randrange(len(text) + 1)
    return text[:place] + random.choice(TEXTS) + text[place + random.randrange(2) :]


@dataclass(frozen=True)
class Lines:
    """Lines of words, or of an inner format."""

    words: Sequence[bytes] = ()
    inner: Form | None = None
    end: bytes = b"\n"

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change the order of lines, or one of them."""
        act = random.random()
        lines = data.split(self.end)
        number = random.randrange(len(lines))
        if act < 0.1:
            lines.insert(random.randrange(len(lines) + 1), lines[number])
        elif act < 0.2:
            del lines[number]
        elif act < 0.25 and others:
            lines.insert(number, random.choice(random.choice(others).split(self.end)))
        elif act < 0.3:
            random.shuffle(lines)
        elif act < 0.35:
            lines[number] += random.choice((b"\r", b"\x85", b"\0", b" ", b"\\", b"\x0b"))
        elif act < 0.8 and self.inner is not None:
            lines[number] = self.inner(lines[number], others, random)
        elif act < 0.8:
            parts = lines[number].split(b" ")
            place = random.randrange(len(parts))
            parts[place : place + random.randrange(2)] = [
                random.choice((*self.words, parts[place] * 2, b"", b"\t"))
            ]
            lines[number] = b" ".join(parts)
        else:
            return Bytes(self.words)(data, others, random)
        return self.end.join(lines)


@dataclass(frozen=True)
class Tar:
    """An archive: members moved, renamed, resized, duplicated, with valid checksums."""

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change one member, or sometimes the bytes."""
        try:
            found = records(data)
        except (ValueError, IndexError, UnicodeDecodeError):
            found = []
        if not found or random.random() < 0.3:
            return Bytes((bytes(512), b"ustar\x0000", b"0000644\0"))(data, others, random)
        number = random.randrange(len(found))
        one = found[number]
        act = random.randrange(8)
        if act == 0:
            found.insert(random.randrange(len(found) + 1), one)
        elif act == 1:
            del found[number]
        elif act == 2:
            random.shuffle(found)
        elif act == 3:
            found[number] = one.changed(156, random.choice(b"012345LKxgSX\0").to_bytes(1, "big"))
        elif act == 4:
            size = random.choice((*NUMBERS, len(one.data) + random.choice((-1, 1))))
            found[number] = one.changed(124, b"%011o\0" % (size % 8**11))
        elif act == 5:
            name = Bytes((b"../", b"/", b"\0", b"content/", b"manifest.sig"))(
                one.header[:100].rstrip(b"\0"), others, random
            )
            found[number] = one.changed(0, name[:100].ljust(100, b"\0"))
        elif act == 6:
            found[number] = Record(one.header, Bytes()(one.data, others, random))
        else:
            place = random.randrange(100, 512)
            found[number] = one.changed(place, bytes([random.randrange(256)]))
        return join(found, random.choice((bytes(1024), bytes(1024), b"", bytes(512), b"x" * 512)))


@dataclass(frozen=True)
class Armour:
    """An OpenSSH signature whose binary fields change inside valid armour."""

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change the body, or sometimes the text around it."""
        if random.random() < 0.8:
            try:
                body = base64.b64decode(b"".join(data.splitlines()[1:-1]))
            except ValueError:
                body = b"SSHSIG\0\0\0\1"
            return sshsig.armour(Bytes((b"SSHSIG", b"\0\0\0\1", b"ssh-ed25519"))(body, (), random))
        return Lines()(data, others, random)


@dataclass(frozen=True)
class Gzip:
    """A gzip stream whose content changes and is compressed again."""

    inner: Form

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change the content, or sometimes the stream."""
        try:
            plain = gzip.decompress(data) if random.random() < 0.6 else None
        except (OSError, EOFError, ValueError, zlib.error):
            plain = None
        if plain is None or len(plain) > 1 << 20:
            return Bytes()(data, others, random)
        return gzip.compress(self.inner(plain, (), random), 1, mtime=0)


#: The separator of files in an input that holds several.
SEAM = b"\n--8<--\n"


@dataclass(frozen=True)
class Files:
    """Several files in one input, each with its own form."""

    forms: Sequence[Form]

    def __call__(self, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
        """Change one of the files, or replace it with another one."""
        files = data.split(SEAM)
        number = random.randrange(len(files))
        if random.random() < 0.1:
            files[number] = random.choice(files)
        else:
            form = self.forms[min(number, len(self.forms) - 1)]
            files[number] = form(files[number], (), random)
        return SEAM.join(files)


def mutated(form: Form, data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Change an input in one to four places."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = form(data, others, random)
    return data

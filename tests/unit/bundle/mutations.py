"""Apply attack recipes from `corpus/*.json` to any bundle.

A recipe is {name, steps, kind, words}; a step is [operation, arguments...]. Bytes are written in
JSON as latin-1 texts. A member is named by its path, the beginning of its path, or its number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundle.format import tar
from bundle.trust import sshsig
from tests.unit.bundle.bundlekit import Keys, Record, join, records

CORPUS = Path(__file__).parent / "corpus"


def load(name: str) -> dict[str, dict[str, Any]]:
    """Return the recipes of a file by name."""
    found = json.loads((CORPUS / f"{name}.json").read_text(encoding="ascii"))
    return {recipe["name"]: recipe for recipe in found}


class Attack:
    """A bundle under change: members, end mark, and changes to the file as a whole."""

    def __init__(self, raw: bytes, keys: Keys) -> None:
        self.parts = records(raw)
        self.end = bytes(1024)
        self.keys = keys
        self.last: list[Callable[[bytes], bytes]] = []

    def made(self) -> bytes:
        raw = join(self.parts, self.end)
        for change in self.last:
            raw = change(raw)
        return raw

    def index(self, member: str | int) -> int:
        if isinstance(member, int):
            return range(len(self.parts))[member]
        return next(i for i, part in enumerate(self.parts) if part.name.startswith(member))

    # The methods below are the operations that recipes name.
    def header(self, member: str | int, offset: int, text: str) -> None:
        """Replace header bytes and correct the checksum."""
        at = self.index(member)
        self.parts[at] = self.parts[at].changed(offset, text.encode("latin-1"))

    def header_only(self, member: str | int, offset: int, text: str) -> None:
        """Replace header bytes and keep the old checksum."""
        at, new = self.index(member), text.encode("latin-1")
        head = self.parts[at].header
        head = head[:offset] + new + head[offset + len(new) :]
        self.parts[at] = Record(head, self.parts[at].data)

    def data(self, member: str | int, offset: int, text: str) -> None:
        """Replace bytes in the data or, at the end, in the gap behind it."""
        at, new = self.index(member), text.encode("latin-1")
        data = bytearray(self.parts[at].data)
        start = range(len(data))[offset]
        assert data[start : start + len(new)] != new
        data[start : start + len(new)] = new
        self.parts[at] = Record(self.parts[at].header, bytes(data))

    def content(self, member: str | int, text: str, times: int = 1) -> None:
        """Replace the content, with matching header and padding."""
        at, new = self.index(member), text.encode("latin-1") * times
        padded = new + bytes(tar.padding(len(new)))
        self.parts[at] = Record(tar.header(self.parts[at].name, len(new)), padded)

    def insert(self, at: int, path: str, text: str = "") -> None:
        new = text.encode("latin-1")
        padded = new + bytes(tar.padding(len(new)))
        self.parts.insert(at, Record(tar.header(path, len(new)), padded))

    def repeat(self, member: str | int, at: int) -> None:
        self.parts.insert(at, self.parts[self.index(member)])

    def remove(self, member: str | int) -> None:
        del self.parts[self.index(member)]

    def swap(self, one: str | int, other: str | int) -> None:
        a, b = self.index(one), self.index(other)
        self.parts[a], self.parts[b] = self.parts[b], self.parts[a]

    def end_mark(self, length: int) -> None:
        self.end = bytes(length)

    def append(self, text: str, times: int = 1) -> None:
        self.last.append(lambda raw: raw + text.encode("latin-1") * times)

    def prepend(self, text: str, times: int = 1) -> None:
        self.last.append(lambda raw: text.encode("latin-1") * times + raw)

    def cut(self, length: int) -> None:
        """Keep the first bytes, or with a negative length remove the last ones."""
        self.last.append(lambda raw: raw[:length])

    def manifest(self, old: str, *new: str | list[Any]) -> None:
        """Replace a text in the manifest and sign it with the right key; [text, 9] repeats text."""
        at = self.index("manifest.json")
        size = int(self.parts[at].header[124:135], 8)
        before = self.parts[at].data[:size].decode("latin-1")
        assert old in before
        self.manifest_text(before.replace(old, _joined(new), 1))

    def manifest_text(self, *text: str | list[Any]) -> None:
        """Replace the manifest and sign it with the right key."""
        self.content("manifest.json", _joined(text))
        self.sign("release")

    def sign(self, key: str, namespace: str = sshsig.NAMESPACE, number: int = 1) -> None:
        """Replace the signature, or add one, by another key or for another purpose."""
        at = self.index("manifest.json")
        size = int(self.parts[at].header[124:135], 8)
        raw = sshsig.sign(
            self.parts[at].data[:size], self.keys.key(key), namespace=namespace
        ).decode()
        if number == 1:
            self.content("manifest.sig", raw)
        else:
            self.insert(number, f"manifest.sig.{number}", raw)

    def sign_other(self, text: str) -> None:
        """Replace the signature by a valid one of the right key over other text."""
        raw = sshsig.sign(text.encode("latin-1"), self.keys.key())
        self.content("manifest.sig", raw.decode())


def _joined(texts: tuple[str | list[Any], ...]) -> str:
    return "".join(text if isinstance(text, str) else text[0] * text[1] for text in texts)


def apply(recipe: dict[str, Any], raw: bytes, keys: Keys) -> bytes:
    """Return the bundle after a recipe's steps."""
    attack = Attack(raw, keys)
    for operation, *arguments in recipe["steps"]:
        getattr(attack, operation)(*arguments)
    return attack.made()

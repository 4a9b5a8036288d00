"""Signed manifests with errors, by the vendor's mistake or with a stolen key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.errors import Kind
from tests.unit.bundle.bundlekit import Keys, Recipe, check, refused, sha


def _member(index: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["members"][index].update(changes)


def _same_member_twice(data: dict[str, Any]) -> None:
    data["members"].append(data["members"][2])


def _file_and_folder(data: dict[str, Any]) -> None:
    data["members"].append({"path": "content/ansible.cfg/x", "size": 0, "sha256": sha(b"")})


def _drop_layer(data: dict[str, Any]) -> None:
    digest = data["components"]["app"]["layers"][0]["digest"].removeprefix("sha256:")
    data["members"] = [m for m in data["members"] if m["sha256"] != digest]


BAD_MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown key": (lambda d: d.update(extra=1), "unknown key 'extra'"),
    "missing key": (lambda d: d.pop("serial"), "lacks the key 'serial'"),
    "unknown key inside": (_member(3, mode="0755"), "unknown key 'mode'"),
    "newer format": (lambda d: d.update(format=2), "newer than this verifier"),
    "format as truth value": (lambda d: d.update(format=True), "whole number"),
    "other product": (lambda d: d.update(product="zeppelin"), "not allowed"),
    "bad version": (lambda d: d.update(version="1.0"), "version"),
    "serial zero": (lambda d: d.update(serial=0), "out of bounds"),
    "serial as text": (lambda d: d.update(serial="1"), "whole number"),
    "serial as float": (lambda d: d.update(serial=1.0), "whole number"),
    "absolute path": (_member(3, path="/etc/passwd"), "not allowed"),
    "climbing path": (_member(3, path="content/../../x"), "not allowed"),
    "dot segment": (_member(3, path="content/./x"), "not allowed"),
    "hidden file": (_member(3, path="content/.ssh"), "not allowed"),
    "option as name": (_member(3, path="content/--rsh"), "not allowed"),
    "backslash": (_member(3, path="content/a\\b"), "not allowed"),
    "newline in a path": (_member(3, path="content/a\n"), "not allowed"),
    "empty segment": (_member(3, path="content//x"), "not allowed"),
    "folder as path": (_member(3, path="content/x/"), "not allowed"),
    "path not ASCII": (_member(3, path="content/ä"), "not allowed"),
    "path too long": (_member(3, path="content/" + "a" * 250), "not allowed"),
    "path that ustar cannot hold": (_member(3, path="content/" + "a" * 120), "too long"),
    "outside the known folders": (_member(3, path="sites/x"), "outside"),
    "a name of the release's own": (_member(3, path="content/venv/bin/python"), "Airlift reserves"),
    "a manifest in the content": (_member(3, path="content/manifest.json"), "Airlift reserves"),
    "negative size": (_member(3, size=-1), "out of bounds"),
    "giant size": (_member(3, size=2**40), "out of bounds"),
    "hash in capitals": (_member(3, sha256="A" * 64), "not allowed"),
    "listed twice": (_same_member_twice, "twice"),
    "file and folder": (_file_and_folder, "as a file and as a folder"),
    "blob under another name": (_member(-1, path="blobs/sha256/" + "0" * 64), "not its SHA-256"),
    "layer not in the bundle": (_drop_layer, "which the image of app needs"),
    "two sizes for a layer": (
        lambda d: d["components"]["app"]["layers"][0].update(size=7),
        "two sizes",
    ),
    "layers without diff_ids": (
        lambda d: d["components"]["app"]["diff_ids"].pop(),
        "number of layers",
    ),
    "present and absent": (lambda d: d["absent"].update(app={"reason": "x"}), "as absent"),
    "schema upside down": (lambda d: d["schema"].update(lowest_compatible=2), "schema"),
    "verifier not first": (lambda d: d["members"].reverse(), "first"),
    "no verifier": (lambda d: d["members"].pop(0), "no verify.pyz"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests_are_refused_though_signed(
    name: str, craft: Callable[[Recipe], Path], keys: Keys
) -> None:
    edit, phrase = BAD_MANIFESTS[name]
    error = refused(craft(Recipe(edit=edit)), keys.trust())
    assert (error.kind, phrase in error.what) == (Kind.MANIFEST, True), str(error)


def _left_out(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["left_out"][0].update(changes)


def _base(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["bases"][0].update(changes)


def _more_bases(*versions_and_serials: tuple[str, int]) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        named = data["bases"][0]
        more = [named | {"version": v, "serial": n} for v, n in versions_and_serials]
        data["bases"] = [*more, named]

    return edit


def _leave_a_playbook_out(data: dict[str, Any]) -> None:
    member = next(m for m in data["members"] if m["path"].endswith("install.yml"))
    data["members"].remove(member)
    data["left_out"].append({**member, "base": "1.0.0"})


def _leave_out_what_is_carried(data: dict[str, Any]) -> None:
    data["left_out"].append({**data["members"][-1], "base": "1.0.0"})


def _leave_out_what_nobody_needs(data: dict[str, Any]) -> None:
    path = "blobs/sha256/" + "0" * 64
    data["left_out"].append({"path": path, "sha256": "0" * 64, "size": 1, "base": "1.0.0"})


def _leave_out_below_a_file(data: dict[str, Any]) -> None:
    rows = [{"path": path, "sha256": sha(b""), "size": 0} for path in ("wheels/x", "wheels/x/y")]
    data["left_out"] += [{**row, "base": "1.0.0"} for row in rows]


BAD_DELTAS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a blob neither carried nor left out": (
        lambda d: d["left_out"].clear() or d["bases"].clear(),
        "which the image of app needs",
    ),
    "no bases": (lambda d: d["bases"].clear(), "names no base that has it"),
    "another base": (_left_out(base="0.9.0"), "names no base that has it"),
    "nothing left out": (lambda d: d["left_out"].clear(), "omits none of its members"),
    "carried and left out": (_leave_out_what_is_carried, "lists and omits"),
    "left out twice": (lambda d: d["left_out"].append(d["left_out"][0]), "omits it twice"),
    "left out and not needed": (_leave_out_what_nobody_needs, "which no image needs"),
    "a playbook left out": (_leave_a_playbook_out, "which every bundle must carry"),
    "the verifier left out": (_left_out(path="verify.pyz"), "which every bundle must carry"),
    "left out under another name": (_left_out(sha256="0" * 64), "not the blob's SHA-256"),
    "a climbing file left out": (_left_out(path="wheels/../x"), "not allowed"),
    "a file left out below a file": (_leave_out_below_a_file, "and as a folder"),
    "a wheel left out with a long name": (_left_out(path="wheels/" + "a" * 120), "too long"),
    "another size": (
        lambda d: [b.update(size=b["size"] + 1) for b in d["left_out"]],
        "two sizes for the blob",
    ),
    "unknown key": (_left_out(mode=1), "unknown key 'mode'"),
    "a base as new as the release": (_base(serial=2), "must be older"),
    "a base newer than the release": (_base(serial=3), "must be older"),
    "a base of the same version": (_base(version="1.1.0"), "its own version"),
    "bases out of order": (_more_bases(("0.9.0", 1)), "newest first"),
    "one serial twice": (_more_bases(("1.0.1", 1)), "each listed once"),
    "a base without use": (
        lambda d: d.update(serial=9) or _more_bases(("1.0.5", 5))(d),
        "names the base 1.0.5",
    ),
    "one version twice": (
        lambda d: d.update(serial=9) or _more_bases(("1.0.0", 5))(d),
        "one version to two",
    ),
}


def test_a_good_delta_is_accepted(craft: Callable[[Recipe], Path], keys: Keys) -> None:
    """Negative control for the table below."""
    delta = check(craft(_delta()), keys.trust()).manifest
    assert len(delta.left_out) == 4


def _delta(edit: Callable[[dict[str, Any]], Any] | None = None) -> Recipe:
    return Recipe("1.1.0", 2, app_layer=b"new", since=Recipe(), edit=edit)


@pytest.mark.parametrize("name", BAD_DELTAS)
def test_bad_deltas_are_refused_though_signed(
    name: str, craft: Callable[[Recipe], Path], keys: Keys
) -> None:
    edit, phrase = BAD_DELTAS[name]
    error = refused(craft(_delta(edit)), keys.trust())
    assert (error.kind, phrase in error.what) == (Kind.MANIFEST, True), str(error)


@pytest.mark.parametrize(
    ("edit", "phrase"),
    [
        (lambda raw: raw.replace(b'"serial": 1', b'"serial": 1,\n "serial": 1', 1), "twice"),
        (lambda raw: raw.replace(b"\n ", b"\n  "), "canonical"),
        (lambda raw: raw + b"\n", "canonical"),
        (lambda raw: b"\xef\xbb\xbf" + raw, "not JSON"),
        (lambda raw: raw.replace(b'"serial": 1', b'"serial": NaN', 1), "whole number"),
        (lambda _: b"[" * 100_000, "not JSON"),
        (lambda _: b"[]\n", "not a JSON object"),
        (lambda _: b"{}\n", "lacks the key"),
    ],
)
def test_only_the_canonical_form_is_read(
    edit: Callable[[bytes], bytes], phrase: str, craft: Callable[[Recipe], Path], keys: Keys
) -> None:
    error = refused(craft(Recipe(edit_raw=edit)), keys.trust())
    assert (error.kind, phrase in error.what) == (Kind.MANIFEST, True), str(error)


def test_the_manifest_is_not_parsed_before_its_signature_is_good(
    craft: Callable[[Recipe], Path], keys: Keys
) -> None:
    path = craft(Recipe(edit_raw=lambda _: b"[" * 100_000, keys=("stranger",)))
    assert refused(path, keys.trust()).kind is Kind.UNKNOWN_SIGNER

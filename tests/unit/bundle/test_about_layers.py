"""The files of an image over all its layers: overwritten, removed, linked, in every compression."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.builder.about import layer_files
from bundle.builder.about.layer_files import Files
from bundle.builder.problems import Problem
from tests.unit.bundle.aboutkit import Link, Tree, lay_out, layer

STATUS = "var/lib/dpkg/status"
DOC = "usr/share/doc"


def merged(folder: Path, *trees: Tree, compression: str = "zstd") -> Files:
    layers = [layer(tree, compression) for tree in trees]
    component = lay_out(folder, {"x": layers})["x"]
    return layer_files.of_image(folder, [one["digest"] for one in component["layers"]])


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_later_layers_win_in_every_packing(tmp_path: Path, compression: str) -> None:
    files = merged(
        tmp_path,
        {STATUS: "old", "bin/sh": "#!"},
        {f"./{STATUS}": "new"},
        {"bin/sh": "other"},
        compression=compression,
    )
    assert files.texts == {STATUS: "new"}


def test_whiteouts_remove_files_and_folders_of_lower_layers_only(tmp_path: Path) -> None:
    files = merged(
        tmp_path,
        {f"{DOC}/{name}/copyright": name for name in ("a", "b", "c")} | {STATUS: "x"},
        {
            # The same layer replaces the file that it removes.
            f"{DOC}/.wh.a": "",
            f"{DOC}/b/.wh.copyright": "",
            f"{DOC}/b2/copyright": "b2",
            "var/lib/dpkg/.wh..wh..opq": "",
            "var/lib/dpkg/status.d/tzdata": "kept",
        },
    )
    assert files.texts == {
        f"{DOC}/c/copyright": "c",
        f"{DOC}/b2/copyright": "b2",
        "var/lib/dpkg/status.d/tzdata": "kept",
    }


def test_an_opaque_folder_hides_what_was_below_it(tmp_path: Path) -> None:
    files = merged(
        tmp_path,
        {"opt/venv/x-1.dist-info/METADATA": "old", "opt/other/y-1.dist-info/METADATA": "y"},
        {"opt/venv/x-2.dist-info/METADATA": "new", "opt/venv/.wh..wh..opq": ""},
    )
    assert set(files.texts.values()) == {"new", "y"}


def test_a_file_or_link_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    base: Tree = {
        "opt/a/x-1.dist-info/METADATA": "gone",
        "opt/b/x-1.dist-info/METADATA": "gone too",
        "opt/c/x-1.dist-info/METADATA": "stays",
    }
    files = merged(tmp_path, base, {"opt/a": "now a file", "opt/b": Link("c")})
    assert set(files.texts.values()) == {"stays"}


def test_links_are_followed_and_nothing_leads_out(tmp_path: Path) -> None:
    files = merged(
        tmp_path,
        {
            f"{DOC}/libgcc-s1": Link("gcc-14-base"),
            f"{DOC}/gcc-14-base/copyright": "gcc",
            f"{DOC}/hard/copyright": Link(f"{DOC}/gcc-14-base/copyright", hard=True),
            f"{DOC}/out/copyright": Link("../../../../../../../../etc/passwd"),
            f"{DOC}/loop/copyright": Link("copyright"),
            "etc/os-release": Link("../usr/lib/os-release"),
            "etc/absolute/copyright": Link("/usr/lib/os-release"),
            "usr/lib/os-release": "ID=x",
        },
    )
    assert files.read(f"{DOC}/libgcc-s1/copyright") == "gcc"
    assert files.read(f"{DOC}/hard/copyright") == "gcc"
    assert files.read("etc/os-release") == "ID=x"
    assert files.read("etc/absolute/copyright") == "ID=x"
    assert files.read(f"{DOC}/out/copyright") is None
    assert files.read(f"{DOC}/loop/copyright") is None


def test_a_folder_takes_the_place_of_a_link(tmp_path: Path) -> None:
    files = merged(
        tmp_path,
        {f"{DOC}/a": Link("b"), f"{DOC}/b/copyright": "of b"},
        {f"{DOC}/a/copyright": "its own"},
    )
    assert files.read(f"{DOC}/a/copyright") == "its own"
    assert files.read(f"{DOC}/b/copyright") == "of b"


def test_old_texts_are_latin_1(tmp_path: Path) -> None:
    files = merged(tmp_path, {f"{DOC}/a/copyright": "Müller".encode("latin-1")})
    assert files.read(f"{DOC}/a/copyright") == "Müller"


def test_a_layer_is_read_once_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    good = layer({STATUS: "only here: the test of the cache"})
    component = lay_out(tmp_path, {"x": [good]})["x"]
    digests = [one["digest"] for one in component["layers"]]
    blob = tmp_path / "blobs" / "sha256" / digests[0].removeprefix("sha256:")
    assert layer_files.of_image(tmp_path, digests).texts
    blob.unlink()
    assert layer_files.of_image(tmp_path, digests).texts
    for bad in (good[: len(good) // 2], b"no tar at all" * 99, b"\x28\xb5\x2f\xfd" + bytes(99)):
        path = tmp_path / "bad"
        path.write_bytes(bad)
        with pytest.raises(Problem, match="cannot be read"):
            layer_files.read(path)

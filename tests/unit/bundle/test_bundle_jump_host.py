"""A damaged or hostile jump host: no file on it is trusted without a check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import cache
from bundle.cli.main import main
from bundle.core.files import write_atomic
from bundle.errors import AirliftError, Kind
from bundle.jumphost import importer, installed
from bundle.jumphost.kept_trust import required_signers
from bundle.jumphost.store import Home
from bundle.trust import custody
from bundle.trust.sshsig import Trust
from bundle.verify import checks
from tests.unit.bundle import stranger
from tests.unit.bundle.bundlekit import IDENTITY, TREE, Keys, Recipe, refused, run_import, sha

Craft = Callable[[Recipe], Path]


@pytest.fixture(autouse=True)
def _quick(quick: None) -> None:
    """Skip environments, which are not tested here."""


def failed(action: Callable[[], object]) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        action()
    assert caught.value.fix
    return caught.value


# ------------------------------------------------------------------ files on a USB drive
def test_no_file_is_written_through_a_link(
    small: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    bundle = tmp_path / small.name
    bundle.write_bytes(small.read_bytes())
    log = bundle.with_name(bundle.name + custody.SUFFIX)
    log.with_name(log.name + ".part").symlink_to(victim)
    command = ["verify", str(bundle), "--allowed-signers", str(keys.signers())]
    assert main([*command, "--home", str(home.root), "--who", "Bob"]) == 0
    assert victim.read_text() == "precious"
    assert log.is_file()
    assert not log.is_symlink()


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "page", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


HALF = """
import sys, time
from pathlib import Path
from bundle.core import files
def wait(fd):
    print("half", flush=True)
    time.sleep(60)
files.os.fsync = wait
files.write_atomic(Path(sys.argv[1]), b"of the other")
"""


def test_a_writer_removes_what_a_killed_one_left_and_nothing_of_a_running_one(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page"
    page.write_bytes(b"old")
    words = [sys.executable, "-c", HALF, str(page)]
    with subprocess.Popen(words, cwd=TREE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"half\n"
        (half,) = set(tmp_path.iterdir()) - {page}
        write_atomic(page, b"new")
        assert page.read_bytes() == b"new"
        assert half.exists(), "its writer is still running"
        other.kill()
    write_atomic(tmp_path / "pages", b"x")
    assert half.exists(), "it belongs to another file"
    write_atomic(page, b"newer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "pages"]
    assert page.stat().st_mode == (tmp_path / "pages").stat().st_mode


def test_the_umask_decides_who_reads_a_written_file(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            write_atomic(tmp_path / "page", b"x")
            cache.write(tmp_path / "note", b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "page").stat().st_mode & 0o777 == mode
        assert (tmp_path / "note").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("size", ["77777777777\0", "777777777777", "-0000000001\0"])
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
def test_sizes_that_cannot_be(
    name: str, size: str, small: Path, keys: Keys, tmp_path: Path
) -> None:
    raw = bytearray(small.read_bytes())
    at = next(i for i in range(0, len(raw), 512) if raw[i : i + 100].rstrip(b"\0") == name.encode())
    raw[at + 124 : at + 136] = size.encode()
    block = raw[at : at + 512]
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    raw[at + 148 : at + 156] = b"%06o\0 " % total
    bad = tmp_path / "bad.tar"
    bad.write_bytes(raw)
    assert refused(bad, keys.trust()).kind is Kind.STRUCTURE


@pytest.mark.parametrize("name", ["f.tar", "f.tar.parts"])
def test_a_pipe_is_not_waited_for(name: str, keys: Keys, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    error = refused(tmp_path / name, keys.trust())
    assert error.kind in (Kind.UNREADABLE, Kind.PART)
    assert "regular file" in error.what


def test_a_folder_with_an_endless_manifest(keys: Keys, home: Home, tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as out:
        out.truncate(3 << 30)
    (tmp_path / "manifest.sig").write_text("x")
    error = failed(lambda: installed.check(tmp_path, trust=keys.trust(), home=home))
    assert error.kind is Kind.UNREADABLE
    assert "more than the" in error.what


def test_what_a_stranger_signs_for_something_else_counts_for_nothing(
    craft: Craft, keys: Keys
) -> None:
    both = craft(Recipe(keys=("release", "stranger")))
    with checks.opened(both, trust=keys.trust(), home=None) as bundle:
        assert bundle.verdict is not None
        assert len(bundle.verdict.ignored) == 1


# ------------------------------------------------------------------ trusted lists
def test_what_another_import_asks_for_meanwhile_counts(
    craft: Craft, keys: Keys, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both change after the bundle is authenticated and before the import has the lock."""
    lists = keys.line(), keys.line("second", identity="security@airlift.example")
    stricter = craft(Recipe("1.1.0", 2, keys=("release", "second")))
    late = craft(Recipe("1.2.0", 3))
    run_import(craft(Recipe()), keys.trust(), home)
    real = importer._check_base

    def meanwhile(*arguments: object) -> None:
        monkeypatch.setattr(importer, "_check_base", real)
        run_import(stricter, keys.trust(*lists, required=2), home)

    monkeypatch.setattr(importer, "_check_base", meanwhile)
    trust = Trust(home.trust / "allowed_signers")
    assert failed(lambda: run_import(late, trust, home)).kind is Kind.TOO_FEW_SIGNERS
    assert required_signers(home) == 2
    assert (home.trust / "allowed_signers").read_text() == "".join(lists)
    assert str(home.current.readlink()) == "releases/1.1.0"


def test_what_is_asked_for_again_is_kept(craft: Craft, keys: Keys, home: Home) -> None:
    """The bundle itself was imported before."""
    lists = keys.line(), keys.line("second", identity="security@airlift.example")
    both = craft(Recipe(keys=("release", "second")))
    run_import(both, keys.trust(*lists), home)
    assert run_import(both, keys.trust(*lists, required=2), home).already
    assert required_signers(home) == 2


@pytest.mark.parametrize("name", ["required_signers", "revoked", "allowed_signers"])
def test_a_list_that_leads_nowhere_is_no_missing_list(
    name: str, small: Path, keys: Keys, home: Home
) -> None:
    run_import(small, keys.trust(), home)
    (home.trust / name).unlink(missing_ok=True)
    (home.trust / name).symlink_to("nowhere")
    code = main(["verify", str(small), "--home", str(home.root)])
    assert code in (Kind.SIGNERS_FILE.exit_code, Kind.HOME.exit_code)


def test_lost_records_are_not_a_new_jump_host(craft: Craft, keys: Keys, home: Home) -> None:
    old = craft(Recipe())
    run_import(craft(Recipe("1.1.0", 2)), keys.trust(), home)
    shutil.rmtree(home.accepted)
    error = failed(lambda: run_import(old, keys.trust(), home))
    assert (error.kind, error.where) == (Kind.HOME, str(home.accepted))


@pytest.mark.parametrize("month", ["01", "07"])
def test_keys_are_judged_at_the_right_hour_in_summer_too(
    month: str, small: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # Berlin's, in every C library
    time.tzset()
    try:
        dates = f'namespaces="airlift-bundle",valid-before="2026{month}01220000Z"'
        at = time.mktime((2026, int(month), 1, 21, 30, 0, 0, 0, 0)) - time.timezone
        trust = keys.trust(keys.line(options=dates), at=at)
        with checks.opened(small, trust=trust, home=None) as bundle:
            assert bundle.verdict is not None
        late = trust._replace(at=at + 3600)
        assert refused(small, late).kind is Kind.EXPIRED
    finally:
        monkeypatch.undo()
        time.tzset()


# ------------------------------------------------------------------ files in its directory
def test_the_release_to_go_back_to_can_be_repaired(
    craft: Craft, keys: Keys, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its accepted bundle restores it; one that was never accepted stays refused as older."""
    old = craft(Recipe(app_layer=b"its own"))
    run_import(old, keys.trust(), home)
    run_import(craft(Recipe("1.1.0", 3)), keys.trust(), home)
    (home.release("1.0.0") / "ansible.cfg").unlink()
    assert main(["import", str(old), "--home", str(home.root)]) == 0
    assert "1.1.0 stays current" in capsys.readouterr().out
    installed.check(home.release("1.0.0"), trust=keys.trust(), home=home)
    assert str(home.current.readlink()) == "releases/1.1.0"
    never = craft(Recipe("1.0.5", 2))
    assert failed(lambda: run_import(never, keys.trust(), home)).kind is Kind.OLDER


def test_a_member_that_is_named_like_an_unfinished_one(
    craft: Craft, keys: Keys, home: Home
) -> None:
    files = {"content/docs/x.part": b"part", "content/docs/x": b"whole"}
    run_import(craft(Recipe(files=files)), keys.trust(), home)
    assert (home.current / "docs" / "x.part").read_bytes() == b"part"
    installed.check(home.current, trust=keys.trust(), home=home)


def test_a_blob_that_is_a_link_is_brought_again(
    small: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    run_import(small, keys.trust(), home)
    blob = next(home.blobs.iterdir())
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    run_import(small, keys.trust(), home)
    assert not blob.is_symlink()
    installed.check(home.current, trust=keys.trust(), home=home)


def test_a_release_that_was_moved_away_only_comes_back(
    craft: Craft, keys: Keys, home: Home
) -> None:
    """An import was killed between its two renames, and a newer one followed."""
    run_import(craft(Recipe()), keys.trust(), home)
    home.release("1.0.0").rename(home.releases / ".replaced-1.0.0")
    run_import(craft(Recipe("1.1.0", 2)), keys.trust(), home)
    installed.check(home.release("1.0.0"), trust=keys.trust(), home=home)
    assert sorted(path.name for path in home.releases.iterdir()) == ["1.0.0", "1.1.0"]


def test_strange_things_among_what_is_incoming(
    small: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    home.create()
    (home.incoming / "file").write_text("x")
    (home.incoming / "link").symlink_to(tmp_path)
    run_import(small, keys.trust(), home)
    assert list(home.incoming.iterdir()) == []
    assert tmp_path.is_dir()


def test_one_release_in_the_place_of_another(craft: Craft, keys: Keys, home: Home) -> None:
    run_import(craft(Recipe()), keys.trust(), home)
    run_import(craft(Recipe("1.1.0", 2)), keys.trust(), home)
    shutil.rmtree(home.release("1.1.0"))
    shutil.copytree(home.release("1.0.0"), home.release("1.1.0"))
    error = failed(lambda: installed.check(home.current, trust=keys.trust(), home=home))
    assert (error.kind, "holds release 1.0.0" in error.what) == (Kind.RELEASE_ALTERED, True)


def test_releases_on_another_disk_are_refused_before_anything_is_accepted(
    small: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    other = Path("/dev/shm") / f"airlift-{os.getpid()}"  # noqa: S108 - another file system
    if not other.parent.is_dir() or other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    other.mkdir()
    try:
        home.releases.parent.mkdir(parents=True, exist_ok=True)
        home.releases.symlink_to(other)
        error = failed(lambda: run_import(small, keys.trust(), home))
        assert (error.kind, "file systems" in error.what) == (Kind.HOME, True)
        assert home.acceptances() == []
    finally:
        shutil.rmtree(other)


def test_a_blob_that_no_image_needs(craft: Craft, keys: Keys) -> None:
    """Nothing has measured how large this blob becomes on a host."""
    stray = b"stray"
    bundle = craft(Recipe(files={f"blobs/sha256/{sha(stray)}": stray}))
    error = refused(bundle, keys.trust())
    assert (error.kind, "no image needs" in error.what) == (Kind.MANIFEST, True)
    with pytest.raises(stranger.RefusedError, match="needless"):
        stranger.verify(str(bundle), str(keys.signers()), IDENTITY)

"""Errors of the operating system: the message names what failed and a matching fix."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.cli.main import main
from bundle.core import files
from bundle.core.failures import REMEDIES, doing, os_failure
from bundle.core.output import check_replaces, writes_to
from bundle.errors import AirliftError, Kind


def _loop(folder: Path) -> None:
    (folder / "a").symlink_to(folder / "a")
    (folder / "a").read_bytes()


def _rename_over(folder: Path) -> None:
    (folder / "full" / "x").mkdir(parents=True)
    (folder / "new").mkdir()
    (folder / "new").rename(folder / "full")


def _not_a_folder(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "file" / "x").mkdir()


def _onto_a_folder(folder: Path) -> None:
    (folder / "there").mkdir()
    files.write_atomic(folder / "there", b"x")


#: The operation, its error message, and a word of the fix.
REAL: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "read": (lambda d: files.sha256(d / "none"), "cannot read {}/none: No such file", "mounted"),
    "open": (lambda d: (d / "none").open(), "cannot open {}/none: No such file", "check the path"),
    "loop": (_loop, "cannot open {}/a: Too many levels", "name another path"),
    "make": (_not_a_folder, "cannot make {}/file/x: Not a directory", "name another path"),
    "again": (lambda d: d.mkdir(), "cannot make {}: File exists", "move it away"),
    "remove": (lambda d: (d / "none").unlink(), "cannot remove {}/none: No such", "check the path"),
    "list": (
        lambda d: list((d / "none").iterdir()),
        "cannot list {}/none: No such",
        "check the path",
    ),
    "rename": (_rename_over, "cannot rename {0}/new to {0}/full: Directory not empty", "in it"),
    "look": (lambda d: (d / ("x" * 300)).stat(), "cannot check {}/xxx", "name another path"),
    "write": (_onto_a_folder, "cannot write {}/there: Is a directory", "name another path"),
    "remove tree": (lambda d: shutil.rmtree(d / "none"), "cannot remove {}/none", "check the path"),
}


@pytest.mark.parametrize("name", REAL)
def test_the_sentence_says_what_was_done_to_which_file_and_what_helps(
    name: str, tmp_path: Path
) -> None:
    action, sentence, remedy = REAL[name]
    with pytest.raises(AirliftError) as caught, writes_to(Path("/somewhere/else")):
        action(tmp_path)
    error = caught.value
    assert error.what.startswith(sentence.format(tmp_path))
    assert remedy in error.fix
    assert str(tmp_path) in error.where
    assert error.kind is Kind.OUTPUT


def _refusal(number: int, done: str = "read") -> AirliftError:
    try:
        with doing(done, Path("/stick/file")):
            raise OSError(number, os.strerror(number))
    except OSError as error:
        return os_failure(error, Path("/stick"))


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_each_reason_has_its_own_remedy_and_no_failed_read_is_called_a_write(number: int) -> None:
    error = _refusal(number)
    assert error.what == f"cannot read /stick/file: {os.strerror(number)}"
    assert error.fix.endswith(", then run the same command again")
    assert "writ" not in error.what


def test_a_file_that_is_too_long_to_read_is_not_laid_to_fat32() -> None:
    assert "FAT32" in _refusal(errno.EFBIG, "write").fix
    assert "FAT32" not in _refusal(errno.EFBIG).fix


def test_a_full_disk_and_a_used_up_quota_are_told_apart() -> None:
    for number, words in ((errno.ENOSPC, "the disk ran full"), (errno.EDQUOT, "quota is used up")):
        error = _refusal(number, "write")
        assert error.kind is Kind.NO_SPACE
        assert words in error.what
        assert "cannot write /stick/file" in error.what


def test_what_is_inside_knows_better_what_was_done() -> None:
    with pytest.raises(AirliftError) as caught, writes_to(Path("/out")), doing("read", Path("/in")):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.what == "cannot read /in: Input/output error"
    assert "dmesg" in caught.value.fix


def test_an_error_of_an_open_file_is_of_what_was_worked_on() -> None:
    with pytest.raises(AirliftError) as caught, writes_to(Path("/out")):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.what == "cannot write /out: Input/output error"


def test_a_command_that_cannot_read_does_not_say_that_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(AirliftError) as caught:
        check_replaces(tmp_path / "there", b"x", "receipt")
    assert caught.value.what == f"cannot read {tmp_path}/there: Is a directory"

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            assert main(["prune", "--home", str(tmp_path)]) != 0
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert "cannot write" not in capsys.readouterr().err

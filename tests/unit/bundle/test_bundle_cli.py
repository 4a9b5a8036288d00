"""The command line as people and scripts run it: real processes, terminals, pipes and signals."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli import terminal
from bundle.cli.main import main, make_parser
from bundle.core.text import table
from bundle.errors import Kind
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import TREE, Keys, arguments

BUNDLE = [sys.executable, "-m", "bundle"]


def run(
    *words: str, env: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*BUNDLE, *words],
        cwd=TREE,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def on_a_terminal(*words: str, **env: str) -> str:
    """Return the output on a terminal of 80 columns."""
    master, slave = pty.openpty()
    os.set_inheritable(slave, True)
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **env}
    with subprocess.Popen(
        [*BUNDLE, *words], cwd=TREE, env=variables, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            shown += piece
        process.wait()
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


COMMANDS = sorted(make_parser().commands.choices)


def test_the_first_page_names_every_command_by_role() -> None:
    for text in (run(code=2).stdout, run("--help").stdout):
        listed = re.findall(r"^    ([a-z-]+)  ", text, re.MULTILINE)
        assert sorted(listed) == COMMANDS
        assert "courier" in text
        assert "operator" in text
        assert "release engineer" in text
        assert "Exit codes: 0 done" in text
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    text = run(command, "--help").stdout
    assert "--json" in text
    assert "exit-codes" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_and_what_a_default_is_for(command: str) -> None:
    for action in make_parser().commands.choices[command]._actions:
        assert action.help, action.dest
        assert not action.help.startswith("default"), action.dest


@pytest.mark.parametrize("command", ["verify", "inspect", "import", "build", "sign", "completion"])
def test_examples_are_commands_that_exist(command: str) -> None:
    """Each example parses: only its files are missing."""
    text = run(command, "--help").stdout.replace(" \\\n    ", " ").split("examples:\n")[1]
    lines = re.findall(r"^  python -m bundle (.*)$", text, re.MULTILINE)
    assert lines
    for line in lines:
        assert make_parser().parse_args(line.split(" > ")[0].split()).command == command


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["verfy", "x"], "did you mean 'verify'?"),
        (["zzz"], "there are verify"),
        (["verify"], "this is missing: bundle"),
        (["verify", "x", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["verify", "x", "--jso"], "unrecognized arguments: --jso"),
        (["verify", "x", "--require-signers", "0"], "not a number above 0"),
        (["build", "--source", "debain"], "did you mean 'debian'?"),
        (["serve", "--port", "99999"], "is not a port"),
        ([], ""),
    ],
)
def test_wrong_arguments(words: list[str], phrase: str) -> None:
    if words:
        assert phrase in run(*words, code=2).stderr
    done = run(*words, "--json", code=2)
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "usage"
    assert answer["error"]["exit_code"] == 2
    assert phrase in answer["error"]["what"]
    assert "--help" in answer["error"]["fix"]


@pytest.mark.parametrize("words", [["--nonsense"], ["--require-signers", "0"], []])
def test_wrong_arguments_show_the_usage_of_the_command_that_was_typed(words: list[str]) -> None:
    shown = run("verify", *words, *(["x"] if words else []), code=2).stderr.splitlines()
    assert shown[0].startswith("python -m bundle verify: ")
    assert shown[1].startswith("  usage: python -m bundle verify [-h]")
    assert shown[2] == "  fix:   python -m bundle verify --help"


def test_only_what_was_handed_in_is_refused(
    small: Path, keys: Keys, home: Home, tmp_path: Path
) -> None:
    """A missing list or file is no rejected bundle."""
    bad = ["verify", str(small), "--allowed-signers", str(keys.signers(keys.line("stranger")))]
    at_home = ["--home", str(home.root)]
    assert "bundle verify: REFUSED: " in run(*bad, *at_home, code=21).stderr
    for words, kind in (
        (["verify", str(small)], Kind.SIGNERS_FILE),
        ([*bad[:3], str(tmp_path / "none")], Kind.SIGNERS_FILE),
        (["inspect", str(tmp_path / "none.tar")], Kind.UNREADABLE),
    ):
        assert "REFUSED" not in run(*words, *at_home, code=kind.exit_code).stderr


def test_exit_codes_are_listed() -> None:
    listed = json.loads(run("exit-codes", "--json").stdout)["exit_codes"]
    assert [row["code"] for row in listed[2:]] == [kind.exit_code for kind in Kind]
    text = run("exit-codes").stdout
    assert all(kind.meaning in text for kind in Kind)
    lines = text.splitlines()
    assert re.match("CODE  NAME +MEANING$", lines[0])
    assert [line[:4] for line in lines[1:4]] == ["   0", "   1", "   2"]


def test_a_table_aligns_numbers_and_folds_its_last_column() -> None:
    rows = [("app", "9.5 MB", "7", "one two three"), ("redis", "12.0 MB", "120", "four")]
    assert table(rows, ["image", "size", "uses", "note"], 34).splitlines() == [
        "IMAGE     SIZE  USES  NOTE",
        "app     9.5 MB     7  one two three",
        "redis  12.0 MB   120  four",
    ]
    long = [("app", " ".join(["word"] * 20))]
    folded = table(long, ["image", "note"], 60).splitlines()
    assert max(map(len, folded)) <= 60
    assert folded[2].startswith("       word")
    assert table([("a", "1"), ("bc", "10")]) == "a   1\nbc  10"


def loaded(*words: str) -> set[str]:
    """Return the modules that a command has loaded at its end."""
    code = "import atexit, sys\nfrom bundle.cli.main import main\n"
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_a_command_loads_what_it_needs(small: Path, keys: Keys, home: Home) -> None:
    """Loading modules takes a good part of a verification's time."""
    needed = {"bundle.cli", "bundle.core", "bundle.errors", "bundle.core.text"}
    needed |= {f"bundle.cli.{name}" for name in ("answer", "catalog", "main", "parser", "terminal")}
    page = loaded("--help")
    assert {name for name in page if name.startswith("bundle.")} == needed
    needed |= {"bundle.cli.options", "bundle.cli.verify"}
    needed |= {f"bundle.core.{name}" for name in ("events", "failures", "files", "schema")}
    needed |= {
        "bundle.jumphost",
        "bundle.jumphost.kept_trust",
        "bundle.jumphost.store",
        "bundle.review",
        "bundle.review.inspect",
    }
    for folder, names in {
        "format": ("delta", "layer_size", "manifest", "parts", "tar"),
        "trust": ("allowed_signers", "sshkeygen", "sshsig"),
        "verify": ("checks",),
    }.items():
        needed |= {f"bundle.{folder}", *(f"bundle.{folder}.{name}" for name in names)}
    checked = loaded(*arguments("verify", small, keys, home))
    assert {name for name in checked if name.startswith("bundle.")} == needed
    # It takes ten times as long as named tuples, and loads `inspect`.
    assert "dataclasses" not in page | checked


def test_a_reader_that_closes_its_pipe(small: Path) -> None:
    """The command's own exit code stays, because scripts rely on it."""
    for words, code in (
        (f"inspect {small} --json", 0),
        ("--help", 0),
        ("exit-codes", 0),
        ("verify /dev/null --home /nonexistent 2>&1", Kind.SIGNERS_FILE.exit_code),
    ):
        script = f"{sys.executable} -m bundle {words} | (exec <&-)"
        command = ["bash", "-c", f"{script}; echo ${{PIPESTATUS[0]}}"]
        done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (f"{code}\n", ""), words


def test_an_answer_that_cannot_be_written(small: Path) -> None:
    """Otherwise a caller that reads only the exit code would take it for success."""
    for option in ([], ["--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*BUNDLE, "inspect", str(small), *option],
                cwd=TREE,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == Kind.OUTPUT.exit_code
        assert done.stderr.splitlines() == [
            "python -m bundle inspect: the answer cannot be written: No space left on device"
        ]


@pytest.mark.parametrize(
    "closed", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "--json >/dev/full"]
)
def test_streams_that_are_closed_or_full(closed: str, small: Path, keys: Keys, home: Home) -> None:
    """The exit code reports it, and no other file takes the stream's descriptor."""
    good = " ".join(arguments("verify", small, keys, home))
    bad = f"verify {small} --allowed-signers {keys.signers(keys.line('stranger'))}"
    full = Kind.OUTPUT.exit_code if closed.startswith("--json") else 0
    for words, code in ((good, full), (bad, Kind.UNKNOWN_SIGNER.exit_code)):
        command = ["bash", "-c", f"{sys.executable} -m bundle {words} {closed}"]
        done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_ends_an_import_cleanly(
    number: signal.Signals, full: build.Built, keys: Keys, home: Home
) -> None:
    words = [*arguments("import", full.path, keys, home), "--json"]
    # Tests in a shell's background, or under nohup, ignore some signals.
    command = ["env", "--default-signal", *BUNDLE, *words]
    with subprocess.Popen(
        command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("virtual environment" in line for line in process.stderr)
        process.send_signal(number)
        said, answer = process.stderr.read(), json.loads(process.stdout.read())
    assert process.returncode == Kind.INTERRUPTED.exit_code, said
    assert answer["error"]["kind"] == "interrupted"
    assert said.splitlines()[0].endswith("interrupted; nothing that is incomplete is used")
    assert "Traceback" not in said
    assert not home.current.exists()
    if number == signal.SIGTERM:
        assert run(*words).returncode == 0, "the same command finishes; after any signal alike"


def test_colours_are_for_terminals_that_want_them(small: Path, keys: Keys, home: Home) -> None:
    good = arguments("verify", small, keys, home)
    bad = ["verify", str(small), "--allowed-signers", str(keys.signers(keys.line("stranger")))]
    assert "\033[1;32mVALID\033[0m" in on_a_terminal(*good)
    assert "\033[1;31mREFUSED:\033[0m" in on_a_terminal(*bad)
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for words, phrase in ((good, "VALID: airlift 1.0.0"), (bad, "REFUSED: signed with")):
            shown = on_a_terminal(*words, **env)
            assert phrase in shown
            assert "\033[1;" not in shown
    assert "\033" not in run(*good).stdout


def test_verify_fits_a_terminal_and_tells_who_when_and_what(
    small: Path, keys: Keys, home: Home
) -> None:
    shown = on_a_terminal(*arguments("verify", small, keys, home), NO_COLOR="1")
    text = shown.split("\033[K")[-1]
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "signed by release@airlift.example key ssh-ed25519 SHA256:" in flat
    assert "always: this key has no dates in the list" in flat
    assert "2026-01-02T03:04:05Z from revision unknown, as the signers state" in flat
    assert re.search(r"validity keys checked at 20\S+Z, by this machine's clock", flat)
    assert "inside app 1.2.3, redis 1.2.3" in flat
    assert "absent grafana" in flat


def test_a_refusal_and_a_table_fit_a_terminal(small: Path, keys: Keys, home: Home) -> None:
    stranger = ["--allowed-signers", str(keys.signers(keys.line("stranger")))]
    shown = on_a_terminal("verify", str(small), *stranger, NO_COLOR="1")
    what, where = shown.split("\n  where: ")
    assert len(what.splitlines()) > 1
    assert max(map(len, what.splitlines())) <= 80
    assert len(where.split("\n  fix:   ")[0].splitlines()) == 1
    shown = on_a_terminal(*arguments("inspect", small, keys, home), NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= 80


def test_json_of_verify(small: Path, keys: Keys, home: Home) -> None:
    line = keys.line(options='valid-after="20200101"')
    words = ["verify", str(small), "--allowed-signers", str(keys.signers(line))]
    answer = json.loads(run(*words, "--home", str(home.root), "--json").stdout)
    assert answer["ok"] is True
    assert answer["format"] == 1
    assert answer["members_bytes"] == answer["bytes"] > 0
    assert answer["elapsed_seconds"] == answer["seconds"]
    assert answer["created"] == "2026-01-02T03:04:05Z"
    assert answer["components"] == {"app": "1.2.3", "redis": "1.2.3"}
    (signer,) = answer["signers"]
    assert signer["valid"] == "from 20200101"
    assert signer["fingerprint"].startswith("SHA256:")
    assert "by this machine's clock" in answer["judged"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_moves_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    progress = terminal.Progress("verifying", 1000 << 20, screen)
    for _ in range(10):
        clock[0] += 1.0
        progress(50 << 20)
    shown = screen.getvalue().split("\r\033[K")
    assert shown[-1] == "verifying:  50 %, 524.3 MB of 1.05 GB, 52.4 MB/s, 10 s left"
    progress.finish()
    assert screen.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize(("seconds", "lines"), [(5, 0), (60, 5), (600, 10), (3600, 59)])
def test_a_log_gets_few_lines(seconds: int, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick run logs nothing, a usual one ten lines, a very slow one further signs of life."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    log = io.StringIO()
    progress = terminal.Progress("verifying", seconds * 1000, log)
    for _ in range(seconds * 10):
        clock[0] += 0.1
        progress(100)
    progress.finish()
    written = log.getvalue().splitlines()
    assert abs(len(written) - lines) <= 1, written
    assert all("\r" not in line and "\033" not in line for line in written)


def test_a_refusal_takes_the_place_of_a_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert main(["verify", str(tmp_path / "none"), "--home", str(tmp_path)]) != 0
    assert screen.getvalue().startswith("\r\033[Kpython -m bundle verify: ")


def test_main_returns_for_usage_errors_too(capsys: pytest.CaptureFixture[str]) -> None:
    """A caller in the same process gets an exit code, not SystemExit."""
    assert main(["verify"]) == 2
    assert "this is missing" in capsys.readouterr().err

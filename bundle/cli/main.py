"""The command line: find the command, run it, and print its answer or its error.

`verify.pyz` carries verify, inspect and import; a source tree has more.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

from bundle.cli import catalog
from bundle.cli.answer import Command
from bundle.cli.parser import Parser, Top, names_custody, program
from bundle.cli.terminal import RED, clear, columns, open_streams, paint, say
from bundle.core.text import fold
from bundle.errors import AirliftError, Kind

HELP = ("-h", "--help")
#: The form of the JSON output. Later releases only add keys, or raise this number.
FORMAT = 1


def main(argv: list[str] | None = None) -> int:
    """Run a command; return its exit code."""
    open_streams()
    words = sys.argv[1:] if argv is None else argv
    name = next((word for word in words if not word.startswith("-")), "")
    if not words:
        make_parser(only=HELP[0]).print_help()
        return Kind.USAGE.exit_code
    try:
        with _signals_as_errors():
            arguments = make_parser(only=words[0]).parse(words)
            name = arguments.command
            command: Command = arguments.run
            if names_custody(arguments):
                from bundle.cli import custody  # noqa: PLC0415 - seldom needed, and large

                answer = custody.recorded(command, arguments)
            else:
                answer = command(arguments)
        if arguments.json:
            found = {"ok": True, "command": name, "format": FORMAT, **answer.data}
            _say_answer(json.dumps(found, indent=1))
        elif answer.text:
            _say_answer(answer.text)
    except AirliftError as error:
        return _fail(error, name, words)
    except KeyboardInterrupt:
        what = "interrupted; nothing that is incomplete is used"
        fix = "run the same command again"
        return _fail(AirliftError(Kind.INTERRUPTED, what, fix=fix), name, words)
    except OSError as error:
        from bundle.core.failures import os_failure  # noqa: PLC0415 - not for every page of help

        return _fail(os_failure(error, None), name, words)
    return 0


def _say_answer(text: str) -> None:
    try:
        say(text)
    except OSError as error:
        # A script that reads the exit code only would believe that it has the answer.
        what = f"the answer cannot be written: {error.strerror}"
        raise AirliftError(Kind.OUTPUT, what) from error


def _fail(error: AirliftError, command: str, words: list[str]) -> int:
    if "--json" in words:
        found = {"ok": False, "command": command, "format": FORMAT, "error": error.as_dict()}
        with suppress(OSError):
            say(json.dumps(found, indent=1))
    head = f"{program()} {command}".strip() + ": " + ("REFUSED: " if _rejects(error) else "")
    # The lines after the first hold commands, which stay in one piece so that they can be copied.
    what, *rest = str(error).split("\n")
    said = fold(head + what, columns(sys.stderr)).replace(
        "REFUSED:", paint("REFUSED:", RED, sys.stderr), 1
    )
    # The exit code is that of the error, even if its text cannot be written anywhere.
    with suppress(OSError):
        clear(sys.stderr)
        say("\n".join((said, *rest)), sys.stderr)
    return error.kind.exit_code


def _rejects(error: AirliftError) -> bool:
    """Return whether what was handed in is rejected.

    A list of signers is the operator's own, and a file that the system cannot read was not checked.
    """
    handed_in = 10 <= error.kind.exit_code < 40 and error.kind is not Kind.SIGNERS_FILE
    return handed_in and not isinstance(error.__cause__, OSError)


@contextmanager
def _signals_as_errors() -> Iterator[None]:
    """Let `kill` and a closed terminal end a command as Ctrl-C does, with its clean-up."""

    def stop(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup the signal stays ignored.
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_parser(only: str | None = None) -> Top:
    """Return all commands with their options, as `main` understands them.

    With `only`, the other commands are not loaded: a command's name, or an option of help.
    """
    parser = Top(
        prog=program(),
        description="Airlift bundles: a release in one signed file, for a place with no internet.",
    )
    commands: Any = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )
    parser.commands = commands
    known = catalog.here()
    if only in known:
        modules = [known[only].module]
    elif only in HELP:
        modules = []
    else:
        modules = list(dict.fromkeys(command.module for command in known.values()))
    for module in modules:
        import_module(module).register(commands)
    return parser

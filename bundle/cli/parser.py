"""How commands explain themselves: help by role, examples, and wrong arguments in one sentence."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bundle.cli import catalog
from bundle.cli.terminal import say
from bundle.errors import AirliftError, Kind

RANGES = (
    "0 done, 2 wrong arguments, 10-15 the file, 20-26 the signers,\n"
    "30-35 what was accepted before, 40-52 this machine, 130 interrupted"
)


def program() -> str:
    """Return the words with which this program was called."""
    return "python3 -I verify.pyz" if sys.argv[0].endswith(".pyz") else "python -m bundle"


class UsageError(AirliftError):
    """Wrong arguments; the text shows the usage of the command that was typed."""

    place = "usage"


class Parser(argparse.ArgumentParser):
    """A command's arguments; what is wrong with them is an error like any other."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        # An abbreviation may match another option in the next release, and `--jso` gave no JSON.
        super().__init__(*words, **{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Raise the error as one sentence, with the word that was probably meant."""
        raise UsageError(
            Kind.USAGE,
            _plain(message),
            where=" ".join(self.format_usage().removeprefix("usage: ").split()),
            fix=f"{self.prog} --help",
        )

    def print_help(self, file: Any = None) -> None:
        """Print the help to a reader who may close the pipe at any line."""
        say(self.format_help().rstrip("\n"))


class Top(Parser):
    """All commands, by the person who needs them."""

    commands: argparse._SubParsersAction[Any]

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Read the command line; name the command's own usage if a word is unknown."""
        # argparse reports unknown words for the whole program, whose usage helps nobody.
        found, unknown = self.parse_known_args(words)
        if unknown:
            self.commands.choices[found.command].error(
                f"unrecognized arguments: {' '.join(unknown)}"
            )
        return found

    def format_help(self) -> str:
        """Return the page that is shown without a command."""
        parts = [f"usage: {self.prog} COMMAND [--json] ...", str(self.description)]
        commands = catalog.here()
        width = max(map(len, commands)) + 2
        for role, title in catalog.ROLES.items():
            known = [
                f"    {name.ljust(width)}{command.text}"
                for name, command in commands.items()
                if command.role == role
            ]
            parts += ["\n".join([f"{title}:", *known])] if known else []
        parts.append(
            f"`{self.prog} COMMAND --help` explains a command, with examples.\n"
            "--json prints every answer, and every error, as one JSON object.\n"
            f"Exit codes: {RANGES}.\n"
            f"`{self.prog} exit-codes` lists them; docs/TRUST.md has the rules."
        )
        return "\n\n".join(parts) + "\n"


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Any,
    *,
    about: str = "",
    examples: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add a command of the catalog, with the options that all commands have.

    `about` says when a person needs it. `examples` are whole lines after the program's name; one
    that does not fit 80 columns is broken in two.
    """
    text = catalog.COMMANDS[name].text
    lines = "".join(f"{_folded(f'{commands._prog_prefix} {line}')}\n" for line in examples)
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.\n\n{about}".rstrip(),
        epilog=(f"examples:\n{lines}\n" if lines else "")
        + f"Exit codes: {commands._prog_prefix} exit-codes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--json", action="store_true", help="print the answer, or the error, as one JSON object"
    )
    parser.set_defaults(run=run)
    return parser


def _folded(line: str) -> str:
    """Break an example as a shell reads it, to fit 80 columns."""
    if len(line) <= 78:
        return f"  {line}"
    cut = line.rfind(" ", 0, 76)
    return f"  {line[:cut]} \\\n    {line[cut + 1 :]}"


def _plain(message: str) -> str:
    found = re.match(
        r"argument ([A-Z]+|--?[\w-]+): invalid choice: '(.*?)' \(choose from (.*)\)", message
    )
    if not found:
        return message.replace("the following arguments are required:", "this is missing:")
    import difflib  # noqa: PLC0415 - only when something is wrong

    known = re.findall(r"[\w-]+", found[3])
    near = difflib.get_close_matches(found[2], known, 1)
    kind = found[1].lower() if found[1].isupper() else f"value of {found[1]}"
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"there is no {kind} {found[2]!r}; {hint}"


def names_custody(arguments: argparse.Namespace) -> bool:
    """Return whether the command line has an option that `options.add_custody` added."""
    words = vars(arguments)
    # Treat an empty --who as given, so that it is rejected.
    return words.get("who") is not None or any(
        words.get(name) for name in ("custody", "note", "sign")
    )

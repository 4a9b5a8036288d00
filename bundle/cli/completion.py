"""`bundle completion`: print a completion script, which shtab makes from the commands."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bundle.cli.answer import Answer
from bundle.cli.main import make_parser
from bundle.cli.options import TREE
from bundle.cli.parser import Top, add_command
from bundle.errors import AirliftError, Kind

# Shells complete one word and `python -m bundle` is three, so the script defines this command.
NAME = "airlift-bundle"
SHELLS = ("bash", "zsh", "fish")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    one = add_command(
        commands,
        "completion",
        _completion,
        about="The script defines the command airlift-bundle, which runs `python -m bundle` of\n"
        "this tree. It completes commands, options and files. Source zsh's in ~/.zshrc.",
        examples=(
            "completion bash > ~/.local/share/bash-completion/completions/airlift-bundle",
            "completion zsh > ~/.airlift-bundle.zsh",
            "completion fish > ~/.config/fish/conf.d/airlift-bundle.fish",
        ),
    )
    one.add_argument("shell", choices=SHELLS, help="shell that reads the script")


def _completion(arguments: argparse.Namespace) -> Answer:
    text = script(make_parser(), arguments.shell, TREE)
    return Answer(text, {"shell": arguments.shell, "script": text})


def script(parser: Top, shell: str, tree: Path) -> str:
    """Return a script that defines the command `airlift-bundle` and completes it."""
    try:
        import shtab  # noqa: PLC0415 - not on a jump host
    except ImportError as error:
        raise AirliftError(
            Kind.USAGE,
            "completion scripts are made with shtab, which this Python does not have",
            where=sys.executable,
            fix="make setup, then .venv/bin/python -m bundle completion " + shell,
        ) from error
    parser.prog = NAME
    for command in parser.commands.choices.values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE
    call = f"PYTHONPATH={shlex.quote(str(tree))} {shlex.quote(sys.executable)} -m bundle"
    if shell == "fish":
        function = f"function {NAME}\n    {call} $argv\nend"
    else:
        function = f'{NAME}() {{ {call} "$@"; }}'
    made: str = shtab.complete(parser, shell=shell)
    if shell == "zsh":
        # zsh sources a script or finds it in a folder of $fpath; shtab knows `eval` and the latter.
        made = made.replace("$zsh_eval_context[-1] == eval", "$zsh_eval_context[-1] == (eval|file)")
        return f"{made}\n{function}\n"
    return f"{function}\n{made}"

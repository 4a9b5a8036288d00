"""Completion for shells, made by shtab from the commands themselves."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from bundle.cli.parser import Top
from bundle.errors import AirliftError, Kind

# `python -m bundle` is three words, and shells complete one: the script defines this one too.
NAME = "airlift-bundle"
SHELLS = ("bash", "zsh", "fish")


def script(parser: Top, shell: str, tree: Path) -> str:
    """A script that defines the command `airlift-bundle` and completes it."""
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

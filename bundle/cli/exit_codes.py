"""`bundle exit-codes`: list what each exit code means."""

from __future__ import annotations

import argparse

from bundle.cli.answer import Answer
from bundle.cli.parser import add_command
from bundle.core.text import table
from bundle.errors import Kind


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    add_command(commands, "exit-codes", _exit_codes)


def _exit_codes(_: argparse.Namespace) -> Answer:
    rows = [("0", "", "done; for import also: it was imported before")]
    rows.append(("1", "", "a defect in Airlift itself, with a traceback"))
    rows += [(str(kind.exit_code), kind.label, kind.meaning) for kind in Kind]
    known = [{"code": int(code), "name": name, "meaning": text} for code, name, text in rows]
    return Answer(table(rows, ["code", "name", "meaning"]), {"exit_codes": known})

"""Fuzz one parser, guided by the code that each input reaches (atheris, libFuzzer).

    python -m tests.fuzz NAME --seconds 60 --folder DIR    write what is found to DIR
    python -m tests.fuzz NAME FILE...                      try these inputs again
    python -m tests.fuzz                                   list the parsers

DIR keeps inputs that reached new code: the next run starts with them.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import resource
import sys
import tempfile
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Packages whose coverage guides. A role's plugin is loaded by path, under a name of its own.
GUIDED = ["app", "bundle", "swap_agent", "roles"]
PLUGIN = "role_"
#: Limits: seconds per input on a busy machine, memory in MB, address space in bytes.
SECONDS, MEGABYTES = 300, 2048
ADDRESSES = 8 << 30
#: Use memory for files that are written a million times.
MEMORY = Path("/dev/shm")  # noqa: S108


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", nargs="?", help="a parser of the table")
    parser.add_argument("files", nargs="*", type=Path, help="inputs to try once")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "fuzz")
    return parser.parse_args()


def _instrument(atheris: Any, module: ModuleType) -> None:
    """Let the functions of an imported module guide, too."""
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            setattr(module, name, atheris.instrument_func(value))
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for inner, method in vars(value).items():
                if inspect.isfunction(method):
                    setattr(value, inner, atheris.instrument_func(method))


def main() -> None:
    """Fuzz the given parser; a finding ends the process."""
    given = _arguments()
    sys.path.insert(0, str(ROOT / "roles" / "swap_agent" / "files"))
    if given.name is None or given.files:
        _again(given)
        return
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=GUIDED):
        table = importlib.import_module("tests.fuzz.table")
    parser = table.PARSERS[given.name]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    mutated = importlib.import_module("tests.fuzz.mutate").mutated
    accepted = importlib.import_module("tests.fuzz.parser").accepted
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        case = _case(parser, Path(folder))
        for name, module in list(sys.modules.items()):
            if name.startswith(PLUGIN):
                _instrument(atheris, module)
        corpus = given.folder / given.name.replace(" ", "-").replace(",", "")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(case.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)

        def mutate(data: bytes, most: int, seed: int) -> bytes:
            return bytes(mutated(parser.form, data, case.seeds, Random(seed))[:most])

        flags = {
            "max_total_time": given.seconds,
            "seed": given.seed,
            "timeout": SECONDS,
            "rss_limit_mb": MEGABYTES,
            "print_final_stats": 1,
            "max_len": max(1 << 16, *(4 * len(seed) for seed in case.seeds)),
            "artifact_prefix": f"{corpus}.found-",
        }
        words = [f"-{name}={value}" for name, value in flags.items()]
        atheris.Setup(
            [sys.argv[0], *words, str(corpus)],
            lambda data: _ignore(accepted(parser, case.check, data)),
            custom_mutator=mutate,
        )
        atheris.Fuzz()


def _ignore(_: object) -> None:
    """Discard the result: the fuzzer does not use it."""


def _case(parser: Any, folder: Path) -> Any:
    kit = importlib.import_module("tests.fuzz.parser").Kit(folder, pytest.MonkeyPatch())
    return parser.make(kit)


def _again(given: argparse.Namespace) -> None:
    """Try earlier inputs once, without guidance, or list the parsers."""
    table = importlib.import_module("tests.fuzz.table")
    if given.name is None:
        for parser in table.PARSERS.values():
            print(f"{parser.name:30}{parser.entry}")
        return
    parser = table.PARSERS[given.name]
    accepted = importlib.import_module("tests.fuzz.parser").accepted
    with tempfile.TemporaryDirectory() as folder:
        case = _case(parser, Path(folder))
        for file in given.files:
            good = accepted(parser, case.check, file.read_bytes())
            print(f"{file}: {'accepted' if good else 'refused'}")
    return


if __name__ == "__main__":
    main()

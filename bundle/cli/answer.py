"""The answer of a command."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A command's result, as text for people and as data for machines."""

    text: str
    data: dict[str, Any]


Command = Callable[[argparse.Namespace], Answer]

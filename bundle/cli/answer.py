"""What a command answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command found out, for people and for machines."""

    text: str
    data: dict[str, Any]


Command = Callable[[argparse.Namespace], Answer]

"""Last test of this folder: removing the stack leaves nothing behind."""

from __future__ import annotations

import pytest

from tests.stack.stackkit import Stack

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def test_down_with_volumes_leaves_nothing(stack: Stack) -> None:
    assert stack.left() != []
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    assert stack.left() == []

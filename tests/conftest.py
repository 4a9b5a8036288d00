"""Property-based tests try the same examples each time; a soak tries new ones.

Python keeps its bytecode, as it does by default: the tests start hundreds of processes, and where a
machine's settings forbid that, each compiles the project and all that it imports once more.
"""

from __future__ import annotations

import os
import sys

from hypothesis import settings

settings.register_profile("each time the same", derandomize=True)
settings.register_profile("soak")
settings.load_profile("soak" if os.environ.get("AIRLIFT_SOAK") else "each time the same")

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

"""Property-based tests try the same examples in each run; a soak tries new ones.

Python writes its bytecode here, whatever the machine's settings: the tests start hundreds of
processes, and each would otherwise compile the project and all its imports again.
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

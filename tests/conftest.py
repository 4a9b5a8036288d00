"""Property-based tests try the same examples each time; a soak tries new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("each time the same", derandomize=True)
settings.register_profile("soak")
settings.load_profile("soak" if os.environ.get("AIRLIFT_SOAK") else "each time the same")

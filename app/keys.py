"""Alias of `python -m app keys`: `python -m app.keys add|revoke|list|sync`."""

from __future__ import annotations

import sys

from app.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["keys", *sys.argv[1:]]))

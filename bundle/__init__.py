"""Builds, signs, verifies, imports and serves Airlift bundles. The rules are in `docs/TRUST.md`.

The packages are layers. Each imports from those to its right, never the other way:

    cli > builder > review > jumphost, carry > verify > format, trust > core > errors

`verify.pyz` contains the packages that its commands need. From `errors` to `carry`, only the
standard library is imported. `tests/unit/bundle/test_bundle_rooms.py` checks both.
"""

"""Builds, signs, verifies, imports and serves Airlift bundles. The rules are in `docs/TRUST.md`.

A room imports from the rooms below it, never the other way:

    cli > builder > review > jumphost, carry > verify > format, trust > core > errors

What `verify.pyz` offers is in it with its rooms. From `errors` to `carry` nothing but the standard
library is imported. `tests/unit/bundle/test_bundle_rooms.py` holds this.
"""

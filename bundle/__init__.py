"""Builds, signs, verifies, imports and serves Airlift bundles. The rules are in `docs/TRUST.md`."""

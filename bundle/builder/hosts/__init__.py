"""What hosts install: their systems, and the engine's packages for each of them.

A key that is not the upstream repository's fails a build, always.
"""

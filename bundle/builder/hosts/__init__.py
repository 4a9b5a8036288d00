"""The container hosts: their operating systems, and the engine's packages for each.

A key that is not the upstream repository's fails a build, always.
"""

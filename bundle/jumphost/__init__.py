"""The jump host's directory: import, imported releases, prune, receipt, registry.

All writers share one lock. A release directory is moved into place in one step. If a command is
interrupted, the same command continues. An acceptance is recorded before the release is used.
"""

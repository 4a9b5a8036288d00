"""The jump host's directory: import, what is installed, prune, receipt, registry.

One lock for all that writes. A release takes its place in one step; whatever is killed, the same
command continues. What was accepted is recorded before it is used.
"""

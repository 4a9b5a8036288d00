"""The jump host's directory: import, what is installed, prune, receipt, registry."""

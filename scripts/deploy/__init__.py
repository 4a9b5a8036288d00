"""Bring a signed release into a site, from its jump host: by hand, by a runner, by a timer.

`python3 -m scripts.deploy PHASE`, or `make deploy-PHASE`. Settings are environment variables, none
of which is a secret; docs/DEPLOYMENT_STRATEGY.md lists them and the exit codes. Standard library
only: a jump host has Python and OpenSSH, and this runs before anything else is there.
"""

"""Deploy a signed release to a site, from its jump host: by hand, by a runner, by a timer.

`python3 -m scripts.deploy PHASE`, or `make deploy-PHASE`. Settings are environment variables, none
of which is a secret. docs/DEPLOYMENT_STRATEGY.md lists them and the exit codes. Standard library
only, because a jump host has only Python and OpenSSH before the first import.
"""

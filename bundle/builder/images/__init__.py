"""The images of a release: from registries by digest, or from Debian packages by recipes.

`lockfile` says which, `collect` gets them, `layout` writes them as an OCI layout. Each is run once
by `probes` before it ships. Nothing here knows of hosts.
"""

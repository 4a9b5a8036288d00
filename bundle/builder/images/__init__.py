"""The images of a release: from registries by digest, or from Debian packages by recipes.

`lockfile` lists them, `collect` gets them, `layout` writes them as an OCI layout, and `probes` runs
each image once before it ships. Nothing here depends on hosts.
"""

"""Shows the contents of a bundle and its changes, for people who decide.

It reads bundles and imported releases, and writes nothing. Only `dossier` needs a library (Jinja),
which no command of `verify.pyz` loads.
"""

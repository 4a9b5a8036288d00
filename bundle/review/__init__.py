"""What is inside a bundle and what changed, for people who decide.

Reads verified bundles and imported releases; writes nothing. Only `dossier` needs a library
(Jinja), and no command of `verify.pyz` loads it.
"""

"""The command line: one file per command, loaded only when its command runs.

`catalog` lists every command with its module, and `main` runs it and turns errors into exit codes.
Only `__main__` imports this package, which decides what a terminal shows.
"""

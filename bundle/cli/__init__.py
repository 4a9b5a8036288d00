"""The command line: one file per command, loaded when its command is asked for.

`catalog` has every command and the module that has it; `main` runs it, and turns errors into exit
codes. Nobody imports this room but `__main__`; what is shown on a terminal is decided here.
"""

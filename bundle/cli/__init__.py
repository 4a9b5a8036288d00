"""The command line: one file a group of commands, loaded when its command is asked for."""

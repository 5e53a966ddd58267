"""The command line: the only floor that knows paths, flags, colours and exit codes."""

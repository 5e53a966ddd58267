"""The command line: the only layer with paths, flags, colours and exit codes."""

"""The command line, `hand1000`."""

"""The command line: parse, call, render. Only click is imported before a command runs; `oploop --help` stays quick."""

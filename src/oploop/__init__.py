"""oploop: the operational analytics loop as one program."""

__version__ = "0.1.0"

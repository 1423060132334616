"""One file a command: its options, the call, what is printed. Nothing but click is imported before it runs."""

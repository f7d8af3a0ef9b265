"""What the verbs of the command line do; `cli` only parses and dispatches."""

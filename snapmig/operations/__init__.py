"""The verbs, as functions without a command line."""

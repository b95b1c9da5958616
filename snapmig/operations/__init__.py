"""The verbs, as functions: what snapmig does, without a command line."""

"""A page about a repository: guests, their snapshots, and their future."""

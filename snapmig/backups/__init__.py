"""Backups of guests by rule: repositories, retention, hooks, checks."""

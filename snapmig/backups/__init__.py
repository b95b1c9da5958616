"""Guests saved by rule, night after night: repositories, retention, hooks, checks."""

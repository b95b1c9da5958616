"""Saves, restores and reads under way, behind the verbs: files, workers and their tasks."""

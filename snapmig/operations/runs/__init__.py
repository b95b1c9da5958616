"""Saves, restores and reads under way: files, workers and their tasks, behind the verbs."""

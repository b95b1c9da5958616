"""Snapshots and their parents: looked up, checked, read as one, offered as an image."""

"""A snapshot and its parents: found, checked, read as one, offered as an image."""

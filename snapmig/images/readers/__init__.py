"""Readers of RAM from an image's files, one for each way of storing pages."""

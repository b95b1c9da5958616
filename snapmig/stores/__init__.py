"""Stores of snapshots: files, and objects of S3 storage. Knows bytes and no format."""

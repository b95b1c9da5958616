"""Hostile files: a fuzzer led by coverage over every reader of something that others wrote."""

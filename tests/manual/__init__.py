"""Manual pages and completions, made from the parsers and kept: ``python -m tests.manual``."""

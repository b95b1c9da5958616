"""A guest of 512 bytes that stamps and checks its own memory, pass after pass."""

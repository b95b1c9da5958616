"""ELF cores: headers and segments."""

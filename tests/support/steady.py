"""The option of saves that are compared byte for byte."""

from typing import Any

STEADY: dict[str, Any] = {"accelerator": "python"}
"""Python's zlib: ISA-L at levels 1 and 2 may make other bytes of the same pages (decision 48)."""

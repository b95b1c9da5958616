"""Facts about ``snapmig receive``: guests that their owners migrate to it with a real QEMU."""

from __future__ import annotations

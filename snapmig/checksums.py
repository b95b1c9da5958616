"""
The sums that guard a packet: CRC-32 of what is stored, XXH3-128 of what it decodes to.

ISA-L's CRC-32 is the one of zlib, at 10 GB/s instead of 3.
"""

from __future__ import annotations

import xxhash
from isal import isal_zlib

__all__ = ("crc32", "xxh3_128")

crc32 = isal_zlib.crc32
xxh3_128 = xxhash.xxh3_128_digest

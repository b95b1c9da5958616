"""Types of the words that the verbs take as arguments, for type checkers and editors."""

from __future__ import annotations

from typing import Literal

__all__ = (
    "AcceleratorName",
    "CompressionName",
    "FormatName",
    "HuffmanName",
    "LayoutName",
    "Level",
    "LiveName",
    "ViaName",
    "WindowName",
)

AcceleratorName = Literal["auto", "isal", "python", "qat", "qpl", "qpl:software"]
CompressionName = Literal["zlib", "zstd", "lz4", "none"]
FormatName = Literal[
    "cloud-hypervisor",
    "elf",
    "firecracker",
    "libvirt",
    "mapped-ram",
    "qemu-stream",
    "raw",
    "raw-by-address",
]
HuffmanName = Literal["dynamic", "fixed", "trained"]
LayoutName = Literal["fixed", "packed"]
Level = int | Literal["auto"]
LiveName = Literal["background"]
ViaName = Literal["shared", "multifd", "mapped-ram", "stream"]
WindowName = Literal["4k", "32k"]

"""
Processor architectures of guests, by QEMU's names and by their numbers in ELF files.

Architectures with both byte orders under one name, such as QEMU's ``ppc64``, are left out.
"""

from __future__ import annotations

from typing import NamedTuple

from snapmig.errors import UsageError

__all__ = ("ARCHITECTURES", "Architecture", "architecture_name", "find_architecture")


class Architecture(NamedTuple):
    """
    The description of a machine in an ELF header.

    :param machine: number of the processor, ``e_machine``
    :param bits: 32 or 64
    :param little: little-endian
    """

    machine: int
    bits: int
    little: bool


ARCHITECTURES = {
    "x86_64": Architecture(62, 64, little=True),
    "i386": Architecture(3, 32, little=True),
    "aarch64": Architecture(183, 64, little=True),
    "arm": Architecture(40, 32, little=True),
    "riscv64": Architecture(243, 64, little=True),
    "riscv32": Architecture(243, 32, little=True),
    "loongarch64": Architecture(258, 64, little=True),
    "ppc64le": Architecture(21, 64, little=True),
    "s390x": Architecture(22, 64, little=False),
}
"""Names for users; for all but ``ppc64le`` QEMU's own (``query-target``)."""


def find_architecture(name: str) -> Architecture:
    """
    Return an architecture by its name.

    :raises UsageError: an unknown name
    """
    if name not in ARCHITECTURES:
        message = f"architecture is {name!r}, expected one of {', '.join(ARCHITECTURES)}"
        raise UsageError(message)
    return ARCHITECTURES[name]


def architecture_name(architecture: Architecture) -> str:
    """Return the name of an architecture, or its number if it is unknown here."""
    for name, known in ARCHITECTURES.items():
        if known == architecture:
            return name
    order = "little" if architecture.little else "big"
    return f"ELF machine {architecture.machine}, {architecture.bits} bits, {order}-endian"

"""Structures of the format, as names and struct codes of their fields."""

import struct


def pack(fields: dict[str, str], values: dict) -> bytes:
    """Return a structure of the fields' values; fields without a value are zero."""
    zeros = {name: b"" if code.endswith("s") else 0 for name, code in fields.items()}
    unknown = values.keys() - fields.keys()
    if unknown:
        raise KeyError(f"no such fields: {sorted(unknown)}")
    return struct.pack("<" + "".join(fields.values()), *(zeros | values).values())


def unpack(fields: dict[str, str], data: bytes) -> dict:
    """Return the values of a structure's fields."""
    code = "<" + "".join(fields.values())
    return dict(zip(fields, struct.unpack_from(code, data), strict=True))

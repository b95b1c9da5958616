"""
The memory manager's part of a Cloud Hypervisor guest's ``state.json``; no more is decoded.

A migration sends the same in its configuration, beside that of the guest.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ("Mapping", "MemoryManager", "parse_memory_manager", "parse_migration_config")

_Offset = Annotated[int, Meta(ge=0, lt=1 << 62)]


class _RangeItem(msgspec.Struct):
    gpa: int
    length: int


class _Table(msgspec.Struct):
    data: list[_RangeItem]


class Mapping(msgspec.Struct):
    """
    Guest memory at consecutive addresses, a part of one file.

    :ivar slot: names the file in a migration
    """

    gpa: int
    size: int
    slot: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    file_offset: _Offset = 0
    virtio_mem: bool = False


class MemoryManager(msgspec.Struct):
    """The guest's RAM: ranges in the snapshot, and all mappings."""

    memory_ranges: _Table
    guest_ram_mappings: list[Mapping] = []


class _MigrationConfig(msgspec.Struct):
    vm_config: msgspec.Raw
    memory_manager_data: MemoryManager


class _State(msgspec.Struct):
    state: str


class _Component(msgspec.Struct):
    snapshot_data: _State


class _Components(msgspec.Struct):
    manager: _Component = msgspec.field(name="memory-manager")


class _Tree(msgspec.Struct):
    snapshots: _Components


def parse_memory_manager(state: bytes) -> MemoryManager:
    """
    Return the memory manager's state.

    :raises ValueError: not JSON, or a value has another type
    """
    try:
        # The tree of components, each with its own state as JSON in a string.
        tree = msgspec.json.decode(state, type=_Tree)
        return msgspec.json.decode(tree.snapshots.manager.snapshot_data.state, type=MemoryManager)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error


def parse_migration_config(raw: bytes) -> tuple[bytes, MemoryManager]:
    """
    Return a guest's configuration, which is the config.json of a snapshot, and its memory.

    :raises ValueError: not JSON, or a value has another type
    """
    try:
        found = msgspec.json.decode(raw, type=_MigrationConfig)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deep") from error
    return bytes(found.vm_config), found.memory_manager_data

"""The memory manager's part of a Cloud Hypervisor guest's ``state.json``; no more is decoded."""

from __future__ import annotations

import msgspec

__all__ = ("MemoryManager", "parse_memory_manager")


class _RangeItem(msgspec.Struct):
    gpa: int
    length: int


class _Table(msgspec.Struct):
    data: list[_RangeItem]


class _Mapping(msgspec.Struct):
    gpa: int
    size: int
    virtio_mem: bool = False


class MemoryManager(msgspec.Struct):
    """The guest's RAM: ranges in the snapshot, and all mappings."""

    memory_ranges: _Table
    guest_ram_mappings: list[_Mapping] = []


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

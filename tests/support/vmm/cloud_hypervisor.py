"""
Cloud Hypervisor's side of a local migration: ``python -m tests.support.vmm.cloud_hypervisor JSON``.

It sends a guest's memory as files, or receives it and touches it in threads, with a handler of
page faults that asks for pages over a connection of its own, as its vmm/src/uffd.rs and
memory_manager.rs do. What it found is a line of JSON. It imports nothing of snapmig.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import random
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_SYSCALL = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
_API, _REGISTER, _CONTINUE, _WAKE = 0xC018AA3F, 0xC020AA00, 0xC020AA07, 0x8010AA02
_MISSING_AND_MINOR, _MINOR_SHMEM = 1 | 4, 1 << 10
_PUNCH = 1 | 2
PAGE, GIB = 4096, 1 << 30
START, CONFIG, STATE, COMPLETE, ABANDON, MEMORY_FD, COMPLETE_PAUSED, PAGE_FAULT = (
    1, 2, 3, 5, 6, 7, 8, 9,
)  # fmt: skip


def layout(size: int) -> list[tuple[int, int, int]]:
    """Return address, size and place in the file of memory: the upper part comes first."""
    high = size // 3 // PAGE * PAGE
    return [(4 * GIB, high, size - high), (0, size - high, 0)]


def manager(size: int) -> dict[str, object]:
    """Return the state of the memory manager."""
    parts = layout(size)
    return {
        "memory_ranges": {"data": [{"gpa": gpa, "length": part} for gpa, part, _ in parts]},
        "guest_ram_mappings": [
            {"slot": 7 - number, "gpa": gpa, "size": part, "zone_id": "mem0", "virtio_mem": False,
             "file_offset": offset}
            for number, (gpa, part, offset) in enumerate(parts)
        ],
        "start_of_device_area": 1 << 40,
        "current_ram": size,
    }  # fmt: skip


def migration_config(size: int) -> bytes:
    """Return what a migration sends before the state."""
    return json.dumps({
        "vm_config": {"cpus": {"boot_vcpus": 1}, "memory": {"size": size, "shared": True}},
        "common_cpuid": [{"function": 1, "eax": 5}],
        "memory_manager_data": manager(size),
    }).encode()  # fmt: skip


def state(size: int) -> bytes:
    """Return the tree of a guest's components."""
    own = {"snapshots": {}, "snapshot_data": {"state": json.dumps(manager(size))}}
    return json.dumps({"snapshots": {"memory-manager": own}, "snapshot_data": None}).encode()


def request(connection: socket.socket, command: int, payload: bytes = b"") -> None:
    """Send a request."""
    connection.sendall(struct.pack("<H6xQ", command, len(payload)) + payload)


def answered(connection: socket.socket) -> bool:
    """Return True if a request was done, False if it was refused."""
    raw = connection.recv(16, socket.MSG_WAITALL)
    assert len(raw) == 16, raw
    return raw[0] == 1


def send(words: dict[str, object]) -> dict[str, object]:
    """Send a guest that stands still; its memory is zero after the end, as that of one ended."""
    content = Path(words["reference"]).read_bytes()
    size, at = len(content), 0
    fd = os.memfd_create("guest")
    os.ftruncate(fd, size)
    for _, part, offset in layout(size):
        os.pwrite(fd, content[at : at + part], offset)
        at += part
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(words["socket"])
    done = []
    request(connection, START)
    done.append(answered(connection))
    for number in range(len(layout(size))):
        connection.sendall(struct.pack("<H6xQ", MEMORY_FD, 4))
        socket.send_fds(connection, [struct.pack("<I", 7 - number)], [fd])
        done.append(answered(connection))
    steps = [(CONFIG, migration_config(size)), (STATE, state(size)), (COMPLETE_PAUSED, b"")]
    for command, payload in steps:
        request(connection, ABANDON if words.get("abandon") == command else command, payload)
        if words.get("die") == command:
            os._exit(0)
        begun = time.monotonic()
        done.append(answered(connection))
        waited = time.monotonic() - begun
        if not done[-1] or words.get("abandon") == command:
            break
    _libc.fallocate(fd, _PUNCH | 1, 0, size)
    return {"answers": done, "seconds": round(waited, 2)}


class Guest:
    """The memory of a guest received."""

    def __init__(self, files: dict[int, int], config: bytes, reference: Path) -> None:
        found = json.loads(config)["memory_manager_data"]
        self.maps = []
        for each in found["guest_ram_mappings"]:
            area = mmap.mmap(files[each["slot"]], each["size"], offset=each["file_offset"])
            base = ctypes.addressof(ctypes.c_char.from_buffer(area))
            self.maps.append((each["gpa"], each["size"], base, area, files[each["slot"]], each))
        self.pages = [
            (each["gpa"] + at, ram)
            for each, start in zip(
                found["memory_ranges"]["data"], _starts(found["memory_ranges"]["data"]), strict=True
            )
            for at, ram in zip(
                range(0, each["length"], PAGE), range(start, start + each["length"], PAGE),
                strict=True,
            )
        ]  # fmt: skip
        file = reference.open("rb")
        self._reference_map = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
        self._reference = ctypes.addressof(ctypes.c_char.from_buffer(self._reference_map))
        self.changed: dict[int, ctypes.Array[ctypes.c_char]] = {}

    def address(self, gpa: int) -> int:
        """Return where a page is in this process."""
        return next(base + gpa - at for at, size, base, *_ in self.maps if at <= gpa < at + size)

    def wrong(self, page: tuple[int, int]) -> bool:
        """Touch a page without the interpreter's lock; return True if its bytes are wrong."""
        gpa, ram = page
        expected = self.changed.get(gpa)
        known = self._reference + ram if expected is None else ctypes.addressof(expected)
        return _libc.memcmp(self.address(gpa), known, PAGE) != 0

    def write(self, gpa: int) -> None:
        """Change a page, as the guest does."""
        content = ctypes.create_string_buffer(os.urandom(PAGE - 1), PAGE)
        self.changed[gpa] = content
        ctypes.memmove(self.address(gpa), content, PAGE)

    def give_up(self, gpa: int) -> None:
        """Give a page up, as a balloon does with shared memory: a hole in the file."""
        for at, size, _, _, fd, each in self.maps:
            if at <= gpa < at + size:
                place = each["file_offset"] + gpa - at
                assert _libc.fallocate(fd, _PUNCH | 1, place, PAGE) == 0
        self.changed[gpa] = ctypes.create_string_buffer(PAGE)


def _starts(ranges: list[dict[str, int]]) -> list[int]:
    return [sum(each["length"] for each in ranges[:number]) for number in range(len(ranges))]


class Faults(threading.Thread):
    """The handler of page faults, which also asks for all pages in the background."""

    def __init__(self, guest: Guest, connection: socket.socket, background: bool) -> None:
        super().__init__(daemon=True)
        self._guest = guest
        self._connection = connection
        self._background = background
        self.asked = 0
        self.refused: list[int] = []
        self.fd = _libc.syscall(_SYSCALL, os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(self.fd, _API, bytearray(struct.pack("<QQQ", 0xAA, _MINOR_SHMEM, 0)))
        for _, size, base, *_ in guest.maps:
            words = bytearray(struct.pack("<QQQQ", base, size, _MISSING_AND_MINOR, 0))
            fcntl.ioctl(self.fd, _REGISTER, words)

    def run(self) -> None:
        """Serve until everything is there."""
        rest = iter(self._guest.pages)
        while True:
            try:
                raw = os.read(self.fd, 32)
            except BlockingIOError:
                page = next(rest, None) if self._background else None
                if page is None and self._background:
                    break
                if page is not None:
                    self._resolve(page[0])
                continue
            (address,) = struct.unpack_from("<Q", raw, 16)
            gpa = next(
                at + address - base for at, size, base, *_ in self._guest.maps
                if base <= address < base + size
            )  # fmt: skip
            if not self._resolve(gpa // PAGE * PAGE):
                os._exit(9)  # as the hypervisor ends when its handler fails
        self._connection.shutdown(socket.SHUT_RDWR)

    def _resolve(self, gpa: int) -> bool:
        self.asked += 1
        request(self._connection, PAGE_FAULT, struct.pack("<QQ", gpa, PAGE))
        if not answered(self._connection):
            self.refused.append(gpa)
            self._background = False
            return False
        address = self._guest.address(gpa)
        try:
            fcntl.ioctl(self.fd, _CONTINUE, bytearray(struct.pack("<QQQq", address, PAGE, 0, 0)))
        except FileExistsError:
            fcntl.ioctl(self.fd, _WAKE, bytearray(struct.pack("<QQ", address, PAGE)))
        return True


def receive(words: dict[str, object]) -> dict[str, object]:
    """Receive a guest, touch its pages, and compare them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(words["socket"])
    listener.listen()
    print("listening", flush=True)
    control, _ = listener.accept()
    files: dict[int, int] = {}
    payloads: dict[int, bytes] = {}
    order = []
    guest = faults = None
    while True:
        command, length = struct.unpack("<H6xQ", control.recv(16, socket.MSG_WAITALL))
        order.append(command)
        if command == MEMORY_FD:
            raw, fds, _, _ = socket.recv_fds(control, 4, 1)
            files[struct.unpack("<I", raw)[0]] = fds[0]
        else:
            payloads[command] = control.recv(length, socket.MSG_WAITALL) if length else b""
        if words.get("refuse") == command:
            control.sendall(struct.pack("<H6xQ", 2, 0))
            return {"order": order}
        if command == STATE:
            guest = Guest(files, payloads[CONFIG], Path(words["reference"]))
            if words.get("postcopy"):
                second, _ = listener.accept()
                assert second.recv(2, socket.MSG_WAITALL) == b"\x02\x00"
                faults = Faults(guest, second, words.get("background", False))
                faults.start()
        control.sendall(struct.pack("<H6xQ", 1, 0))
        if command in (COMPLETE, COMPLETE_PAUSED):
            break
    assert guest is not None
    wrong = touch(guest, words)
    if faults is not None:
        if words.get("background"):
            faults.join()
        with suppress(OSError):
            faults._connection.shutdown(socket.SHUT_RDWR)
    return {
        "order": order, "wrong": wrong, "pages": len(guest.pages),
        "asked": faults.asked if faults else 0, "refused": len(faults.refused) if faults else 0,
        "config": payloads[CONFIG].decode(), "state": payloads[STATE].decode(),
    }  # fmt: skip


def touch(guest: Guest, words: dict[str, object]) -> int:
    """Touch pages in threads, change some and give some up meanwhile; return how many are wrong."""
    pages = list(guest.pages)
    random.Random(3).shuffle(pages)
    pages = pages[: words.get("touched", len(pages))]
    wrong: list[tuple[int, int]] = []

    def look(own: list[tuple[int, int]]) -> None:
        for number, page in enumerate(own):
            if guest.wrong(page):
                wrong.append(page)
            if number % 5 == 0:
                guest.write(page[0])
            elif number % 7 == 0 and words.get("postcopy") and not words.get("background"):
                guest.give_up(page[0])

    threads = [threading.Thread(target=look, args=(pages[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong) + sum(guest.wrong(page) for page in pages)


def main() -> None:
    """Run as the arguments say."""
    words = json.loads(sys.argv[1])
    found = send(words) if words["do"] == "send" else receive(words)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

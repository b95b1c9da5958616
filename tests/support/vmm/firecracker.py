"""
Firecracker's side of its page-fault handler: ``python -m tests.support.vmm.firecracker JSON``.

It maps memory, registers it with userfaultfd and hands that over as Firecracker does (its
src/vmm/src/persist.rs), then touches pages in threads and compares each with a reference file.
What it found is a line of JSON. It imports nothing of snapmig.
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
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_SYSCALL = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
_API, _REGISTER = 0xC018AA3F, 0xC020AA00
_EVENT_REMOVE = 1 << 3
_MAP_HUGETLB = 0x40000
_DONTNEED = 4


class Guest:
    """Memory in regions, some of it touched."""

    def __init__(self, reference: Path, regions: list[list[int]], page: int) -> None:
        file = reference.open("rb")
        self.size = os.fstat(file.fileno()).st_size
        self._map = mmap.mmap(file.fileno(), self.size, mmap.MAP_PRIVATE)
        self._reference = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._zeros = ctypes.create_string_buffer(page)
        self.page = page
        self.fd = _libc.syscall(_SYSCALL, os.O_CLOEXEC | os.O_NONBLOCK)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        fcntl.ioctl(self.fd, _API, bytearray(struct.pack("<QQQ", 0xAA, _EVENT_REMOVE, 0)))
        self.regions = []
        for offset, size in regions:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_MAP_HUGETLB if page > 4096 else 0)
            base = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
            assert base not in (None, (1 << 64) - 1), os.strerror(ctypes.get_errno())
            fcntl.ioctl(self.fd, _REGISTER, bytearray(struct.pack("<QQQQ", base, size, 1, 0)))
            self.regions.append((base, size, offset))
        self.removed: set[int] = set()

    def address(self, page: int) -> int:
        """Return the address of a page of the RAM."""
        at = page * self.page
        return next(b + at - o for b, s, o in self.regions if o <= at < o + s)

    def wrong(self, page: int) -> bool:
        """Touch a page without the interpreter's lock; return True if its bytes are wrong."""
        zero = page in self.removed
        expected = ctypes.addressof(self._zeros) if zero else self._reference + page * self.page
        return _libc.memcmp(self.address(page), expected, self.page) != 0

    def remove(self, page: int) -> None:
        """Give a page up, as a balloon does."""
        assert _libc.madvise(self.address(page), self.page, _DONTNEED) == 0
        self.removed.add(page)

    def message(self, changes: dict[str, object]) -> bytes:
        """Return the handshake's JSON, with other values for the first region."""
        items = [
            {"base_host_virt_addr": base, "size": size, "offset": offset, "page_size": self.page,
             "page_size_kib": self.page}
            for base, size, offset in self.regions
        ]  # fmt: skip
        items[0].update(changes)
        return json.dumps(items).encode()


def touch_all(guest: Guest, pages: list[int], removes: int, count: int) -> dict[str, object]:
    """Touch pages in threads while others are given up; return what was found."""
    times: list[float] = []
    wrong: list[int] = []

    def touch(own: list[int]) -> None:
        for page in own:
            begun = time.perf_counter()
            bad = guest.wrong(page)
            times.append(time.perf_counter() - begun)
            if bad:
                wrong.append(page)

    def give_up(own: list[int]) -> None:
        for page in own:
            guest.remove(page)
            if guest.wrong(page):
                wrong.append(page)
            guest.remove(page)

    others, own = pages[:removes], pages[removes:]
    threads = [threading.Thread(target=touch, args=(own[n::count],)) for n in range(count)]
    threads += [threading.Thread(target=give_up, args=(others[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong += [page for page in others if guest.wrong(page)]
    times.sort()
    return {
        "wrong": len(wrong), "touched": len(times),
        "median_us": round(times[len(times) // 2] * 1e6) if times else 0,
        "p90_us": round(times[len(times) * 9 // 10] * 1e6) if times else 0,
        "seconds": round(sum(times), 3),
    }  # fmt: skip


def main() -> None:
    """Run as the arguments say."""
    words = json.loads(sys.argv[1])
    reference = Path(words["reference"])
    size = reference.stat().st_size
    guest = Guest(reference, words.get("regions") or [[0, size]], words.get("page", 4096))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(words["socket"])
    socket.send_fds(connection, [guest.message(words.get("changes", {}))], [guest.fd])
    print("connected", flush=True)
    if words.get("pause"):
        sys.stdin.readline()
    pages = list(range(size // guest.page))
    random.Random(words.get("seed", 1)).shuffle(pages)
    pages = pages[: words.get("pages", len(pages))]
    found = touch_all(guest, pages, words.get("removes", 0), words.get("threads", 4))
    print(json.dumps(found), flush=True)
    if words.get("stay"):
        sys.stdin.readline()
        # What nobody has touched, and what was given up, without a handler if that has gone.
        again = [page for page in range(size // guest.page) if guest.wrong(page)]
        print(json.dumps({"wrong": len(again)}), flush=True)


if __name__ == "__main__":
    main()

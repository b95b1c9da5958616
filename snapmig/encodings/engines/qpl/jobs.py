"""
Jobs of Intel's Query Processing Library: several in flight, reaped as they complete.

In software a job is done when submitted, and the others of a coder's depth only keep their results.
The library's verdict on a stream is not strict: it misses bytes after the end and a missing end,
and may report success with a part of the contents for a stream with a larger window. The length is
therefore compared here, and the digest by the caller.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from snapmig.encodings.coders import Done, EngineError
from snapmig.encodings.engines.qpl.library import Flag, Job, Library, Operation, Route, Table
from snapmig.encodings.engines.qpl.status import Status, status_text
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes
from snapmig.system.files import Buffer

__all__ = ("Method", "QplCoder")

TIMEOUT = 5.0
"""Seconds before a job is abandoned; a device needs well under a millisecond."""
PAUSE = 20e-6
"""Seconds between polls of the jobs in flight; a job takes a device some 100 microseconds."""
SUBMISSIONS = 2000
"""Attempts to submit to full work queues, with a pause between them."""
LARGEST = 1 << 31
"""Bytes of an input or output; the library counts in 32 bits."""
NO_ROOM = (Status.MORE_OUTPUT_NEEDED, Status.DESTINATION_IS_SHORT)


class Method(NamedTuple):
    """Common properties of a coder's jobs."""

    route: Route
    operation: Operation
    flags: Flag = Flag.FIRST | Flag.LAST
    level: int = 1
    table: Table | None = None


_in_flight: set[_Slot] = set()
"""
Jobs with memory that a device may still be reading or writing.

Abandoning a job, or dropping its coder, must not free that memory: a job never seen to complete
stays here until the process ends.
"""


class QplCoder:
    """
    Compresses or decompresses, depending on its method.

    :param depth: jobs in flight, at most
    :raises EngineError: no jobs available
    """

    def __init__(self, library: Library, method: Method, depth: int) -> None:
        self.depth = depth
        self._free = [_Slot(library, method) for _ in range(depth)]
        self._waiting: dict[int, _Slot | Done] = {}
        self._gave_up = False

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Start a job. Failures are reported when it is reaped."""
        if len(self._waiting) >= self.depth:
            raise RuntimeError(f"{self.depth} jobs are in flight already")
        if self._gave_up:  # after one that never completed, none is worth another wait
            self._waiting[key] = Done(key, None, EngineError("an earlier job did not complete"))
            return
        slot = self._free[-1]
        try:
            slot.start(key, data, size)
        except EngineError as error:
            self._waiting[key] = Done(key, None, error)
            return
        self._free.pop()
        self._waiting[key] = slot

    def reap(self) -> Done:
        """Wait for one of the jobs in flight; the first to complete is returned."""
        if not self._waiting:
            raise RuntimeError("no job is in flight")
        while True:
            for key, slot in self._waiting.items():
                done = slot if isinstance(slot, Done) else self._look(slot)
                if done is not None:
                    del self._waiting[key]
                    return done
            time.sleep(PAUSE)

    def _look(self, slot: _Slot) -> Done | None:
        try:
            if slot.completed():
                self._free.append(slot)
                return slot.done()
        except EngineError as error:  # nothing of it is in flight then
            self._free.append(slot)
            return Done(slot.key, None, error)
        if time.monotonic() < slot.deadline:
            return None
        self._gave_up = True
        return Done(slot.key, None, EngineError(f"a job did not complete in {TIMEOUT:.0f} seconds"))


class _Slot:
    # A job with its output, used by one submission after the other.
    def __init__(self, library: Library, method: Method) -> None:
        self._c = library.c
        self._method = method
        self._job = Job(library, method.route)
        self._output: Bytes = np.zeros(0, np.uint8)
        self._input: Bytes = self._output
        self._size = 0
        self._room = 0
        self._submissions = 0
        self._submitted = False
        self._status: int = Status.OK
        self.key = 0
        self.deadline = 0.0

    def start(self, key: int, data: Buffer, size: int) -> None:
        """Submit a job, or leave it for :meth:`completed` to do while the queues are full."""
        if self._status != Status.OK:
            self._job.start_anew()
        self._status = Status.OK
        length = memoryview(data).nbytes
        if not 0 < length < LARGEST or not 0 < size < LARGEST:
            message = f"{length} bytes in and {size} out, expected 1 to {LARGEST - 1} of each"
            raise EngineError(message)
        self._input = np.frombuffer(data, np.uint8)
        self._size = size
        self.key = key
        self._make_room()
        self._touch()
        self._submissions = 0
        self.deadline = time.monotonic() + TIMEOUT
        self._submit()

    def completed(self) -> bool:
        """Return whether the job has ended, successful or not."""
        if self._submitted:
            self._status = self._c.qpl_check_job(self._job.address)
            if self._status == Status.BEING_PROCESSED:
                return False
            self._submitted = False
            _in_flight.discard(self)
        if self._status != Status.QUEUES_ARE_BUSY or self._submissions >= SUBMISSIONS:
            return True
        # A check with this result has reached a later part of the job with nothing in flight. A job
        # started anew certainly runs through all parts, including the verification.
        self._job.start_anew()
        self._submit()
        return False

    def done(self) -> Done:
        """Return its outcome."""
        self._input = self._output[:0]  # the caller may close what it is a view of
        compresses = self._method.operation == Operation.COMPRESS
        if compresses and self._status in NO_ROOM:
            return Done(self.key, None)
        if self._status != Status.OK:
            return Done(self.key, None, EngineError(status_text(self._status)))
        fields = self._job.fields
        if fields.available_in:
            message = f"{fields.available_in} bytes of the input were left over"
            return Done(self.key, None, EngineError(message))
        if fields.total_out > self._size or not (compresses or fields.total_out == self._size):
            message = f"gives {fields.total_out} bytes, expected {self._size} bytes"
            return Done(self.key, None, EngineError(message))
        return Done(self.key, self._output[: fields.total_out].data)

    def _make_room(self) -> None:
        # Decompression gets one byte more than expected, so that a longer stream shows.
        self._room = self._size + (self._method.operation == Operation.DECOMPRESS)
        if len(self._output) < self._room:
            self._output = np.full(self._room, 0, np.uint8)  # its pages are there, unlike zeros'

    def _touch(self) -> None:
        # A device not set to wait for page faults fails the job at the second one, and pages of a
        # freshly mapped file are not there yet.
        if self._method.route == Route.HARDWARE:
            self._input[::PAGE_SIZE].max()

    def _submit(self) -> None:
        self._submissions += 1
        self._fill()
        _in_flight.add(self)
        self._status = self._c.qpl_submit_job(self._job.address)
        self._submitted = self._status == Status.OK
        if not self._submitted:
            _in_flight.discard(self)

    def _fill(self) -> None:
        fields, method = self._job.fields, self._method
        fields.op = method.operation
        fields.flags = method.flags
        fields.level = method.level
        fields.huffman_table = None if method.table is None else method.table.handle
        fields.next_in_ptr = self._input.ctypes.data
        fields.available_in = len(self._input)
        fields.next_out_ptr = self._output.ctypes.data
        fields.available_out = self._room
        fields.total_in = fields.total_out = 0

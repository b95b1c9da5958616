"""A virtual machine under QEMU's own emulation, driven over QMP by synchronous calls."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from qemu.qmp import EventListener, QMPClient, QMPError

from tests.support.processes import start_server

PROGRAM = "qemu-system-x86_64"
OLDEST = 7
"""The first that the guests are started with; what needs a newer one has the mark ``qemu``."""
REFUSED = re.compile("Sibling indicated error")
"""Words of QEMU if snapmig refuses the state of a guest that its owner had stopped."""
CANCELLED_LATE = re.compile("Unexpected migration completion status cancelling$")
"""Words of QEMU 11 of a migration cancelled in the moment of its completion; nothing is wrong."""
CUT_OFF = re.compile(
    "Sibling indicated error|Channel error|[Ee]rror.*(migrat|writ|channel)|multifd|Broken pipe"
    "|Connection reset|Unable to (read|write|shutdown)|failed to save SaveStateEntry"
    "|Failed to connect to"
)
"""
Words of QEMU of a migration that is cancelled, or whose destination has gone.

To cancel one QEMU shuts its channel or file, and what it writes then fails with EIO (5), over
multifd with 1: whether it says so depends on the moment.
"""
IO_FAILURE = re.compile(f"{CUT_OFF.pattern}|IO failure|error while loading state section")
"""Words of QEMU of a guest that runs already, and whose source has gone."""
START_SECONDS = 60.0
POLL_SECONDS = 0.1


class GuestError(Exception):
    """A guest did not start, ended by itself, or exceeded a time limit."""


@dataclass(frozen=True)
class Qemu:
    """The result of `find_qemu`: a program and its version, or the reason for its absence."""

    path: str | None = None
    version: str = ""
    reason: str = ""


@dataclass
class GuestConfig:
    """
    Settings of a guest.

    `memory` is the file of its RAM, shared with QEMU; `before` are words before QEMU's command.
    """

    ram: int
    memory: Path | None = None
    machine: str = "q35"
    accel: str = "tcg,thread=multi"
    cpus: int = 2
    extra: Sequence[str] = field(default_factory=tuple)
    before: Sequence[str] = ()


def parse_version(text: str) -> tuple[str, int]:
    """Return the version, and its first number, from QEMU's answer to ``--version``."""
    match = re.search(r"version ((\d+)(?:\.\d+)*)", text)
    return (match[1], int(match[2])) if match else ("", 0)


def find_qemu() -> Qemu:
    """Find a QEMU new enough for the guests: SNAPMIG_TEST_QEMU, or the machine's own."""
    path = shutil.which(os.environ.get("SNAPMIG_TEST_QEMU", PROGRAM))
    if path is None:
        return Qemu(reason=f"{PROGRAM} is not installed")
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version, major = parse_version(text)
    if major < OLDEST:
        known = f"is version {version}" if version else "does not say its version"
        return Qemu(reason=f"{PROGRAM} {known}, and {OLDEST} or newer is needed")
    return Qemu(path, version)


_started: "WeakSet[Guest]" = WeakSet()


def rest_all() -> None:
    """
    Halt all guests until they are used again.

    A tiny guest idles only between its passes: one that waits for a later test of its file takes
    time from the tests that run.
    """
    for guest in _started:
        guest.rest()


class Guest:
    """
    A running guest; as a context manager it ends its QEMU in every case.

    Then it raises if QEMU wrote a line not matched by `expected_words`.
    """

    def __init__(self, program: str, config: GuestConfig) -> None:
        self.config = config
        self._program = program
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._qmp = QMPClient("guest")
        self._events = EventListener()
        self._written = ""
        self._rests = False
        self.expected_words: re.Pattern[str] | None = None
        """What a test provokes QEMU to write; nothing else may be."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.quit()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.quit()
        if error is None and (lines := self.unexpected_lines()):
            raise GuestError(f"QEMU wrote: {' / '.join(lines)}")

    def unexpected_lines(self) -> list[str]:
        """Return QEMU's own output, such as warnings, except for expected lines."""
        expected = [CANCELLED_LATE, *filter(None, [self.expected_words])]
        lines = self._written.splitlines()
        return [line for line in lines if not any(words.search(line) for words in expected)]

    @property
    def folder(self) -> Path:
        """The folder of the sockets and logs; its path is short, and it goes with the guest."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="guest-")
        self._wake()
        return Path(self._folder.name)

    @property
    def serial(self) -> Path:
        """The file with the guest's output on its serial port."""
        return self.folder / "serial"

    @property
    def pid(self) -> int:
        """The process of QEMU."""
        if self._process is None:
            raise GuestError("the guest was not started")
        self._wake()
        return self._process.pid

    def arguments(self) -> list[str]:
        """Return the command line of QEMU for this guest."""
        config, folder = self.config, self.folder
        backend = f"memory-backend-ram,id=ram,size={config.ram}"
        if config.memory is not None:
            backend = (
                f"memory-backend-file,id=ram,size={config.ram},share=on,mem-path={config.memory}"
            )
        command = [*config.before, self._program]
        command += ["-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-no-reboot", "-accel", config.accel, "-smp", str(config.cpus)]
        command += ["-object", backend, "-machine", f"{config.machine},memory-backend=ram"]
        command += ["-m", f"{config.ram // 1024}K", "-serial", f"file:{self.serial}"]
        command += ["-qmp", f"unix:{folder / 'qmp'}", *config.extra]
        return command

    def start(self) -> None:
        """Start QEMU and wait until it answers on QMP."""
        self._qmp.register_listener(self._events)
        self._run(self._qmp.start_server(str(self.folder / "qmp")))
        with (self.folder / "errors").open("wb") as errors:
            self._process = start_server(
                self.arguments(),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        self._run(self._accept())
        _started.add(self)

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command; names of arguments are written with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._run(self._qmp.execute(command, named or None))

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of QEMU's version."""
        found = self.execute("query-version")["qemu"]
        return found["major"], found["minor"]

    def stop(self) -> None:
        """Pause the guest's processors."""
        self.execute("stop")

    def cont(self) -> None:
        """Resume a paused guest."""
        self.execute("cont")

    def wait_event(self, name: str, timeout: float) -> dict[str, Any]:
        """Wait for the next QMP event of this name, dropping others before it."""
        try:
            return dict(self._run(asyncio.wait_for(self._next_event(name), timeout)))
        except TimeoutError:
            raise GuestError(f"no event {name} in {timeout:g} s") from None

    def wait_serial(self, text: str, timeout: float) -> str:
        """Wait until a text has appeared on the serial port; return all output so far."""
        deadline = time.monotonic() + timeout
        while text not in (shown := self.read_serial()):
            if not self.is_running():
                raise GuestError(f"QEMU ended before the guest wrote {text!r}{self._tail(shown)}")
            if time.monotonic() > deadline:
                raise GuestError(f"no {text!r} in {timeout:g} s{self._tail(shown)}")
            time.sleep(POLL_SECONDS)
        return shown

    def read_serial(self) -> str:
        """Return the guest's output on its serial port so far."""
        return self.serial.read_text("utf-8", "replace") if self.serial.exists() else ""

    def rest(self) -> None:
        """Halt QEMU, which does not notice, until its process, folder or monitor is asked for."""
        if self._process is not None and self.is_running():
            self._rests = True
            self._process.send_signal(signal.SIGSTOP)

    def _wake(self) -> None:
        if self._rests and self._process is not None:
            self._rests = False
            self._process.send_signal(signal.SIGCONT)

    def is_running(self) -> bool:
        """Return True if QEMU's process is alive."""
        return self._process is not None and self._process.poll() is None

    def quit(self) -> None:
        """End QEMU, by force if it does not end when asked; safe to call again."""
        try:
            self._end_qmp()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
            if not self._loop.is_closed():
                self._loop.close()
            if self._folder is not None:
                self._written += self._read_errors()
                self._folder.cleanup()
                self._folder = None

    def _end_qmp(self) -> None:
        if self._loop.is_closed():
            return
        try:
            if self.is_running():
                self._run(asyncio.wait_for(self._qmp.execute("quit"), START_SECONDS))
        except (QMPError, OSError, TimeoutError):
            pass  # the process is killed next
        finally:
            self._run(self._disconnect())

    async def _disconnect(self) -> None:
        # QEMU may have closed its end first.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._qmp.disconnect()

    async def _next_event(self, name: str) -> Mapping[str, Any]:
        async for event in self._events:
            if event["event"] == name:
                return event
        raise GuestError(f"QMP ended before the event {name}")

    async def _accept(self) -> None:
        accept = asyncio.ensure_future(self._qmp.accept())
        deadline = time.monotonic() + START_SECONDS
        while not accept.done():
            await asyncio.wait({accept}, timeout=POLL_SECONDS)
            if not accept.done() and (not self.is_running() or time.monotonic() > deadline):
                accept.cancel()
                await asyncio.wait({accept})
                raise GuestError(f"QEMU did not start{self._tail()}")
        await accept

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        self._wake()
        return self._loop.run_until_complete(work)

    def _tail(self, shown: str = "") -> str:
        lines = (self._read_errors() + shown).strip().splitlines()[-5:]
        return ": " + " / ".join(lines) if lines else ""

    def _read_errors(self) -> str:
        errors = self.folder / "errors"
        return errors.read_text("utf-8", "replace") if errors.exists() else ""

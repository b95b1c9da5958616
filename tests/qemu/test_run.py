"""Facts about ``snapmig run``: QEMU started anew with the guest of a snapshot."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from tests.support import program as program_of_snapmig
from tests.support.guests.resume import LAYOUT
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import needs_file
from tests.support.mounts import is_mounted, mounted, server_of
from tests.support.outcome import Outcome
from tests.support.processes import all_gone, children, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest


MEMORIES = {
    "file": "memory-backend-file,id=ram,size={ram},share=on,mem-path={folder}/ram,prealloc=on",
    "anonymous": "memory-backend-ram,id=ram,size={ram}",
}


@dataclass(frozen=True)
class Started:
    """A snapshot of a guest whose command can be run again, and where it stood."""

    path: Path
    command: list[str]
    last: int


@pytest.fixture(scope="module", params=sweep(list(MEMORIES), lambda kind: kind == "file"))
def started(
    request: pytest.FixtureRequest, program: str, shared_shm: Path, short: Path
) -> Iterator[Started]:
    """Give a guest that was started by hand, saved while it counts, and ended."""
    backend = MEMORIES[request.param].format(ram=LAYOUT.ram, folder=shared_shm)
    sector, monitor = tiny.write_sector(shared_shm, LAYOUT), short / "qmp"
    command = [
        *(program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", "tcg", "-object", backend, "-machine", "q35,memory-backend=ram"),
        *("-m", f"{LAYOUT.ram >> 20}M", "-serial", "stdio"),
        *("-drive", f"file={sector},format=raw,if=floppy,readonly=on"),
        *("-qmp", f"unix:{monitor},server=on,wait=off"),
    ]
    path = shared_shm / f"{request.param}.snap"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as guest:
        assert guest.stdout is not None
        try:
            said = [guest.stdout.readline() for _ in range(3)]
            done = program_of_snapmig.run("save", f"qmp:{monitor}", path, "-j", 2)
        finally:
            guest.terminate()
    done.ok()
    last = tiny.passes("".join(said))[-1]
    yield Started(path, command, last)
    path.unlink()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for sockets."""
    return tmp_path_factory.mktemp("s")


def run_until(words: list[object], passes: int, folder: Path) -> tuple[list[int], Outcome]:
    """Run until the guest has its memory and has counted, then end; return count and outcome."""
    out, err = folder / "out", folder / "err"
    with out.open("w") as output, err.open("w") as errors:
        process = program_of_snapmig.start("run", *words, nice=0, stdout=output, stderr=errors)

    def has_counted() -> bool:
        runs = "the guest runs, after" in err.read_text()
        return process.poll() is not None or (runs and len(tiny.passes(out.read_text())) >= passes)

    try:
        wait_for(has_counted, 60)
    finally:
        process.terminate()
    code = process.wait(30)
    outcome = Outcome(code, out.read_text(), err.read_text(), words)
    return tiny.passes(outcome.out), outcome


@pytest.mark.parametrize(
    "way", sweep(["--postcopy", "--no-postcopy"], lambda way: way == "--postcopy")
)
def test_recorded_command(started: Started, shm: Path, way: str) -> None:
    """The recorded command runs the guest on from where it stood, with memory of its own."""
    counted, outcome = run_until([started.path, "--yes", way], 3, shm)

    assert counted[0] > started.last
    assert counted == [*range(counted[0], counted[-1] + 1)]
    assert "command from" in outcome.err
    assert outcome.code == 128 + signal.SIGTERM


def test_a_restore_before_the_run_has_progress(started: Started, shm: Path) -> None:
    """It is over when the guest runs, whose terminal it is then."""
    words = [started.path, "--yes", "--no-postcopy", "--progress", "json"]
    _, outcome = run_until(words, 1, shm)
    lines = outcome.err.splitlines()
    told = ["progress" in line for line in lines]
    runs = next(at for at, line in enumerate(lines) if "the guest runs, after" in line)

    assert any(told[:runs])
    assert not any(told[runs:])


def test_qemu_ends_with_it(started: Started) -> None:
    """A signal to the program ends QEMU, and no process of it is left."""
    process = program_of_snapmig.start("run", started.path, "--yes", "--postcopy", nice=0)
    assert process.stdout is not None
    process.stdout.readline()
    found = children(process.pid)
    process.terminate()
    _, err = process.communicate(timeout=30)

    assert found
    assert re.search(r"interrupted by SIGTERM; \S*qemu\S* was ended$", err)
    assert all_gone(found)


def test_command_given(started: Started, shm: Path) -> None:
    """A command after -- is run instead of the recorded one, unasked."""
    backend = f"memory-backend-ram,id=ram,size={LAYOUT.ram}"
    command = [backend if word.startswith("memory-backend-") else word for word in started.command]
    counted, outcome = run_until([started.path, "--", *command], 2, shm)

    assert counted[0] > started.last
    assert "command from" not in outcome.err


def test_more_words(started: Started, shm: Path) -> None:
    """Options after -- are added to the recorded command."""
    log = shm / "pid"
    run_until([started.path, "--yes", "--", "-pidfile", log], 1, shm)

    assert not log.exists()  # QEMU removes it at its end


@needs_file
def test_memory_from_a_mount(started: Started, shm: Path) -> None:
    """With --mount the guest goes on with its memory mapped, and nothing stays mounted."""
    place = shm / "mnt"
    place.mkdir()
    counted, outcome = run_until(["--mount", place, started.path, "--yes"], 3, shm)

    assert counted[0] > started.last
    assert counted == [*range(counted[0], counted[-1] + 1)]
    assert "via mount" in outcome.err
    wait_for(lambda: not is_mounted(place))


@needs_file
def test_guests_share_a_mount(started: Started, shm: Path) -> None:
    """A mount that was there before serves one guest after the other, and stays."""
    with mounted(started.path, shm / "mnt") as place:
        for name in ("one", "two"):
            (shm / name).mkdir()
            counted, _ = run_until(["--mount", place, started.path, "--yes"], 2, shm / name)
            assert counted[0] > started.last
        assert is_mounted(place)


@needs_file
def test_another_snapshot_is_mounted(
    started: Started, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A mount of another snapshot is refused before QEMU is started."""
    cli("repack", started.path, shm / "other").ok()
    with mounted(shm / "other", shm / "mnt") as place:
        outcome = cli("run", "--mount", place, started.path, "--yes")

    assert outcome.code == 2
    assert "another snapshot is mounted there" in outcome.err


def test_no_place_for_a_mount(started: Started, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A directory that can't take the mount is refused before anybody is asked."""
    outcome = cli("run", "--mount", shm / "missing", started.path)

    assert "missing: is not a directory" in outcome.err
    assert outcome.err.count("\n") == 1


@needs_file
def test_a_mount_whose_server_was_killed(started: Started, shm: Path) -> None:
    """A mount without a server is taken away, and the guest gets one of its own."""
    with mounted(started.path, shm / "mnt") as place:
        os.kill(server_of(place), signal.SIGKILL)
        counted, _ = run_until(["--mount", place, started.path, "--yes"], 2, shm)

    assert counted[0] > started.last


@needs_file
def test_commands_for_a_mount(started: Started, shm: Path, cli: Callable[..., Outcome]) -> None:
    """The commands that restore --for-qemu --lazy gives mount the snapshot and run the guest."""
    made = cli("restore", "--for-qemu", "--lazy", "--json", started.path, shm / "new").ok().json
    monitor = next(word for word in started.command if word.startswith("unix:"))
    program_of_snapmig.run(*made["mount_arguments"][1:]).ok()
    place = Path(made["mount_arguments"][-1])
    with (shm / "out").open("w") as output:
        guest = subprocess.Popen(made["qemu_arguments"], stdout=output, stdin=subprocess.DEVNULL)
    try:
        monitored = wait_for(lambda: connected(monitor.removeprefix("unix:").partition(",")[0]))
        with monitored as waiting:
            wait_for(lambda: waiting.status != "inmigrate")
            waiting.run()
        wait_for(lambda: len(tiny.passes((shm / "out").read_text())) >= 2)
    finally:
        guest.terminate()
        guest.wait()
        cli("umount", place).ok()

    assert made["monitor_commands"] == ["cont"]
    assert tiny.passes((shm / "out").read_text())[0] > started.last


def connected(socket: str) -> Guest | None:
    """Return the guest of a monitor, None if it can't be reached yet."""
    with contextlib.suppress(MonitorError):
        return Guest(socket)
    return None


def test_nobody_agrees(started: Started) -> None:
    """Without a terminal and without --yes the recorded command is shown, not run."""
    outcome = program_of_snapmig.run("run", started.path, stdin=subprocess.DEVNULL)

    assert outcome.code == 2
    assert "was not confirmed" in outcome.err
    assert "memory-backend-memfd" in outcome.err


@pytest.mark.parametrize(("answer", "runs"), [("y", True), ("n", False), ("", False)])
def test_asked_on_a_terminal(started: Started, answer: str, runs: bool) -> None:
    """On a terminal the user is asked, and only yes runs it."""
    words = [str(word) for word in program_of_snapmig.PROGRAM]
    terminal = pexpect.spawn(
        words[0],
        [*words[1:], "run", str(started.path)],
        env=program_of_snapmig.ENVIRONMENT,
        encoding="utf-8",
        timeout=60,
    )
    terminal.expect(r"\[y/N\] ")
    terminal.sendline(answer)
    try:
        assert terminal.expect(["pass [0-9A-F]{8}", "was not confirmed"]) == (not runs)
    finally:
        terminal.kill(signal.SIGTERM)
        terminal.expect(pexpect.EOF)
        terminal.close()


def test_a_command_that_fails(started: Started, cli: Callable[..., Outcome]) -> None:
    """If QEMU ends at once, its own words and one sentence with its exit status remain."""
    outcome = cli("run", started.path, "--yes", "--", "-device", "no-such-device")

    assert outcome.code == 1
    assert "ended before the guest was restored: exit status 1" in outcome.err


def test_no_such_program(started: Started, cli: Callable[..., Outcome]) -> None:
    """A program that is not installed is one sentence."""
    outcome = cli("run", started.path, "--", "no-such-qemu")

    assert outcome.code == 1
    assert outcome.err.endswith("no-such-qemu can't be started: No such file or directory\n")


def test_another_machine(started: Started, cli: Callable[..., Outcome]) -> None:
    """A QEMU that does not fit is ended again, and the reason given."""
    command = [word.replace("q35,", "pc,") for word in started.command]
    outcome = cli("run", started.path, "--", *command)

    assert outcome.code == 1
    assert "machine type is pc-i440fx" in outcome.err


def test_no_command(shm: Path, cli: Callable[..., Outcome]) -> None:
    """A snapshot without a guest's state can't be run."""
    (shm / "ram").write_bytes(bytes(4096) + b"x" * 4096)
    cli("save", shm / "ram", shm / "s").ok()
    outcome = cli("run", shm / "s", "--yes")

    assert outcome.code == 2


def test_in_the_background(started: Started, shm: Path) -> None:
    """A QEMU that daemonizes goes on after the program has ended."""
    log, pid = shm / "serial", shm / "pid"
    command = [word if word != "stdio" else f"file:{log}" for word in started.command]
    outcome = program_of_snapmig.run(
        "run", started.path, "--json", "--", *command, "-daemonize", "-pidfile", pid
    )
    found = int(pid.read_text())
    try:
        wait_for(lambda: len(tiny.passes(log.read_text())) >= 2)
    finally:
        os.kill(found, signal.SIGTERM)
        all_gone([found])

    assert (outcome.code, outcome.json["exit_status"]) == (0, 0)
    assert outcome.json["seconds_to_run"] > 0

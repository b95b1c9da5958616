"""Facts about a Linux guest, saved, its QEMU ended, and resumed in a new one."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.qemu import linux_work
from tests.support.guests import build, kernel, linux
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import REFUSED, GuestConfig
from tests.support.guests.resume import Memory, Monitored
from tests.support.requirements import requires

pytestmark = [pytest.mark.guest, pytest.mark.sweep, pytest.mark.timeout(400)]

RAM = 256 << 20
COUNT = re.compile(r"^count (\d+) sum (\w+) (\w+) (\w+) (.*)$", re.MULTILINE)
TROUBLE = re.compile(r"(?i)\b(bug|oops|panic|call trace|i/o error|stall|corrupt\w*)\b")
READY_S = 200.0
COUNT_S = 90.0


@dataclass(frozen=True)
class Resumed:
    """A guest's output before its save, and since it was resumed."""

    before: str
    after: str

    @property
    def counts(self) -> list[tuple[str, ...]]:
        """All counts; a line interrupted by the save has its end in the second text."""
        return [tuple(found.groups()) for found in COUNT.finditer(self.before + self.after)]


@pytest.fixture(scope="module")
def system() -> linux.System:
    """Give the kernel and the disk of the guest, made if missing from the cache."""
    try:
        return linux.prepare(RAM, build.CACHE)
    except PackagesError as error:
        requires(f"packages for a guest ({error})")  # which is no program's name: never there
        raise


@pytest.fixture(scope="module")
def config(system: linux.System, shared_shm: Path) -> GuestConfig:
    """Give the guest's configuration, also for its resumption."""
    folder = shared_shm / "boot"
    folder.mkdir()
    common = linux.WORKLOAD.read_text().rpartition("if __name__")[0]
    own = Path(linux_work.__file__).read_text()
    (folder / "work.py").write_text(common + re.sub(r"^from tests.*$", "", own, flags=re.M))
    kernel.write_initramfs(system.kernel, system.busybox, folder / "work.py", folder / "initramfs")
    return GuestConfig(RAM, extra=linux.boot_arguments(system, folder / "initramfs"))


@pytest.fixture(scope="module", params=["shared", "shared background", "multifd", "multifd live"])
def resumed(
    request: pytest.FixtureRequest, program: str, config: GuestConfig, shared_shm: Path
) -> Resumed:
    """Save a guest, end its QEMU, and resume it in a new one with new memory."""
    way, _, how = request.param.partition(" ")
    live: Any = {"": False, "live": True}.get(how, how)
    snapshot = shared_shm / f"{way}{how}.snap"
    with Monitored(program, config, memory(shared_shm / "first", way)) as guest:
        guest.expected_words = REFUSED
        guest.wait_serial(linux.READY, READY_S)
        guest.wait_serial("\ncount 3 ", COUNT_S)
        if not live:
            guest.stop()
        result = snapmig.save(guest.monitor, snapshot, jobs=2, live=live)
        assert how == "background" or result.via == way
        before = guest.read_serial().replace("\r", "")
    (shared_shm / "first").unlink(missing_ok=True)
    waiting = GuestConfig(RAM, extra=(*config.extra, "-incoming", "defer"))
    with Monitored(program, waiting, memory(shared_shm / "second", way)) as guest:
        snapmig.restore(snapshot, guest.monitor, jobs=2)
        last = COUNT.findall(before)[-1][0]
        guest.wait_serial(f"\ncount {int(last) + 4} ", COUNT_S)
        after = guest.read_serial().replace("\r", "")
    (shared_shm / "second").unlink(missing_ok=True)
    after = after[: after.rindex("\n")]
    return Resumed(until_resumed(before, after) if live else before, after)


def until_resumed(before: str, after: str) -> str:
    """Return the counts of a guest that ran on after its save, up to those that came twice."""
    first = int(COUNT.findall(after)[0][0])
    lines = [found for found in COUNT.finditer(before) if int(found[1]) < first]
    return "".join(f"{found[0]}\n" for found in lines)


def memory(path: Path, way: str) -> Memory:
    """Return memory that is a shared file, or memory of QEMU's own."""
    if way == "multifd":
        return Memory([f"memory-backend-ram,id=ram,size={RAM}"])
    return Memory([f"memory-backend-file,id=ram,size={RAM},share=on,mem-path={path}"])


def test_counts_without_a_gap(resumed: Resumed) -> None:
    """A process inside continues counting: no count is lost, none comes twice."""
    numbers = [int(count[0]) for count in resumed.counts]
    assert [*range(1, len(numbers) + 1)] == numbers


def test_counts_in_the_new_qemu(resumed: Resumed) -> None:
    """Some counts come from the resumed guest."""
    assert len(COUNT.findall(resumed.after)) >= 2


@pytest.mark.parametrize(
    "column", [1, 2, 3], ids=["its own memory", "files in memory", "programs on the disk"]
)
def test_sums_stay(resumed: Resumed, column: int) -> None:
    """The guest's memory and files are the same before the save and after it resumed."""
    assert len({count[column] for count in resumed.counts}) == 1


def test_database_is_sound(resumed: Resumed) -> None:
    """SQLite finds nothing wrong in the guest's database, before and after."""
    assert {"ok"} == {count[4] for count in resumed.counts}


def test_kernel_does_not_complain(resumed: Resumed) -> None:
    """The kernel of the resumed guest reports no trouble."""
    assert TROUBLE.findall(resumed.after) == []

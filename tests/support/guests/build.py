"""Build a memory image of a real Linux guest, or a stand-in if no guest can run."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.guests import linux, standin
from tests.support.guests.image import PAGE, parse_size, read_pieces, write_image
from tests.support.guests.packages import PackagesError
from tests.support.guests.qemu import GuestError, Qemu, find_qemu

CACHE = Path(__file__).resolve().parents[3] / ".cache" / "guest"
SHARED_MEMORY = Path("/dev/shm")
LINUX_GUEST = "linux guest"
STAND_IN = "stand-in"
START_SECONDS = 300
SECONDS_PER_GIB = 300
GIB = 1 << 30

Facts = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """An image to build."""

    ram: int
    output: Path
    cache: Path = CACHE
    stand_in: bool = False
    force: bool = False

    @property
    def facts_path(self) -> Path:
        """Path for the facts about the image."""
        return self.output.with_name(self.output.name + ".json")


def progress(text: str) -> None:
    """Print a step of the work on standard error."""
    print(f"guest: {text}", file=sys.stderr, flush=True)


def build(request: Request) -> tuple[Facts, bool]:
    """Make the image unless it exists; return its facts, and True if it is new."""
    qemu = Qemu(reason="a stand-in was asked for") if request.stand_in else find_qemu()
    system, reason = _system(request, qemu)
    recipe = linux.recipe(request.ram) if system else standin.RECIPE
    facts = read_facts(request)
    wanted = {"kind": LINUX_GUEST if system else STAND_IN, "recipe": recipe}
    if not request.force and facts.items() >= {**wanted, "ram_bytes": request.ram}.items():
        return facts, False
    request.facts_path.unlink(missing_ok=True)
    start = time.monotonic()
    if system:
        details: Facts = {"kernel": system.kernel.version, "qemu": qemu.version}
        nonzero = _image_of_guest(request, str(qemu.path), system)
    else:
        progress(f"making a STAND-IN, not a guest's memory: {reason}")
        details = {"reason": reason}
        pieces = standin.standin_pieces(request.ram, standin.source_folders())
        nonzero = write_image(request.output, request.ram, pieces)
    seconds = round(time.monotonic() - start, 1)
    facts = {**wanted, **details, **_measures(request.ram, nonzero), "seconds": seconds}
    _write_facts(request.facts_path, facts)
    return facts, True


def read_facts(request: Request) -> Facts:
    """Return the facts about an existing image, or none if it is not complete."""
    try:
        facts = json.loads(request.facts_path.read_text())
        whole = request.output.stat().st_size == facts["ram_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return facts if whole else {}


def summary(facts: Facts, output: Path, made: bool) -> str:
    """One line about an image."""
    where = f"kernel {facts['kernel']}, QEMU {facts['qemu']}" if "kernel" in facts else ""
    what = where or f"NOT a guest's memory: {facts['reason']}"
    share = facts["nonzero_pages"] / (facts["ram_bytes"] // facts["page_bytes"])
    state = f"made in {facts['seconds']} s" if made else "already there"
    size = f"{facts['ram_bytes'] >> 20} MiB, {share:.1%} of pages not zero"
    return f"{output}: {facts['kind']} ({what}), {size}, {state}"


def _system(request: Request, qemu: Qemu) -> tuple[linux.System | None, str]:
    """Return the system for a guest, or the reason for its absence."""
    if qemu.path is None:
        return None, qemu.reason
    progress("getting the guest's kernel and packages, or taking them from the cache")
    try:
        return linux.prepare(request.ram, request.cache), ""
    except PackagesError as error:
        return None, f"the guest's packages cannot be had: {error}"


def _image_of_guest(request: Request, program: str, system: linux.System) -> int:
    limit = START_SECONDS + SECONDS_PER_GIB * request.ram / GIB
    with _memory_file(request) as memory:
        progress("starting the guest and waiting for its work; minutes for each GiB")
        with linux.linux_guest(program, system, request.ram, memory) as guest:
            guest.wait_serial(linux.READY, limit)
            guest.stop()
            progress("the guest is ready and paused; copying its memory")
            return write_image(request.output, request.ram, read_pieces(memory))


@contextmanager
def _memory_file(request: Request) -> Iterator[Path]:
    """Give a name for the file of a guest's memory; the file is gone when the block ends."""
    folder = SHARED_MEMORY
    if not folder.is_dir() or shutil.disk_usage(folder).free < request.ram:
        folder = request.output.resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        progress(f"{SHARED_MEMORY} is too small: the guest's memory lies in {folder} meanwhile")
    with tempfile.TemporaryDirectory(dir=folder, prefix="snapmig-guest-") as name:
        yield Path(name, "ram")


def _measures(ram: int, nonzero: int) -> Facts:
    return {"ram_bytes": ram, "page_bytes": PAGE, "nonzero_pages": nonzero}


def _write_facts(path: Path, facts: Facts) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(facts, indent=2) + "\n")
    temporary.replace(path)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.guests.build",
        description=__doc__,
        epilog="Facts about the image are written to PATH.json. No privileges are needed.",
    )
    add = parser.add_argument
    add("--ram", type=_size, required=True, metavar="SIZE", help="memory, such as 256M or 2G")
    add("--output", type=Path, required=True, metavar="PATH", help="the image to write")
    add("--cache", type=Path, default=CACHE, metavar="DIR", help="where the system is kept")
    add("--stand-in", action="store_true", help="run no guest: files, text, random data, holes")
    add("--force", action="store_true", help="make the image even where it is there")
    return parser


def _end(signal_number: int, _frame: object) -> None:
    raise SystemExit(128 + signal_number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    request = Request(**vars(options))
    try:
        facts, made = build(request)
    except (GuestError, OSError) as error:
        progress(f"no image: {error} (--stand-in makes one without a guest)")
        return 1
    except KeyboardInterrupt:
        progress("stopped")
        return 128 + signal.SIGINT
    print(summary(facts, request.output, made))
    return 0


if __name__ == "__main__":
    sys.exit(main())

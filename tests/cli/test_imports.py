"""Commands import only what they use: their start takes longer than the work of a short one."""

import sys
from pathlib import Path

import pytest

import snapmig
from tests.support import program, ram

WORKERS = {"multiprocess", "subprocess"}
GUESTS = {"asyncio", "msgspec", "qemu", "ssl"}
OTHERS = {"botocore", "cryptography", "distributed", "filelock", "tomllib", "tqdm"}
RARE = {"decimal", "getpass", "json", "logging", "shlex", "statistics"}
DEVICES = {"snapmig.encodings.engines.qat.engine", "snapmig.encodings.engines.qpl.engine"}
FORMATS = {"snapmig.images.formats.elf", "snapmig.images.formats.qemu_stream"}

PROGRAM = """
import atexit, sys
from snapmig.__main__ import run
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
run()
"""
"""The program, which prints at its end what was imported."""


def _imports(*words: object) -> set[str]:
    done = program.call([sys.executable, "-c", PROGRAM, *words], env=program.ENVIRONMENT)
    assert done.code == 0, done
    return set(done.err.split())


@pytest.mark.parametrize("words", [["--version"], ["completion", "bash"]])
def test_words_are_printed_without_numpy(words: list[str]) -> None:
    """What reads no snapshot takes little longer than the interpreter's own start."""
    assert _imports(*words) & {"numpy", *WORKERS, *GUESTS, *OTHERS, *DEVICES, *FORMATS} == set()


@pytest.mark.parametrize("verb", ["info", "chain"])
def test_a_look_at_a_snapshot_imports_no_numpy(tmp_path: Path, verb: str) -> None:
    """It starts no worker and speaks to nobody, either: the import of numpy is half of a start."""
    snapmig.save(ram.write(tmp_path / "ram", bytes(1 << 20)), tmp_path / "snap")
    found = _imports(verb, tmp_path / "snap")

    assert found & {"numpy", *WORKERS, *GUESTS, *OTHERS, *RARE, *DEVICES, *FORMATS} == set()
    assert found & {"platform", "traceback"} == set()


def test_a_look_at_engines_imports_nothing_for_workers() -> None:
    """It is the one command that needs them all."""
    found = _imports("accelerators")

    assert found & {*WORKERS, *GUESTS, *OTHERS, *FORMATS} == set()
    assert found >= DEVICES


def test_a_save_of_a_raw_image_imports_no_format_with_a_mark(tmp_path: Path) -> None:
    """The first bytes of a file tell its format before any of them is imported."""
    image = ram.write(tmp_path / "ram", ram.mixed(1 << 20))
    found = _imports("save", image, tmp_path / "snap", "--progress", "none")

    assert found & {*GUESTS, *OTHERS, *RARE, *DEVICES, *FORMATS} == set()
    assert found & {"snapmig.chains.reader", "snapmig.images.qemu.parse"} == set()
    assert found >= {"numpy", "multiprocess", "snapmig.images.formats.raw"}


def test_a_restore_imports_what_it_uses(tmp_path: Path) -> None:
    """It loads no client of a monitor, store or cluster, no device's engine, no other format."""
    snapmig.save(ram.write(tmp_path / "ram", ram.mixed(1 << 20)), tmp_path / "snap")
    found = _imports("restore", tmp_path / "snap", tmp_path / "restored", "--progress", "none")

    assert found & {*GUESTS, *OTHERS, *RARE, *DEVICES, *FORMATS} == set()
    assert found >= {"numpy", "multiprocess", "snapmig.images.formats.raw"}


def test_a_mount_for_a_guest_imports_nothing_for_workers_or_monitors() -> None:
    """QEMU starts after these imports, and the client of its monitor is imported meanwhile."""
    words = "import sys; from snapmig.operations import run_mapped; print(*sys.modules)"
    done = program.call([sys.executable, "-c", words], env=program.ENVIRONMENT).ok()

    assert set(done.out.split()) & {"multiprocess", "asyncio", "ssl", "qemu", *FORMATS} == set()

"""The program's start and end: its imports, its settings, its exit."""

import os
import sys

import pytest

from tests.support import program, ram

PROGRAM = """
import sys, types, {modules}
from snapmig.__main__ import run
sys.modules["snapmig.commands"] = types.SimpleNamespace(
    ALONE=(), load=lambda verb: None, main=lambda: {result}
)
{before}
run()
"""
"""A program with a command of its own, and nothing imported before it runs."""


def _run(result, before="", modules="os", **environment):
    code = PROGRAM.format(result=result, before=before, modules=modules)
    known = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    return program.call([sys.executable, "-c", code], env=known | environment, timeout=60)


def test_programs_that_are_started_see_no_setting_of_blas():
    """The number of its threads is settled while numpy is imported, and not afterwards."""
    done = _run("print('OPENBLAS_NUM_THREADS' in os.environ) or 0")
    done.ok(out="False\n")


def test_a_users_setting_of_blas_stays():
    """A setting made in the environment is not touched."""
    done = _run("print(os.environ['OPENBLAS_NUM_THREADS']) or 0", OPENBLAS_NUM_THREADS="2")
    assert done.out == "2\n"


def test_the_program_starts_no_threads():
    """A process with one thread can be forked."""
    done = _run("print(len(os.listdir('/proc/self/task'))) or 0")
    assert done.out == "1\n"


def test_dill_can_be_imported_by_who_needs_it():
    """It is left out of multiprocess only."""
    done = _run("print(__import__('dill').__name__) or 0")
    assert done.out == "dill\n"


def test_a_library_user_has_multiprocess_with_dill():
    """A program that imports the package gets worker processes that take what dill pickles."""
    code = "import snapmig, snapmig.workers.processes, sys; print(bool(sys.modules['dill']))"
    done = program.call([sys.executable, "-c", code])
    done.ok(out="True\n")


def test_the_exit_code_is_that_of_the_command():
    """Also where the interpreter's own end is passed over."""
    _run("143").fails(143)


def test_what_was_printed_is_not_lost():
    """Buffered output is written before the process ends."""
    assert _run("sys.stdout.write('x' * 10000) and 0").out == "x" * 10000


def test_what_asked_to_be_called_at_the_end_is_called():
    """A library's own tidying is done."""
    done = _run("0", before="atexit.register(print, 'tidied')", modules="atexit")
    assert done.out == "tidied\n"


def test_threads_are_waited_for():
    """Where a library's threads are at something, the end is the interpreter's own."""
    wait = "lambda: (threading.main_thread().join(), print('done'))"
    done = _run("0", before=f"threading.Thread(target={wait}).start()", modules="threading")
    done.ok(out="done\n")


@pytest.mark.parametrize("verb", ["save", "verify", "restore"])
def test_a_small_guest_has_one_worker(tmp_path, monkeypatch, cli, verb):
    """A second would start, find no work and end."""
    image, snap = ram.write(tmp_path / "ram", ram.mixed(74 << 12)), tmp_path / "snap"
    words = {"save": (image, snap), "verify": (snap,), "restore": (snap, tmp_path / "out")}[verb]
    if verb != "save":
        cli("save", image, snap).ok()
    fork, forks = os.fork, []
    monkeypatch.setattr(os, "fork", lambda: forks.append(verb) or fork())

    cli(verb, *words, "-j", "8").ok()
    assert forks == [verb]

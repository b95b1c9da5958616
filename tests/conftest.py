"""Shared by all tests: requirements, a place in memory, and the program called in this process."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from snapmig.commands import main
from tests.support.outcome import Outcome
from tests.support.requirements import requires
from tests.support.workers import let_workers_leave

settings.register_profile(
    "snapmig",
    deadline=None,  # processes start in most examples
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("snapmig")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the kept outputs of the program"
    )


def pytest_sessionstart() -> None:
    """Under coverage, have workers leave by themselves: those that are killed keep no data."""
    if "coverage" in sys.modules and sys.modules["coverage"].Coverage.current():
        let_workers_leave()


def pytest_configure() -> None:
    """
    Have programs that tests start hear SIGINT and SIGHUP, whoever started the tests.

    Under nohup, or in the background of a script, both are ignored, and programs inherit that. They
    do not inherit a handler, and one that does nothing keeps these tests going as before.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have the mark ``root`` require it."""
    if item.get_closest_marker("root"):
        requires("root")


@pytest.fixture
def shm() -> Iterator[Path]:
    """Give an empty directory in shared memory."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def shared_shm() -> Iterator[Path]:
    """Give an empty directory in shared memory for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Give a function that calls the program's main function, which is faster than a process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr(), ("snapmig", *arguments))

    return call

"""Facts about batches that are disturbed: by signals, dead workers and images that shrink."""

import faulthandler
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import snapmig
from tests.support import processes, program, ram
from tests.support.processes import stopped_midway, wait_for
from tests.support.sweep import sweep

TEXT_PAGES = 64 << 8
ALL = '[[save]]\nimage = "*.img"\nsnapshot = "out/{name}.snap"\nlevel = 3\n'


@pytest.fixture
def big(folder):
    """Give three images of 64 MiB of text, of which each takes two workers a second or so."""
    pages = np.tile(ram.text(1024), (TEXT_PAGES // 1024, 1))
    for name in ("x", "y", "z"):
        ram.write(folder / f"{name}.img", pages)
    return folder


def _made(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


@pytest.mark.parametrize("layout", sweep(["fixed", "packed"], lambda layout: layout == "packed"))
def test_a_killed_worker_fails_one_job_and_the_others_are_right(write, big, layout):
    """The job that it worked for is named with the cause; the others are done, also packed."""
    path = write(f'{ALL}layout = "{layout}"\n')
    with stopped_midway("batch", path, "-g", 3) as (process, workers):
        processes.send(signal.SIGKILL, workers[:1])
        processes.send(signal.SIGCONT, workers)
        outcome = program.end(process, timeout=60)

    outcome.fails(5, "worker 0 was ended by SIGKILL", "1 of 3 jobs failed")
    assert outcome.out.count("done") == 2
    assert outcome.out.count("failed") == 1
    for name in _made(big):
        assert snapmig.verify(big / "out" / name).problems == ()
        snapmig.restore(big / "out" / name, big / "r", force=True)
        assert (big / "r").read_bytes() == (big / "x.img").read_bytes()


@pytest.fixture
def no_stacks():
    """Have a worker that dies of a signal not print its stack, as pytest would have it."""
    faulthandler.disable()
    yield
    faulthandler.enable(sys.__stderr__)


@pytest.mark.usefixtures("no_stacks")
def test_an_image_that_shrinks_fails_its_own_job(write, big):
    """
    The image is named, and the other two are saved.

    A worker that reads behind the end dies of SIGBUS and is replaced; where none does, the parent
    sees the change at the end.
    """

    def shrink(progress):
        now = progress.running.get("y")
        if now is not None and 0 < now.done_bytes < now.total_bytes:
            os.truncate(big / "y.img", 0)

    slowly = {"jobs": 1, "bwlimit": "16M"}  # so that it is seen under way
    result = snapmig.batch(write(ALL), max_guests_at_once=3, progress=shrink, **slowly)

    assert [job.state for job in result.jobs] == ["done", "failed", "done"]
    assert _made(big) == ["x.snap", "z.snap"]
    assert f"{big}/y.img: image had " in result.jobs[1].message
    if result.exit_code != 1:
        assert result.exit_code == 5
        assert "was ended by SIGBUS because the image changed under it" in result.jobs[1].message


@pytest.mark.parametrize(
    "number",
    sweep([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], lambda number: number == signal.SIGTERM),
)
def test_a_signal_ends_all_jobs_and_leaves_nothing(write, big, number):
    """Exit code 128 and the signal's number, no file, no process."""
    path = write(ALL)
    with stopped_midway("batch", path, "-g", 2) as (process, workers):
        process.send_signal(number)
        processes.send(signal.SIGCONT, workers)
        outcome = program.end(process, timeout=60)

        assert processes.all_gone(workers)
    left = "0 of 3 jobs done, nothing is left of the others"
    outcome.fails(128 + number, err=f"snapmig: interrupted by {number.name}; {left}\n")
    assert _made(big) == []


def test_ctrl_c_while_workers_hang_ends_all_the_same(write, big):
    """Workers that answer nothing are ended after some seconds."""
    path = write(ALL)
    with stopped_midway("batch", path, "-g", 2) as (process, workers):
        os.killpg(process.pid, signal.SIGINT)
        outcome = program.end(process, timeout=60)

        assert processes.all_gone(workers)
    outcome.fails(130)
    assert _made(big) == []


@pytest.mark.usefixtures("big")
def test_a_parent_that_is_killed_leaves_no_worker(write):
    """Workers end with the run, whatever ended it."""
    path = write(ALL)
    with stopped_midway("batch", path) as (process, workers):
        process.kill()
        process.communicate(timeout=60)

        assert processes.all_gone(workers)


@pytest.mark.usefixtures("big")
def test_replaced_workers_end_with_a_parent_that_is_killed(write):
    """So do those that took the places of dead ones."""
    path = write("bwlimit = '1M'\n" + ALL)
    process = program.start("batch", path, "-g", 3, "-j", 2)
    try:
        first = wait_for(lambda: processes.children(process.pid))
        processes.send(signal.SIGKILL, first[:1])
        later = wait_for(lambda: _descendants(process.pid) - set(first))
    finally:
        process.kill()
        process.communicate(timeout=60)

    assert processes.all_gone(later)


def _descendants(pid):
    found = set(processes.children(pid))
    for child in list(found):
        found |= _descendants(child)
    return found


def test_an_exception_of_the_callers_ends_all_jobs(write, big):
    """An exception of a progress function leaves nothing behind, and arrives."""

    class EnoughError(Exception):
        pass

    def stop(progress):
        if any(each is not None and each.done_bytes for each in progress.running.values()):
            raise EnoughError

    with pytest.raises(EnoughError):
        snapmig.batch(write(ALL), progress=stop)

    assert _made(big) == []


@pytest.mark.root
def test_a_full_filesystem_fails_the_jobs_that_it_holds(write, big, tmp_path, cli):
    """Others, on another filesystem, are done."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", place], check=True)
    try:
        ram.write(big / "n.noise", ram.noise(4 << 8))
        text = ALL + f'[[save]]\nimage = "n.noise"\nsnapshot = "{place}/s"\n'
        outcome = cli("batch", write(text))

        outcome.fails(1, f"snapmig: n: {place}/s: no space left on the filesystem")
        assert list(place.iterdir()) == []
        assert len(_made(big)) == 3
    finally:
        subprocess.run(["umount", place], check=True)

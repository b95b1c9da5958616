"""Facts about whole runs of a batch, through the command line and the function."""

import itertools
import json
import os
import re
import shutil
import sys
import termios
import time
from pathlib import Path

import pytest

import snapmig
from snapmig.container.reader import SnapshotFile
from tests.support import filesystems, program, ram
from tests.support.steady import STEADY
from tests.support.sweep import sweep

MIB = 1 << 20
ALL = '[[save]]\nimage = "*.ram"\nsnapshot = "out/{name}.snap"\n'
RESTORE = '[[restore]]\nsnapshot = "out/*.snap"\nimage = "out/{name}.ram"\n'
ROOT = Path(__file__).parents[2]


def _lines(outcome):
    return outcome.json_lines


def _index_and_slots(path):
    with SnapshotFile(str(path)) as file:
        data = path.read_bytes()[file.superblock.data_offset :][: file.superblock.data_size]
        return file.index.records(0, file.geometry.packet_count).tobytes(), data


WAYS = list(itertools.product((1, 2, 5), (1, 2), ("fixed", "packed")))
ESSENTIAL = [(5, 2, "fixed"), (2, 1, "packed")]


@pytest.mark.parametrize(("at_once", "jobs", "layout"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_a_batch_saves_what_single_saves_do(write, folder, at_once, jobs, layout):
    """Index and slots are the same, whatever is under way beside it."""
    way = {"layout": layout, **STEADY}
    options = "".join(f'{name} = "{value}"\n' for name, value in way.items())
    path = write(f"jobs = {jobs}\nmax_guests_at_once = {at_once}\n{ALL}{options}")
    result = snapmig.batch(path)
    for name in "abcde":
        snapmig.save(folder / f"{name}.ram", folder / f"{name}.snap", **way)

    assert [job.state for job in result.jobs] == ["done"] * 5
    for name in "abcde":
        one, other = folder / f"{name}.snap", folder / "out" / f"{name}.snap"
        assert _index_and_slots(one) == _index_and_slots(other)


def test_a_batch_restores(write, folder):
    """Five images come back as they were, byte for byte."""
    snapmig.batch(write(ALL))
    result = snapmig.batch(write(RESTORE))

    assert [job.verb for job in result.jobs] == ["restore"] * 5
    for name in "abcde":
        assert (folder / f"{name}.ram").read_bytes() == (folder / f"out/{name}.ram").read_bytes()


def test_a_batch_may_save_and_restore(write, folder):
    """Both kinds of jobs are done in one run."""
    snapmig.save(folder / "a.ram", folder / "old.snap")
    text = ALL + '[[restore]]\nsnapshot = "old.snap"\nimage = "out/{name}.img"\n'
    snapmig.batch(write(text))

    assert (folder / "out" / "old.img").read_bytes() == (folder / "a.ram").read_bytes()


def test_only_what_changed_is_stored_with_parents(write):
    """Each guest's parent is found by a placeholder."""
    snapmig.batch(write(ALL))
    text = '[[save]]\nimage = "*.ram"\nparent = "out/{name}.snap"\nsnapshot = "out/{name}.2"\n'
    result = snapmig.batch(write(text))

    assert [job.result.stored_size for job in result.jobs] == [0] * 5


def test_one_failure_of_five_stops_no_other(cli, write, folder):
    """Four snapshots are there, the fifth is named, and the exit code is its own."""
    (folder / "c.ram").write_bytes(b"")
    outcome = cli("batch", write(ALL))

    outcome.fails(
        1,
        err=f"snapmig: c: {folder}/c.ram: image is empty, expected a guest's RAM\n"
        "snapmig: 1 of 5 jobs failed: c\n",
    )
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        f"{name}.snap" for name in "abde"
    ]


def test_the_exit_code_is_that_of_the_first_failure_in_the_file(cli, write, folder):
    """A damaged snapshot is 3, an existing image after it would be 1."""
    snapmig.batch(write(ALL))
    with (folder / "out" / "b.snap").open("r+b") as file:
        file.write(b"x" * 4096)
    (folder / "out" / "d.ram").write_bytes(b"")
    outcome = cli("batch", write(RESTORE))

    outcome.fails(3)
    assert outcome.err.endswith("2 of 5 jobs failed: b, d\n")


def test_fail_fast_cancels_the_others(write, folder):
    """The first failure ends what is under way, and nothing else is begun."""
    (folder / "a.ram").write_bytes(b"")
    result = snapmig.batch(write("max_guests_at_once = 1\nfail_fast = true\n" + ALL))

    assert [job.state for job in result.jobs] == ["failed", *["skipped"] * 4]
    assert result.jobs[1].message == "not begun because a failed"
    assert list((folder / "out").iterdir()) == []


def test_fail_fast_cancels_what_is_under_way(write, folder):
    """A save that a limit draws out is ended, and leaves nothing."""
    (folder / "e.ram").unlink()
    (folder / "z.ram").write_bytes(b"")
    ram.write(folder / "a.ram", ram.noise(64 << 8))
    text = "max_guests_at_once = 2\nfail_fast = true\nbwlimit = '1M'\n"
    text += ALL.replace("*", "a") + ALL.replace("*", "z")
    started = time.monotonic()
    result = snapmig.batch(write(text))

    assert [job.state for job in result.jobs] == ["cancelled", "failed"]
    assert result.jobs[0].message == "cancelled because z failed"
    assert (result.exit_code, list((folder / "out").iterdir())) == (1, [])
    assert time.monotonic() - started < 50  # its limit alone takes a minute


def test_json_has_a_line_for_each_job_and_one_for_all(cli, write, folder):
    """Results have the fields of a single save, failures their exit code."""
    (folder / "c.ram").write_bytes(b"")
    outcome = cli("batch", "--json", write(ALL))
    lines = _lines(outcome)
    single = _lines(cli("save", "--json", folder / "a.ram", folder / "single.snap"))[0]

    assert sorted(line["job"] for line in lines[:-1]) == [*"abcde"]
    saved = next(line for line in lines if line.get("job") == "a")
    assert set(saved) == {*single, "job"}
    assert {"message_type": "error", "job": "c", "state": "failed", "exit_code": 1}.items() <= next(
        line for line in lines if line["message_type"] == "error"
    ).items()
    assert {key: value for key, value in lines[-1].items() if key != "seconds"} == {
        "message_type": "batch",
        "jobs": 5,
        "done": 4,
        "failed": 1,
        "cancelled": 0,
        "skipped": 0,
        "exit_code": 1,
        "warnings": [],
    }


def test_the_document_has_the_fields_of_the_last_line(cli, write):
    """docs/batch.md names what the line for all has."""
    line = _lines(cli("batch", "--json", write(ALL)))[-1]
    text = (ROOT / "docs" / "batch.md").read_text()
    row = re.search(r'^\| `"message_type": "batch"` \| (.*) \|$', text, re.MULTILINE)[1]

    assert ["message_type", *re.findall(r"`(\w+)`", row)] == list(line)


def test_without_a_terminal_there_is_only_the_table(cli, write):
    """A row for each job in the order of the file, and nothing on stderr."""
    outcome = cli("batch", write(ALL))
    rows = [line.split() for line in outcome.lines]

    assert (outcome.err, rows[0]) == ("", ["job", "result", "RAM", "stored", "seconds"])
    assert [row[:4] for row in rows[1:]] == [[name, "done", "2.0", "MiB"] for name in "abcde"]


def test_progress_lines_name_their_jobs(cli, write):
    """JSON lines on stderr are of one guest each."""
    path = write("bwlimit = '1M'\n" + ALL)
    lines = [json.loads(line) for line in cli("batch", "--progress=json", path).err.splitlines()]

    assert lines
    assert {line["job"] for line in lines} <= set("abcde")
    assert list(lines[0]) == [
        "message_type",
        "job",
        "total_bytes",
        "done_bytes",
        "stored_bytes",
        "seconds",
    ]


def test_a_terminal_shows_a_bar_for_each_guest_and_one_for_all(write):
    """Bars are on lines of their own, and the one for all below those of guests."""
    path = write("max_guests_at_once = 2\nbwlimit = '1M'\n" + ALL)
    terminal, ours = os.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        process = program.start("batch", path, stderr=ours)
        os.close(ours)
        shown = b""
        while True:
            try:
                shown += screen.read(65536)
            except OSError:  # the last writer has left
                break
        outcome = program.end(process, timeout=60)

    text = shown.decode()
    outcome.ok("done")
    for name in "abcde":
        assert f"{name}: " in text
    assert "\n\nall: " in text.replace("\r", "")
    assert "5 of 5 ended" in text


@pytest.mark.parametrize("verb", sweep(["save", "restore", "batch"], lambda verb: verb == "batch"))
def test_a_limit_of_bytes_per_second_holds(cli, write, folder, verb):
    """Six MiB of noise take at least a second at 4 MiB/s."""
    ram.write(folder / "a.ram", ram.noise(6 << 8))
    snapmig.save(folder / "a.ram", folder / "a.snap")
    started = time.monotonic()
    if verb == "batch":
        outcome = cli("batch", write(ALL.replace("*", "a")), "--bwlimit", "4M")
    else:
        image, snapshot = folder / "a.ram", folder / "out" / "a.snap"
        paths = {"save": (image, snapshot), "restore": (folder / "a.snap", folder / "r")}[verb]
        outcome = cli(verb, *paths, "--bwlimit", "4M", "-j", 1)

    outcome.ok()
    assert time.monotonic() - started > 1


def test_a_limit_of_nothing_is_refused(cli, folder):
    """The option's name stands in the refusal."""
    outcome = cli("save", folder / "a.ram", folder / "out" / "a", "--bwlimit", "0")

    outcome.fails(2, "argument --bwlimit: bwlimit must be")


@pytest.mark.root
def test_images_that_can_not_all_fit_are_refused_before_the_start(cli, write, tmp_path):
    """Each alone would fit, so nothing but looking first tells."""
    snapmig.batch(write(ALL))
    with filesystems.mounted("tmpfs", tmp_path / "small", "size=4M") as place:
        outcome = cli("batch", write(RESTORE.replace('"out/{', f'"{place}/{{')))

        outcome.fails(1)
        assert list(place.iterdir()) == []
    assert "images need " in outcome.err


@pytest.mark.root
def test_guests_that_may_not_fit_are_warned_of(cli, write, folder, tmp_path):
    """The warning comes first; zeros fit after all."""
    for name in "abcde":
        (folder / f"{name}.ram").write_bytes(bytes(2 * MIB))
    with filesystems.mounted("tmpfs", tmp_path / "small", "size=4M") as place:
        outcome = cli("batch", write(ALL.replace("out", str(place))))

    outcome.ok(err=None)
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith(f"snapmig: warning: {place}: guests of up to 10.0 MiB are saved")


def test_a_worker_keeps_no_file_of_a_job_that_ended(write, folder):
    """After many guests a worker has as many files open as after one."""
    import multiprocess

    counts = []

    def look(_job):
        counts.append(
            [
                len(list(Path(f"/proc/{child.pid}/fd").iterdir()))
                for child in multiprocess.active_children()
            ]
        )

    for number in range(20):
        shutil.copy(folder / "a.ram", folder / f"x{number:02}.ram")
    run = snapmig.batches.run.Batch(write("max_guests_at_once = 1\n" + ALL))
    run.run(look)

    assert max(counts[-1]) <= max(counts[1]) + 2


def test_the_example_runs(folder):
    """examples/batch.toml does what it says, given what it names."""
    for name in ("shm", "xml", "images", "earlier", "backup", "restored"):
        (folder / name).mkdir()
    for name in "ab":
        (folder / f"{name}.ram").rename(folder / "shm" / f"{name}.ram")
        (folder / "xml" / f"{name}.xml").write_text("<domain/>")
    (folder / "c.ram").rename(folder / "images" / "database")
    snapmig.save(folder / "d.ram", folder / "earlier" / "mail.snap")
    shutil.copy(ROOT / "examples" / "batch.toml", folder)
    result = program.run(
        "batch", "batch.toml", cwd=folder, env=program.ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    )

    result.ok()
    assert [line.split()[:2] for line in result.lines[1:]] == [
        [name, "done"] for name in ("a", "b", "database", "mail")
    ]


def test_help_fits_a_screen_and_has_examples_that_run(cli, write, folder, monkeypatch):
    """At most 40 lines of 80 columns, and each example is a command that works."""
    text = cli("batch", "--help").out
    lines = text.splitlines()
    write(ALL.replace("snapshot", "force = true\nsnapshot"))
    monkeypatch.chdir(folder)
    examples = re.findall(r"^  snapmig (batch .*)$", text, re.MULTILINE)

    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert len(examples) >= 2
    for example in examples:
        cli(*example.split()).ok()


def test_a_single_save_does_not_pay_for_batches():
    """Neither the reader of files nor shared workers are imported by a save."""
    code = "import snapmig.commands.save, snapmig.operations.save, sys; "
    code += "print({'msgspec', 'snapmig.workers.shared_pool'} & set(sys.modules))"

    program.call([sys.executable, "-c", code], cwd=ROOT).ok(out="set()\n")

"""Facts about streams, exit codes, progress and arguments that look like nothing."""

import errno
import json
import os
import pty
import re
import subprocess
import termios

import pytest

import snapmig
from snapmig.commands import save as save_command
from tests.cli.conftest import RAM
from tests.support import program
from tests.support.filesystems import memfd

VERBS = {
    "save": ("save", "guest.ram", "new.snap"),
    "restore": ("restore", "guest.snap", "new.ram"),
    "info": ("info", "guest.snap"),
    "verify": ("verify", "guest.snap"),
}
WORKERS = ("save", "restore", "verify")


@pytest.fixture
def place(guest):
    """Give a directory with a guest and its snapshot."""
    snapmig.save("guest.ram", "guest.snap")
    return guest


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", VERBS)
def test_results_go_to_stdout_alone(verb):
    """A run that works says nothing on stderr when that is no terminal."""
    result = program.run(*VERBS[verb])

    result.ok()
    assert result.out


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", VERBS)
def test_a_result_is_one_line_of_json(cli, verb):
    """With --json the result is one object that says of which verb it is."""
    outcome = cli(*VERBS[verb], "--json")

    outcome.ok()
    assert [line["message_type"] for line in outcome.json_lines] == [verb]


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("verb", ["restore", "info", "verify"])
def test_an_error_is_one_line_of_json(cli, verb):
    """With --json an error is one object on stderr, and stdout is empty."""
    outcome = cli(*VERBS[verb], "--json")

    outcome.fails(1, out="", lines=1)
    assert json.loads(outcome.err) == {
        "message_type": "error",
        "exit_code": 1,
        "message": "guest.snap: No such file or directory",
    }


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("verb", ["restore", "info", "verify"])
def test_an_error_is_one_sentence(cli, verb):
    """Without --debug there is no traceback."""
    outcome = cli(*VERBS[verb])

    assert outcome.err == "snapmig: guest.snap: No such file or directory\n"


@pytest.mark.usefixtures("place")
def test_verify_tells_of_every_snapshot(cli):
    """One that can't be read does not keep the others from being checked, or from being named."""
    outcome = cli("verify", "none.snap", "guest.snap", "other.snap")

    outcome.fails(
        1,
        err="snapmig: none.snap: No such file or directory\n"
        "snapmig: other.snap: No such file or directory\n",
    )
    assert outcome.out.count(": ok") == 1


@pytest.mark.usefixtures("guest")
def test_debug_shows_where_it_failed(cli):
    """With --debug the traceback comes before the sentence."""
    lines = cli("info", "guest.snap", "--debug").err.splitlines()

    assert (lines[0], lines[-1]) == (
        "Traceback (most recent call last):",
        "snapmig: guest.snap: No such file or directory",
    )


@pytest.mark.usefixtures("guest")
def test_a_bug_is_called_a_bug(cli, monkeypatch):
    """An unexpected exception ends with a traceback and code 1."""

    def broken(*_arguments, **_options):
        raise LookupError("oops")

    monkeypatch.setattr(save_command, "save", broken)
    outcome = cli("save", "guest.ram", "new.snap")

    outcome.fails(1)
    assert outcome.err.splitlines()[0] == "Traceback (most recent call last):"
    assert outcome.err.splitlines()[-1] == "snapmig: this is a bug in snapmig: LookupError('oops')"


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", WORKERS)
def test_progress_lines_are_json(cli, verb):
    """--progress json prints objects whose last one says that all of RAM is done."""
    lines = [json.loads(line) for line in cli(*VERBS[verb], "--progress", "json").err.splitlines()]

    assert {line["message_type"] for line in lines} == {"progress"}
    assert (lines[-1]["done_bytes"], lines[-1]["total_bytes"]) == (len(RAM), len(RAM))


@pytest.mark.usefixtures("place")
def test_progress_lines_of_a_save_have_the_ratio(cli):
    """Progress lines have the bytes stored so far."""
    outcome = cli("save", "guest.ram", "new.snap", "--progress", "json", "--json")

    assert json.loads(outcome.err.splitlines()[-1])["stored_bytes"] == (outcome.json["stored_size"])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("progress", ["auto", "none"])
@pytest.mark.parametrize("verb", WORKERS)
def test_no_bar_where_nobody_looks(verb, progress):
    """On a stderr that is no terminal there is no bar."""
    assert program.run(*VERBS[verb], "--progress", progress).err == ""


def _on_a_terminal(*arguments, **environment):
    # The program with a terminal as its stderr, and what appeared there.
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen(
        [*program.PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**program.ENVIRONMENT, "TERM": "xterm", **environment},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError as error:
            assert error.errno == errno.EIO  # how a terminal ends  # noqa: PT017
        out = process.stdout.read()
    os.close(ours)
    return process.returncode, out.decode(), shown.decode()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("verb", "word"), [("save", "saving"), ("restore", "restoring"), ("verify", "verifying")]
)
def test_a_bar_on_a_terminal(verb, word):
    """On a terminal a bar counts bytes of RAM to the end, and stdout has the result alone."""
    code, out, shown = _on_a_terminal(*VERBS[verb])

    assert (code, "\r" in out, "%|" in out) == (0, False, False)
    assert re.search(rf"{word}: 100%\|.*\| 8\.0 MiB of 8\.0 MiB \[.*, .*iB/s", shown)


@pytest.mark.usefixtures("place")
def test_the_bar_of_a_save_has_the_ratio():
    """The share of RAM that is stored stands beside the bar."""
    assert re.search(r"\d\d\.\d % of RAM stored", _on_a_terminal(*VERBS["save"])[2])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "environment"), [(("--progress", "none"), {}), ((), {"TQDM_DISABLE": "1"})]
)
def test_no_bar_where_none_is_wanted(arguments, environment):
    """A terminal has no bar with --progress none, or when tqdm is turned off."""
    assert _on_a_terminal(*VERBS["save"], *arguments, **environment)[2] == ""


@pytest.mark.usefixtures("place")
def test_a_bar_where_one_is_asked_for():
    """--progress tty draws the bar into a file too."""
    assert "saving: 100%" in program.run(*VERBS["save"], "--progress", "tty").err


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "unknown",
        "save",
        "save guest.ram",
        "save guest.ram s extra",
        "save guest.ram s --level 10",
        "save guest.ram s --level -1",
        "save guest.ram s --level x",
        "save guest.ram s --level=",
        "save guest.ram s --accelerator isal --level 4",
        "save guest.ram s --accelerator isal --level 6",
        "save guest.ram s --accelerator python --level 0",
        "save guest.ram s --accelerator unknown",
        "save guest.ram s --accelerator isal --huffman fixed",
        "save guest.ram s --compression gzip",
        "save guest.ram s --compression zstd --level -8",
        "save guest.ram s --compression zstd --level 20",
        "save guest.ram s --compression zstd --accelerator isal",
        "save guest.ram s --compression zstd --accelerator python",
        "save guest.ram s --compression zstd --huffman fixed",
        "save guest.ram s --compression zstd --window 32k",
        "save guest.ram s --compression lz4 --level 0",
        "save guest.ram s --compression lz4 --level 13",
        "save guest.ram s --compression lz4 --accelerator isal",
        "save guest.ram s --compression lz4 --window 4k",
        "save guest.ram s --compression none --level 1",
        "save guest.ram s --compression none --accelerator isal",
        "save guest.ram s --depth 0",
        "save guest.ram s --depth 65",
        "save guest.ram s --depth x",
        "save guest.ram s --huffman best",
        "save guest.ram s --window 8k",
        "save guest.ram s --layout flat",
        "save guest.ram s --packet-size 0",
        "save guest.ram s --packet-size 32K",
        "save guest.ram s --packet-size 8M",
        "save guest.ram s --packet-size x",
        "save guest.ram s -j 0",
        "save guest.ram s -j -1",
        "save guest.ram s -j x",
        "save guest.ram s -j 100000",
        "save guest.ram s --attach x",
        "save guest.ram s --attach =guest.xml",
        "save guest.ram s --attach x=",
        "save guest.ram s --attach x=guest.xml --attach x=guest.xml",
        "save guest.ram s --progress loud",
        "restore guest.snap",
        "restore guest.snap r -f --in-place",
        "restore guest.snap r -j 0",
        "restore guest.snap r --block=",
        "restore guest.snap r --accelerator unknown",
        "restore guest.snap r --depth 0",
        "info",
        "verify",
        "verify guest.snap -j 0",
        "verify guest.snap --window 8k",
        "verify guest.snap --accelerator unknown",
        "verify guest.snap --depth 0",
        "accelerators extra",
        "completion",
        "completion tcsh",
    ],
)
def test_usage_errors(place, cli, arguments):
    """Arguments that make no sense are refused with code 2, and nothing is made."""
    before = sorted(place.iterdir())
    outcome = cli(*arguments.split())

    outcome.fails(2, out="")
    assert outcome.err
    assert sorted(place.iterdir()) == before


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("arguments", "field", "expected"),
    [
        ("save guest.ram new.snap --level 0", "ram_size", len(RAM)),
        ("save guest.ram new.snap -j 1", "jobs", 1),
        ("save guest.ram new.snap --packet-size 64k", "ram_size", len(RAM)),
        ("restore guest.snap new.ram --block ram", "block", "ram"),
        ("restore guest.snap new.ram", "block", None),
        ("verify guest.snap --quick", "quick", True),
    ],
)
def test_arguments_take_effect(cli, arguments, field, expected):
    """An argument is found in the result, also when it is 0."""
    assert expected == cli(*arguments.split(), "--json").json[field]


def test_level_0_is_not_the_default(place, cli):
    """Level 0 stores more than level 1 does."""
    sizes = [
        cli("save", "guest.ram", "s", "-f", "--json", *level).json["stored_size"]
        for level in (("--level", 0), ("--level", 1), ())
    ]

    assert (place / "s").exists()
    assert sizes[0] > sizes[1] == pytest.approx(sizes[2], rel=0.001)  # ISA-L's bytes may differ


def test_an_attached_file_is_in_the_snapshot(place, cli):
    """--attach keeps a file under its name, of which only the first = counts."""
    (place / "a=b").write_text("text")
    cli("save", "guest.ram", "new.snap", "--attach", "x=a=b", "--attach", "é=guest.xml")
    with snapmig.open("new.snap") as snapshot:
        assert dict(snapshot.attachments) == {"x": b"text", "é": b"<domain/>\n"}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("arguments", [*VERBS.values(), ("--help",), ("save", "--help")])
def test_a_reader_that_has_left(arguments):
    """When nobody reads stdout any more, the program ends without a word."""
    ours, theirs = os.pipe()
    os.close(ours)
    result = program.run(*arguments, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)

    result.fails(141, err="")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", VERBS)
def test_a_stdout_that_is_full(verb):
    """A result that can't be written is a failure in one sentence."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = program.run(*VERBS[verb], stdout=full, stderr=subprocess.PIPE)

    result.fails(1, err="snapmig: No space left on device\n")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", VERBS)
def test_a_stdout_that_is_closed(verb):
    """A program that is started without a stdout does its work."""
    closed = ["sh", "-c", 'exec "$@" >&-', "sh"]

    program.call([*closed, *program.PROGRAM, *VERBS[verb]], env=program.ENVIRONMENT).ok()


@pytest.mark.usefixtures("place")
def test_names_that_start_with_a_dash(cli):
    """After -- a name may look like an option."""
    cli("save", "-j", "1", "--", "guest.ram", "-f").ok()


def test_memory_without_a_name_is_saved(guest, cli):
    """A memfd is named by a descriptor of the process that has it."""
    with memfd(RAM) as path:
        cli("save", path, "new.snap").ok()
    cli("restore", "new.snap", "new.ram").ok()

    assert (guest / "new.ram").read_bytes() == RAM

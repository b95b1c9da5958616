"""Names that users give: what they must not do to a terminal or to a reader of JSON, or become."""

import json
import os
import subprocess

import pytest

import snapmig
from tests.support import program
from tests.support.sweep import sweep

ESCAPE = "red\x1b[31m"
BYTES = os.fsdecode(b"caf\xe9")
SHOWN = {ESCAPE: r"red\x1b[31m", BYTES: r"caf\xe9"}


@pytest.fixture
def name(request, guest):
    """Give a name that is no plain text, of an image and, with an end, of a snapshot."""
    (guest / request.param).write_bytes((guest / "guest.ram").read_bytes())
    snapmig.save(request.param, f"{request.param}.snap", jobs=1)
    return request.param


def _told(name, *commands):
    # What is printed of commands, as bytes: names are arguments of a real process.
    printed = b""
    for words in commands:
        arguments = [os.fsencode(word.replace("NAME", name)) for word in words.split()]
        done = subprocess.run(
            [*program.PROGRAM, *arguments], capture_output=True, check=False, timeout=60
        )
        assert 0 <= done.returncode <= 4
        printed += done.stdout + done.stderr
    return printed


COMMANDS = {
    "done": ["save -f NAME NAME.new", "info NAME.snap", "verify NAME.snap", "chain NAME.snap"],
    "restored": ["restore NAME.snap NAME.back", "merge NAME.snap NAME.merged"],
    "refused": ["save NAME NAME.snap", "info NAME.none", "info NAME", "verify NAME"],
    "usage": [
        "NAME",
        "info NAME.snap NAME",
        "save --compression NAME a b",
        "save --level NAME a b",
    ],
    "backup": ["backup run NAME.none", "backup init NAME.toml", "batch NAME.none"],
}


BOTH = [(name, kind) for name in SHOWN for kind in COMMANDS]
ESSENTIAL = [(ESCAPE, "done"), (ESCAPE, "usage"), (BYTES, "refused")]


@pytest.mark.parametrize(
    ("name", "kind"), sweep(BOTH, lambda each: each in ESSENTIAL), indirect=["name"], ids=ascii
)
def test_names_do_nothing_to_a_terminal(name, kind):
    """Whatever is printed, results, refusals or usage, a name in it is visible text alone."""
    text = _told(name, *COMMANDS[kind]).decode("utf-8", "strict")

    assert text.replace("\n", "").isprintable()
    assert text.count(SHOWN[name]) >= 2 or kind == "usage"


@pytest.mark.parametrize(
    "name", sweep(SHOWN, lambda name: name == ESCAPE), indirect=True, ids=ascii
)
def test_a_batchs_names_do_nothing_to_a_terminal(name, guest):
    """Nor do those of jobs, which come from patterns."""
    pattern = f"{name[:3]}*"
    toml = f'[[save]]\nimage = "{pattern}"\nsnapshot = "{{name}}.snap"\n'
    (guest / f"{name}.snap").unlink()
    (guest / "jobs.toml").write_text(toml)
    text = _told(name, "batch jobs.toml", "batch jobs.toml").decode("utf-8", "strict")

    assert text.replace("\n", "").isprintable()
    assert SHOWN[name] in text


@pytest.mark.parametrize("name", sweep(SHOWN, lambda name: name == BYTES), indirect=True, ids=ascii)
def test_json_of_names_is_read_by_every_reader(name):
    """A line of JSON has no half characters: a byte that is not UTF-8 is four others."""
    lines = _told(name, "save --json -f NAME NAME.new", "info --json NAME.snap", "info --json NAME")
    results = [json.loads(line) for line in lines.splitlines()]
    texts = [text for result in results for text in result.values() if isinstance(text, str)]

    assert [text.encode() for text in texts]
    assert results[0]["image"] == (name if name == ESCAPE else SHOWN[BYTES])


def test_json_of_other_scripts_comes_back():
    """UTF-8 is kept, characters outside of the first plane too."""
    from snapmig.printable import json_line

    fields = {"message": 'naïve "日本" \U0001f642 \\ \x1b', "list": ["é", 1, None]}

    assert json.loads(json_line(fields)) == fields
    assert json_line(fields).isascii()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("save guest.ram qmp:", "qmp:: expected a file or s3://BUCKET/KEY, or ./qmp: for a file"),
        ("save guest.ram qmp:/x", "qmp:/x: expected a file or s3://BUCKET/KEY, or ./qmp:/x for"),
        ("save guest.ram s3:", "s3:: expected s3://BUCKET/KEY, or ./s3: for a file of that name"),
        ("save guest.ram s3:/b/k", "s3:/b/k: expected s3://BUCKET/KEY, or ./s3:/b/k for a file"),
        ("save qmp: new.snap", "qmp:: expected qmp:SOCKET, the socket of QEMU's monitor"),
        ("restore guest.snap qmp:", "qmp:: expected qmp:SOCKET, the socket of QEMU's monitor"),
        ("save guest.ram new/", "new/: expected the name of a file"),
        ("save guest.ram {empty}", "'': expected the name of a file"),
        ("restore guest.snap s3:", "s3:: expected s3://BUCKET/KEY, or ./s3: for a file of that"),
        ("restore guest.snap new/", "new/: expected the name of a file"),
        ("merge guest.snap new/", "new/: expected the name of a file"),
        ("repack guest.snap qmp:x", "qmp:x: expected a file or s3://BUCKET/KEY, or ./qmp:x for"),
        ("backup init new/", "new/: expected the name of a file"),
        ("batch save.toml", "save.toml: [[save]] 1: s3:x: expected s3://BUCKET/KEY, or ./s3:x"),
        ("batch restore.toml", "restore.toml: [[restore]] 1: new/: expected the name of a file"),
    ],
)
def test_names_that_were_meant_otherwise_are_refused(guest, cli, words, says):
    """A name like a URL's, a socket's or a directory's makes no file, and says what would."""
    snapmig.save("guest.ram", "guest.snap", jobs=1)
    (guest / "save.toml").write_text('[[save]]\nimage = "guest.ram"\nsnapshot = "s3:x"\n')
    text = '[[restore]]\nsnapshot = "guest.snap"\nimage = "new/"\n'
    (guest / "restore.toml").write_text(text)
    before = sorted(guest.iterdir())
    outcome = cli(*(word.format(empty="") for word in words.split()))

    outcome.fails(2, out="", start=f"snapmig: {says}")
    assert sorted(guest.iterdir()) == before


@pytest.mark.parametrize("name", ["./s3:", "./qmp:x"])
def test_such_a_name_can_be_a_files(guest, cli, name):
    """The name that the refusal offers is taken."""
    cli("save", "guest.ram", name).ok()
    assert (guest / name).is_file()


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    "words", ["save -- guest.ram --", "save -- -- guest.snap", "info -- --", "merge -- -- --"]
)
def test_a_second_mark_of_the_options_end_is_refused(cli, words):
    """Such a file has another name, which the refusal tells."""
    outcome = cli(*words.split())

    outcome.fails(2, out="")
    assert outcome.err.endswith(": error: -- can be given once; a file of that name is ./--\n")


@pytest.mark.usefixtures("guest")
def test_an_attachments_name_is_utf8(cli):
    """A snapshot keeps names as UTF-8, so another one is refused, in a sentence."""
    outcome = cli("save", "guest.ram", "guest.snap", "--attach", f"{BYTES}=guest.xml")

    outcome.fails(2, err="snapmig: attachment name 'caf\\udce9' is not UTF-8\n")

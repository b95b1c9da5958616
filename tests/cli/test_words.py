"""The place of words: flags in commands, keys in files, and only facts in the library."""

import json

import pytest

import snapmig
from snapmig.units import format_count


@pytest.fixture
def made(guest):
    """Work where the guest's snapshot is there already."""
    snapmig.save("guest.ram", "guest.snap", jobs=1)
    return guest


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    "call",
    [
        lambda: snapmig.save("guest.ram", "guest.snap"),
        lambda: snapmig.restore("guest.snap", "guest.ram"),
        lambda: snapmig.repack("guest.snap", "guest.xml"),
    ],
    ids=["save", "restore", "repack"],
)
def test_the_library_speaks_of_no_flag(call):
    """An error of a function has the place and the fact."""
    with pytest.raises(snapmig.DestinationExistsError) as caught:
        call()

    assert caught.value.message == "exists already"


@pytest.mark.usefixtures("made")
def test_json_has_the_fact(cli):
    """A program that reads errors can't type a flag."""
    error = json.loads(cli("save", "--json", "guest.ram", "guest.snap").err)

    assert error["message"] == "guest.snap: exists already"


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("words", ["save guest.ram guest.snap", "backup init guest.xml"])
def test_a_command_names_its_flag(cli, words):
    """Where -f is an option, the refusal says so."""
    assert cli(*words.split()).err.endswith(": exists already, -f overwrites it\n")


def test_a_batch_names_its_key(made, cli):
    """In a file of jobs, force is a key."""
    (made / "jobs.toml").write_text('[[save]]\nimage = "guest.ram"\nsnapshot = "guest.snap"\n')
    first = cli("batch", "jobs.toml").err.splitlines()[0]

    assert first.endswith("guest.snap: exists already, force = true overwrites it")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("backup list", "snapmig backup list: error: the following arguments are required: CONFIG"),
        ("backup run", "snapmig backup run: error: the following arguments are required: CONFIG"),
        ("save", "snapmig save: error: the following arguments are required: IMAGE, SNAPSHOT"),
        ("info --none x", "snapmig: error: unrecognized arguments: --none"),
    ],
)
def test_usage_errors_name_the_command(cli, words, says):
    """An error of usage starts with what was called, and asks for what is needed alone."""
    outcome = cli(*words.split())

    outcome.fails(2)
    assert outcome.err.splitlines()[-1] == says


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("resotre a b", "restore"),
        ("backup rn b.toml", "run"),
        ("save --compression zst a b", "zstd"),
        ("save --compresion=zstd a b", "--compression"),
        ("backup run --dry-rn b.toml", "--dry-run"),
    ],
)
def test_mistakes_are_met_with_a_guess(cli, words, meant):
    """A verb, a choice or an option that is nearly right is named."""
    outcome = cli(*words.split())

    outcome.fails(2)
    assert outcome.err.rstrip().endswith(f"; did you mean {meant}?")


def test_a_call_without_a_verb_shows_examples(cli):
    """Whoever types the name alone sees a few commands, and how to see all."""
    outcome = cli()

    outcome.fails(
        2, "snapmig save guest.ram guest.snap", '"snapmig --help" lists all verbs', out=""
    )
    assert outcome.err.count("\n") <= 12


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 pages"), (1, "1 page"), (2, "2 pages"), (1000, "1000 pages")]
)
def test_counts_are_of_one_or_of_many(number, words):
    """A number of things has its plural where there is not one."""
    assert format_count(number, "page") == words

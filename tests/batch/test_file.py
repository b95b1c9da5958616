"""Facts about the file of a batch: what it may say, and the sentence where it may not."""

import re
import socket
from pathlib import Path

import pytest

import snapmig
from snapmig.batches.file import (
    DefaultsTable,
    RestoreTable,
    SaveTable,
    read_batch_file,
)
from snapmig.batches.run import Batch
from snapmig.cluster.scheduler import Scheduler
from snapmig.errors import UsageError

SAVE = '[[save]]\nimage = "a.ram"\nsnapshot = "out/a.snap"\n'
DOCUMENT = Path(__file__).parents[2] / "docs" / "batch.md"


def _names(path):
    return [job.name for job in Batch(path).jobs]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "x: unknown key"),
        ('"x\\ny" = 1', "'x\\ny': unknown key"),
        ("max_guest_at_once = 1", "max_guest_at_once: unknown key, did you mean max_g"),
        ('max_guests_at_once = "2"', "max_guests_at_once: expected a whole number, found a string"),
        ("max_guests_at_once = true", "max_guests_at_once: expected a whole number, found true"),
        ("max_guests_at_once = 0", "max_guests_at_once is 0, expected at least 1"),
        ("jobs = 0", "jobs is 0, expected 1 to 1024"),
        ("jobs = 5000\n" + SAVE, "jobs is 5000, expected 1 to 1024"),
        ("fail_fast = 1", "fail_fast: expected true or false, found a whole number"),
        ("bwlimit = 1.5", "bwlimit: expected a whole number or a string, found a number with a"),
        ('bwlimit = "fast"\n' + SAVE, "bwlimit is 'fast', expected bytes per second with an"),
        ("bwlimit = 0\n" + SAVE, "bwlimit must be positive, got 0"),
        ("defaults = 1", "defaults: expected a table, found a whole number"),
        ("[defaults]\nlevl = 1\n" + SAVE, "[defaults]: levl: unknown key, did you mean level?"),
        ("[defaults]\nname = 'x'\n" + SAVE, "[defaults]: name: unknown key"),
        ("save = 1", "save: expected an array, found a whole number"),
        ("[save]\nimage = 'a'", "save: expected an array, found a table"),
        ("[[save]]\nimage = 'a'", "[[save]] 1: snapshot: the key is missing"),
        (SAVE + "[[save]]\nimage = 1", "[[save]] 2: image: expected a string, found a whole"),
        (SAVE + "in_place = true", "[[save]] 1: in_place: unknown key"),
        (SAVE + "attach = { x = 1 }", "[[save]] 1: attach: one of its values: expected a string"),
        (SAVE + "base = ['x', 1]", "[[save]] 1: base 2: expected a string, found a whole"),
        (SAVE + "level = 99", "[[save]] 1: level of zlib is 99, expected 0 to 9 or auto"),
        (SAVE + "compression = 'zip'", "[[save]] 1: compression is 'zip', expected zlib or"),
        (SAVE + "layout = 'loose'", "[[save]] 1: layout is 'loose', expected fixed or packed"),
        (SAVE + "packet_size = '5K'", "[[save]] 1: packet size is 5.0 KiB, expected a power"),
        (SAVE + "format = 'vmdk'", "[[save]] 1: format is 'vmdk', expected one of "),
        (
            SAVE.replace("a.ram", "qmp:s") + "resume = true",
            "is saved from its start, without resume",
        ),
        (SAVE + "live = true", "[[save]] 1: only a running guest can be saved live"),
        (SAVE + "accelerator = 'gpu'", "[[save]] 1: accelerator is 'gpu', expected one of auto"),
        ("[[restore]]\nsnapshot = 1", "[[restore]] 1: snapshot: expected a string, found a"),
        (
            "[[restore]]\nsnapshot = 's'\nimage = 'r'\nforce = true\nin_place = true",
            "[[restore]] 1: force, in_place and for_qemu exclude each other",
        ),
        (SAVE.replace("out/a", "{nme}"), "'{nme}.snap' has {nme}, expected one of {folder}, {name"),
        (SAVE.replace("a.ram", "*.img"), "[[save]] 1: nothing matches "),
        ("", "has no [[save]] and no [[restore]]"),
        ("x = ", "not TOML: invalid value"),
        ("jobs = 1\njobs = 2", "not TOML: cannot overwrite a value"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_the_place(cli, write, text, words):
    """Exit code 2, the file, the table, the key, what it is and what was expected."""
    path = write(text)
    outcome = cli("batch", path)

    outcome.fails(2, words, out="", start=f"snapmig: {path}: ", lines=1)


def test_a_file_that_is_not_text_is_refused(cli, folder):
    """TOML is UTF-8."""
    (folder / "jobs.toml").write_bytes(b'bwlimit = "\xff"')

    assert "is not UTF-8, as TOML must be" in cli("batch", folder / "jobs.toml").err


def test_a_file_that_is_not_there_is_named(cli, folder):
    """The system's own words, with the path, and exit code 1."""
    outcome = cli("batch", folder / "none.toml")

    outcome.fails(1, err=f"snapmig: {folder}/none.toml: No such file or directory\n")


def test_a_glob_gives_a_job_for_each_match(write):
    """Matches are in order, and named by what stands before the last dot."""
    assert _names(write('[[save]]\nimage = "*.ram"\nsnapshot = "out/{name}.snap"')) == [*"abcde"]


def test_a_glob_finds_sockets_of_guests(write, folder):
    """``qmp:`` with a pattern is a job for each socket."""
    for name in ("x.qmp", "y.qmp"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / name))
    batch = Batch(write('[[save]]\nimage = "qmp:*.qmp"\nsnapshot = "out/{name}.snap"'))

    assert [job.source for job in batch.jobs] == [f"qmp:{folder}/x.qmp", f"qmp:{folder}/y.qmp"]


def test_a_domain_is_a_job_of_its_name(write):
    """A domain of libvirt's has no path, and its name, whatever is in it, names the job."""
    text = '[defaults]\nconnect = "qemu:///session"\n'
    text += '[[save]]\nimage = "libvirt:web.example.org"\nsnapshot = "out/{name}.snap"\n'
    jobs = Batch(write(text + SAVE)).jobs

    assert [(job.name, job.source, job.arguments.get("connect")) for job in jobs] == [
        ("web.example.org", "libvirt:web.example.org", "qemu:///session"),
        ("a", str(jobs[1].source), None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SAVE + 'connect = "qemu:///system"', "connect is for a guest of libvirt's"),
        (SAVE.replace("a.ram", "libvirt:w") + 'connect = "system"', "expected a URI like qemu:"),
        (SAVE.replace("a.ram", "libvirt:"), "expected libvirt:DOMAIN, a domain's name or UUID"),
        (SAVE.replace("a.ram", "libvirt:w").replace("out/a", "{folder}"), "has {folder}, expected"),
        (
            "[[restore]]\nsnapshot = 'a.snap'\nimage = 'libvirt:w'",
            "libvirt loads a guest only from its own image",
        ),
    ],
    ids=["other image", "no URI", "no name", "no folder", "restore"],
)
def test_what_domains_do_not_have_is_refused_before_the_start(cli, write, text, words):
    """The sentence has the place in the file."""
    outcome = cli("batch", write(text))

    assert (outcome.code, words in outcome.err, outcome.err.count("\n")) == (2, True, 1)


def test_a_file_whose_name_looks_like_a_glob_is_itself(write, folder):
    """A name that exists is taken as it is."""
    (folder / "[a].ram").write_bytes(b"x" * 4096)

    assert _names(write(SAVE.replace("a.ram", "[a].ram"))) == ["[a]"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{name}", "web"),
        ("{stem}", "a"),
        ("{folder}", None),
        ("{{name}}", "{name}"),
        ("x-{name}-{stem}", "x-web-a"),
    ],
)
def test_placeholders(write, folder, text, found):
    """A job's name, the image's name and its directory's, and braces themselves."""
    job = Batch(write(SAVE.replace("out/a", text) + 'name = "web"')).jobs[0]

    assert job.destination == f"{folder}/{found or folder.name}.snap"


def test_a_name_may_be_made_of_placeholders(write, folder):
    """Where all images have the same name, their directories may tell them apart."""
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "ram").write_bytes(b"x" * 4096)
    text = '[[save]]\nimage = "*/ram"\nname = "{folder}"\nsnapshot = "out/{name}.snap"'

    assert _names(write(text)) == ["one", "two"]


def test_placeholders_are_filled_in_everywhere(write, folder):
    """Parents and attachments have them too."""
    text = 'parent = "old/{name}.snap"\nattach = { xml = "{name}.xml" }'
    words = Batch(write(SAVE + text)).jobs[0].arguments

    assert (words["parent"], words["attach"]) == (
        f"{folder}/old/a.snap",
        {"xml": f"{folder}/a.xml"},
    )


def test_defaults_hold_where_a_job_says_nothing(write):
    """A job's own word is stronger; attachments are joined."""
    text = '[defaults]\nlevel = 3\nforce = true\nattach = { x = "x" }\n' + SAVE
    text += 'level = 5\nattach = { y = "y" }\n'
    words = Batch(write(text)).jobs[0].arguments

    assert (words["level"], words["force"], sorted(words["attach"])) == (5, True, ["x", "y"])


def test_resume_as_a_default_is_for_files(write):
    """In [defaults] it has no effect on jobs of running guests."""
    text = (
        "[defaults]\nresume = true\n" + SAVE + SAVE.replace("a.ram", "qmp:s").replace("a.snap", "b")
    )
    given = [job.arguments.get("resume") for job in Batch(write(text)).jobs]
    assert given == [True, None]


def test_live_as_a_default_is_for_guests_that_run(write):
    """Images are saved as ever."""
    assert "live" not in Batch(write("[defaults]\nlive = true\n" + SAVE)).jobs[0].arguments


POSTCOPY = """
[[restore]]
snapshot = "a.snap"
image = "qmp:s"
postcopy = true
working_set = "a.set"
"""


def test_a_working_set_that_is_there_is_for_all(write, folder):
    """Guests of one snapshot may be started with the same, which is only read."""
    (folder / "a.set").touch()
    text = POSTCOPY + POSTCOPY.replace("qmp:s", "qmp:t") + "name = 'b'"

    assert [job.reads for job in Batch(write(text)).jobs] == [(str(folder / "a.set"),)] * 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("qmp:s", "image", "postcopy is for a QEMU that waits, as qmp:SOCKET"),
        ("true", "true\nvia = 'multifd'", "postcopy is a way of its own, without via and wire"),
        ("true", "false", "a working set is for postcopy"),
    ],
)
def test_words_against_postcopy(cli, write, old, new, words):
    """What a restore would refuse is refused before anything begins."""
    cli("batch", write(POSTCOPY.replace(old, new))).fails(2, f"[[restore]] 1: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SAVE + SAVE.replace("out/", "out/../out/") + "name = 'b'", "'b' and 'a' both have "),
        (SAVE + SAVE.replace("out/a", "out/b"), "would be named 'a' as "),
        (SAVE + "[[restore]]\nname = 'r'\nsnapshot = 'out/a.snap'\nimage = 'r'", "which 'a' makes"),
        (
            SAVE + "[[save]]\nimage = 'b.ram'\nparent = 'out/a.snap'\nsnapshot = 'out/b.snap'",
            "'b' reads ",
        ),
        (
            SAVE.replace("a.ram", "qmp:s")
            + SAVE.replace("a.ram", "qmp:s").replace("out/a", "out/b")
            + "name = 'b'",
            "both have qmp:",
        ),
        (
            SAVE.replace("a.ram", "libvirt:w")
            + SAVE.replace("a.ram", "libvirt:w").replace("out/a", "out/b")
            + "name = 'b'",
            "both have libvirt:w",
        ),
        ('[[save]]\nimage = "*.ram"\nsnapshot = "out/same.snap"', "'b' and 'a' both have "),
        (POSTCOPY + POSTCOPY.replace("qmp:s", "qmp:t") + "name = 'b'", "'b' and 'a' both have "),
    ],
    ids=["destination", "name", "restore", "parent", "guest", "domain", "glob", "working set"],
)
def test_jobs_in_each_others_way_are_refused_before_the_start(cli, write, folder, text, words):
    """Nothing is begun, and both jobs are named."""
    outcome = cli("batch", write(text))

    outcome.fails(2, words)
    assert list((folder / "out").iterdir()) == []


def test_arguments_are_stronger_than_the_file(write):
    """Options of the command line go before those of the file."""
    path = write("jobs = 3\nmax_guests_at_once = 1\nfail_fast = true\n" + SAVE)
    batch = Batch(path, jobs=2, max_guests_at_once=5, fail_fast=False)

    assert (batch.workers, batch.at_once, batch.fail_fast) == (2, 1, False)


def test_arguments_are_checked_too(write):
    """No guest at a time would be nothing at all."""
    with pytest.raises(UsageError, match="max_guests_at_once is 0, expected at least 1"):
        snapmig.batch(write(SAVE), max_guests_at_once=0)


OBJECT = SAVE.replace("out/", "s3://bucket/vm/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OBJECT + 'layout = "fixed"', "layout is fixed, expected packed: an object has no holes"),
        ("[defaults]\nlayout = 'fixed'\n" + OBJECT, "layout is fixed, expected packed"),
        (OBJECT.replace("a.ram", "qmp:s") + "live = true", "expected a snapshot that is a file"),
        (OBJECT + 'share = "1/2"', "shares need a filesystem that all hosts have"),
        (SAVE.replace("a.ram", "s3://bucket/a.ram"), "an image is a file, only snapshots are"),
        (OBJECT.replace("bucket/vm/", ""), "expected s3://BUCKET/KEY, the name of an object"),
        (SAVE + 'parent = "s3://bucket"', "expected s3://BUCKET/KEY, the name of an object"),
        ("[[restore]]\nsnapshot = 's3://b/*.snap'\nimage = 'r'", "objects are named one by one"),
        ("[[restore]]\nsnapshot = 'a.snap'\nimage = 's3://b/r'", "an image is a file, only"),
        (
            OBJECT + OBJECT.replace("a.ram", "b.ram") + "name = 'b'",
            "'b' and 'a' both have s3://bucket/vm/a.snap",
        ),
        (
            OBJECT + "[[restore]]\nname = 'r'\nsnapshot = 's3://bucket/vm/a.snap'\nimage = 'r'",
            "'r' reads s3://bucket/vm/a.snap, which 'a' makes",
        ),
    ],
)
def test_what_objects_can_not_be_is_refused_before_the_start(write, text, words):
    """No server is asked and nothing is begun."""
    with pytest.raises(snapmig.UsageError, match=re.escape(words)):
        Batch(write(text))


def test_objects_of_hosts_are_the_same(write):
    """Two hosts have files of one name, but not an object."""
    text = "".join(f'{OBJECT}host = "{host}"\nname = "{host}"\n' for host in ("one", "two"))
    with pytest.raises(
        snapmig.UsageError, match=r"'two' and 'one' both have s3://bucket/vm/a.snap"
    ):
        Batch(write(text), scheduler=Scheduler("tcp://127.0.0.1:1"))


def test_placeholders_are_filled_into_urls(write, folder):
    """A bucket's snapshots have names as files have; the parents', too."""
    url = "s3://bucket/{folder}/{name}.snap"
    text = SAVE.replace("out/a.snap", url) + f'parent = "{url.replace("{name}", "old")}"'
    job = Batch(write(text)).jobs[0]

    assert (job.destination, job.arguments["parent"]) == (
        f"s3://bucket/{folder.name}/a.snap",
        f"s3://bucket/{folder.name}/old.snap",
    )


@pytest.mark.parametrize("table", [SaveTable, RestoreTable, DefaultsTable])
def test_the_document_has_every_key(table):
    """docs/batch.md names each key of each table, and no other."""
    section = {SaveTable: "save", RestoreTable: "restore", DefaultsTable: "defaults"}[table]
    text = re.split(rf"^## .*{section}.*$", DOCUMENT.read_text(), flags=re.MULTILINE)[1]
    keys = re.findall(r"^\| `(\w+)` ", text.split("\n## ")[0], re.MULTILINE)

    assert sorted(keys) == sorted(table.__struct_fields__)


def test_the_document_has_every_key_of_the_file(write):
    """docs/batch.md names what stands at the top."""
    text = DOCUMENT.read_text().split("\n## The top")[1].split("\n## ")[0]
    keys = re.findall(r"^\| `(\w+)` ", text, re.MULTILINE)
    fields = read_batch_file(write(SAVE)).__struct_fields__

    assert sorted(keys) == sorted(set(fields) - {"save", "restore", "defaults"})

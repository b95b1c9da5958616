"""Facts about parents elsewhere: a snapshot's author may have named any file."""

import ctypes
import os
import shutil
import struct
from pathlib import Path

import pytest

import snapmig
from snapmig.stores.location import ObjectUrl, is_near, relative_name
from tests.support import ram

OLD = ram.text(64).tobytes()
NEW = OLD[:100_000] + b"new" + OLD[100_003:]

NEEDS_PARENTS = [
    "restore week/monday.snap new",
    "verify week/monday.snap",
    "chain week/monday.snap",
    "merge week/monday.snap new",
    "repack week/monday.snap new",
    "rebase week/monday.snap --parent other.snap",
    "diff week/monday.snap other.snap",
    "save monday.ram new --parent week/monday.snap",
]


@pytest.fixture
def place(shm, monkeypatch):
    """Give a folder ``week`` with a snapshot and its parent in another folder."""
    monkeypatch.chdir(shm)
    (shm / "week").mkdir()
    (shm / "full").mkdir()
    ram.write(shm / "sunday.ram", OLD)
    ram.write(shm / "monday.ram", NEW)
    snapmig.save("sunday.ram", "full/sunday.snap", jobs=1)
    snapmig.save("sunday.ram", "other.snap", jobs=1)
    snapmig.save("monday.ram", "week/monday.snap", parent="full/sunday.snap", jobs=1)
    return shm


def with_hint(path, hint):
    """Remake a snapshot with another name for its parent in the attachment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "snapmig.operations.runs.save_inputs.parent_hint", lambda *_: os.fsencode(hint)
        )
        snapmig.save("monday.ram", path, parent="full/sunday.snap", jobs=1, force=True)


@pytest.mark.parametrize("words", NEEDS_PARENTS)
def test_a_parent_elsewhere_is_not_followed_unasked(place, cli, words):
    """Exit code 1, the name in the snapshot, and the option to follow it."""
    outcome = cli(*words.split())

    outcome.fails(
        1,
        f"which was '{place}/full/sunday.snap' when it was saved; it is not in {place}/week",
        "only when following remote parents is asked for",
    )
    assert not (place / "new").exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("words", NEEDS_PARENTS)
def test_a_parent_elsewhere_is_followed_when_asked(cli, words):
    """Each verb reading parents has the option."""
    outcome = cli(*words.split(), "--follow-remote-parents")

    outcome.ok(err=None)


def test_random_access_follows_when_asked(place):
    """The library has the option, too."""
    with snapmig.open("week/monday.snap", follow_remote_parents=True) as snapshot:
        assert snapshot.read(0, len(snapshot)) == NEW
    with pytest.raises(snapmig.SnapmigError, match="needs its parent"):
        snapmig.open(place / "week" / "monday.snap")


@pytest.mark.usefixtures("place")
def test_a_save_says_that_its_parent_is_elsewhere(cli):
    """A warning names both, and the save is done."""
    outcome = cli("save", "-j1", "monday.ram", "week/2.snap", "--parent", "full/sunday.snap")

    outcome.ok(err=None)
    assert "warning: full/sunday.snap is neither beside week/2.snap nor below" in outcome.err


@pytest.mark.usefixtures("place")
def test_a_rebase_brings_a_parent_near(cli):
    """A parent beside it needs no option any more."""
    shutil.copy("other.snap", "week/other.snap")
    words = ["rebase", "week/monday.snap", "--parent", "week/other.snap"]

    cli(*words, "--follow-remote-parents").ok()
    cli("verify", "week/monday.snap").ok()


@pytest.mark.usefixtures("place")
def test_a_batch_follows_when_asked(cli):
    """A job has the key, and so have the defaults."""
    job = '[[restore]]\nsnapshot = "week/monday.snap"\nimage = "new"\n'
    Path("refused.toml").write_text(job)
    Path("followed.toml").write_text("[defaults]\nfollow_remote_parents = true\n" + job)

    cli("batch", "refused.toml").fails(1)
    cli("batch", "followed.toml").ok()
    assert Path("new").read_bytes() == NEW


@pytest.mark.usefixtures("place")
def test_a_parent_below_is_followed():
    """A folder in the snapshot's own is near, also when all of it moves."""
    snapmig.save("monday.ram", "3.snap", parent="full/sunday.snap", jobs=1)
    Path("moved").mkdir()
    for name in ("3.snap", "full"):
        Path(name).rename(Path("moved") / name)

    assert [Path(link.snapshot).name for link in snapmig.chain("moved/3.snap")] == [
        "3.snap",
        "sunday.snap",
    ]


HINTS = [
    "s3://somebody/beacon", "../full/sunday.snap", "x/../../full/sunday.snap", "/dev/tape",
    "./../full/sunday.snap", "..", "/", "//x/y", "s3://", "",
]  # fmt: skip


@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_is_no_request(place, cli, monkeypatch, hint):
    """Nothing outside the snapshot's folder is opened, and no server contacted."""
    with_hint("week/monday.snap", hint)
    opened = []
    real = os.open

    def watch(path, *rest, **more):
        opened.append(os.path.abspath(os.fspath(path)))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", watch)
    monkeypatch.setattr("snapmig.chains.lookup.load_s3", None)
    monkeypatch.setattr("snapmig.stores.opening.load_s3", None)
    outcome = cli("chain", "week/monday.snap")

    outcome.fails(1, "needs its parent")
    assert {str(Path(path).parent) for path in opened} <= {str(place / "week"), "/proc/self/fd"}


class Watch:
    """Watches by inotify for opened files in a folder."""

    OPEN = 0x20

    def __init__(self, folder):
        libc = ctypes.CDLL(None)
        self.fd = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self.fd, os.fsencode(folder), self.OPEN)

    def names(self):
        """Return the names of the files opened so far."""
        found = []
        try:
            raw = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return found
        while raw:
            *_, length = struct.unpack_from("iIII", raw)
            found.append(raw[16 : 16 + length].rstrip(b"\0").decode())
            raw = raw[16 + length :]
        return found


@pytest.mark.root
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
@pytest.mark.parametrize("follow", [[], ["--follow-remote-parents"]])
def test_a_device_is_not_opened(place, cli, kind, follow):
    """A file other than a regular one is examined without opening it, wherever the name leads."""
    odd = place / "week" / "odd"
    if kind == "device":
        os.mknod(odd, 0o600 | 0o020000, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(odd)
    else:
        os.mknod(odd, 0o600 | 0o140000)
    with_hint("week/monday.snap", "odd")
    watch = Watch(place / "week")
    outcome = cli("chain", "week/monday.snap", *follow)
    names = watch.names()
    os.close(watch.fd)

    outcome.fails(1, "needs its parent")
    assert ("monday.snap" in names, "odd" in names) == (True, False)


@pytest.mark.parametrize(
    ("place", "name", "near"),
    [
        ("/a/b.snap", "c", True),
        ("/a/b.snap", "d/c", True),
        ("/a/b.snap", "/a/c", True),
        ("/a/b.snap", "/a/d/c", True),
        ("/b.snap", "/a/c", True),
        ("/a/b.snap", "/ab/c", False),
        ("/a/b.snap", "/c", False),
        ("/a/b.snap", "../c", False),
        ("/a/b.snap", "/a/../c", False),
        ("/a/b.snap", "s3://x/c", False),
        (ObjectUrl("x", "p/b"), "c", True),
        (ObjectUrl("x", "p/b"), "q/c", True),
        (ObjectUrl("x", "p/b"), "s3://x/p/c", True),
        (ObjectUrl("x", "p/b"), "s3://x/c", False),
        (ObjectUrl("x", "p/b"), "s3://y/p/c", False),
        (ObjectUrl("x", "p/b"), "../c", False),
        (ObjectUrl("x", "p/b"), "/p/c", False),
        (ObjectUrl("x", "b"), "s3://x/c", True),
        (ObjectUrl("x", "p/b"), "s3://x/p//c", False),
    ],
)
def test_what_is_near(place, name, near):
    """A folder or a prefix, and everything below it."""
    assert is_near(Path(place) if isinstance(place, str) else place, name) == near


@pytest.mark.parametrize(
    ("parent", "snapshot", "name"),
    [
        (Path("/a/x"), Path("/a/y"), "x"),
        (Path("/a/b/x"), Path("/a/y"), "b/x"),
        (Path("/x"), Path("/a/y"), "/x"),
        (ObjectUrl("k", "p/x"), ObjectUrl("k", "p/y"), "x"),
        (ObjectUrl("k", "p/q/x"), ObjectUrl("k", "p/y"), "q/x"),
        (ObjectUrl("k", "x"), ObjectUrl("k", "p/y"), "s3://k/x"),
        (ObjectUrl("k", "p/x"), Path("/a/y"), "s3://k/p/x"),
        (Path("/a/x"), ObjectUrl("k", "p/y"), "/a/x"),
    ],
)
def test_how_a_parent_is_named(parent, snapshot, name):
    """From the snapshot's own folder if it is near, else in full."""
    assert relative_name(parent, snapshot) == name


def test_a_link_beside_is_not_searched(place, cli):
    """A search passes over links, because they may lead anywhere."""
    (place / "week" / "link").symlink_to(place / "full" / "sunday.snap")

    cli("chain", "week/monday.snap").fails(1)

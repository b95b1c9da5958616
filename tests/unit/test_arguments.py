"""Refusals of the functions at the door: arguments of another type than they take."""

import io

import pytest

import snapmig

CALLS = {
    "bytes": (
        lambda: snapmig.save(b"guest.ram", "s"),
        "image is of type bytes, expected a path or a",
    ),
    "file": (
        lambda: snapmig.save(io.BytesIO(), "s"),
        "image is of type BytesIO, expected a path or",
    ),
    "destination": (lambda: snapmig.save("a", b"s"), "snapshot is of type bytes, expected a path"),
    "nothing": (lambda: snapmig.save(None, "s"), "image is of type NoneType, expected a path or a"),
    "bar": (
        lambda: snapmig.save("a", "s", progress=True),
        "progress is of type bool, expected a fun",
    ),
    "base": (
        lambda: snapmig.save("a", "s", base="b"),
        "base is of type str, expected a list of path",
    ),
    "attach": (
        lambda: snapmig.save("a", "s", attach=["x"]),
        "attach is of type list, expected a map",
    ),
    "jobs": (
        lambda: snapmig.save("a", "s", jobs="4"),
        "jobs is of type str, expected a whole number",
    ),
    "parent": (lambda: snapmig.save("a", "s", parent=1), "parent is of type int, expected a path"),
    "restore": (
        lambda: snapmig.restore("s", io.BytesIO()),
        "image is of type BytesIO, expected a path",
    ),
    "verify": (lambda: snapmig.verify(["s"]), "snapshot is of type list, expected a path"),
    "info": (lambda: snapmig.info(7), "snapshot is of type int, expected a path"),
    "chain": (lambda: snapmig.chain(b"s"), "snapshot is of type bytes, expected a path"),
    "diff": (lambda: snapmig.diff("s", None), "other is of type NoneType, expected a path"),
    "merge": (lambda: snapmig.merge("s", b"t"), "out is of type bytes, expected a path"),
    "rebase": (
        lambda: snapmig.rebase("s", parent=b"t"),
        "parent is of type bytes, expected a path",
    ),
    "repack": (
        lambda: snapmig.repack("s", "t", progress=1),
        "progress is of type int, expected a fun",
    ),
    "open": (lambda: snapmig.open(b"s"), "path is of type bytes, expected a path"),
    "batch": (lambda: snapmig.batch("b", ended="x"), "ended is of type str, expected a function"),
    "commit": (lambda: snapmig.commit(None), "snapshot is of type NoneType, expected a path"),
}


@pytest.mark.parametrize("name", CALLS)
def test_another_type_is_refused_by_name(name, tmp_path, monkeypatch):
    """One sentence says which argument, what it was, and what is expected; nothing was done."""
    monkeypatch.chdir(tmp_path)
    call, says = CALLS[name]
    with pytest.raises(snapmig.UsageError) as caught:
        call()

    assert str(caught.value).startswith(says)
    assert list(tmp_path.iterdir()) == []


def test_what_a_verb_takes_is_what_it_took(tmp_path):
    """Paths as text or as objects, lists of blocks, and what is left out, are good arguments."""
    path = tmp_path / "a.ram"
    path.write_bytes(bytes(4096))
    block = snapmig.RamBlock("ram", 4096)
    seen = []
    snapmig.save(path, str(tmp_path / "one"), progress=seen.append, jobs=1, parent=None)
    snapmig.save([(block, path)], tmp_path / "two", attach={}, base=(), jobs=None)

    assert (seen != [], snapmig.verify(tmp_path / "two").ok) == (True, True)


def test_a_missing_argument_is_pythons_own_error():
    """A missing argument is reported as by any function."""
    with pytest.raises(TypeError, match="missing a required argument: 'snapshot'"):
        snapmig.save("a.ram")

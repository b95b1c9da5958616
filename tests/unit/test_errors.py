"""Facts about the errors that snapmig raises on purpose."""

import pickle

import pytest

from snapmig import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling(kind):
    """An error that crosses a process boundary keeps its class, its words and its place."""
    error = kind("it broke", path="/a/b", packet=3, offset=4096)

    copy = pickle.loads(pickle.dumps(error))

    assert (kind, error.args, vars(error)) == (type(copy), copy.args, vars(copy))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_a_snapmig_error(kind):
    """Whoever catches SnapmigError catches all of them."""
    assert issubclass(kind, errors.SnapmigError)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.SnapmigError, 1),
        (errors.UsageError, 2),
        (errors.CorruptSnapshotError, 3),
        (errors.UnsupportedError, 4),
        (errors.WorkerDiedError, 5),
        (errors.NoSpaceError, 1),
        (errors.DestinationExistsError, 1),
        (errors.ImageChangedError, 1),
    ],
)
def test_exit_codes(kind, code):
    """Each class has the exit code that the help gives for its kind of failure."""
    assert code == kind.exit_code


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, "it broke"),
        ({"path": "a"}, "a: it broke"),
        ({"packet": 0}, "packet 0: it broke"),
        ({"offset": 0}, "offset 0x0: it broke"),
        ({"path": "a", "packet": 7, "offset": 4096}, "a: packet 7: offset 0x1000: it broke"),
    ],
)
def test_words_start_with_the_place(place, expected):
    """The text of an error is its place, from the file to the byte, and then what is wrong."""
    assert expected == str(errors.SnapmigError("it broke", **place))


def test_all_names_are_sorted():
    """The module's public names are in order."""
    assert sorted(errors.__all__) == list(errors.__all__)

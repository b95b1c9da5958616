"""Facts about the package as a whole."""

import importlib
import inspect
import pkgutil

import pytest

import snapmig

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(snapmig.__path__, "snapmig.")
    if not module.name.endswith("__main__")
)


def test_public_names_are_sorted():
    """The package's public names are in order."""
    assert sorted(snapmig.__all__) == list(snapmig.__all__)


def test_public_names_exist():
    """Each public name is there."""
    assert [name for name in snapmig.__all__ if not hasattr(snapmig, name)] == []


def test_public_things_are_documented():
    """Each public class and function says what it is."""
    public = [getattr(snapmig, name) for name in snapmig.__all__]
    things = [each for each in public if inspect.isclass(each) or inspect.isfunction(each)]

    assert len(things) > 30
    assert [thing for thing in things if not (thing.__doc__ or "").strip()] == []


def test_every_error_is_public():
    """All errors can be caught by names of the package itself."""
    assert set(snapmig.errors.__all__) <= set(snapmig.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_names_that_modules_export_exist(name):
    """A module's ``__all__`` names only what it has."""
    module = importlib.import_module(name)

    assert [
        public for public in getattr(module, "__all__", ()) if not hasattr(module, public)
    ] == []

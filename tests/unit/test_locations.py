"""Names of files and objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapmig.backups.object_lock import same_server
from snapmig.errors import UsageError
from snapmig.stores.location import (
    ObjectUrl,
    beside,
    parse_folder,
    parse_location,
    relative_name,
    same_location,
)

MONDAY = ObjectUrl("backups", "vm/monday")


@pytest.mark.parametrize(
    ("location", "place", "name"),
    [
        (MONDAY, ObjectUrl("backups", "vm/tuesday"), "monday"),
        (MONDAY, ObjectUrl("backups", "other/tuesday"), "s3://backups/vm/monday"),
        (MONDAY, ObjectUrl("else", "vm/tuesday"), "s3://backups/vm/monday"),
        (MONDAY, Path("/backups/tuesday"), "s3://backups/vm/monday"),
        (Path("/vm/monday"), Path("/vm/tuesday"), "monday"),
        (Path("/vm/monday"), Path("/other/tuesday"), "/vm/monday"),
        (Path("/vm/monday"), MONDAY, "/vm/monday"),
    ],
)
def test_a_name_leads_back(location, place, name):
    """The path from one place to another leads there, by the shortest name."""
    assert relative_name(location, place) == name
    assert beside(place, name) == location


def test_a_key_keeps_its_slashes():
    """A path would lose one of two."""
    assert str(parse_location("s3://backups//vm/monday")) == "s3://backups//vm/monday"


def test_same_location_sees_through_links(tmp_path):
    """Two names of one file are the same file."""
    (tmp_path / "one").touch()
    (tmp_path / "two").symlink_to(tmp_path / "one")

    assert same_location(tmp_path / "one", tmp_path / "two")


def test_same_location_is_false_for_what_is_not_there(tmp_path):
    """A file that does not exist is the same as no other."""
    assert not same_location(tmp_path / "one", tmp_path / "one")


def test_an_object_is_the_same_as_itself_alone():
    """Objects are compared by name, and are no files."""
    assert same_location(MONDAY, ObjectUrl("backups", "vm/monday"))
    assert not same_location(MONDAY, Path("vm/monday"))


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://a b/c"])
def test_half_a_name_is_refused(url):
    """A URL needs a bucket and a key."""
    with pytest.raises(UsageError, match="expected s3://BUCKET/KEY"):
        parse_location(url)


@pytest.mark.parametrize(
    ("text", "guest"),
    [
        ("s3://backups/vm", "s3://backups/vm/web"),
        ("s3://backups/vm/", "s3://backups/vm/web"),
        ("s3://backups/a/b", "s3://backups/a/b/web"),
        ("s3://backups", "s3://backups/web"),
        ("s3://backups/", "s3://backups/web"),
    ],
)
def test_a_prefix_is_a_folder(text, guest):
    """Names inside start with its own and a slash; a bucket is a place, too."""
    assert str(parse_folder(text).inside("web")) == guest


def test_another_folder_is_a_path():
    """All but URLs are of files."""
    assert parse_folder("var/backups") == Path("var/backups")


def test_a_prefix_without_a_bucket_is_refused():
    """A bucket is needed."""
    with pytest.raises(UsageError, match=r"^s3:///vm: expected s3://BUCKET/PREFIX$"):
        parse_folder("s3:///vm")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://store.example", "https://STORE.example:443/"),
        ("http://store.example:80", "http://store.example."),
        ("https://store.example/s3/", "https://store.example:443/s3"),
        ("https://s3.eu-west-1.amazonaws.com", "https://s3.us-east-1.amazonaws.com/"),
        ("http://[::1]:9000", "http://[::1]:9000/"),
    ],
)
def test_a_server_has_one_spelling(one, other):
    """Locks of one server are one host's own, however its address is written."""
    assert same_server(one) == same_server(other)


@pytest.mark.parametrize(
    "other",
    ["http://store.example", "https://store.example:8443", "https://store.example/x", "https://s"],
)
def test_servers_that_are_others(other):
    """Another scheme, port, path or name is another server."""
    assert same_server("https://store.example") != same_server(other)

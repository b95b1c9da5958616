"""Facts about sealed snapshots that are objects."""

import pytest

import snapmig
from tests.s3.conftest import CHANGED, RAM
from tests.support import ram
from tests.support.secrets import write_keys

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("store")]


@pytest.fixture
def key(tmp_path):
    """Give the words for a key."""
    write_keys(tmp_path)
    return ("--key-file", tmp_path / "key")


@pytest.mark.parametrize("how", ["--encrypt", "--sign"])
def test_goes_up_and_comes_down(cli, guest, url, key, tmp_path, how):
    """A sealed object is verified and restored with its key, and read as a library."""
    cli("save", guest, url, how, *key, "--page-digests").ok(err=None)
    cli("verify", url, *key).ok("proved by its key")
    cli("restore", url, tmp_path / "out.ram", *key).ok()
    cli("key", "list", url, *key).ok("key file")
    assert (tmp_path / "out.ram").read_bytes() == RAM
    with snapmig.open(url, keys=snapmig.Keys(key_file=[key[1]])) as found:
        assert found.read(0, 1 << 20) == RAM[: 1 << 20]


def test_an_increment(cli, guest, url, key, tmp_path):
    """An encrypted object has an encrypted parent beside it."""
    cli("save", guest, url, "--encrypt", *key).ok(err=None)
    changed, child = ram.write(tmp_path / "changed.ram", CHANGED), f"{url}.child"
    cli("save", changed, child, "--encrypt", *key, "--parent", url).ok(err=None)
    cli("restore", child, tmp_path / "out.ram", *key).ok()
    assert (tmp_path / "out.ram").read_bytes() == bytes(memoryview(CHANGED).cast("B"))


def test_nothing_is_in_the_open(cli, server, guest, url, name, key):
    """No page of the guest is in the object."""
    cli("save", guest, url, "--encrypt", *key, "--compression", "none").ok(err=None)
    raw = server.get(name)
    pages = (RAM[at : at + 64] for at in range(0, len(RAM), 101 * 4096))
    assert not [page for page in pages if page.strip(b"\0") and page in raw]


def test_its_keys_stay(cli, guest, url, key, tmp_path):
    """The keys of an object can't be changed, which is said in one sentence."""
    cli("save", guest, url, "--encrypt", *key).ok(err=None)
    cli("key", "add", url, *key, "--new-key-file", tmp_path / "other").fails(
        2, "its keys can be changed in a file, not in an object", lines=1
    )
    cli("restore", url, tmp_path / "out.ram").fails(1, "is encrypted and needs a key", lines=1)

"""Facts about mounted objects."""

import os

import pytest

from tests.s3.conftest import CHANGED, RAM
from tests.support import program, ram
from tests.support.mounts import mounted, requires_fuse
from tests.support.secrets import write_keys

pytestmark = pytest.mark.usefixtures("store")


def test_reads_an_encrypted_object_and_its_parent(cli, guest, url, tmp_path):
    """The RAM of an encrypted incremental object, and requests for little more than is read."""
    requires_fuse()
    write_keys(tmp_path)
    key = ("--key-file", tmp_path / "key")
    changed, child = ram.write(tmp_path / "changed.ram", CHANGED), f"{url}.child"
    cli("save", guest, url, "--encrypt", *key).ok(err=None)
    cli("save", changed, child, "--encrypt", *key, "--parent", url).ok(err=None)
    with mounted(child, tmp_path / "mnt", *key, env={**os.environ}) as files:
        assert (files / "guest.ram").read_bytes() == CHANGED


@pytest.mark.sweep
def test_a_page_takes_few_requests(cli, guest, url, proxy, tmp_path):
    """Mounting reads tables and index, and a page is one request for its packet."""
    requires_fuse()
    cli("save", guest, url).ok(err=None)
    with mounted(url, tmp_path / "mnt", env={**os.environ}) as files:
        proxy.requests.clear()
        with (files / "guest.ram").open("rb", buffering=0) as file:
            file.seek(10 << 20)
            assert file.read(4096) == RAM[10 << 20 : (10 << 20) + 4096]
        assert len(proxy.requests) <= 2


@pytest.mark.sweep
def test_a_server_that_is_gone_is_an_error(cli, guest, url, proxy, tmp_path):
    """Reads fail with EIO and a line in the log; what was read before is still there."""
    requires_fuse()
    cli("save", guest, url).ok(err=None)
    environment = {**os.environ, "AWS_MAX_ATTEMPTS": "1"}
    with (
        mounted(url, tmp_path / "mnt", env=environment) as files,
        (files / "guest.ram").open("rb", buffering=0) as file,
    ):
        first = file.read(4096)
        proxy.close()
        file.seek(16 << 20)
        with pytest.raises(OSError, match="Input/output"):
            file.read(4096)
        file.seek(0)
        assert file.read(4096) == first
        file.close()
    assert "guest.ram: " in (tmp_path / "mnt.log").read_text()


@pytest.mark.sweep
def test_a_missing_object_is_a_sentence(url, tmp_path):
    """An object that is not there is an error before anything is mounted."""
    requires_fuse()
    (tmp_path / "mnt").mkdir()
    program.run("mount", url, tmp_path / "mnt", env={**os.environ}).fails(1, lines=1)


def test_a_prefix_is_a_tree(cli, guest, url, tmp_path):
    """Objects below a prefix are folders of guests and times."""
    requires_fuse()
    cli("save", guest, f"{url}/web/monday.snap").ok(err=None)
    with mounted(f"{url}/", tmp_path / "mnt", env={**os.environ}) as files:
        assert [each.name for each in files.iterdir()] == ["web"]
        assert [each.name for each in (files / "web").iterdir()] == ["monday"]
        assert (files / "web" / "monday" / "guest.ram").read_bytes() == RAM

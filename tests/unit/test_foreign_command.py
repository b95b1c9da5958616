"""Facts about commands of guests that can't be run again."""

import pytest

from snapmig.errors import UsageError
from snapmig.operations.runs.qemu_command import check_command

LIBVIRT = ["qemu", "-object", '{"qom-type":"secret","id":"masterKey0","file":"/x"}']
WITH_DESCRIPTORS = [
    "socket,id=mine,fd=22,server=on,wait=off",
    "tap,fds=30:31,id=hostnet0,vhost=on,vhostfds=32:33",
    '{"type":"tap","fd":"24","vhost":true,"vhostfd":"26","id":"hostnet0"}',
    "file=/dev/fdset/3,if=none",
]


@pytest.mark.parametrize("word", WITH_DESCRIPTORS)
def test_a_descriptor_is_named(word: str) -> None:
    """A command with a descriptor's number is refused, and the word that has it is named."""
    with pytest.raises(UsageError, match="start QEMU in the same way") as caught:
        check_command(["qemu", "-option", word])
    assert repr(word) in caught.value.message


def test_virsh_is_named_for_a_guest_of_libvirts() -> None:
    """A guest started by libvirt is restored by libvirt."""
    with pytest.raises(UsageError, match="then use virsh restore"):
        check_command([*LIBVIRT, "-chardev", WITH_DESCRIPTORS[0]])


@pytest.mark.parametrize("word", ["user,id=n,hostfwd=tcp::1-:2", "id=fd=", "file=/a/fd=3", "bfd=3"])
def test_other_words_are_left_alone(word: str) -> None:
    """A text that only looks like a descriptor is not one."""
    check_command(["qemu", "-option", word])

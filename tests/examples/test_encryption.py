"""Facts about docs/encryption.md: its commands run in their order, and do what it says."""

import os
import re
import sys
from pathlib import Path

import pyrage
import pytest

import snapmig
from tests.support import program, ram

pytestmark = pytest.mark.sweep

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "encryption.md").read_text()
RECIPIENT = re.search(r"age1[a-z0-9]{58}", TEXT)[0]
LINES = re.findall(r"^    ((?:snapmig|printf|root=).*)$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def run(shared_shm):
    """Run all commands of the document in a folder with RAM of a guest, a later one, and a key."""
    identity = pyrage.x25519.Identity.generate()
    ram.write(shared_shm / "guest.ram", ram.mixed(1 << 20))
    ram.write(shared_shm / "later.ram", ram.mixed(1 << 20)[::-1])
    (shared_shm / "backup.identity").write_text(f"# mine\n{identity}\n")
    script = "\n".join(LINES).replace(RECIPIENT, str(identity.to_public()))
    command = f'snapmig() {{ {sys.executable} -m snapmig "$@"; }}\nset -e\n{script}\n'
    path = f"PYTHONPATH={ROOT}".split("=")
    result = program.call(
        ["sh", "-c", f"cd {shared_shm}\n{command}"], env={**os.environ, path[0]: path[1]}
    )
    return shared_shm, result


def test_the_commands_run(run):
    """Each command of the document is done, in the order in which they stand there."""
    assert len(LINES) > 15
    run[1].ok(err=None)


def test_what_was_encrypted_comes_back(run):
    """The images restored with a key and with an identity are the guest's."""
    folder, _ = run
    whole = (folder / "guest.ram").read_bytes()

    assert [(folder / name).read_bytes() for name in ("copy.ram", "sent.ram")] == [whole, whole]


def test_keys_are_those_that_the_document_leaves(run):
    """At the end the guest's snapshot has the key that came by rotation, and the passphrase."""
    folder, _ = run
    slots = snapmig.list_keys(folder / "guest.snap").slots

    assert sorted(slot.kind for slot in slots) == ["key file", "passphrase"]

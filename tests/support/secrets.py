"""Keys of every kind in files, and the words that give them to the program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pyrage import x25519

PHRASE = "eine ganz geheime Losung"

LOCK: dict[str, tuple[str, ...]] = {
    "passphrase file": ("--passphrase-file", "phrase"),
    "command": ("--passphrase-command", "cat phrase"),
    "key file": ("--key-file", "key"),
    "age": ("--recipient", "@recipient"),
    "own age": ("--identity", "identity"),
    "ssh": ("--recipient", "@ssh.pub"),
}
"""Words that lock a new snapshot by kind of key; ``@`` stands for a file's contents."""

UNLOCK = LOCK | {"age": ("--identity", "identity"), "ssh": ("--identity", "ssh")}
"""Words that open it."""


def write_keys(folder: Path) -> None:
    """Write keys: ``key``, ``other``, ``phrase``, ``identity``, ``recipient``, ``ssh``."""
    (folder / "phrase").write_text(f"{PHRASE}\n")
    (folder / "key").write_bytes(bytes(range(100, 164)))
    (folder / "other").write_bytes(bytes(range(10, 42)))
    made = x25519.Identity.generate()
    (folder / "identity").write_text(f"# of the tests\n{made}\n")
    (folder / "recipient").write_text(str(made.to_public()))
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", folder / "ssh"]
    subprocess.run(command, check=True)


def words(given: tuple[str, ...]) -> list[str]:
    """Return words with the contents of files that they name by ``@``."""
    return [Path(word[1:]).read_text().strip() if word[:1] == "@" else word for word in given]

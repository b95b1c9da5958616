"""Facts about processes that know keys: what others see of them, and what dumps hold."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from tests.sealing.watched import caught
from tests.support import program
from tests.support.processes import wait_for
from tests.support.requirements import requires
from tests.support.secrets import PHRASE

NOBODY = 65534
SAVE = ("save", "guest0.ram", "s.snap", "--encrypt")


def limits(pid):
    """Return a process's limit for core dumps, and its filter for them."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (core,) = (line.split()[4] for line in lines if line.startswith("Max core file size"))
    return core, int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "key",
    [
        ("--key-file", "key"),
        pytest.param(("--passphrase-file", "phrase"), marks=pytest.mark.sweep),
    ],
)
def test_no_core_dumps(key):
    """Neither the program nor its worker leave memory in core dumps."""
    with caught(*SAVE, *key) as pids:
        assert [limits(pid) for pid in pids] == [("0", 0)] * 2


@pytest.mark.usefixtures("place")
def test_neither_arguments_nor_environments_have_keys():
    """A key file's contents and a passphrase are in nobody's arguments or environment."""
    keys = ("--key-file", "key", "--passphrase-file", "phrase")
    with caught(*SAVE, *keys) as pids:
        shown = b"".join(
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in pids
            for name in ("cmdline", "environ")
        )
    assert b"--passphrase-file" in shown
    assert PHRASE.encode() not in shown
    assert Path("key").read_bytes() not in shown


@pytest.mark.root
def test_workers_of_a_user_are_hidden_and_work(place):
    """Workers that know the key can't be looked into by their own user, and do their work."""
    requires("setpriv")
    for path in (place, *place.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    with caught(*SAVE, "--key-file", "key", user=NOBODY, cwd=place) as pids:
        owners = [NOBODY, 0]  # once the worker has used the key
        wait_for(lambda: [os.stat(f"/proc/{pid}/environ").st_uid for pid in pids] == owners)
    before = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for words in (
        ("save", "guest0.ram", "s.snap", "--encrypt", "--page-digests"),
        ("save", "guest1.ram", "t.snap", "--encrypt", "--parent", "s.snap"),
        ("verify", "t.snap"),
        ("restore", "t.snap", "out.ram"),
        ("repack", "t.snap", "u.snap", "--compression", "lz4"),
    ):
        command = [*before, *program.PROGRAM, *words, "--key-file", "key", "-j", "2"]
        program.call(command, cwd=place, env=program.ENVIRONMENT, timeout=60).ok()
    assert (place / "out.ram").read_bytes() == (place / "guest1.ram").read_bytes()


@pytest.mark.sweep
@pytest.mark.usefixtures("place")
def test_a_debuggers_core_has_no_key():
    """Cores that gdb writes of the program and its worker hold no key and no passphrase."""
    requires("gdb")
    requires("gcore")
    keys = ("--key-file", "key", "--passphrase-file", "phrase")
    with caught(*SAVE, *keys) as pids:
        for pid in pids:
            subprocess.run(["gcore", "-o", "core", str(pid)], check=True, capture_output=True)
    cores = list(Path().glob("core.*"))
    assert len(cores) == 2
    for core in cores:
        found = core.read_bytes()
        assert PHRASE.encode() not in found
        assert Path("key").read_bytes() not in found


@pytest.mark.usefixtures("place")
def test_too_little_memory_for_a_passphrase():
    """A passphrase that takes more memory than there may be is one sentence."""
    program.run(*SAVE, "--passphrase-file", "phrase").ok()
    allowed = 180_000 << 10

    def less():
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))

    program.run("verify", "s.snap", "--passphrase-file", "phrase", preexec_fn=less).fails(
        1,
        err="snapmig: s.snap: the passphrase takes 65536 KiB of memory, "
        "which this machine does not give\n",
    )


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("words", [("--debug",), pytest.param((), marks=pytest.mark.sweep)])
def test_errors_show_no_key(words):
    """Neither errors nor tracebacks show a key or a passphrase."""
    Path("wrong").write_text("falsche Losung")
    keys = ("--key-file", "other", "--passphrase-file", "wrong")
    program.run(*SAVE, "--key-file", "key", "--passphrase-file", "phrase").ok()
    outcome = program.run("restore", "s.snap", "out.ram", *keys, *words)
    outcome.fails(1)
    again = program.run(*SAVE, "-f", *keys, "--compression", "zstd", "--level", "77", *words)
    again.fails(2)
    shown = outcome.out + outcome.err + again.out + again.err

    assert ("Traceback" in shown) == bool(words)
    assert "Losung" not in shown
    assert Path("other").read_bytes().hex() not in shown


@pytest.mark.usefixtures("place")
def test_temporary_files_have_no_key():
    """After a save and a restore no file besides the keys' own has a key or a passphrase."""
    Path("temporary").mkdir()
    environment = {**program.ENVIRONMENT, "TMPDIR": str(Path("temporary").absolute())}
    keys = ("--key-file", "key", "--passphrase-file", "phrase")
    program.run(*SAVE, *keys, env=environment).ok()
    program.run("restore", "s.snap", "out.ram", *keys, env=environment).ok()
    key = Path("key").read_bytes()
    for path in Path().rglob("*"):
        if path.is_file() and path.name not in ("key", "phrase"):
            assert key not in path.read_bytes()
            assert PHRASE.encode() not in path.read_bytes()
    assert not list(Path("temporary").iterdir())

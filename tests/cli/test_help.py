"""Facts about the program's help: it fits a screen, and its examples run."""

import os
import re
import sys

import pytest

import snapmig
from snapmig.commands.main import build_parser
from snapmig.encodings.engines import find_engine
from tests.cli.conftest import RAM
from tests.support import program
from tests.support.filesystems import memfd

# That of backups has its tests in tests/backups.
VERBS = (
    "save", "receive", "restore", "mount", "umount", "thaw", "send", "run", "info", "verify", "map",
    "key", "daemon", "commit", "accelerators", "completion",
)  # fmt: skip
KEYS = "--passphrase-file --passphrase-command --key-file --identity"
SEALS = f"--encrypt --sign --recipient --mixed-chain {KEYS}"
COMMON = "--json -q -v --color --debug -h --help"
OPTIONS = {
    "save": "--format --base --qcow2-snapshot --parent --deltas --no-deltas --live -j --jobs "
    "--compression --accelerator --depth --level --window --huffman --packet-size "
    "--layout --page-digests --no-page-digests --address --arch --attach --share "
    "--bwlimit -f --force --resume --progress --follow-remote-parents --monitor-timeout "
    f"--via --max-downtime --pause-after --connect {COMMON} {SEALS}",
    "receive": "--listen --channels --tls --insecure --timeout --parent --compression --level -j "
    "--jobs -f --force --attach --arch --follow-remote-parents --bwlimit --packet-size "
    "--page-digests --no-page-digests --deltas --no-deltas --accelerator --depth --window "
    f"--progress {COMMON} {SEALS}",
    "restore": "--format --for-qemu --lazy --domain-xml -j --jobs --accelerator --depth -f --force "
    "--in-place --keep-going --resume --block --address --arch --bwlimit "
    "--monitor-timeout --via --wire --postcopy --working-set --follow-remote-parents --progress "
    f"{COMMON} {KEYS}",
    "mount": "-j --jobs --cache --foreground --allow-other --log --working-set --overlay "
    f"--follow-remote-parents {COMMON} {KEYS}",
    "umount": f"--lazy --force {COMMON}",
    "thaw": f"-j --jobs --progress {COMMON}",
    "send": "--channels --tls --insecure --timeout --recover --uuid --wire --postcopy "
    f"--working-set --follow-remote-parents --bwlimit --accelerator --depth --progress {COMMON} "
    f"{KEYS}",
    "run": "-y --yes --postcopy --no-postcopy --mount --working-set -j --jobs "
    f"--follow-remote-parents --progress {COMMON} {KEYS}",
    "info": f"{COMMON} {KEYS}",
    "verify": "-j --jobs --quick --expect --window --accelerator --depth --progress "
    f"--follow-remote-parents {COMMON} {KEYS}",
    "map": "-o --output -f --force --against --curve --cells -j --jobs --follow-remote-parents "
    f"--progress {COMMON} {KEYS}",
    "key": "-h --help",
    "daemon": "-h --help",
    "commit": f"-f --force --abandon --progress {COMMON} {KEYS}",
    "accelerators": f"--measure {COMMON}",
    "completion": "-h --help",
}
HELP = {"": build_parser().format_help()}
for _action in build_parser()._subparsers._group_actions:
    HELP |= {verb: _action.choices[verb].format_help() for verb in VERBS}
EXAMPLES = [
    (verb, line.strip())
    for verb, text in HELP.items()
    for line in re.findall(r"^  snapmig .*$", text, re.MULTILINE)
]
# Those of running guests are run with guests, by tests/qemu/test_running.py, and those of chains
# by test_chain_verbs.py, those of keys by test_key_examples.py, and those of
# mounts by tests/mount. Those of daemons wait for guests.
CHAIN_VERBS = ("chain", "diff", "map", "merge", "rebase", "repack")
IMAGE_EXAMPLES = [
    (verb, line)
    for verb, line in EXAMPLES
    if "qmp:" not in line
    and verb
    not in (*CHAIN_VERBS, "receive", "send", "run", "key", "mount", "umount", "thaw", "daemon")
]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_screen(cli, verb):
    """Help has at most 59 lines of 80 columns."""
    outcome = cli(*verb.split(), "--help")
    lines = outcome.lines

    outcome.ok()
    assert len(lines) <= 59
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(cli, verb):
    """A verb has the options that its help names, and no others."""
    options = HELP[verb].split("options:\n")[1]
    found = re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", options.split("examples:")[0])

    assert set(found) == set(OPTIONS[verb].split())
    assert cli(verb, "--help").out == HELP[verb]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("save", f"({len(os.sched_getaffinity(0))})"),
        ("save", "(1)"),
        ("save", "(32k)"),
        ("save", "64K to 4M of RAM at once (512K, or as OLDER)"),
        ("save", "(fixed)"),
        ("restore", f"({len(os.sched_getaffinity(0))})"),
        ("restore", "(all, in order)"),
        ("verify", f"({len(os.sched_getaffinity(0))})"),
    ],
    ids=range(8),
)
def test_help_gives_defaults_and_units(verb, words):
    """The default of an option stands in its help."""
    assert words in HELP[verb]


def test_help_lists_exit_codes():
    """The program's help has the table of exit codes."""
    codes = re.findall(r"(?:^| {2,})(\d|128\+N) {2,}", HELP[""], re.MULTILINE)

    assert sorted(codes) == ["0", "1", "128+N", "2", "3", "4", "5", "6", "7"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_ends_in_examples(verb):
    """Each help has at least two examples."""
    assert len([line for known, line in EXAMPLES if known == verb]) >= 2


def _expected(line):
    # The exit code of a command and its words on stderr.
    name = re.search(r"--accelerator (\S+)", line)
    facts = None if name is None else find_engine(name[1]).facts()
    if facts is None or facts.usable:
        return 0, ""
    remedy = f"; {facts.remedy}" if facts.remedy else ""
    return 1, f"snapmig: accelerator {name[1]} can't be used: {facts.problem}{remedy}\n"


@pytest.mark.parametrize("number", range(len(IMAGE_EXAMPLES)))
def test_examples_run(guest, number):
    """
    Each example of the help runs, with only its paths outside of the directory replaced.

    One with an accelerator that this host does not have says why it does not run.
    """
    verb, line = IMAGE_EXAMPLES[number]
    snapmig.save("guest.ram", "guest.snap")
    made = {"save": "guest.snap", "restore": "guest.ram", "commit": "guest.snap"}
    if path := made.get(line.split()[1]):
        (guest / path).unlink()
    if line.startswith("snapmig commit"):
        for share in ("1/2", "2/2"):
            snapmig.save("guest.ram", "guest.snap", share=share)
    (guest / "shm").mkdir()
    (guest / "shm" / "guest.ram").write_bytes(RAM)
    (guest / "bin").mkdir()
    (guest / "bin" / "snapmig").write_text(f'#!/bin/sh\nexec {sys.executable} -m snapmig "$@"\n')
    (guest / "bin" / "snapmig").chmod(0o755)
    with memfd(RAM) as path:
        line = line.replace("/dev/shm", "shm").replace("/proc/4242/fd/17", str(path))
        folders = re.findall(r"^  (mkdir .*)$", HELP[verb], re.MULTILINE)
        path = f"{guest}/bin:{os.environ['PATH']}"
        result = program.call(
            ["sh", "-c", "\n".join([*folders, line])],
            env={**os.environ, "PATH": path, "HOME": str(guest)},
        )

    code, words = _expected(line)
    result.ends(code, err=words)


def test_the_version_is_the_packages():
    """The program says the package's version."""
    result = program.run("--version")

    result.ok(out=f"snapmig {snapmig.__version__}\n")

"""Facts about Tab: what shells complete, and where their scripts come from."""

import pytest

from snapmig.commands.main import VERBS
from tests.cli import shells
from tests.manual.__main__ import COMPLETIONS, make_completions
from tests.support import program
from tests.support.requirements import lacks, requires

SCRIPTS = {"bash": "snapmig.bash", "zsh": "_snapmig", "fish": "snapmig.fish"}
FORMATS = "avml cloud-hypervisor elf firecracker kdump libvirt lime mapped-ram qemu-stream raw"
GUESTS = "guest.ram guest.snap"
COMPLETED = {
    "snapmig ": " ".join(VERBS),
    "snapmig re": "rebase receive repack restore",
    "snapmig --": "--help --version",
    "snapmig backup ": "check init list prune report restore run",
    "snapmig backup r": "report restore run",
    "snapmig backup run --lo": "--lock-wait",
    "snapmig backup run b": "backup.toml",
    "snapmig backup run backup.toml ": "",
    "snapmig backup run backup.toml web ": "",
    "snapmig backup restore backup.toml web gu": GUESTS,
    "snapmig backup restore --format q": "qemu-stream",
    "snapmig save --f": "--follow-remote-parents --force --format",
    "snapmig save --no-": "--no-deltas --no-page-digests",
    "snapmig save --format ": FORMATS,
    "snapmig restore --format raw": "raw raw-by-address",
    "snapmig save --format=q": "qemu-stream",
    "snapmig save --compression z": "zlib zstd",
    "snapmig save --layout ": "fixed packed",
    "snapmig save --huffman ": "dynamic fixed trained",
    "snapmig verify --window ": "32k 4k",
    "snapmig save --accelerator q": "qat qpl qpl:software",
    "snapmig save --accelerator qpl:": "software",
    "snapmig verify --accelerator=qpl:": "software",
    "snapmig save --jobs ": "",
    "snapmig save --parent gu": GUESTS,
    "snapmig save --parent=gu": GUESTS,
    "snapmig save --attach a=gu": GUESTS,
    "snapmig save --base guest.ram --ba": "--base",
    "snapmig save gu": GUESTS,
    "snapmig save --jobs 4 gu": GUESTS,
    "snapmig save -j 2 -f guest.ram gu": GUESTS,
    "snapmig save --live qmp:./sub/so": "./sub/socket",
    "snapmig save qmp:sub/so": "sub/socket",
    "snapmig save qmp:sub/socket gu": GUESTS,
    "snapmig save s3://": "",
    "snapmig verify guest.snap gu": GUESTS,
    "snapmig info -- gu": GUESTS,
    "snapmig key ": "add list new remove rotate",
    "snapmig key add --new-p": "--new-passphrase --new-passphrase-command --new-passphrase-file",
    "snapmig key add --key-file gu": GUESTS,
    "snapmig save --recipient ": "",
    "snapmig completion ": "bash fish zsh",
    "snapmig completion zsh ba": "",
}
"""What could stand at the end of a line, in a directory with files."""


@pytest.fixture(scope="module", params=["bash", "bash-completion", "zsh", "fish"])
def shell(request, tmp_path_factory):
    """Give a shell in a directory with files."""
    requires(request.param.partition("-")[0])
    if request.param == "bash-completion" and not shells.BASH_COMPLETION.exists():
        lacks(request.param)
    home = tmp_path_factory.mktemp("home")
    for name in ("guest.ram", "guest.snap", "backup.toml", "sub/socket"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(b"")
    opened = shells.open_shell(request.param, home)
    yield opened
    opened.close()


@pytest.mark.parametrize("line", COMPLETED)
def test_a_shell_completes(shell, line):
    """Verbs, options, choices and files are completed where they can stand, and only there."""
    assert shell.complete(line) == set(COMPLETED[line].split())


def test_scripts_are_made_from_the_options():
    """The scripts of the package are those that "make docs" makes."""
    kept = {path.name: path.read_text() for path in COMPLETIONS.iterdir()}

    assert kept == make_completions()


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_program_prints_a_shells_script(cli, name):
    """The printed script is the package's."""
    outcome = cli("completion", name)

    outcome.ok(out=(COMPLETIONS / SCRIPTS[name]).read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_shell_reads_its_script(name):
    """A script has no error of syntax."""
    requires(name)
    done = program.call([name, "-n", COMPLETIONS / SCRIPTS[name]])

    done.ok()

"""Facts about the examples of backups: systemd, cron, the shell script and libvirt's."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from snapmig.backups.config import load_config
from snapmig.commands.main import build_parser
from tests.support import program
from tests.support.guests.libvirt import Session
from tests.support.requirements import requires

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "backup"
UNITS = sorted(path.name for path in EXAMPLES.glob("snapmig-*"))
SERVICES = [name for name in UNITS if name.endswith(".service")]


def commands(name):
    """Return the commands of snapmig in an example."""
    return re.findall(r"snapmig (backup .*)", (EXAMPLES / name).read_text())


@pytest.fixture
def programs(tmp_path):
    """Give a directory with snapmig, and a logger that keeps what it is given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "snapmig": f'PYTHONPATH={ROOT} exec {sys.executable} -m snapmig "$@"',
        "logger": f'echo "$@" >> {tmp_path}/log',
    }
    for name, line in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def configured(tmp_path):
    """Give a configuration with a guest."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "web.ram").write_bytes(bytes(4096) + b"contents" * 512)
    path = tmp_path / "backup.toml"
    path.write_text('repository = "repo"\n[guests.web]\nsource = "web.ram"\n')
    return path


def run(command, programs):
    """Run a command where these programs come first."""
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return program.call(command, env=environment)


def test_systemd_accepts_the_units(tmp_path, programs):
    """systemd-analyze finds nothing wrong with services and timers."""
    requires("systemd-analyze")
    for name in UNITS:
        text = (EXAMPLES / name).read_text().replace("/usr/local/bin", str(programs))
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", *(tmp_path / name for name in UNITS)]
    result = program.call(command)

    result.ok(out="")


@pytest.mark.parametrize("name", SERVICES)
def test_the_document_puts_what_units_need(name):
    """Program, configuration and repository of a unit are made by the commands that are told."""
    unit = (EXAMPLES / name).read_text()
    words = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1].split()
    mounted = re.search(r"^RequiresMountsFor=(.*)$", unit, re.MULTILINE)[1]
    told = (ROOT / "docs" / "backups.md").read_text().split("## Each night")[1].split("\n## ")[0]

    assert re.search(rf"^    ln -s /opt/snapmig/bin/snapmig {words[0]} ", told, re.MULTILINE)
    assert re.search(rf"^    snapmig backup init {words[-1]} ", told, re.MULTILINE)
    assert re.search(rf"^    mkdir -p {Path(words[-1]).parent} {mounted}$", told, re.MULTILINE)
    assert f"systemctl enable --now {SERVICES[1].replace('.service', '.timer')}" in told


def test_systemd_knows_every_key(tmp_path):
    """The check above is one: an unknown key is found."""
    requires("systemd-analyze")
    text = (EXAMPLES / SERVICES[0]).read_text().replace("KillMode", "KilMode")
    (tmp_path / "x.service").write_text(text)
    command = ["systemd-analyze", "verify", tmp_path / "x.service"]

    assert "KilMode" in program.call(command).err


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_timer(name):
    """A service is started by the timer of its name."""
    assert name.replace(".service", ".timer") in UNITS


@pytest.mark.parametrize("name", [*SERVICES, "crontab"])
def test_commands_run(name, programs, configured):
    """The commands started at night work, with only the place of the configuration replaced."""
    for line in commands(name):
        command = f"snapmig {line}".replace("/etc/snapmig/backup.toml", str(configured))
        result = run(["sh", "-c", command], programs)

        result.ok()


@pytest.mark.parametrize("name", [*SERVICES, "crontab"])
def test_commands_are_there(name):
    """The test above runs something: each file has a command that the parser knows."""
    verbs = [build_parser().parse_args(shlex.split(line)).backup_verb for line in commands(name)]

    assert set(verbs) <= {"run", "check"}
    assert len(verbs) == (2 if name == "crontab" else 1)


def test_cron_accepts_the_lines():
    """Crontab finds nothing wrong with its lines."""
    requires("crontab")
    program.call(["crontab", "-n", EXAMPLES / "crontab"]).ok(err=None)


def test_the_script_saves_and_checks(programs, configured, tmp_path):
    """A night that goes well leaves a snapshot and no word."""
    result = run([EXAMPLES / "nightly.sh", configured], programs)

    result.ok(out="")
    assert len(list((tmp_path / "repo/web").glob("*.snap"))) == 1
    assert not (tmp_path / "log").exists()


def test_the_script_notes_warnings(programs, configured, tmp_path):
    """A skipped guest is noted as a warning, and decides the exit code."""
    configured.write_text(configured.read_text() + "optional = true\n")
    (tmp_path / "web.ram").unlink()
    result = run([EXAMPLES / "nightly.sh", configured], programs)

    result.warns()
    assert (tmp_path / "log").read_text() == (
        "-t snapmig -p user.warning -- save: done, but something was skipped or a hook failed\n"
    )


def test_the_script_checks_after_a_failure(programs, configured, tmp_path):
    """A save that fails keeps nobody from reading what was saved before."""
    run([EXAMPLES / "nightly.sh", configured], programs)
    (path,) = (tmp_path / "repo/web").glob("*.snap")
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / "web.ram").unlink()
    result = run([EXAMPLES / "nightly.sh", configured], programs)

    result.fails(1)
    assert (tmp_path / "log").read_text().splitlines() == [
        "-t snapmig -p user.err -- save: failed with exit code 1",
        "-t snapmig -p user.err -- check: a snapshot is damaged",
    ]


def test_libvirts_configuration_is_one():
    """The configuration for a guest of libvirt's is accepted."""
    (guest,) = load_config(EXAMPLES / "libvirt.toml").guests

    assert (guest.source, dict(guest.save), guest.check_days) == (
        "libvirt:web",
        {"live": True, "connect": "qemu:///system"},
        30,
    )


@pytest.mark.guest
def test_libvirt_makes_of_the_domain_what_snapmig_needs(shm):
    """Libvirt accepts the definition, and starts QEMU with shared memory."""
    for tool in ("libvirtd", "virsh", "qemu-system-x86_64"):
        requires(tool)
    shm.chmod(0o711)
    (shm / "home").mkdir()
    # The machine of a test need not have KVM, and need not have the disk.
    text = (EXAMPLES / "libvirt-domain.xml").read_text().replace("'kvm'", "'qemu'")
    (shm / "home" / "web.xml").write_text(text)
    with Session(shm / "home", "raw") as session:
        try:
            session.virsh("define", "--validate", shm / "home" / "web.xml")
            line = session.virsh("domxml-to-native", "qemu-argv", "--domain", "web")
        finally:
            # What ends a session looks for a guest of its own tests.
            session.virsh("undefine", "web", check=False)

    assert '"qom-type":"memory-backend-file"' in line
    assert '"mem-path":' in line
    assert '"share":true' in line

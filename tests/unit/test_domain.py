"""Facts about domains of libvirt's, with a program in place of virsh that answers as told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapmig.guests import domain as domains
from snapmig.guests.guard import Guard
from snapmig.guests.monitor import Domain, Monitor, MonitorError
from snapmig.guests.wait import MonitorWait
from tests.support.outcome import Outcome
from tests.support.processes import children, state, wait_for

UUIDS = ("f89fd232-97fe-49fb-8dea-d4f47a589e30", "0a9fd232-97fe-49fb-8dea-d4f47a589e31")
VIRSH = """\
#!/bin/sh
case "$*" in *--connect*) shift 2;; esac
shift
echo "$*" >> {folder}/called
case "$1" in
uri) {uri};;
list) printf '%s\\n' {listed};;
domstate) echo {state};;
dumpxml) echo '<domain/>';;
qemu-monitor-command) {command};;
*) {other};;
esac
"""
Make = Callable[..., Path]


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Give a function that makes a virsh of shell commands, and returns its folder."""
    monkeypatch.setattr(domains, "find_binding", lambda: (sys.executable, None))

    def make(**answers: str) -> Path:
        usual = {"uri": "echo qemu:///session", "listed": f"'{UUIDS[0]} web'", "other": "true"}
        usual |= {"state": "paused"}
        usual |= {"command": """echo '{"return":{"status":"running"},"id":"libvirt-1"}'"""}
        program = tmp_path / "virsh"
        program.write_text(VIRSH.format(folder=tmp_path, **{**usual, **answers}))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return tmp_path

    return make


def refusal(name: str) -> str:
    """Return the error of reaching a domain."""
    with pytest.raises(MonitorError) as caught:
        Monitor(Domain(name), MonitorWait(30))
    return str(caught.value)


def test_command(virsh: Make) -> None:
    """A command and its answer pass unchanged."""
    folder = virsh()
    with Monitor(Domain("web")) as monitor:
        assert monitor.execute("query-status", a_b=1) == {"status": "running"}
    sent = (folder / "called").read_text().splitlines()[-1].partition(f"{UUIDS[0]} ")[2]
    assert json.loads(sent) == {"execute": "query-status", "arguments": {"a-b": 1}}


def test_continued_by_libvirt(virsh: Make) -> None:
    """The guest is continued by libvirt's own resume, not behind its back."""
    folder = virsh()
    with Monitor(Domain("web")) as monitor:
        monitor.execute("cont")
    assert (folder / "called").read_text().splitlines()[-1] == f"resume {UUIDS[0]}"


def test_continued_behind_libvirts_back(virsh: Make) -> None:
    """A domain that runs is continued by QEMU's command, for libvirt refuses that."""
    folder = virsh(state="running", other="echo error: already running >&2; exit 1")
    with Monitor(Domain("web")) as monitor:
        monitor.execute("cont")
    assert '"execute": "cont"' in (folder / "called").read_text().splitlines()[-1]


def test_definition(virsh: Make) -> None:
    """The definition is that of libvirt's own images, with passwords."""
    folder = virsh()
    with Monitor(Domain("web")) as monitor:
        assert monitor.domain_xml() == b"<domain/>\n"
    called = (folder / "called").read_text().splitlines()[-1]
    assert called == f"dumpxml --migratable --security-info {UUIDS[0]}"


def test_descriptor(virsh: Make, tmp_path: Path) -> None:
    """A descriptor arrives open in virsh, and is named on its command line."""
    command = f"""cat <&"$3" > {tmp_path}/got; echo '{{"return":{{}}}}'"""
    virsh(command=command)
    (tmp_path / "file").write_text("contents")
    with (tmp_path / "file").open() as file, Monitor(Domain("web")) as monitor:
        monitor.send_descriptor(file.fileno(), "getfd", fdname="x")
    assert (tmp_path / "got").read_text() == "contents"


def test_refused_by_qemu(virsh: Make) -> None:
    """QEMU's own refusal has QEMU's words."""
    answer = '{"error":{"class":"GenericError","desc":"no such thing"}}'
    virsh(command=f"echo '{answer}'")
    with (
        Monitor(Domain("web")) as monitor,
        pytest.raises(MonitorError, match="QEMU refused query-x: no such thing"),
    ):
        monitor.execute("query-x")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo 'error: one' >&2; echo 'error: two' >&2; exit 1", "command: one: two"),
        ("exit 3", "it failed and does not say why"),
        ("echo no JSON", "it answered with something else than JSON"),
        ("echo []", "it answered with something else than JSON"),
        ("kill -9 $$", "it failed and does not say why"),
    ],
)
def test_failing_virsh(virsh: Make, command: str, said: str) -> None:
    """Whatever virsh does besides answering is one sentence."""
    virsh(command=command)
    with Monitor(Domain("web")) as monitor, pytest.raises(MonitorError) as caught:
        monitor.execute("query-x")
    text = str(caught.value)
    assert text.startswith("libvirt:web: libvirt refused query-x: ")
    assert (text.endswith(said), "\n" in text) == (True, False)


def test_failing_connection(virsh: Make) -> None:
    """A libvirt that can't be reached is one sentence."""
    virsh(uri="echo 'error: failed to connect' >&2; echo 'error: No such file' >&2; exit 1")
    assert refusal("web") == "libvirt:web: virsh uri: failed to connect: No such file"


def test_slow_virsh(virsh: Make) -> None:
    """A command that takes too long is given up at the limit."""
    virsh(command="exec sleep 60")
    started = time.monotonic()
    with Monitor(Domain("web"), MonitorWait(3)) as monitor, pytest.raises(MonitorError):
        monitor.execute("query-x")
    assert time.monotonic() - started < 55


def test_nothing_is_left_of_a_slow_virsh(virsh: Make) -> None:
    """Neither virsh nor the bridge stays when snapmig leaves."""
    before = set(children(os.getpid()))
    virsh(command="exec sleep 60")
    with Monitor(Domain("web"), MonitorWait(3)) as monitor, pytest.raises(MonitorError):
        monitor.execute("query-x")
    wait_for(lambda: set(children(os.getpid())) <= before)


STATES = """\
test -e {0}/up || {{ echo 'error: no daemon' >&2; exit 1; }}
case "$*" in
*query-status*) echo "{{\\"return\\":{{\\"status\\":\\"$(cat {0}/status)\\"}}}}";;
*) echo '{{"return":{{"status":"completed"}}}}';;
esac
"""


def test_guard_waits_for_libvirt(virsh: Make, tmp_path: Path) -> None:
    """A guard whose libvirt is down resumes the guest when it is up again."""
    (tmp_path / "status").write_text("postmigrate")
    resume = f"test -e {tmp_path}/up || exit 1; echo running > {tmp_path}/status"
    virsh(command=STATES.format(tmp_path), other=resume)
    with Monitor(Domain("web")) as monitor:
        guard = Guard(monitor, resume=True, undo=[])
        guard.take_over()
        called = (tmp_path / "called").read_text
        wait_for(lambda: called().count("query-migrate") > 1)
        assert (tmp_path / "status").read_text() == "postmigrate"
        (tmp_path / "up").touch()
        wait_for(lambda: (tmp_path / "status").read_text() == "running\n")
        wait_for(lambda: state(guard.pid) in "ZX")


def test_guard_of_a_domain_that_ended(virsh: Make) -> None:
    """A guard ends when its domain is off."""
    virsh(command="echo 'error: domain is not running' >&2; exit 1")
    with Monitor(Domain("web")) as monitor:
        virsh(listed="", command="exit 1")
        guard = Guard(monitor, resume=True, undo=[])
        guard.take_over()
        wait_for(lambda: state(guard.pid) in "ZX")


def test_unknown_domain(virsh: Make) -> None:
    """A name that is not there is refused with those that are, each once and not too many."""
    listed = " ".join(
        f"'{number:08}-97fe-49fb-8dea-d4f47a589e30 d{number}'" for number in range(10)
    )
    virsh(listed=listed)
    names = ", ".join(f"d{number}" for number in range(8))
    said = f"qemu:///session has no domain of this name, it has {names}, 2 more"
    assert refusal("web") == f"libvirt:web: {said}"


def test_no_domain(virsh: Make) -> None:
    """A connection without domains says so."""
    virsh(listed="")
    said = "qemu:///session has no domain of this name, it has none at all"
    assert refusal("web") == f"libvirt:web: {said}"


def test_ambiguous_domain(virsh: Make) -> None:
    """A domain that is named like another's UUID is not guessed."""
    virsh(listed=f"'{UUIDS[0]} {UUIDS[1]}' '{UUIDS[1]} web'")
    said = "the name of one domain of qemu:///session and the UUID of another"
    assert refusal(UUIDS[1]) == f"libvirt:{UUIDS[1]}: {said}"


@pytest.mark.parametrize("name", ["two words", "-x", "*", "a;b", "$HOME"])
def test_odd_name(virsh: Make, name: str) -> None:
    """A domain's name is passed to nothing that could misunderstand it."""
    folder = virsh(listed=f"'{UUIDS[0]} {name}'")
    with Monitor(Domain(name)) as monitor:
        monitor.execute("query-status")
    assert name not in (folder / "called").read_text()


@pytest.mark.parametrize(
    "uri", ["qemu+ssh://host/system", "qemu+tls://host/system", "qemu://host/system", "xen:///"]
)
def test_another_host(virsh: Make, uri: str) -> None:
    """A domain of another host is refused: its memory is there."""
    virsh(uri=f"echo {uri}")
    assert (
        refusal("web") == f"libvirt:web: {uri} is not QEMU on this host, expected to be run there"
    )


@pytest.mark.parametrize("known", [False, True])
def test_process_by_its_file(
    virsh: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The process of libvirt's pid file is believed if its command line has the domain's UUID."""
    virsh()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "libvirt" / "qemu" / "run"
    folder.mkdir(parents=True)
    code = [sys.executable, "-c", "input()", "-uuid", UUIDS[0] if known else UUIDS[1]]
    with subprocess.Popen(code, stdin=subprocess.PIPE) as process:
        (folder / "web.pid").write_text(str(process.pid))
        with Monitor(Domain("web")) as monitor:
            found = monitor.peer
        process.kill()
    assert found == ((process.pid, os.geteuid()) if known else None)


def test_connect_is_for_domains(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """A URI without a domain is an error of usage."""
    saved = cli("save", "--connect", "qemu:///system", tmp_path / "ram", tmp_path / "snap")
    said = "snapmig: connect is for a guest of libvirt's, as libvirt:DOMAIN\n"
    assert (saved.code, saved.err) == (2, said)


@pytest.mark.parametrize("uri", ["", "system", "/run/libvirt"])
def test_connect_is_a_uri(tmp_path: Path, cli: Callable[..., Outcome], uri: str) -> None:
    """What has not the form of a URI is an error of usage."""
    saved = cli("save", "--connect", uri, "libvirt:web", tmp_path / "snap")
    assert (saved.code, "expected a URI like qemu:///system" in saved.err) == (2, True)


@pytest.mark.parametrize("name", ["libvirt:", "qmp:"])
def test_guest_without_a_name(tmp_path: Path, cli: Callable[..., Outcome], name: str) -> None:
    """A guest needs a name."""
    assert cli("save", name, tmp_path / "snap").code == 2

"""Facts about guests that libvirt holds, saved through it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

import snapmig
from snapmig.guests import domain as domains
from tests.support import userfaultfd
from tests.support.guests.libvirt import SHARED, Session, make_session
from tests.support.guests.resume import LAYOUT
from tests.support.guests.tiny import guest as tiny
from tests.support.outcome import Outcome
from tests.support.processes import children, state, wait_for, words
from tests.support.program import ENVIRONMENT
from tests.support.requirements import lacks
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

BACKINGS = {"shared": SHARED, "private": ""}
PRIVATE_LIVE = pytest.param("private", marks=pytest.mark.qemu("8.0"))
"""An older one misses writes of an emulated guest while it is migrated."""
WAYS = ("binding", "virsh")
VIRSH_ONLY = (sys.executable, None)
Test = TypeVar("Test", bound=Callable[..., None])
PROGRAM = """\
import sys
from snapmig.guests import domain
if sys.argv.pop(1) == "virsh":
    domain.find_binding = lambda: (sys.executable, None)
from snapmig.__main__ import run
sys.exit(run())
"""


@pytest.fixture(scope="module")
def session(program: str, shared_shm: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """Give a session with a running domain, without a monitor of its own."""
    shared_shm.chmod(0o711)
    folder = shared_shm / request.param
    folder.mkdir()
    with make_session(program, folder, "raw", BACKINGS[request.param], monitor=False) as session:
        session.virsh("create", session.folder / "tiny.xml")
        session.wait_passes(2)
        yield session


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a way to libvirt: its Python binding, or virsh alone."""
    if request.param == "virsh":
        monkeypatch.setattr(domains, "find_binding", lambda: VIRSH_ONLY)
    elif domains.find_binding()[1] is None:
        lacks("python3-libvirt")
    return str(request.param)


def both(*states: Any) -> pytest.MarkDecorator:
    """Run a test with each kind of memory."""
    return pytest.mark.parametrize("session", states or BACKINGS, indirect=True)


def mostly(essential: str) -> pytest.MarkDecorator:
    """Run a test with each kind of memory, with all but one in ``make test-more``."""
    return both(*sweep(BACKINGS, lambda kind: kind == essential))


only_shared = both("shared")


def over(ways: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test over each of some ways to libvirt."""

    def decorate(test: Test) -> Test:
        pytest.mark.usefixtures("way")(test)
        return cast(Test, pytest.mark.parametrize("way", ways, indirect=True)(test))

    return decorate


best_way = over(sweep(WAYS, lambda way: way == "binding"))


def restart(session: Session, shm: Path) -> None:
    """Have libvirt load the guest from a snapshot, and check that it counts on."""
    snap, image = shm / "snap", session.folder / "image"
    session.virsh("destroy", "tiny")
    (session.folder / "serial").unlink()
    snapmig.restore(snap, shm / "ram", block="pc.ram", jobs=2)
    snapmig.restore(snap, image, format="libvirt", jobs=2, force=True)
    image.chmod(0o644)
    session.virsh("restore", image)
    counted = session.wait_passes(2)
    assert tiny.goes_on(counted, tiny.check_image(shm / "ram", LAYOUT), LAYOUT)


@both()
@best_way
def test_running(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain that runs is saved, runs on, and is loaded by libvirt again."""
    saved = cli("save", "--connect", session.uri, "libvirt:tiny", shm / "snap")
    assert (saved.code, session.state()) == (0, "running"), saved.err
    restart(session, shm)


@mostly("shared")
@best_way
def test_paused(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain that its owner suspended is saved and stays so, for the same reason."""
    session.virsh("suspend", "tiny")
    before = session.virsh("domstate", "--reason", "tiny")
    saved = cli("save", "--connect", session.uri, "libvirt:tiny", shm / "snap")
    assert (saved.code, session.virsh("domstate", "--reason", "tiny")) == (0, before), saved.err
    restart(session, shm)


@both("shared", PRIVATE_LIVE)
@best_way
def test_live(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A live save of a domain is restored as of its pause."""
    words = ("save", "--live", "--pause-after", "3", "--connect", session.uri)
    saved = cli(*words, "libvirt:tiny", shm / "snap")
    assert (saved.code, session.state()) == (0, "running"), saved.err
    restart(session, shm)


@mostly("private")
@best_way
def test_in_the_background(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain is saved as it is at the start, runs on, and is restored as of then."""
    words = ("save", "--live=background", "--json", "--connect", session.uri)
    with userfaultfd.for_everybody(allowed=True):  # QEMU runs as another user
        saved = cli(*words, "libvirt:tiny", shm / "snap")
    assert (saved.code, session.state()) == (0, "running"), saved.err
    result = json.loads(saved.out)
    assert 0 < result["pause_seconds"] < result["seconds"]
    restart(session, shm)


@both(PRIVATE_LIVE)
def test_pause_of_a_live_save(session: Session, shm: Path) -> None:
    """The pause told of a live save is the guest's, not the time of the save."""
    save = {"connect": session.uri, "live": True, "max_downtime": 0, "pause_after": 4}
    result = snapmig.save("libvirt:tiny", shm / "snap", **save)
    assert result.pause_seconds < result.seconds / 2


@both("private")
@best_way
def test_by_a_file(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain with private memory is saved through a file of QEMU's, too."""
    words = ("save", "--via", "mapped-ram", "--connect", session.uri)
    saved = cli(*words, "libvirt:tiny", shm / "snap")
    said = "<access mode='shared'/> in the domain's <memoryBacking> avoid that"
    assert (saved.code, said in saved.err, session.state()) == (0, True, "running"), saved.err
    restart(session, shm)


@only_shared
@best_way
def test_definition(session: Session, shm: Path) -> None:
    """The attachment domain.xml is the definition in the form of libvirt's own images."""
    snapmig.save("libvirt:tiny", shm / "snap", connect=session.uri)
    told = session.virsh("dumpxml", "--migratable", "--security-info", "tiny")
    with snapmig.open(shm / "snap") as snapshot:
        assert snapshot.attachments["domain.xml"].decode().strip() == told.strip()


@only_shared
def test_own_definition(session: Session, shm: Path) -> None:
    """An attachment domain.xml of the user's is kept in place of libvirt's."""
    snapmig.save("libvirt:tiny", shm / "snap", connect=session.uri, attach={"domain.xml": b"own"})
    with snapmig.open(shm / "snap") as snapshot:
        assert snapshot.attachments["domain.xml"] == b"own"


@only_shared
def test_uuid(session: Session, shm: Path) -> None:
    """A domain's UUID names it too."""
    uuid = session.virsh("domuuid", "tiny").strip()
    result = snapmig.save(f"libvirt:{uuid}", shm / "snap", connect=session.uri)
    assert result.image == f"libvirt:{uuid}"


@only_shared
def test_capabilities_stay(session: Session, shm: Path) -> None:
    """All of QEMU's migration capabilities are afterwards as libvirt had set them."""
    ask = ("qemu-monitor-command", "tiny", '{"execute":"query-migrate-capabilities"}')
    before = json.loads(session.virsh(*ask))["return"]
    snapmig.save("libvirt:tiny", shm / "snap", connect=session.uri)
    assert json.loads(session.virsh(*ask))["return"] == before


@only_shared
@best_way
def test_nothing_is_left(session: Session, shm: Path) -> None:
    """After a save neither a process of ours nor a descriptor in QEMU is left."""
    before = children(os.getpid())
    ask = ("qemu-monitor-command", "tiny", '{"execute":"query-fdsets"}')
    fdsets = session.virsh(*ask).partition('"id"')[0]
    snapmig.save("libvirt:tiny", shm / "snap", connect=session.uri)
    wait_for(lambda: set(children(os.getpid())) <= set(before))
    assert session.virsh(*ask).partition('"id"')[0] == fdsets


@only_shared
def test_hidden_process(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """Where QEMU's process is not to be found, QEMU writes a file, and a warning says why."""
    link = shm / "link"
    link.symlink_to(session.folder / "RU" / "libvirt" / "libvirt-sock")
    uri = f"qemu+unix:///session?socket={link}"
    saved = cli("save", "--connect", uri, "libvirt:tiny", shm / "snap")
    assert (saved.code, "is hidden from here, so QEMU wrote all RAM" in saved.err) == (0, True)


@only_shared
@best_way
def test_missing_domain(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain that is not there is one sentence with those that are."""
    saved = cli("save", "--connect", session.uri, "libvirt:web", shm / "snap")
    said = f"{session.uri} has no domain of this name, it has tiny"
    assert (saved.code, saved.err) == (1, f"snapmig: libvirt:web: {said}\n")


@only_shared
@best_way
def test_number_of_a_domain(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain's number, which changes with each start, does not name it."""
    number = session.virsh("domid", "tiny").strip()
    assert cli("save", "--connect", session.uri, f"libvirt:{number}", shm / "snap").code == 1


@only_shared
@best_way
def test_domain_that_is_off(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain that is off is one sentence."""
    text = (session.folder / "tiny.xml").read_text().replace(">tiny<", ">off<")
    (session.folder / "off.xml").write_text(text)
    session.virsh("define", session.folder / "off.xml")
    try:
        saved = cli("save", "--connect", session.uri, "libvirt:off", shm / "snap")
    finally:
        session.virsh("undefine", "off")
    said = f"the domain is shut off on {session.uri}, expected one that is running or paused"
    assert (saved.code, saved.err) == (1, f"snapmig: libvirt:off: {said}\n")


@only_shared
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("qemu+unix:///session?socket=/nowhere", "'/nowhere': No such file or directory"),
        ("test:///default", "has no domain of this name, it has test"),
        ("nothing:///system", ""),
    ],
)
@best_way
@pytest.mark.usefixtures("session")
def test_wrong_uri(shm: Path, cli: Callable[..., Outcome], uri: str, said: str) -> None:
    """A URI where no such domain is is one sentence with its reason."""
    saved = cli("save", "--connect", uri, "libvirt:tiny", shm / "snap")
    assert (saved.code, said in saved.err, saved.err.count("\n")) == (1, True, 1), saved.err


@only_shared
@best_way
@pytest.mark.usefixtures("session")
def test_no_qemu(shm: Path, cli: Callable[..., Outcome]) -> None:
    """A domain of another kind than QEMU's is one sentence."""
    saved = cli("save", "--connect", "test:///default", "libvirt:test", shm / "snap")
    assert (saved.code, saved.err.count("\n")) == (1, 1), saved.err


@only_shared
def test_backup(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A rule for a domain saves it, by its own connection."""
    (shm / "repository").mkdir()
    config = shm / "backup.toml"
    config.write_text(
        f'repository = "repository"\n[save]\nconnect = "{session.uri}"\n'
        '[guests.web]\nsource = "libvirt:tiny"\n[guests.off]\nsource = "libvirt:off"\n'
        "optional = true\n"
    )
    done = cli("backup", "run", config)
    (snapshot,) = (shm / "repository").glob("*/*.snap")
    with snapmig.open(snapshot) as opened:
        assert "domain.xml" in opened.attachments
    said = "snapmig: warning: off: skipped: its source libvirt:off is not there\n"
    assert (done.code, done.err, session.state()) == (6, said, "running")


@only_shared
def test_batch(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A batch saves a domain under its name."""
    (shm / "jobs.toml").write_text(
        f'[defaults]\nconnect = "{session.uri}"\n'
        '[[save]]\nimage = "libvirt:tiny"\nsnapshot = "{name}.snap"\n'
    )
    done = cli("batch", shm / "jobs.toml")
    assert (done.code, (shm / "tiny.snap").exists(), session.state()) == (0, True, "running")


def start(session: Session, way: str, shm: Path, *options: str) -> subprocess.Popen[str]:
    """Start a save that keeps the domain paused for long, and wait for the pause."""
    words = ["save", "--bwlimit", "1M", "--connect", session.uri, *options]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way, *words, "libvirt:tiny", str(shm / "snap")],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    wait_for(lambda: session.state() == "paused")
    return process


def process_of(name: str, snapmig: int) -> int:
    """Return a snapmig's bridge or guard; the guard's arguments name the bridge's program too."""
    end = f"{name}.py".encode()
    (found,) = [pid for pid in children(snapmig) if b"".join(words(pid)[4:5]).endswith(end)]
    return found


@both()
@pytest.mark.parametrize("also", ["alone", "with its bridge"])
@over(sweep(WAYS, lambda way: way == "virsh"))
def test_killed(session: Session, way: str, shm: Path, also: str) -> None:
    """A domain whose snapmig is killed while it is paused runs on."""
    process = start(session, way, shm)
    guard = process_of("guard_process", process.pid)
    if also == "with its bridge":
        os.kill(process_of("bridge_process", process.pid), signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: session.state() == "running")
    wait_for(lambda: state(guard) in "ZX")
    passes = len(session.wait_passes(0))
    session.wait_passes(passes + 2)


@only_shared
@best_way
def test_interrupted(session: Session, way: str, shm: Path) -> None:
    """Ctrl-C during the pause lets the domain run on at once."""
    process = start(session, way, shm)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, session.state()) == (130, "running"), err


@only_shared
@best_way
def test_libvirt_that_hangs(session: Session, shm: Path, cli: Callable[..., Outcome]) -> None:
    """A libvirt that does not answer ends a save at the limit."""
    os.kill(session.daemon, signal.SIGSTOP)
    try:
        words = ("--monitor-timeout", "1", "--connect", session.uri)
        saved = cli("save", *words, "libvirt:tiny", shm / "snap")
    finally:
        os.kill(session.daemon, signal.SIGCONT)
    said = "snapmig: libvirt:tiny: libvirt does not answer in 1 s\n"
    assert (saved.code, saved.err) == (1, said)


@only_shared
@best_way
def test_libvirt_that_hangs_during_the_pause(session: Session, way: str, shm: Path) -> None:
    """A domain whose libvirt stops answering is resumed once it answers again."""
    process = start(session, way, shm, "--monitor-timeout", "2")
    os.kill(session.daemon, signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        os.kill(session.daemon, signal.SIGCONT)
    assert (process.returncode != 0, "will resume the guest" in err) == (True, True), err
    wait_for(lambda: session.state() == "running")


def test_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """Without virsh and the binding one sentence names the packages."""
    monkeypatch.setattr(domains, "find_binding", lambda: VIRSH_ONLY)
    monkeypatch.setenv("PATH", str(shm))
    saved = cli("save", "libvirt:web", shm / "snap")
    assert (saved.code, "need virsh (Debian: libvirt-clients" in saved.err) == (2, True)


def test_not_restored_to(shm: Path, cli: Callable[..., Outcome]) -> None:
    """A restore to a domain is refused with the way that there is."""
    restored = cli("restore", shm / "snap", "libvirt:web")
    assert (restored.code, "then use virsh restore" in restored.err) == (2, True)

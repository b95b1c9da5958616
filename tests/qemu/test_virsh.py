"""Facts about libvirt itself: it resumes its saved images after a restore."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import snapmig
from tests.support.guests import cores
from tests.support.guests.libvirt import SHARED, Session, make_session
from tests.support.guests.private import ram_of
from tests.support.guests.resume import LAYOUT
from tests.support.guests.tiny import guest as tiny
from tests.support.outcome import Outcome

pytestmark = pytest.mark.guest


@pytest.fixture
def session(program: str, shm: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """Give a session with a running guest; its parameter: the way of saving images, or SHARED."""
    kind = getattr(request, "param", "raw")
    ways = ("raw", kind) if kind == SHARED else (kind, "")
    with make_session(program, shm, *ways) as session:
        session.virsh("create", session.folder / "tiny.xml")
        session.wait_passes(2)
        yield session


@pytest.mark.parametrize(
    "session", ["raw", pytest.param("gzip", marks=pytest.mark.sweep)], indirect=True
)
def test_libvirt_resumes_a_restored_image(session: Session, shm: Path) -> None:
    """A guest saved by `virsh save` continues when `virsh restore` reads the restored image."""
    folder = session.folder
    session.virsh("save", "tiny", folder / "image")
    snapmig.save(folder / "image", shm / "snap", jobs=2)
    snapmig.restore(shm / "snap", shm / "ram", block="pc.ram", jobs=2)
    snapmig.restore(shm / "snap", folder / "again", jobs=2)
    (folder / "again").chmod(0o644)
    (folder / "serial").unlink()
    session.virsh("restore", folder / "again")
    counted = session.wait_passes(2)
    assert tiny.goes_on(counted, tiny.check_image(shm / "ram", LAYOUT), LAYOUT)


@pytest.mark.sweep
def test_a_domain_that_waits(session: Session, shm: Path) -> None:
    """A guest is sent into a paused domain with -incoming in its definition, and continues."""
    folder, place = session.folder, f"unix:{session.folder / 'in'}"
    snapmig.save("libvirt:tiny", shm / "snap", jobs=2, connect=session.uri)
    state = ram_of(shm / "snap", shm)
    session.virsh("destroy", "tiny")
    (folder / "serial").unlink()
    more = "<qemu:arg value='-incoming'/><qemu:arg value='defer'/></qemu:commandline>"
    text = (folder / "tiny.xml").read_text().replace("</qemu:commandline>", more)
    (folder / "waiting.xml").write_text(text)
    session.virsh("create", "--paused", folder / "waiting.xml")
    for command in ("migrate_set_capability multifd on", f"migrate_incoming {place}"):
        session.virsh("qemu-monitor-command", "--hmp", "tiny", command)
    snapmig.send(shm / "snap", place, uuid=session.virsh("domuuid", "tiny").strip())
    session.virsh("resume", "tiny")
    assert tiny.goes_on(session.wait_passes(2), state, LAYOUT)


def test_core_of_virsh_dump(session: Session, shm: Path) -> None:
    """A core written by `virsh dump --memory-only` is restored byte for byte."""
    core = session.folder / "core"
    session.virsh("dump", "--memory-only", "tiny", core)
    snapmig.save(core, shm / "snap", jobs=2)
    snapmig.restore(shm / "snap", shm / "again", jobs=2)
    assert core.read_bytes() == (shm / "again").read_bytes()


@pytest.mark.sweep
def test_compressed_dump_of_virsh(session: Session, shm: Path) -> None:
    """What `virsh dump --format kdump-zlib` writes has the pages of its core."""
    core, dump = session.folder / "core", session.folder / "dump"
    session.virsh("suspend", "tiny")
    session.virsh("dump", "--memory-only", "tiny", core)
    session.virsh("dump", "--memory-only", "--format", "kdump-zlib", "tiny", dump)
    snapmig.save(dump, shm / "snap", jobs=2)
    snapmig.restore(shm / "snap", shm / "again", format="elf", jobs=2)
    assert cores.ranges(shm / "again") == cores.ranges(core)
    assert [*cores.differing(shm / "again", core)] == []


MADE = {"shared": SHARED, "private": "raw"}


@pytest.mark.parametrize(("way", "session"), MADE.items(), ids=MADE, indirect=["session"])
def test_libvirt_restores_a_guest_saved_through_its_monitor(
    session: Session, shm: Path, way: str, cli: Callable[..., Outcome]
) -> None:
    """The guest continues when `virsh restore` reads an image made of it and its domain."""
    folder = session.folder
    (shm / "domain.xml").write_text(session.virsh("dumpxml", "--migratable", "tiny"))
    attach = ("--attach", f"domain.xml={shm / 'domain.xml'}") if way == "private" else ()
    # QEMU itself, running as another user, may have to write beside the snapshot.
    assert cli("save", f"qmp:{folder / 'monitor'}", folder / "snap", *attach).code in (0, 6)
    session.virsh("destroy", "tiny")
    printed = cli("restore", "--for-qemu", folder / "snap", shm / "new")
    printed.fails(2, "then use virsh restore")
    snapmig.restore(folder / "snap", shm / "ram", block="pc.ram", jobs=2)
    given = ("--domain-xml", shm / "domain.xml") if way == "shared" else ()
    outcome = cli("restore", folder / "snap", folder / "image", "--format", "libvirt", *given)
    outcome.ok()
    (folder / "image").chmod(0o644)
    (folder / "serial").unlink()
    session.virsh("restore", folder / "image")
    counted = session.wait_passes(2)
    assert tiny.goes_on(counted, tiny.check_image(shm / "ram", LAYOUT), LAYOUT)


EXAMPLES = Path(__file__).parents[2] / "examples" / "backup"


@pytest.fixture
def example(program: str, shm: Path) -> Iterator[Session]:
    """Give a session with the guest of the examples, with other places, size and accelerator."""
    with make_session(program, shm, "raw") as session:
        folder = session.folder
        disk = folder / "web.qcow2"
        convert = ["qemu-img", "convert", "-O", "qcow2", folder / "tiny.sector", disk]
        subprocess.run(convert, check=True)
        # A BIOS starts no disk of one sector.
        subprocess.run(["qemu-img", "resize", "-q", disk, "8M"], check=True)
        disk.chmod(0o666)
        replaced = {
            "'kvm'": "'qemu'",
            "<memory unit='GiB'>2<": f"<memory unit='b'>{LAYOUT.ram}<",
            "/var/lib/libvirt/images/web.qcow2": str(disk),
            # The test's own: QEMU, and by what the guest tells of itself.
            "<devices>": f"<devices><emulator>{program}</emulator><serial type='file'>"
            f"<source path='{folder}/serial'/></serial>",
        }
        text = (EXAMPLES / "libvirt-domain.xml").read_text()
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "web.xml").write_text(text)
        try:
            session.virsh("define", "--validate", folder / "web.xml")
            session.virsh("start", "web")
            session.wait_passes(2)
            yield session
        finally:
            session.virsh("destroy", "web", check=False)
            session.virsh("undefine", "web", check=False)


def configure(session: Session, shm: Path) -> Path:
    """Return the examples' configuration for that session."""
    text = (EXAMPLES / "libvirt.toml").read_text()
    for old, new in {
        "/var/backups/snapmig": str(shm / "repository"),
        "qemu:///system": session.uri,
    }.items():
        assert old in text
        text = text.replace(old, new)
    (shm / "repository").mkdir()
    (shm / "libvirt.toml").write_text(text)
    return shm / "libvirt.toml"


def test_the_example_brings_a_guest_back(
    example: Session, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """The guest of the examples is saved by their rule while it runs, and resumed by virsh."""
    config = configure(example, shm)
    done = cli("backup", "run", config)
    assert done.code in (0, 6), done.err  # it may be told that too much changed meanwhile
    assert example.virsh("domstate", "web").strip() == "running"
    (snapshot,) = (shm / "repository").glob("web/*.snap")
    example.virsh("destroy", "web")
    snapmig.restore(snapshot, shm / "ram", block="pc.ram")
    made = cli("backup", "restore", "--format", "libvirt", config, "web", example.folder / "image")
    made.ok()
    (example.folder / "image").chmod(0o644)
    (example.folder / "serial").unlink()
    example.virsh("restore", example.folder / "image")
    counted = example.wait_passes(2)
    assert tiny.goes_on(counted, tiny.check_image(shm / "ram", LAYOUT), LAYOUT)

"""Facts about whole runs whose accelerator fails: they end well, and say what happened."""

import pytest

import snapmig
from snapmig.encodings.engines import ENGINES, SIGNS
from tests.support import ram
from tests.support.coders import LateEngine, always, deflate, failing, inflate

CONTENT = ram.mixed(6 << 20)


@pytest.fixture
def image(shm):
    """Give an image of 12 packets."""
    return ram.write(shm / "a", CONTENT)


@pytest.fixture
def engine(monkeypatch):
    """Give a function that makes an engine of the tests known as "late", to workers too."""

    def known(**changes):
        made = LateEngine(**changes)
        monkeypatch.setitem(ENGINES, "late", lambda: made)
        monkeypatch.setitem(SIGNS, "late", ("/",))

    return known


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_an_asynchronous_engine_saves_and_restores(engine, image, shm, layout, jobs):
    """An engine that is done in another order gives the guest back, and nothing to tell."""
    engine()
    saved = snapmig.save(image, shm / "s", accelerator="late", layout=layout, jobs=jobs)
    restored = snapmig.restore(shm / "s", shm / "r", accelerator="late", jobs=jobs)
    verified = snapmig.verify(shm / "s", accelerator="late", jobs=jobs)

    assert (shm / "r").read_bytes() == CONTENT
    assert (saved.accelerator, restored.accelerator, verified.ok) == ("late", "late", True)
    assert saved.warnings == restored.warnings == verified.warnings == ()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_save_whose_engine_fails_ends_well(engine, image, shm, jobs):
    """Packets left by the engine are done in software, and the result has their number."""
    engine(compress=failing(deflate, lambda call: call == 1, "the device is gone"))
    saved = snapmig.save(image, shm / "s", accelerator="late", jobs=jobs)
    snapmig.restore(shm / "s", shm / "r")

    assert (shm / "r").read_bytes() == CONTENT
    (warning,) = saved.warnings
    assert warning.endswith("done in software: late: the device is gone")
    assert warning.startswith(("1 packet was", "2 packets were"))


@pytest.mark.parametrize(
    "wrong",
    [
        failing(inflate, always, "the device is gone"),
        lambda data, size: bytes(size),  # noqa: ARG005
        lambda _data, _size: b"",
    ],
    ids=["fails", "other bytes", "no bytes"],
)
def test_a_restore_whose_engine_is_wrong_ends_well(engine, image, shm, wrong):
    """No byte that an engine got wrong comes into the image."""
    engine(decompress=wrong)
    snapmig.save(image, shm / "s")
    restored = snapmig.restore(shm / "s", shm / "r", accelerator="late", jobs=2)
    verified = snapmig.verify(shm / "s", accelerator="late", jobs=2)

    assert ((shm / "r").read_bytes() == CONTENT, verified.problems) == (True, ())
    for (warning,) in (restored.warnings, verified.warnings):
        assert "done in software: late: " in warning


def test_damage_is_found_whatever_the_engine_says(engine, image, shm):
    """An engine that gives something for a damaged stream does not make it a good one."""
    engine(decompress=lambda _data, size: bytes(size))
    snapmig.save(image, shm / "s", layout="packed", packet_size="64K")
    raw = bytearray((shm / "s").read_bytes())
    raw[-2000] ^= 1
    ram.write(shm / "s", bytes(raw))

    assert snapmig.verify(shm / "s", accelerator="late", jobs=1).damaged_packets == 1


def test_an_engine_that_opens_in_no_worker_is_told_of(engine, image, shm):
    """Where the device can't be had, software does all of it."""
    engine(opens=False)
    saved = snapmig.save(image, shm / "s", accelerator="late", jobs=2)
    snapmig.restore(shm / "s", shm / "r")

    assert (shm / "r").read_bytes() == CONTENT
    assert "late: no device" in " ".join(saved.warnings)


def test_batches_without_data_have_no_level(shm):
    """The result counts batches that were compressed, not holes."""
    ram.write_sparse(shm / "a", 64 << 20, {0: CONTENT[: 4 << 20]})

    assert snapmig.save(shm / "a", shm / "s").codecs.keys() == {"zlib 1"}

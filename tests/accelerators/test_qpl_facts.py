"""Facts that QPL's engines tell of themselves and of this host, and refusals."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.devices import find_iaa
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.qpl import engine as qpl
from snapmig.encodings.engines.qpl import library as qpl_library
from snapmig.encodings.engines.qpl.engine import QplEngine, QplSoftwareEngine
from tests.support.requirements import requires

DATA = bytes(range(256)) * 512
SOFTWARE = QplSoftwareEngine()


@pytest.fixture(autouse=True)
def _library() -> None:
    if isinstance(qpl_library.load(), str):
        requires(qpl_library.SONAME)


def test_the_hardware_needs_a_device():
    """Its facts say what is missing, as the look at the host does; software does not step in."""
    engine = QplEngine()
    if find_iaa().problem is None:
        coder = engine.compressor(DeflateSettings())
        coder.submit(1, DATA, len(DATA))
        assert zlib.decompress(coder.reap().result, -12) == DATA
        return
    facts = engine.facts()
    assert facts.problem == find_iaa().problem
    for make in (lambda: engine.compressor(DeflateSettings()), lambda: engine.decompressor(12)):
        with pytest.raises(EngineError) as caught:
            make()
        assert str(caught.value) == facts.problem


def test_without_devices_the_library_says_so_too():
    """In a job's set-up, in words."""
    if find_iaa().problem is None:
        return
    with pytest.raises(EngineError, match="no work queue that is enabled, shared"):
        qpl_library.Job(qpl_library.load(), qpl_library.Route.HARDWARE)


def test_facts_of_the_library():
    """Its version and its file."""
    facts = SOFTWARE.facts()
    assert facts.usable
    assert facts.version.split(".")[0] == "1"
    assert Path(facts.library).name == f"libqpl.so.{facts.version}"


def test_a_missing_library_is_named(monkeypatch):
    """With the package that has it, and as the reason of the coders' errors."""
    monkeypatch.setattr(qpl_library, "SONAME", "libqpl-of-nowhere.so.1")
    monkeypatch.setattr(qpl, "load", qpl_library.load.__wrapped__)
    facts = SOFTWARE.facts()
    assert "libqpl-of-nowhere.so.1" in facts.problem
    assert "libqpl1" in facts.remedy
    with pytest.raises(EngineError, match="libqpl-of-nowhere"):
        SOFTWARE.compressor(DeflateSettings())


@pytest.mark.parametrize(
    "wrong",
    [
        DeflateSettings(level=2),
        DeflateSettings(window_bits=11),
        DeflateSettings(huffman="trained"),
        DeflateSettings(huffman="trained", histogram=b"x" * 1279),
    ],
    ids=["level", "window", "no histogram", "short histogram"],
)
def test_settings_that_it_can_not_keep_are_errors(wrong):
    """Before there is a coder."""
    with pytest.raises(EngineError):
        SOFTWARE.compressor(wrong)


def test_a_larger_window_is_not_asked_of_it():
    """A decompressor for 32 KiB can't be had."""
    with pytest.raises(EngineError, match="window of 15 bits"):
        SOFTWARE.decompressor(15)

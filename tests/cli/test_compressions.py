"""Facts about the options of compression: what they do, and what is said where they can't."""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.container.format import Encoding, Superblock
from snapmig.encodings.engines import ENGINES, find_engine
from snapmig.encodings.engines.qat import library as qatzip_library
from snapmig.encodings.engines.qpl import engine as qpl
from snapmig.operations import accelerators
from tests.cli.conftest import RAM
from tests.support import program, ram

# The program where a Python package is not installed.
WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from snapmig.commands import main
sys.exit(main(sys.argv[1:]))
"""
PACKAGES = {"zstd": "zstandard", "lz4": "lz4"}


def _without(package, *arguments):
    return program.call(
        [sys.executable, "-c", WITHOUT.format(package=package), *arguments], env=program.ENVIRONMENT
    )


def _saved(cli, *options):
    outcome = cli("save", "guest.ram", "guest.snap", "--json", "-f", *options)
    outcome.ok()
    return outcome.json


def _restored(cli, guest):
    cli("restore", "-f", "guest.snap", "new.ram").ok()
    return (guest / "new.ram").read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("compression", "encoding"),
    [("zlib", "deflate"), ("zstd", "zstd"), ("lz4", "lz4"), ("none", "raw")],
)
def test_a_compression_is_what_is_stored(guest, cli, compression, encoding, jobs):
    """Each compression gives packets in its encoding, and the guest comes back."""
    result = _saved(cli, "--compression", compression, "-j", jobs)
    others = {"deflate", "zstd", "lz4"} - {encoding}

    assert (result["compression"], result["packets"][encoding] > 0) == (compression, True)
    assert sum(result["packets"][other] for other in others) == 0
    assert _restored(cli, guest) == RAM


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("compression", "engine"), [("zlib", "isal"), ("zstd", None), ("lz4", None), ("none", None)]
)
def test_only_zlib_has_an_accelerator(cli, compression, engine):
    """The result names the engine where there is a choice."""
    result = _saved(cli, "--compression", compression, "--level", 1 if compression != "none" else 0)

    assert result["accelerator"] in ({engine, *ENGINES} if engine else {None})


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--accelerator", "isal"), "by        zlib level 1 (isal)"),
        (("--accelerator", "python", "--level", "9"), "by        zlib level 9 (python)"),
        (("--level", "6"), "by        zlib level 6 (python)"),
        (("--compression", "zstd", "--level", "-3"), "by        zstd level -3"),
        (("--compression", "lz4"), "by        lz4 level 1"),
        (("--compression", "none"), "by        none"),
    ],
)
def test_the_result_says_what_compressed(cli, options, line):
    """People read which format, level and engine a snapshot was made with."""
    assert line in cli("save", "guest.ram", "new.snap", *options).lines


@pytest.mark.parametrize("engine", ["isal", "python"])
@pytest.mark.parametrize("reader", ["isal", "python"])
def test_engines_read_each_other(guest, cli, engine, reader):
    """A snapshot made by one engine is restored and verified by another."""
    _saved(cli, "--accelerator", engine, "--level", 3)
    restored = cli("restore", "guest.snap", "new.ram", "--accelerator", reader, "--json")
    verified = cli("verify", "guest.snap", "--accelerator", reader, "--json")

    verified.ok()
    assert restored.json["accelerator"] == reader
    assert (guest / "new.ram").read_bytes() == RAM


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("compression", PACKAGES)
def test_a_missing_package_is_named_before_a_save(guest, compression):
    """A compression whose package is not there is refused with the command that installs it."""
    package = PACKAGES[compression]
    result = _without(package, "save", "guest.ram", "new.snap", "--compression", compression)

    result.fails(
        1,
        out="",
        err=f"snapmig: {compression} needs the Python package {package}: "
        f"pip install 'snapmig[{compression}]'\n",
    )
    assert not (guest / "new.snap").exists()


@pytest.mark.parametrize(
    "arguments", [("restore", "guest.snap", "new.ram"), ("verify", "guest.snap")]
)
@pytest.mark.parametrize("compression", PACKAGES)
def test_a_missing_package_is_named_where_it_is_needed(guest, cli, compression, arguments):
    """A snapshot that can't be decoded is a failure of the machine, not of the snapshot."""
    _saved(cli, "--compression", compression)
    package = PACKAGES[compression]
    result = _without(package, *arguments)

    result.fails(1, out="", lines=1)
    assert not (guest / "new.ram").exists()
    assert result.err.endswith(
        f"{compression} needs the Python package {package}: pip install 'snapmig[{compression}]'\n"
    )


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("compression", PACKAGES)
@pytest.mark.parametrize("arguments", [("info", "guest.snap"), ("verify", "--quick", "guest.snap")])
def test_a_missing_package_is_not_missed(cli, compression, arguments):
    """Verbs that decode no packet need no package."""
    _saved(cli, "--compression", compression)

    _without(PACKAGES[compression], *arguments).ok()


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("package", PACKAGES.values())
def test_zlib_needs_neither_package(package):
    """The default works where the optional packages are not installed."""
    _without(package, "save", "guest.ram", "new.snap").ok()


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--compression zstd --accelerator isal", "are for zlib, not for zstd"),
        ("--compression lz4 --accelerator python", "are for zlib, not for lz4"),
        ("--compression zstd --window 4k", "windows are for zlib, not for zstd"),
        ("--accelerator isal --level 6", "level is 6, isal has 0 to 3"),
        ("--accelerator python --level 0", "level is 0, python has 1 to 9"),
        ("--level 10", "level of zlib is 10, expected 0 to 9 or auto"),
        ("--level fast", "level of zlib is fast, expected 0 to 9 or auto"),
        ("--compression zstd --level 20", "level of zstd is 20, expected -7 to 19 or auto"),
        ("--compression lz4 --level 0", "level of lz4 is 0, expected 1 to 12 or auto"),
        ("--compression none --level 3", "level of none is 3, expected 0"),
        ("--accelerator isal --huffman fixed", "huffman is 'fixed', isal has dynamic"),
        ("--depth 0", "depth is 0, expected 1 to 64"),
    ],
)
def test_options_that_make_no_sense_together(cli, options, words):
    """The refusal says what was found and what was expected, in one line."""
    outcome = cli("save", "guest.ram", "new.snap", *options.split())

    outcome.fails(2, words, lines=1)


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("arguments", ["save guest.ram s", "restore s r", "verify s"])
def test_an_unknown_accelerator_is_refused_with_the_known_ones(cli, arguments):
    """A name that is not there is answered with those that are."""
    outcome = cli(*arguments.split(), "--accelerator", "gpu")

    outcome.fails(2)
    assert all(name in outcome.err for name in ("gpu", "auto", *ENGINES))


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize(
    "way", ["zlib --level auto", "zstd --level auto", "lz4 --level auto", "auto"]
)
def test_a_codec_that_follows_the_disk_restores_right(shm, cli, way, layout):
    """Whatever codec each batch has, the guest comes back."""
    content = ram.mixed(24 << 20)
    ram.write(shm / "a", content)
    options = ("--compression", *way.split(), "--layout", layout, "-j", "2")
    cli("save", shm / "a", shm / "s", *options).ok()
    snapmig.restore(shm / "s", shm / "r")

    assert (shm / "r").read_bytes() == content


def test_the_codecs_of_a_choice_are_reported(shm, cli):
    """Which bytes of pages each codec got is said, and the packets of each encoding."""
    ram.write(shm / "a", np.tile(ram.text(4096), (2, 1)))
    saved = cli("save", shm / "a", shm / "s", "--compression", "auto", "--json").json
    packets = cli("info", shm / "s", "--json").json["packets"]

    assert saved["compression"] == "auto"
    assert sum(saved["codecs"].values()) == 32 << 20
    assert packets == saved["packets"]


def test_a_choice_does_without_an_extra(shm):
    """Where zstandard is not installed, a choice has no zstd."""
    ram.write(shm / "a", ram.mixed(8 << 20))
    options = ("--compression", "auto", "--json", "--bwlimit", "20M")
    done = _without("zstandard", "save", shm / "a", shm / "s", *options)

    assert set(json.loads(done.out)["codecs"]) <= {"none", "lz4 1", "zlib 1", "zlib 3"}


def test_a_choice_has_no_level(guest, cli):
    """A level belongs to a compression that is named."""
    outcome = cli("save", guest / "guest.ram", "s", "--compression", "auto", "--level", "3")

    outcome.fails(2, "level is 3, and compression auto chooses it: name a compression")


def test_a_copy_of_mixed_packets_is_a_choice_again(shm, cli):
    """A snapshot with packets of several compressions is repacked by a choice."""
    ram.write(shm / "a", ram.text(256))
    made = {}
    for name in ("zstd", "lz4"):
        cli("save", shm / "a", shm / name, "--compression", name, "--packet-size", "512K").ok()
        made[name] = shm / name
    snapshot = bytearray(made["zstd"].read_bytes())
    block = Superblock.unpack(bytes(snapshot[:4096]))
    both = block._replace(encodings=block.encodings | 1 << Encoding.LZ4)
    made["zstd"].write_bytes(both.pack() + snapshot[4096:])

    assert cli("repack", made["zstd"], shm / "r", "--json").json["compression"] == "auto"
    assert cli("repack", made["lz4"], shm / "q", "--json").json["compression"] == "lz4"


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("name", ENGINES)
def test_every_accelerator_is_listed(cli, name):
    """Each engine has a line, and where it can't be used the reason."""
    outcome = cli("accelerators")
    facts = find_engine(name).facts()
    lines = outcome.lines
    at = [line.split(" ")[0] for line in lines].index(name)

    outcome.ok()
    assert facts.title in lines[at]
    assert lines[at + 1].strip() == (
        "ready" if facts.usable else f"not usable: {facts.problem}"
    ) or facts.note is not None  # fmt: skip


@pytest.mark.usefixtures("guest")
def test_every_accelerator_is_a_line_of_json(cli):
    """With --json each engine is an object with its name and its reason."""
    lines = cli("accelerators", "--json").json_lines

    assert {line["message_type"] for line in lines} == {"accelerator"}
    assert {line["name"]: line["problem"] for line in lines} == {
        name: find_engine(name).facts().problem for name in ENGINES
    }


@pytest.mark.usefixtures("guest")
def test_the_default_measures_nothing(cli):
    """Without --measure there is no speed."""
    lines = cli("accelerators", "--json").json_lines

    assert {line["speed"] for line in lines} == {None}


@pytest.fixture
def small_sample(monkeypatch):
    """Have engines measured on 4 MiB, which is enough to see that they are."""
    monkeypatch.setattr(accelerators, "SAMPLE_PACKETS", 8)


@pytest.mark.usefixtures("guest", "small_sample")
def test_accelerators_are_measured(cli):
    """With --measure those that work have speeds and a ratio, and the others have none."""
    lines = cli("accelerators", "--measure", "--json").json_lines
    speeds = {line["name"]: line["speed"] for line in lines if line["problem"] is None}

    assert {"isal", "python"} <= set(speeds)
    assert all(speed["compress"] > 0 and speed["decompress"] > 0 for speed in speeds.values())
    assert all(0.1 < speed["ratio"] < 0.9 for speed in speeds.values())
    assert {line["speed"] for line in lines if line["problem"] is not None} <= {None}


@pytest.mark.usefixtures("guest", "small_sample")
def test_measures_are_shown(cli):
    """People read level, both speeds and the ratio."""
    out = cli("accelerators", "--measure").out

    assert out.count("level 1: compresses ") >= 2


def _far_repeats(guest, cli, window):
    noise = ram.noise(4).tobytes()
    ram.write(guest / "far.ram", noise * 64)
    cli("save", "far.ram", "far.snap", "--window", window, "--level", 3).ok()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_large_window_is_found_by_verify(guest, cli, jobs):
    """A snapshot whose streams reach back 16 KiB does not pass for one of a 4 KiB window."""
    _far_repeats(guest, cli, "32k")
    outcome = cli("verify", "far.snap", "--window", "4k", "-j", jobs, "--json")
    result = outcome.json

    outcome.fails(3)
    assert result["exit_code"] == 3
    assert result["damaged_packets"] == 2


@pytest.mark.parametrize(("made", "checked"), [("4k", "4k"), ("4k", "32k"), ("32k", "32k")])
def test_a_small_window_is_proved_by_verify(guest, cli, made, checked):
    """Streams that keep to a window pass with it, and with a larger one."""
    _far_repeats(guest, cli, made)

    cli("verify", "far.snap", "--window", checked).ok()


@pytest.mark.parametrize("engine", ["isal", "python"])
def test_engines_keep_to_the_window(guest, cli, engine):
    """Streams made by either engine for 4 KiB pass, of all kinds of pages."""
    ram.write(guest / "mixed.ram", ram.mixed(8 << 20))
    cli("save", "mixed.ram", "s", "--accelerator", engine, "--window", "4k", "--level", 3)

    cli("verify", "s", "--window", "4k", "--accelerator", "isal").ok()


@pytest.mark.usefixtures("guest")
def test_an_image_of_holes_is_compressed_at_no_level(cli, tmp_path):
    """The line that says what compressed names no level where nothing was."""
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(16 << 20)

    assert "\nby        zlib (isal)\n" in cli("save", tmp_path / "holes", tmp_path / "s").out


@pytest.mark.usefixtures("guest")
def test_a_level_that_leaves_isal_is_warned_of(cli):
    """Level 6 alone gives a warning that Python's zlib does it, with options that silence it."""
    assert cli("save", "guest.ram", "new.snap", "--level", "6").err == (
        "snapmig: warning: ISA-L has levels 0 to 3 of zlib, so Python's own zlib compresses at "
        "level 6, which takes many times as long; accelerator python takes it without this "
        "warning\n"
    )


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("options", [("--accelerator", "python", "--level", "6"), ("--level", "3")])
def test_a_level_that_was_meant_is_not_warned_of(cli, options):
    """Python's zlib by name, and ISA-L's own levels, need no word."""
    assert cli("save", "guest.ram", "new.snap", *options).err == ""


def test_the_examples_batch_stays_with_isal():
    """Commands that users copy have only levels of the accelerated engine."""
    text = (Path(__file__).parents[2] / "examples" / "batch.toml").read_text()
    batch = tomllib.loads(text)
    jobs = [batch["defaults"], *batch["save"]]

    assert {job.get("level", 1) for job in jobs} <= {0, 1, 2, 3}
    assert {job.get("accelerator", "auto") for job in jobs} == {"auto"}


@pytest.mark.parametrize("name", ["qpl", "qpl:software", "qat"])
def test_a_library_that_is_missing_is_one_reason(guest, cli, monkeypatch, name):
    """That an engine can't be used is said once, then why."""
    missing = "libz.so.9: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(qpl, "load", lambda: missing)
    monkeypatch.setattr(qatzip_library, "load_library", _raises(OSError(missing)))
    outcome = cli("save", guest / "guest.ram", "new.snap", "--accelerator", name)

    outcome.fails(1, start=f"snapmig: accelerator {name} can't be used: {missing}; sudo ")


def _raises(error):
    def fail(*_arguments):
        raise error

    return fail

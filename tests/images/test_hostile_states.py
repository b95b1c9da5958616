"""Facts about forged attachments with QEMU's and libvirt's state."""

import copy
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError
from snapmig.images.formats import open_image
from snapmig.operations.runs.restore_inputs import plan_whole
from tests.support.builders import Attachment, Snapshot
from tests.support.builders import Block as SavedBlock
from tests.support.outcome import Outcome
from tests.support.qemu_files import (
    PAGE,
    RAM_ID,
    Block,
    Mapped,
    Stream,
    configuration,
    data,
    device,
    ending,
    footer,
    part,
    ram_end,
    ram_start,
    subsection,
)

RAM = Block(pages={0: 1, 3: 2})
BIOS = Block(b"pc.bios", 4 * PAGE, {1: 3})
MORE = subsection(b"configuration/uuid", bytes(range(16)))
FORMS = {
    "mapped-ram": Mapped([RAM, BIOS], head=configuration(b"mapped-ram", more=MORE)).build(),
    "qemu-stream": Stream([part(data(0, 1, b"ram"), data(3, 2), data(1, 3, b"pc.bios"))],
                          [RAM, BIOS], early=device(1)).build(),
}  # fmt: skip


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Give the attachments of a valid file, by its form."""
    found = {}
    for form, content in FORMS.items():
        path = tmp_path_factory.mktemp(form) / "file"
        path.write_bytes(content)
        image = open_image(str(path))
        found[form] = dict(image.attachments)
        image.close()
    return found


def write(path: Path, form: str, state: dict[str, bytes]) -> Path:
    """Write a snapshot of the two RAM blocks with a state and correct checksums."""
    attachments = {"format": form.encode(), **state}
    built = Snapshot(
        [SavedBlock("ram", RAM.content), SavedBlock("pc.bios", BIOS.content)],
        attachments=[Attachment(f"source/{name}", held) for name, held in attachments.items()],
    )
    path.write_bytes(built.build())
    return path


def refused(path: Path, form: str) -> str | None:
    """Return the reason why a snapshot is damaged for a form, None if it is not."""
    with SnapshotFile(str(path)) as source:
        try:
            plan_whole(source, form)
        except CorruptSnapshotError as error:
            return str(error).removeprefix(f"{path}: ")
    return None


FACTS = "vmstate.json"
NAMED = f"attachment 'source/{FACTS}'"
WRONG = [None, True, -1, 1 << 64, 1 << 70, 0.5, "", "x", "00", "\0", "ü" * 200, "x" * 256, [],
         ["x"], {}, {"x": 1}, [[]], [["x", 1, ""]]]  # fmt: skip
FIELDS = ["start", "machine", "capabilities", "subsections", "ram_header", "list_end", "blocks"]
BLOCK_FIELDS = ["name", "length", "gpa", "mapped"]
PLACE_FIELDS = ["page_size", "bitmap_offset", "pages_offset"]
MAY_BE = {
    "start": [],
    "machine": ["x", "00"],
    "capabilities": [],
    "gpa": [None],
    "mapped": [],
}
"""What is none the worse for a snapshot that is otherwise sound."""


def with_wrong_fields(facts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield facts with one field wrong, each under a name."""
    places: list[tuple[str, Callable[[Any], Any], str]] = [
        *[(name, lambda made: made, name) for name in FIELDS],
        *[(f"block {name}", lambda made: made["blocks"][1], name) for name in BLOCK_FIELDS],
    ]
    if facts["blocks"][1]["mapped"] is not None:
        places += [
            (f"place {name}", lambda made: made["blocks"][1]["mapped"], name)
            for name in PLACE_FIELDS
        ]
    for title, find, name in places:
        for wrong in WRONG:
            made = copy.deepcopy(facts)
            if wrong in MAY_BE.get(name, []) or find(made)[name] == wrong:
                continue
            find(made)[name] = wrong
            yield f"{title} {wrong!r:.20}", made
        made = copy.deepcopy(facts)
        del find(made)[name]
        yield f"{title} missing", made
        find(made)[f"{name}x"] = 1
        yield f"{title} of another name", made


@pytest.mark.parametrize("form", FORMS)
def test_no_wrong_field_is_believed(
    states: dict[str, dict[str, bytes]], tmp_path: Path, form: str
) -> None:
    """Each missing, unknown or impossible field of vmstate.json makes a snapshot corrupt."""
    facts = json.loads(states[form][FACTS])
    found = {
        name: refused(
            write(tmp_path / "snap", form, {**states[form], FACTS: json.dumps(made).encode()}), form
        )
        for name, made in with_wrong_fields(facts)
    }
    believed = [name for name, words in found.items() if words is None]
    unnamed = [words for words in found.values() if words and NAMED not in words]
    assert (believed, unnamed, len(found) > 150) == ([], [], True)


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of some fields of the facts."""
    return lambda facts: facts.update(fields)


def in_block(number: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of some fields of a block."""
    return lambda facts: facts["blocks"][number].update(fields)


def in_place(number: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of a block's place in a mapped-ram file."""
    return lambda facts: facts["blocks"][number]["mapped"].update(fields)


MADE_UP = {
    "another block first": lambda facts: facts["blocks"].reverse(),
    "block twice": lambda facts: facts["blocks"].append(facts["blocks"][0]),
    "block of the file's own": lambda facts: facts["blocks"].append(
        {**facts["blocks"][0], "name": "more"}
    ),
    "no capabilities": changed(capabilities=[]),
    "a capability that is not listed": changed(capabilities=["mapped-ram", "x-ignore-shared"]),
    "a capability twice": changed(capabilities=["mapped-ram", "mapped-ram"]),
    "capabilities without their place": changed(subsections=[]),
    "unknown subsection": changed(subsections=[["configuration/x", 1, ""]]),
    "uuid of 15 bytes": changed(subsections=[["configuration/uuid", 1, "00" * 15]]),
    "machine of two lines": changed(machine="pc\0q35"),
    "header of another device": changed(ram_header="010000000203" + b"cpu".hex() + "00" * 7 + "04"),
    "header of another version": changed(ram_header=ram_start().hex()[:-2] + "05"),
    "list that goes on": changed(list_end="0000000000000200"),
    "list that ends twice": changed(list_end="0000000000000010" * 2),
    "larger block": in_block(0, length=1 << 40),
    "half a page": in_block(0, length=16 * PAGE - 2048),
    "left out, though it is there": in_place(0, bitmap_offset=0, pages_offset=0),
    "bitmap over the header": in_place(0, bitmap_offset=8),
    "pages over the bitmap": in_place(0, pages_offset=256),
    "pages over those of another": in_place(1, pages_offset=1 << 16, bitmap_offset=(1 << 16) - 64),
    "pages beyond any file": in_place(1, pages_offset=1 << 62),
    "pages of no size": in_place(0, page_size=0),
    "pages of an odd size": in_place(0, page_size=12288),
    "start beyond the pages": changed(start=1 << 40),
}


@pytest.mark.parametrize("kind", MADE_UP)
def test_no_made_up_state_is_believed(
    states: dict[str, dict[str, bytes]], tmp_path: Path, kind: str
) -> None:
    """A state of right types but impossible in any file makes a snapshot corrupt."""
    state = states["mapped-ram"]
    facts = json.loads(state[FACTS])
    MADE_UP[kind](facts)
    path = write(tmp_path / "snap", "mapped-ram", {**state, FACTS: json.dumps(facts).encode()})
    assert NAMED in str(refused(path, "mapped-ram"))


BYTES = {
    "no JSON": (FACTS, b"\xff\xfe"),
    "empty": (FACTS, b""),
    "a number": (FACTS, b"1"),
    "a list": (FACTS, b"[]"),
    "nested without end": (FACTS, b"[" * 100_000),
    "a lone surrogate": (FACTS, b'{"start": 0, "machine": "\\ud800"}'),
    "larger than any": (FACTS, b" " * (17 << 20)),
    "RAM before RAM": ("vmstate.before", ram_start() + bytes(64)),
    "a device before RAM that is none": ("vmstate.before", b"x" * 100),
    "nothing after": ("vmstate.after", b""),
    "no end mark": ("vmstate.after", footer(RAM_ID) + ram_end() + device(5)),
    "a cut description": ("vmstate.after", footer(RAM_ID) + ram_end() + ending()[:-1]),
    "the footer of another section": ("vmstate.after", footer(9) + ram_end() + ending()),
    "no section after the list": ("vmstate.after", footer(RAM_ID) + b"x" + ending()),
}


@pytest.mark.parametrize("kind", BYTES)
def test_no_other_bytes_are_believed(
    states: dict[str, dict[str, bytes]], tmp_path: Path, kind: str
) -> None:
    """An attachment with other contents makes a snapshot corrupt."""
    name, content = BYTES[kind]
    state = {**states["qemu-stream"], name: content}
    words = refused(write(tmp_path / "snap", "qemu-stream", state), "qemu-stream")
    assert "attachment 'source/vmstate." in str(words)


@pytest.mark.parametrize("name", ["vmstate.before", "vmstate.after"])
def test_a_missing_half_is_named(
    states: dict[str, dict[str, bytes]], tmp_path: Path, name: str
) -> None:
    """The message names the missing attachment of an incomplete state."""
    state = {**states["qemu-stream"]}
    del state[name]
    words = refused(write(tmp_path / "snap", "qemu-stream", state), "qemu-stream")
    assert words == f"attachment 'source/{name}': missing, though there is a vmstate.json"


def test_sound_states_are_believed(states: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    """The attachments made by a save are enough for each form."""
    ways = [(saved, form) for saved in FORMS for form in FORMS]
    paths = {saved: write(tmp_path / saved, saved, states[saved]) for saved in FORMS}
    assert [refused(paths[saved], form) for saved, form in ways] == [None] * 4


def test_a_hostile_state_on_the_command_line(
    states: dict[str, dict[str, bytes]], tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """The refusal is one sentence with file, attachment and field, ends in 3 and leaves nothing."""
    facts = json.loads(states["mapped-ram"][FACTS])
    facts["blocks"][0]["length"] = "x"
    state = {**states["mapped-ram"], FACTS: json.dumps(facts).encode()}
    path = write(tmp_path / "snap", "mapped-ram", state)
    outcome = cli("restore", path, tmp_path / "again")
    told = f"snapmig: {path}: {NAMED}: Expected `int`, got `str` - at `$.blocks[0].length`\n"
    outcome.fails(3, err=told)
    assert [*tmp_path.iterdir()] == [path]


XML = b"<domain/>\0"
COOKIE = b"<qemusave/>\0"


def head(
    magic: bytes = b"LibvirtQemudSave",
    version: int = 2,
    size: int | None = None,
    kind: int = 0,
    place: int = len(XML),
    rest: bytes = XML + COOKIE + bytes(100),
) -> bytes:
    """Return the bytes before QEMU's stream in an image of libvirt."""
    length = len(rest) if size is None else size
    return struct.pack("<16s5I56x", magic, version, length, 1, kind, place) + rest


HEADS = {
    "empty": b"",
    "cut in the header": head()[:91],
    "header alone": head()[:92],
    "cut behind the header": head()[:-1],
    "longer than it says": head() + b"\0",
    "another magic": head(magic=b"LibvirtQemudSavf"),
    "an incomplete image": head(magic=b"LibvirtQemudPart"),
    "another version": head(version=3),
    "no XML": head(size=0, rest=b""),
    "much XML": head(size=(1 << 32) - 1),
    "unknown form": head(kind=9),
    "no text": head(rest=bytes(100), place=0),
    "no end of the XML": head(rest=b"<" + b"x" * 100, place=50),
    "another XML": head(rest=b"GIF89a\0" + bytes(100), place=0),
    "cookie elsewhere": head(place=3),
    "cookie beyond the end": head(place=1 << 31),
    "no cookie": head(rest=XML + bytes(100)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_no_made_up_head_is_believed(
    states: dict[str, dict[str, bytes]], tmp_path: Path, kind: str
) -> None:
    """A head impossible in an image of libvirt makes a snapshot corrupt."""
    state = {**states["qemu-stream"], "libvirt.head": HEADS[kind]}
    words = refused(write(tmp_path / "snap", "libvirt", state), "libvirt")
    assert str(words).startswith("attachment 'source/libvirt.head': ")


@pytest.mark.parametrize("place", [0, len(XML)], ids=["without a cookie", "with a cookie"])
def test_sound_head_is_believed(
    states: dict[str, dict[str, bytes]], tmp_path: Path, place: int
) -> None:
    """A head as written by libvirt is accepted."""
    state = {**states["qemu-stream"], "libvirt.head": head(place=place)}
    assert refused(write(tmp_path / "snap", "libvirt", state), "libvirt") is None


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(FORMS)),
    name=st.sampled_from([FACTS, "vmstate.before", "vmstate.after", "libvirt.head"]),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 12), st.binary(min_size=1, max_size=6)),
        min_size=1,
        max_size=3,
    ),
)
def test_any_bytes_are_believed_or_refused(
    states: dict[str, dict[str, bytes]],
    tmp_path: Path,
    form: str,
    name: str,
    changes: list[tuple[int, bytes]],
) -> None:
    """Whatever an attachment holds, its snapshot becomes an image or is corrupt, nothing else."""
    state = {**states[form], "libvirt.head": head()}
    content = bytearray(state[name])
    for at, change in changes:
        start = at % (len(content) + 1)
        content[start : start + len(change)] = change
    path = write(tmp_path / "snap", "libvirt", {**state, name: bytes(content)})
    words = refused(path, "libvirt")
    assert words is None or words.startswith("attachment ")

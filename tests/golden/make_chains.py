"""
Make the golden chains: python -m tests.golden.make_chains [--force].

Each folder of `chains/` is what a user has in one: `child.snap.gz` is the snapshot that a reader is
given, the others are those that it builds on, or seems to. `chains/chains.tsv` has for each folder
the exit code, what a message says, and the SHA-256 of the image where it can be restored.
"""

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tests.golden import make_sealed
from tests.golden.make import CORRUPT, pages, write
from tests.support.builders import (
    DATA,
    DELTA,
    FIXED,
    PACKET,
    PAGE,
    RAW,
    SAME,
    ZERO,
    Attachment,
    Block,
    Increment,
    Snapshot,
    deflate,
    noise,
    root,
    text,
)
from tests.support.sealing import ENCRYPTED, SIGNED, Sealing

HERE = Path(__file__).parent / "chains"
FAILED = 1

# Packets of text, of zeros, of noise, and a short tail.
OLD = (
    text(PACKET)
    + bytes(PACKET)
    + noise(3 * PAGE).ljust(PACKET, b"\0")
    + pages(b"tail", b"end")[:-100]
)


def hint(name: bytes) -> list[Attachment]:
    """Return the attachment that tells where the parent was."""
    return [Attachment("source/parent", name)]


def changed(content: bytes, *pieces: tuple[int, bytes]) -> bytes:
    """Return contents with pieces put over them, each at the offset before it."""
    made = bytearray(content)
    for offset, piece in pieces:
        made[offset : offset + len(piece)] = piece
    return bytes(made)


NEW = changed(
    OLD,
    (100, b"a few bytes"),
    (5 * PAGE + 9, b"others"),
    (7 * PAGE, bytes(PAGE)),
    (PACKET + 3 * PAGE, noise(PAGE, 5)),
    (3 * PACKET + PAGE, b"tail changed"),
)
NEWEST = changed(NEW, (200, b"once more"), (2 * PACKET + PAGE, bytes(PAGE)), (7 * PAGE, text(PAGE)))
DELTAS = {0: {0: DELTA, 5: DELTA}, 3: {1: DELTA}}


def full(content: bytes = OLD, **more: object) -> Snapshot:
    """Return a snapshot without a parent."""
    return Snapshot([Block("ram", content)], **more)


def child(parent: Snapshot, content: bytes = NEW, **more: object) -> Increment:
    """Return a snapshot that builds on another."""
    more = {"attachments": hint(b"parent.snap"), "page_kinds": DELTAS, **more}
    return Increment([Block("ram", content)], parent=parent, **more)


def alone(snapshot: Snapshot) -> dict[str, Snapshot]:
    """Return a folder with one snapshot."""
    return {"child": snapshot}


def pair(snapshot: Increment, parent: Snapshot | None = None) -> dict[str, Snapshot]:
    """Return a folder with a snapshot and its parent, or what stands in that one's place."""
    return {"child": snapshot, "parent": snapshot.parent if parent is None else parent}


def line(*, fixed: bool = False) -> dict[str, Snapshot]:
    """Return a folder with a chain of three."""
    layouts = {"layout": FIXED} if fixed else {}
    grandparent = full(**layouts)
    parent = child(grandparent, attachments=hint(b"oldest.snap"))
    youngest = child(parent, NEWEST, page_kinds={0: {0: DELTA}}, **layouts)
    return {**pair(youngest), "oldest": grandparent}


def sealed(kind: int = ENCRYPTED, content: bytes = OLD, **more: object) -> Snapshot:
    """Return a sealed snapshot without a parent."""
    return make_sealed.sealed(kind, content, **more)


def sealed_child(parent: Snapshot, kind: int = ENCRYPTED, **more: object) -> Increment:
    """Return a sealed snapshot that builds on another, with another file key."""
    sealing = Sealing(kind, {0: make_sealed.BY_KEY_FILE}, file_key=b"child" + bytes(27))
    return child(parent, sealing=sealing, **more)


def sealed_line() -> dict[str, Snapshot]:
    """Return a folder with a chain of three encrypted snapshots."""
    grandparent = sealed()
    parent = sealed_child(grandparent, attachments=hint(b"oldest.snap"))
    youngest = sealed_child(parent, content=NEWEST, page_kinds={0: {0: DELTA}})
    return {**pair(youngest), "oldest": grandparent}


OTHER_KEY = make_sealed.OTHER
OTHER_KEYS = Sealing(slots={0: make_sealed.BY_KEY_FILE}, file_key=b"x" * 32).build_key_table()


def other_superblock(snapshot: Snapshot, **fields: object) -> Snapshot:
    """Return a snapshot with other fields in its superblock."""
    return replace(snapshot, superblock=snapshot.superblock | fields)


def its_own_parent() -> Snapshot:
    """Return a snapshot whose parent has its own id; nothing can have its own root."""
    return child(full(), superblock={"snapshot_id": b"self" * 4, "parent_id": b"self" * 4})


def each_others_parents() -> dict[str, Snapshot]:
    """Return two snapshots, each of which names the other as its parent, one with its root."""
    one = other_superblock(child(full()), snapshot_id=b"one " * 4, parent_id=b"two " * 4)
    two = other_superblock(child(full()), snapshot_id=b"two " * 4, parent_id=b"one " * 4)
    return {"child": other_superblock(one, parent_root=root(two.build())), "parent": two}


# Pages of zeros that are the parent's: one of kind 0 there, one of kind 1, and one of kind 3.
ZEROS = full(changed(OLD, (2 * PAGE, bytes(PAGE))), kinds={0: {2: DATA}})

# A folder's snapshots by the names of their files.
GOOD = {
    "unchanged": pair(child(full(), OLD, page_kinds={})),
    "changed-pages": pair(child(full(), page_kinds={})),
    "differences": pair(child(full())),
    "differences-fixed": pair(child(full(layout=FIXED), layout=FIXED)),
    "differences-raw-fixed": pair(
        child(full(layout=FIXED), layout=FIXED, encodings={0: RAW, 1: RAW, 3: RAW})
    ),
    "line-of-three": line(),
    "line-of-three-fixed": line(fixed=True),
    "without-a-hint": pair(child(full(), attachments=[])),
    "hint-elsewhere": pair(child(full(), attachments=hint(b"/nowhere/monday.snap"))),
    "hint-to-itself": pair(child(full(), attachments=hint(b"child.snap"))),
    "hint-that-is-no-name": pair(child(full(), attachments=hint(b"a\0b"))),
    "hint-that-is-long": pair(child(full(), attachments=hint(b"x" * 100_000))),
    "hint-damaged": pair(child(full(), attachment_table={0: {"sha256": b"1" * 32}})),
    "same-as-a-zero-page": pair(child(full(), page_kinds={1: {0: SAME}, 3: {1: DELTA}})),
    "same-as-a-zero-page-of-data": pair(
        child(ZEROS, changed(NEW, (2 * PAGE, bytes(PAGE))), page_kinds={0: {2: SAME}})
    ),
    "difference-that-is-zero": pair(child(full(), page_kinds={0: {1: DELTA}})),
    "difference-that-gives-zero": pair(child(full(), page_kinds={0: {7: DELTA}})),
    "difference-from-a-zero-page": pair(child(full(), page_kinds={1: {3: DELTA}})),
    "zero-where-the-parent-has-data": pair(child(full(), page_kinds={0: {7: ZERO}})),
    "parent-of-another-layout": pair(child(full(layout=FIXED))),
    "several-blocks": pair(
        Increment(
            [Block("a", text(PACKET + 1, 2)), Block("b", text(PAGE + 7, 3))],
            parent=Snapshot([Block("a", text(PACKET + 1)), Block("b", text(PAGE + 7, 3))]),
        )
    ),
    "blocks-at-other-addresses": pair(
        Increment(
            [Block("a", text(PAGE), [(0, PAGE, 0)])],
            parent=Snapshot([Block("a", text(PAGE), [(0, PAGE, 1 << 32)])]),
        )
    ),
    "page-digests": pair(child(full(page_digests=True), page_digests=True)),
    "page-digests-fixed": pair(
        child(full(layout=FIXED, page_digests=True), layout=FIXED, page_digests=True)
    ),
    "page-digests-of-the-parent": pair(child(full(page_digests=True))),
    "page-digests-of-the-child": pair(child(full(), page_digests=True)),
    "page-digests-and-same-as-a-zero-page": pair(
        child(full(page_digests=True), page_kinds={1: {0: SAME}, 3: {1: DELTA}}, page_digests=True)
    ),
    **{
        f"sealed-{name}": pair(sealed_child(parent, kind, page_digests=True))
        for name, kind, parent in (
            ("signed-of-signed", SIGNED, sealed(SIGNED)),
            ("signed-of-encrypted", SIGNED, sealed(ENCRYPTED)),
            ("signed-of-none", SIGNED, full()),
            ("encrypted-of-encrypted", ENCRYPTED, sealed(ENCRYPTED, page_digests=True)),
            ("encrypted-of-signed", ENCRYPTED, sealed(SIGNED)),
            ("encrypted-of-none", ENCRYPTED, full()),
            ("fixed", ENCRYPTED, sealed(ENCRYPTED, layout=FIXED)),
        )
    },
    "sealed-encrypted-fixed": pair(
        sealed_child(sealed(layout=FIXED), layout=FIXED, encodings={0: RAW, 1: RAW, 3: RAW})
    ),
    "sealed-encrypted-unchanged": pair(
        sealed_child(sealed(), content=OLD, page_kinds={}, page_digests=True)
    ),
    "sealed-parent-of-one-that-is-not": pair(child(sealed())),
    "sealed-line-of-three": sealed_line(),
    "parent-gone-and-not-needed": alone(child(full(bytes(len(OLD))), page_kinds={})),
}
OTHER = full(text(len(OLD), 9), superblock={"snapshot_id": b"q" * 16})
TWICE = [Block("ram", OLD[:PACKET]), Block("more", OLD[PACKET:])]
LARGE = 2 * PACKET
BAD = [
    (CORRUPT, "has no parent", {
        "same-as-parent-without-one": alone(
            child(full(), superblock={"parent_id": bytes(16), "parent_root": bytes(32)})
        ),
    }),
    (CORRUPT, "digest of the page contents", {
        "difference-with-a-wrong-digest": pair(child(full(), records={0: {"digest": b"1" * 16}})),
        "difference-from-other-contents": pair(
            child(full(), stored={3: deflate(pages(b"something else"))})
        ),
        "same-with-a-wrong-digest": pair(
            child(full(), OLD, page_kinds={}, records={2: {"digest": b"1" * 16}})
        ),
        "same-where-the-parent-has-zero": pair(child(full(), page_kinds={1: {3: SAME}})),
    }),
    (CORRUPT, "root", {
        "parent-with-another-root": pair(child(full(), superblock={"parent_root": b"1" * 32})),
        "parent-with-other-contents": pair(child(full()), full(NEWEST)),
        "parent-with-other-addresses": pair(
            child(full()), Snapshot([Block("ram", OLD, [(0, PAGE, 0)])])
        ),
        "parent-with-an-attachment-more": pair(
            child(full()), full(attachments=[Attachment("note", b"text")])
        ),
        "sealed-parent-that-is-not-sealed": pair(sealed_child(sealed()), full()),
        "sealed-parent-of-an-older-state": pair(sealed_child(sealed()), sealed(seed=1)),
        "sealed-parent-of-another-file-key": pair(
            sealed_child(sealed()), sealed(file_key=b"x" * 32)
        ),
    }),
    (CORRUPT, "seal", {
        "sealed-parent-with-another-key-table": pair(
            sealed_child(sealed()), sealed(patches=[(PAGE, OTHER_KEYS)])
        ),
    }),
    (CORRUPT, "tag", {
        "sealed-parent-with-a-wrong-tag": pair(
            sealed_child(sealed(records={0: {"tag": b"1" * 16}}))
        ),
    }),
    (CORRUPT, "index", {
        "parent-with-a-damaged-record": pair(
            child(full()), full(patches=[(2 * PAGE + 2 * 104 + 40, b"?")])
        ),
    }),
    (CORRUPT, "RAM blocks are", {
        "parent-with-other-blocks": pair(Increment([Block("ram", OLD)], parent=Snapshot(TWICE))),
        "parent-with-another-block-name": pair(
            Increment([Block("ram", OLD)], parent=Snapshot([Block("rom", OLD)]))
        ),
        "parent-with-a-longer-block": pair(
            Increment([Block("ram", OLD)], parent=full(OLD + b"1"))
        ),
    }),
    (CORRUPT, "packets have", {
        "parent-with-larger-packets": pair(child(full(packet_size=LARGE), page_kinds={})),
    }),
    (CORRUPT, "checksum of the stored bytes", {
        "parent-with-a-damaged-packet": pair(child(full()), full(patches=[(3 * PAGE + 9, b"?")])),
    }),
    (CORRUPT, "file has", {"parent-cut": pair(child(full()), full(file_size=5 * PAGE))}),
    (CORRUPT, "builds on itself", {
        "its-own-parent": alone(its_own_parent()),
        "each-others-parents": each_others_parents(),
    }),
    (FAILED, "key", {
        "sealed-parent-for-another-key": pair(sealed_child(sealed(slots={0: OTHER_KEY}))),
    }),
    (FAILED, "needs its parent", {
        "parent-gone": alone(child(full())),
        "parent-replaced": pair(child(full()), OTHER),
        "parent-not-committed": pair(child(full()), full(patches=[(0, bytes(PAGE))])),
        "grandparent-gone": {name: each for name, each in line().items() if name != "oldest"},
    }),
]  # fmt: skip


def make() -> None:
    """Write all files."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    rows = "folder\texit code\tword\tsha256\n"
    for name, files in GOOD.items():
        image = hashlib.sha256(files["child"].image).hexdigest()
        rows += f"{name}\t0\t\t{image}\n"
        put(name, files)
    for code, word, folders in BAD:
        for name, files in folders.items():
            rows += f"{name}\t{code}\t{word}\t\n"
            put(name, files)
    (HERE / "chains.tsv").write_text(rows)


def put(folder: str, files: dict[str, Snapshot]) -> None:
    """Write the snapshots of one folder."""
    (HERE / folder).mkdir(exist_ok=True)
    for name, snapshot in files.items():
        write(HERE / folder / f"{name}.snap.gz", snapshot.build())


def main() -> int:
    """Make the files unless they are there."""
    if HERE.exists() and "--force" not in sys.argv[1:]:
        print("The golden chains are there; --force replaces them.", file=sys.stderr)
        return 1
    make()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
The sealed golden snapshots, which `make` writes; the names of all start with "sealed-".

The keys that open them are in `keys/`: `key-file` for all, but for those whose names start with
"sealed-by-passphrase" and "sealed-by-age". Each bad file has all checksums and digests right that
need no key, unless its name tells of one, so that only a tag or a seal is left to find the fault.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.golden.make import ALL, ALL_ENCODINGS, CORRUPT, MIXED, RAM, UNSUPPORTED, pages
from tests.support.builders import (
    DATA,
    DEFLATE,
    FIXED,
    LZ4,
    PACKET,
    PAGE,
    RAW,
    RECORD_FIELDS,
    SUPERBLOCK_FIELDS,
    Attachment,
    Block,
    Snapshot,
    deflate,
    noise,
    text,
)
from tests.support.sealing import (
    AGE,
    ENCRYPTED,
    KEY_FILE,
    PASSPHRASE,
    SIGNED,
    TABLE_SIZE,
    KeySlot,
    Sealing,
)
from tests.support.structures import unpack

FAILED = 1
KEYS = Path(__file__).parent / "keys"
BY_KEY_FILE = KeySlot(KEY_FILE, (KEYS / "key-file").read_bytes())
BY_PASSPHRASE = KeySlot(PASSPHRASE, (KEYS / "passphrase").read_bytes(), label="a passphrase")
BY_AGE = KeySlot(AGE, payload=(KEYS / "file-key.age").read_bytes(), label="somebody else")
OTHER = KeySlot(KEY_FILE, b"another key file")
KINDS = {"signed": SIGNED, "encrypted": ENCRYPTED}
OLD_COPY, NEW_COPY = PAGE, PAGE + TABLE_SIZE

Change = Callable[[bytes], bytes]


ATTACHED = [
    Attachment("raw", noise(1000)),
    Attachment("deflate", text(20000), DEFLATE),
    Attachment("empty", b""),
    Attachment("empty-deflate", b"", DEFLATE),
]
BLOCKS = [
    Block("a", text(PACKET + 1), [(0, PAGE, 0)]),
    Block("bloc de mémoire", text(1)),
    Block("c", bytes(PAGE + 7)),
    Block("d", noise(PAGE + 7), [(0, PAGE, 1 << 32)]),
]


def sealed(kind: int = ENCRYPTED, content: bytes = RAM, **changes: Any) -> Snapshot:
    """Return a sealed snapshot; changes are fields of it, or of how it is sealed."""
    own = {name: changes.pop(name) for name in Sealing.__annotations__ if name in changes}
    sealing = Sealing(**{"kind": kind, "slots": {0: BY_KEY_FILE}, **own})
    return Snapshot(**{"blocks": [Block("ram", content)], "sealing": sealing, **changes})


def of_each_kind(name: str, **changes: Any) -> dict[str, Snapshot]:
    """Return a signed and an encrypted snapshot."""
    return {f"sealed-{word}-{name}": sealed(kind, **changes) for word, kind in KINDS.items()}


def in_each_layout(name: str, **changes: Any) -> dict[str, Snapshot]:
    """Return signed and encrypted snapshots, packed and fixed."""
    fixed = of_each_kind(f"{name}-fixed", layout=FIXED, **changes)
    return of_each_kind(name, **changes) | fixed


def slotted(*slots: KeySlot, kind: int = SIGNED, **changes: Any) -> Snapshot:
    """Return a small snapshot with key slots."""
    return sealed(kind, pages(b"1"), slots=dict(enumerate(slots)), **changes)


def key_table(*slots: KeySlot, **changes: Any) -> bytes:
    """Return a copy of a key table with the same file key, if nothing else is said."""
    return Sealing(slots=dict(enumerate(slots)), **changes).build_key_table()[:TABLE_SIZE]


GOOD = {
    **in_each_layout("mixed", content=MIXED),
    **in_each_layout("all-encodings", content=ALL, **ALL_ENCODINGS),
    **in_each_layout("page-digests", content=MIXED, page_digests=True),
    **in_each_layout("several-blocks", blocks=BLOCKS, page_digests=True),
    **in_each_layout("attachments", attachments=ATTACHED),
    **in_each_layout("empty-packets", content=bytes(3 * PACKET), page_digests=True),
    **in_each_layout("raw-short-tail", content=noise(PAGE + 100), encodings={0: RAW}),
    **of_each_kind("zero-page-as-data", kinds={0: {1: DATA}}, encodings={0: RAW}),
    **of_each_kind("one-byte", content=b"1"),
    **of_each_kind("packets-of-4m", content=bytes(5 << 20) + text(PAGE), packet_size=4 << 20),
    **of_each_kind(
        "unused-bytes-set",
        content=pages(b"1").ljust(3 * PACKET, b"\0"),
        block_table={0: {"unused": b"?" * 48}},
        records={1: {"stored_checksum": 77, "digest": b"?" * 16}},
        attachments=[Attachment("note", b"text")],
        attachment_table={0: {"unused": b"?" * 7, "unused_rest": b"?" * 64}},
        page_digests=True,
        other_page_digests={1: b"?" * 256},
        patches=[(NEW_COPY + TABLE_SIZE + 320, b"?" * 100)],
    ),
    **of_each_kind(
        "unused-slot-bytes-set",
        content=pages(b"1"),
        layout=FIXED,
        patches=[(4 * PACKET - 5, b"?")],
    ),
    "sealed-by-passphrase": slotted(BY_PASSPHRASE),
    "sealed-by-passphrase-encrypted": slotted(BY_PASSPHRASE, kind=ENCRYPTED),
    "sealed-by-passphrase-of-two-lanes": slotted(
        replace(BY_PASSPHRASE, iterations=3, memory=77, lanes=2)
    ),
    "sealed-by-age": slotted(BY_AGE),
    "sealed-by-age-encrypted": slotted(BY_AGE, kind=ENCRYPTED),
    "sealed-key-in-the-last-slot": sealed(slots={15: BY_KEY_FILE}),
    "sealed-several-slots": slotted(OTHER, BY_PASSPHRASE, BY_KEY_FILE, BY_AGE),
    "sealed-by-passphrase-of-several": slotted(OTHER, BY_AGE, BY_PASSPHRASE, BY_KEY_FILE),
    "sealed-by-age-of-several": slotted(OTHER, BY_PASSPHRASE, BY_AGE),
    "sealed-all-slots": sealed(slots=dict.fromkeys(range(15), OTHER) | {15: BY_KEY_FILE}),
    "sealed-label-of-128-bytes": slotted(replace(BY_KEY_FILE, label="é" * 64)),
    "sealed-slot-of-another-file-key": slotted(
        replace(BY_KEY_FILE, fields=BY_KEY_FILE.wrapped(b"another " * 4, 0)), BY_KEY_FILE
    ),
    "sealed-table-changed-often": slotted(BY_KEY_FILE, key_table={"generation": (1 << 64) - 1}),
    "sealed-first-copy-without-magic": slotted(BY_KEY_FILE, patches=[(OLD_COPY, bytes(8))]),
    "sealed-first-copy-half-written": slotted(
        BY_KEY_FILE, patches=[(OLD_COPY, key_table(OTHER, BY_KEY_FILE)[:5000])]
    ),
    "sealed-first-copy-of-zeros": slotted(BY_KEY_FILE, patches=[(OLD_COPY, bytes(TABLE_SIZE))]),
    "sealed-second-copy-half-written": slotted(
        BY_KEY_FILE, patches=[(NEW_COPY, key_table(OTHER, BY_KEY_FILE)[:5000])]
    ),
    "sealed-second-copy-without-the-key": slotted(
        BY_KEY_FILE, patches=[(NEW_COPY, key_table(OTHER, key_table={"generation": 1}))]
    ),
}


def flipped(at: int) -> Change:
    """Return a function that changes one byte."""
    return lambda raw: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def superblock_of(snapshot: Snapshot) -> dict:
    """Return the superblock's fields of a snapshot."""
    return unpack(SUPERBLOCK_FIELDS, snapshot.build())


def record_of(snapshot: Snapshot, number: int = 0) -> dict:
    """Return the fields of a packet's record."""
    at = superblock_of(snapshot)["index_offset"] + number * snapshot.record_size
    return unpack(RECORD_FIELDS, snapshot.build()[at : at + 96])


def stored_of(snapshot: Snapshot, number: int = 0) -> bytes:
    """Return the stored bytes of a packet."""
    record = record_of(snapshot, number)
    return snapshot.build()[record["offset"] :][: record["stored_size"]]


def tag_of(snapshot: Snapshot, number: int = 0) -> dict:
    """Return a record's tag, and the nonce that belongs to it."""
    record = record_of(snapshot, number)
    return {"nonce": record["nonce"], "tag": record["tag"]}


def with_old_tag(kind: int, **changes: Any) -> Snapshot:
    """Return a snapshot whose packet 0 has the tag that it had before the changes."""
    return sealed(kind, records={0: tag_of(sealed(kind))}, **changes)


def with_other_nonce(kind: int) -> Snapshot:
    """Return a snapshot whose packet 0 has another nonce than its tag is of."""
    return sealed(kind, records={0: tag_of(sealed(kind)) | {"nonce": b"1" * 12}})


def with_old_seal(kind: int, **changes: Any) -> Snapshot:
    """Return a snapshot with the seal of the one before the changes."""
    fields = changes.pop("superblock", {}) | {"seal": superblock_of(sealed(kind))["seal"]}
    return sealed(kind, superblock=fields, **changes)


def with_stored_of(other: Snapshot, number: int, kind: int, content: bytes = RAM) -> Snapshot:
    """Return a snapshot that has stored bytes, nonce and tag of another's packet as packet 0."""
    stored = stored_of(other, number)
    return sealed(
        kind, content, records={0: tag_of(other, number)}, changes={"packet 0": lambda _: stored}
    )


def swapped(kind: int) -> Snapshot:
    """Return a snapshot with two packets in each other's places, with all that is theirs."""
    content = noise(PAGE, 1).ljust(PACKET, b"\0") + noise(PAGE, 2)
    right = sealed(kind, content)
    digests = [record_of(Snapshot([Block("ram", content)]), number)["digest"] for number in (0, 1)]
    stored = [stored_of(right, number) for number in (0, 1)]
    records = {0: tag_of(right, 1), 1: tag_of(right, 0)}
    return sealed(
        kind,
        content,
        records={n: fields | {"digest": digests[1 - n]} for n, fields in records.items()},
        changes={"packet 0": lambda _: stored[1], "packet 1": lambda _: stored[0]},
    )


def record_put_back(kind: int) -> Snapshot:
    """Return a snapshot that has an older packet 0 with its record, which is not in the index."""
    older = sealed(kind, seed=1)
    at = superblock_of(older)["index_offset"]
    offset = record_of(older)["offset"]
    record = older.build()[at : at + older.record_size]
    return sealed(kind, patches=[(at, record), (offset, stored_of(older))])


def changed(kind: int, **changes: Change) -> Snapshot:
    """Return a snapshot with other stored bytes of something, and attachments and page digests."""
    named = {name.replace("_", " "): change for name, change in changes.items()}
    attachments = [Attachment("a", text(1000), DEFLATE), Attachment("b", text(1000), DEFLATE)]
    return sealed(kind, changes=named, attachments=attachments, page_digests=True)


def attachment(**fields: Any) -> Snapshot:
    """Return an encrypted snapshot with other fields in the entry of its second attachment."""
    return replace(changed(ENCRYPTED), attachment_table={1: fields})


def bad_slot(slot: KeySlot, **fields: Any) -> Snapshot:
    """Return a snapshot whose second key slot has other fields."""
    return slotted(BY_KEY_FILE, replace(slot, fields=fields))


def bad_table(**fields: Any) -> Snapshot:
    """Return a snapshot with other fields in both copies of its key table."""
    return slotted(BY_KEY_FILE, key_table=fields)


def other_table(*slots: KeySlot, **changes: Any) -> Snapshot:
    """Return a snapshot with another key table, as somebody without the key puts it there."""
    seal = {"seal": key_table(BY_KEY_FILE)[56:88]}
    return slotted(BY_KEY_FILE, patches=[(PAGE, 2 * key_table(*slots, key_table=seal, **changes))])


def of_both(name: str, make: Callable[..., Snapshot], **changes: Any) -> dict[str, Snapshot]:
    """Return what a function makes of each kind of seal."""
    return {f"sealed-{word}-{name}": make(kind, **changes) for word, kind in KINDS.items()}


def superblock(kind: int, **fields: Any) -> Snapshot:
    """Return a snapshot with other fields in the superblock, under its seal."""
    return sealed(kind, superblock=fields)


FREE = KeySlot(0)
STATE = deflate(text(1000))  # stored bytes of attachments
STORED = Snapshot([Block("ram", RAM)]).packets()[0].stored

BAD = [
    # step 3: the keys
    (CORRUPT, "open", "key table", {
        **of_both("key-table-in-superblock", superblock, key_table_offset=PAGE - 1),
        **of_both("without-a-key-table", superblock, key_table_offset=0),
        "sealed-no-copy-with-magic": bad_table(magic=b"SNAPKEYZ"),
        "sealed-no-copy-with-its-checksum": bad_table(checksum=1),
        "sealed-both-copies-of-zeros": slotted(
            BY_KEY_FILE, patches=[(PAGE, bytes(2 * TABLE_SIZE))]
        ),
        "sealed-key-table-reserved-set": bad_table(reserved=1),
        "sealed-key-table-reserved-rest-set": bad_table(reserved_rest=bytes(935) + b"1"),
    }),
    (CORRUPT, "open", "block table", {
        "sealed-block-table-in-key-table": superblock(SIGNED, block_table_offset=NEW_COPY),
    }),
    (CORRUPT, "open", "slot 1", {
        "sealed-slot-of-kind-4": bad_slot(FREE, kind=4),
        "sealed-slot-of-kind-255": bad_slot(BY_KEY_FILE, kind=255),
        "sealed-free-slot-with-a-label": bad_slot(FREE, label=b"free"),
        "sealed-free-slot-with-a-time": bad_slot(FREE, created_ns=1),
        "sealed-free-slot-with-a-salt": bad_slot(FREE, salt=bytes(31) + b"1"),
        "sealed-slot-reserved-1-set": bad_slot(BY_KEY_FILE, reserved_1=b"\0\0\1"),
        "sealed-slot-reserved-2-set": bad_slot(BY_PASSPHRASE, reserved_2=b"\0\1"),
        "sealed-passphrase-of-0-iterations": bad_slot(BY_PASSPHRASE, iterations=0),
        "sealed-passphrase-of-65-iterations": bad_slot(BY_PASSPHRASE, iterations=65),
        "sealed-passphrase-of-2-to-32-iterations": bad_slot(BY_PASSPHRASE, iterations=2**32 - 1),
        "sealed-passphrase-of-too-little-memory": bad_slot(BY_PASSPHRASE, memory=7),
        "sealed-passphrase-of-too-little-memory-for-its-lanes": bad_slot(
            BY_PASSPHRASE, memory=127, lanes=16
        ),
        "sealed-passphrase-of-more-than-2g": bad_slot(BY_PASSPHRASE, memory=(1 << 21) + 1),
        "sealed-passphrase-of-4t": bad_slot(BY_PASSPHRASE, memory=2**32 - 1),
        "sealed-passphrase-of-0-lanes": bad_slot(BY_PASSPHRASE, lanes=0),
        "sealed-passphrase-of-65-lanes": bad_slot(BY_PASSPHRASE, lanes=65, memory=1 << 20),
        "sealed-passphrase-with-a-payload-size": bad_slot(BY_PASSPHRASE, payload_size=1),
        "sealed-passphrase-with-a-payload": bad_slot(BY_PASSPHRASE, payload=bytes(3783) + b"1"),
        "sealed-key-file-with-iterations": bad_slot(BY_KEY_FILE, iterations=1),
        "sealed-key-file-with-memory": bad_slot(BY_KEY_FILE, memory=64),
        "sealed-key-file-with-lanes": bad_slot(BY_KEY_FILE, lanes=1),
        "sealed-key-file-with-a-payload-size": bad_slot(BY_KEY_FILE, payload_size=1),
        "sealed-key-file-with-a-payload": bad_slot(BY_KEY_FILE, payload=b"1"),
        "sealed-age-with-iterations": bad_slot(BY_AGE, iterations=1),
        "sealed-age-with-a-salt": bad_slot(BY_AGE, salt=b"1"),
        "sealed-age-with-a-nonce": bad_slot(BY_AGE, nonce=b"1"),
        "sealed-age-with-a-wrapped-key": bad_slot(BY_AGE, wrapped=b"1"),
        "sealed-age-of-nothing": bad_slot(BY_AGE, payload_size=0, payload=b""),
        "sealed-age-of-3785-bytes": bad_slot(BY_AGE, payload_size=3785),
        "sealed-age-with-bytes-behind-it": bad_slot(BY_AGE, payload_size=100),
        "sealed-label-not-utf-8": bad_slot(BY_KEY_FILE, label=b"\xff"),
        "sealed-label-cut-in-a-character": bad_slot(BY_KEY_FILE, label=b"x" * 127 + b"\xc3"),
        "sealed-label-with-bytes-after-zero": bad_slot(BY_KEY_FILE, label=b"x\0y"),
    }),
    (FAILED, "open", "key", {
        "sealed-for-another-key": slotted(OTHER),
        "sealed-for-nobody": slotted(),
        "sealed-wrapped-key-with-a-wrong-byte": slotted(
            replace(BY_KEY_FILE, fields={"wrapped": b"1" * 48})
        ),
        "sealed-wrapped-key-of-another-slot": slotted(
            replace(BY_KEY_FILE, fields={"nonce": b"1" * 12})
        ),
        "sealed-commitment-wrong": bad_table(commitment=b"1" * 32),
        "sealed-slot-with-another-file-key": slotted(
            replace(BY_KEY_FILE, fields=BY_KEY_FILE.wrapped(b"x" * 32, 0))
        ),
        "sealed-by-age-of-another-file-key": slotted(BY_AGE, file_key=b"x" * 32),
        "sealed-by-age-that-is-none": slotted(replace(BY_AGE, payload=b"age")),
        "sealed-by-passphrase-of-other-costs": slotted(
            replace(BY_PASSPHRASE, fields={"iterations": 2})
        ),
    }),
    (CORRUPT, "open", "seal", {
        "sealed-key-table-with-a-wrong-seal": bad_table(seal=b"1" * 32),
        "sealed-second-copy-with-a-wrong-seal": slotted(
            BY_KEY_FILE, key_table={"seal": b"1" * 32}, patches=[(PAGE, bytes(8))]
        ),
        "sealed-key-table-with-another-label": other_table(replace(BY_KEY_FILE, label="mine")),
        "sealed-key-table-with-a-slot-more": other_table(BY_KEY_FILE, OTHER),
        "sealed-key-table-with-another-generation": slotted(
            BY_KEY_FILE,
            key_table={"generation": 1, "seal": key_table(BY_KEY_FILE)[56:88]},
        ),
        "sealed-key-table-of-another-snapshot": slotted(
            BY_KEY_FILE, patches=[(PAGE, 2 * key_table(BY_KEY_FILE, file_key=b"x" * 32))]
        ),
        **of_both("superblock-with-a-wrong-seal", superblock, seal=b"1" * 32),
        **of_both("superblock-without-a-seal", superblock, seal=bytes(32)),
        **of_both("other-time", with_old_seal, superblock={"created_ns": 1}),
        **of_both("other-id", with_old_seal, superblock={"snapshot_id": b"1" * 16}),
        **of_both("other-compatible-bits", with_old_seal, superblock={"compatible": 1}),
        **of_both("other-machine", with_old_seal, superblock={
            "machine": 62, "machine_class": 2, "machine_data": 1
        }),
        **of_both("other-name-of-a-block", with_old_seal, blocks=[Block("rom", RAM)]),
        **of_both("a-piece-more", with_old_seal, blocks=[Block("ram", RAM, [(0, PAGE, 0)])]),
        **of_both("an-attachment-more", with_old_seal, attachments=[Attachment("a", b"text")]),
        **of_both("older-state", with_old_seal, seed=1),
        **of_both("other-contents", with_old_seal, content=RAM[::-1]),
        "sealed-signed-said-to-be-encrypted": with_old_seal(SIGNED, superblock={"sealing": 2}),
        "sealed-encrypted-said-to-be-signed": with_old_seal(ENCRYPTED, superblock={"sealing": 1}),
    }),
    # step 5: tables and the index
    (CORRUPT, "open", "attachment table", {
        "sealed-attachment-table-with-another-nonce": changed(
            ENCRYPTED, attachment_table=flipped(11)
        ),
        "sealed-attachment-table-with-a-wrong-byte": changed(
            ENCRYPTED, attachment_table=flipped(12)
        ),
        "sealed-attachment-table-with-a-wrong-tag": changed(
            ENCRYPTED, attachment_table=flipped(28 + 2 * 384 - 1)
        ),
    }),
    (CORRUPT, "open", "attachment 'b'", {
        "sealed-attachment-without-room-for-its-tag": attachment(
            offset=superblock_of(changed(ENCRYPTED))["attachment_table_offset"] - len(STATE) - 27
        ),
    }),
    (CORRUPT, "open", "name", {
        "sealed-attachment-name-not-utf-8": attachment(name=b"\xff"),
        "sealed-attachment-name-twice": attachment(name=b"a"),
    }),
    (CORRUPT, "open", "tables", {
        **of_both("tables-digest-wrong", superblock, tables_digest=b"1" * 32),
    }),
    (CORRUPT, "open", "index digest", {
        **of_both("index-digest-wrong", superblock, index_digest=b"1" * 32),
        **of_both("record-put-back", record_put_back),
    }),
    # step 6
    (UNSUPPORTED, "packets", "reserved", {
        **of_both("record-flags-set", sealed, records={0: {"flags": 1}}),
        **of_both("empty-packet-with-a-nonce", sealed, content=bytes(PACKET), records={
            0: {"nonce": b"1" * 12}
        }),
        **of_both("empty-packet-with-a-tag", sealed, content=bytes(PACKET), records={
            0: {"tag": b"1" * 16}
        }),
        **of_both("page-digests-tag-without-them", sealed, records={
            0: {"page_digests_tag": b"1" * 16}
        }),
        **of_both(
            "page-digests-tag-of-an-empty-packet",
            sealed,
            content=bytes(PACKET),
            page_digests=True,
            records={0: {"page_digests_tag": b"1" * 16}},
        ),
    }),
    # step 7
    (CORRUPT, "packets", "checksum of the stored bytes", {
        **of_both("stored-checksum-wrong", sealed, records={0: {"stored_checksum": 1}}),
    }),
    (CORRUPT, "packets", "tag", {
        **of_both("tag-wrong", sealed, records={0: {"tag": b"1" * 16}}),
        **of_both("tag-zero", sealed, records={0: {"tag": bytes(16)}}),
        **of_both("nonce-wrong", with_other_nonce),
        **of_both("stored-byte-wrong", sealed, changes={"packet 0": flipped(5)}),
        **of_both("fixed-raw-byte-wrong", sealed, layout=FIXED, encodings={0: RAW}, changes={
            "packet 0": flipped(PAGE)
        }),
        **of_both("other-kinds", with_old_tag, kinds={0: {1: 1, 2: 0}}, stored={0: STORED}),
        **of_both("other-encoding", with_old_tag, encodings={0: LZ4}, stored={0: STORED}),
        **of_both("other-stored-size", with_old_tag, stored={0: lambda stored: stored[:-1]}),
        **of_both("packets-in-each-others-places", swapped),
        "sealed-signed-packet-of-other-contents": with_old_tag(
            SIGNED, content=pages(b"2", b"", b"3").ljust(PACKET, b"\0") + RAM[PACKET:]
        ),
        "sealed-encrypted-packet-of-another-snapshot": with_stored_of(
            sealed(file_key=b"x" * 32), 0, ENCRYPTED
        ),
        "sealed-signed-packet-of-another-snapshot": with_stored_of(
            sealed(SIGNED, file_key=b"x" * 32), 0, SIGNED
        ),
        "sealed-encrypted-packet-of-an-older-state": sealed(
            changes={"packet 0": lambda _: stored_of(sealed(seed=1))}
        ),
        "sealed-encrypted-packet-plain": sealed(
            changes={"packet 0": lambda _: stored_of(sealed(SIGNED))}
        ),
    }),
    # step 8
    (CORRUPT, "packets", "digest", {
        **of_both("digest-wrong", sealed, records={0: {"digest": b"1" * 16}}),
    }),
    (CORRUPT, "packets", "stream", {
        **of_both("stream-invalid", sealed, stored={0: b"\xff" * 100}),
    }),
    # step 10
    (CORRUPT, "verify", "checksum of the page digests", {
        **of_both("page-digests-checksum-wrong", sealed, page_digests=True, records={
            0: {"page_digests_checksum": 1}
        }),
    }),
    (CORRUPT, "verify", "tag", {
        **of_both("page-digests-tag-wrong", sealed, page_digests=True, records={
            0: {"page_digests_tag": b"1" * 16}
        }),
        **of_both("page-digests-byte-wrong", changed, page_digests_0=flipped(0)),
        **of_both("page-digests-of-a-zero-page-set", changed, page_digests_0=flipped(255)),
    }),
    (CORRUPT, "verify", "digest of page 2", {
        **of_both("page-digest-wrong", sealed, page_digests=True, other_page_digests={
            0: bytes(256)
        }, content=pages(b"", b"", b"3")),
    }),
    # step 11
    (CORRUPT, "verify", "attachment 'b'", {
        "sealed-attachment-with-another-nonce": changed(ENCRYPTED, attachment_1=flipped(0)),
        "sealed-attachment-with-a-wrong-byte": changed(ENCRYPTED, attachment_1=flipped(12)),
        "sealed-attachment-with-a-wrong-tag": changed(
            ENCRYPTED, attachment_1=flipped(len(STATE) + 27)
        ),
        "sealed-attachment-of-another-snapshot": changed(
            ENCRYPTED,
            attachment_1=lambda _: Sealing(file_key=b"x" * 32).attachment(1, STATE),
        ),
        "sealed-attachment-that-is-another": changed(
            ENCRYPTED, attachment_1=lambda _: Sealing().attachment(0, STATE)
        ),
        "sealed-attachment-sha256-wrong": attachment(sha256=b"1" * 32),
        "sealed-signed-attachment-with-a-wrong-byte": changed(SIGNED, attachment_1=flipped(5)),
    }),
    # step 12
    (CORRUPT, "verify", "beside the stored pages", {
        **of_both("fixed-raw-rest-not-zero", sealed, layout=FIXED, encodings={0: RAW}, patches=[
            (3 * PACKET + 9 * PAGE + 5, b"?")
        ]),
    }),
]  # fmt: skip

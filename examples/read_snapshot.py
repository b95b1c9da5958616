"""
Read a snapmig snapshot with Python's standard library alone.

Written from docs/format.md and nothing else, as a model for a reader in another language. The
words "step 1" to "step 12" are the steps of "What a reader must do". It needs memory for one
packet, and is slow: what snapmig does in a second takes it minutes. Packets that are zstd frames
need Python 3.14 or newer, whose standard library can decode them. The keys of sealed snapshots
need the package cryptography, for AES and Argon2id, and age identities the package pyrage.

    python examples/read_snapshot.py SNAPSHOT                           verify all of it
    python examples/read_snapshot.py SNAPSHOT --info                    say what is in it
    python examples/read_snapshot.py SNAPSHOT --output IMAGE            restore the RAM, sparse
    python examples/read_snapshot.py SNAPSHOT --block N --output IMAGE  restore one RAM block
    python examples/read_snapshot.py SNAPSHOT --attachment N            print an attachment
    python examples/read_snapshot.py SNAPSHOT --parent OLDER            name a file it builds on
    python examples/read_snapshot.py SNAPSHOT --passphrase-file FILE    give a key that opens it
    python examples/read_snapshot.py SNAPSHOT --key-file FILE           give another kind of key
    python examples/read_snapshot.py SNAPSHOT --identity FILE           give an age identity

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not a snapshot or corrupt, 4 unsupported.
"""

import argparse
import contextlib
import functools
import hashlib
import hmac
import importlib
import operator
import os
import struct
import sys
import zlib
from collections import namedtuple
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    zstd = None

PAGE = 4096
CHUNK = 1 << 20
EMPTY, RAW, DEFLATE, ZSTD, LZ4 = KNOWN = 1, 2, 3, 4, 5
FIXED, PACKED = 1, 2
SIGNED, ENCRYPTED = 1, 2
PASSPHRASE, KEY_FILE, AGE = 1, 2, 3  # kinds of key slots
NONCE, TAG = 12, 16
BOX = NONCE + TAG  # what encryption adds to a table, or to a part of an attachment
MAGIC = b"\x93SNAPMIG"


class RefusedError(Exception):
    """The file breaks a rule of the format."""

    exit_code = 3


class UnsupportedError(RefusedError):
    """The file may be valid, but is beyond this reader."""

    exit_code = 4


def check(right: bool, message: str, error: type[RefusedError] = RefusedError) -> None:
    """Refuse the file unless it is right."""
    if not right:
        raise error(message)


class Layout:
    """Names and struct codes of a table's columns, to read an entry as a named tuple."""

    def __init__(self, name: str, columns: str) -> None:
        words = columns.split()
        self.struct = struct.Struct("<" + "".join(words[1::2]))
        self.tuple = namedtuple(name, words[::2])
        self.size = self.struct.size

    def read(self, data: bytes, position: int = 0) -> Any:
        """Return the entry at `position` of `data`."""
        return self.tuple(*self.struct.unpack_from(data, position))

    def pack(self, entry: Any, *zeroed: str) -> bytes:
        """Return the bytes of an entry, with some fields as zero."""
        zeros = {name: b"" if isinstance(getattr(entry, name), bytes) else 0 for name in zeroed}
        return self.struct.pack(*entry._replace(**zeros))


SUPERBLOCK = Layout(
    "Superblock",
    """magic 8s version_major H version_minor H checksum I incompatible Q compatible Q
    snapshot_id 16s parent_id 16s parent_root 32s file_size Q created_ns Q encodings Q
    page_size I packet_size I record_size I layout B window_bits B reserved H packet_count Q
    index_offset Q index_digest 32s data_offset Q data_size Q block_table_offset Q block_count I
    block_table_checksum I attachment_table_offset Q attachment_count I
    attachment_table_checksum I page_digests_offset Q piece_table_offset Q piece_count I
    piece_table_checksum I machine H machine_class B machine_data B sealing B reserved_1 3s
    key_table_offset Q tables_digest 32s seal 32s reserved_rest 3760s""",
)
BLOCK = Layout("Block", "name 256s size Q page_size Q unused 48s")
PIECE = Layout("Piece", "gpa Q size Q offset Q block I reserved I")
RECORD = Layout(
    "Record",
    """packet Q offset Q stored_size I encoding B flags B reserved_1 H stored_checksum I
    record_checksum I digest 16s nonce 12s tag 16s
    page_digests_checksum I page_digests_tag 16s""",
)
ATTACHMENT = Layout(
    "Attachment",
    """name 256s offset Q stored_size Q size Q encoding B unused 7s sha256 32s unused_rest 64s""",
)
KEY_TABLE = Layout(
    "KeyTable",
    """magic 8s checksum I reserved I generation Q commitment 32s seal 32s reserved_rest 936s
    slots 64512s""",
)
KEY_SLOT = Layout(
    "KeySlot",
    """kind B reserved_1 3s iterations I memory I lanes I created_ns Q salt 32s nonce 12s
    wrapped 48s payload_size H reserved_2 2s label 128s payload 3784s""",
)


class Snapshot:
    """An open snapshot with its superblock, tables and index checked."""

    def __init__(self, file: BinaryIO, parents: "Parents", secrets: "Secrets") -> None:
        self.file = file
        self.parents = parents
        self.secrets = secrets
        self.verifies = False
        self.superblock = s = read_superblock(file)
        self.data_end = s.data_offset + s.data_size
        self.check_geometry()
        self.keys = self.find_keys()
        self.tables: dict[str, bytes] = {}  # as they are stored
        self.blocks = self.read_blocks()
        self.pieces_of_ram = self.read_pieces()
        self.attachments = self.read_attachments()
        stored = (self.tables[what] for what in ("block", "attachment", "piece"))
        right = hashlib.sha256(b"".join(stored)).digest() == s.tables_digest
        check(right, "The digest of the tables is wrong.")
        sha256 = hashlib.sha256()
        for piece in self.pieces(s.index_offset, s.record_size * s.packet_count):
            sha256.update(piece)
        check(sha256.digest() == s.index_digest, "The index digest is wrong.")

    def read_at(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the file from `offset` on."""
        self.file.seek(offset)
        data = self.file.read(size)
        check(len(data) == size, "The file became shorter while it was read.")
        return data

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield the same in pieces."""
        for done in range(0, size, CHUNK):
            yield self.read_at(offset + done, min(CHUNK, size - done))

    def check_geometry(self) -> None:
        """Check (step 3) that the parts are in order and inside the file."""
        s = self.superblock
        length = self.file.seek(0, os.SEEK_END)
        check(s.file_size == length, f"The file has {length} bytes, not {s.file_size}.")
        end, before = PAGE, "superblock"
        for part, offset, size in (
            ("key table", s.key_table_offset, 2 * KEY_TABLE.size),
            ("block table", s.block_table_offset, BLOCK.size * s.block_count),
            ("index", s.index_offset, s.record_size * s.packet_count),
            ("page digests", s.page_digests_offset, s.packet_count * s.packet_size // PAGE * 16),
            ("data", s.data_offset, s.data_size),
            ("attachment table", s.attachment_table_offset, self.attachment_table_size),
            ("piece table", s.piece_table_offset, PIECE.size * s.piece_count),
            ("end of the file", s.file_size, 0),
        ):
            if offset == 0 and (part == "page digests" or (part == "key table" and not s.sealing)):
                continue  # there are none
            check(offset >= end, f"The {part} starts before the end of the {before}.")
            end, before = offset + size, part

    def find_keys(self) -> "Keys | None":
        """Return the keys of a sealed snapshot, if there is a secret for it (step 3)."""
        s = self.superblock
        if not s.sealing or not self.secrets:
            if self.encrypted:
                message = "The snapshot is encrypted: it takes a passphrase or another key."
                raise LookupError(message)
            if s.sealing:
                self.note("Without a key nothing of it is proved.")
            elif self.secrets:
                self.note("It is not sealed, so no key proves anything.")
            return None
        raw = self.read_at(s.key_table_offset, 2 * KEY_TABLE.size)
        keys = open_key_table(raw, self.secrets)
        right = keys.seal("seal", SUPERBLOCK.pack(s, "checksum", "seal")) == s.seal
        check(right, "The seal of the superblock is wrong.")
        return keys

    def note(self, sentence: str) -> None:
        """Tell the user something that is no refusal."""
        print(f"{self.file.name}: {sentence}", file=sys.stderr)

    @property
    def encrypted(self) -> bool:
        """True if the snapshot can be read only with a key."""
        return self.superblock.sealing == ENCRYPTED

    @property
    def attachment_table_size(self) -> int:
        """How many bytes of the attachment table are stored."""
        count = self.superblock.attachment_count
        return ATTACHMENT.size * count + (BOX if count and self.encrypted else 0)

    def read_table(self, what: str, size: int) -> bytes:
        """Return a table as it is stored, its checksum checked."""
        s = self.superblock
        table = self.read_at(getattr(s, f"{what}_table_offset"), size)
        right = zlib.crc32(table) == getattr(s, f"{what}_table_checksum")
        check(right, f"The {what} table's checksum is wrong.")
        self.tables[what] = table
        return table

    def read_blocks(self) -> list[Any]:
        """Read the RAM blocks and count their packets (step 4)."""
        s = self.superblock
        table = self.read_table("block", BLOCK.size * s.block_count)
        blocks = entries(BLOCK, table, "RAM block")
        for b in blocks:
            check(b.size >= 1, f"RAM block {b.name!r} has 0 bytes.")
            right = b.page_size >= PAGE and is_power_of_two(b.page_size)
            check(right, f"RAM block {b.name!r} has pages of {b.page_size} bytes.")
        check(sum(b.size for b in blocks) <= 1 << 56, "The RAM blocks have more than 2^56 bytes.")
        count = sum(self.packets(b) for b in blocks)
        check(
            count == s.packet_count, f"The RAM blocks have {count} packets, not {s.packet_count}."
        )
        right = s.layout == PACKED or s.data_size == count * s.packet_size
        check(right, f"The data has {s.data_size} bytes, which are not {count} slots.")
        return blocks

    def read_pieces(self) -> list[Any]:
        """Read the guest physical addresses of RAM (step 4)."""
        table = self.read_table("piece", PIECE.size * self.superblock.piece_count)
        pieces = [PIECE.read(table, at) for at in range(0, len(table), PIECE.size)]
        reached = 0
        for p in pieces:
            right = p.block < len(self.blocks) and p.reserved == 0
            check(right, f"The piece at {p.gpa:#x} is of RAM block {p.block}, or not of this form.")
            size, end = self.blocks[p.block].size, p.offset + p.size
            right = p.size >= 1 and end <= size and p.offset % PAGE == 0
            right = right and (p.size % PAGE == 0 or end == size)
            check(right, f"The piece at {p.gpa:#x} is not made of pages of its RAM block.")
            right = reached <= p.gpa <= (1 << 56) - p.size
            check(right, f"The piece at {p.gpa:#x} is in the one before, or beyond 2^56.")
            reached = p.gpa + p.size
        return pieces

    def packets(self, block: Any) -> int:
        """Return the number of a RAM block's packets."""
        return -(-block.size // self.superblock.packet_size)

    def read_attachments(self) -> list[Any]:
        """Read the attachment table (step 5)."""
        s = self.superblock
        table = self.read_table("attachment", self.attachment_table_size)
        if table and self.encrypted:
            table = self.keys.unboxed("tables", table, b"", "the attachment table")
        attachments = entries(ATTACHMENT, table, "attachment")
        for a in attachments:
            end = s.attachment_table_offset
            size = a.stored_size + (BOX * -(-a.stored_size // CHUNK) if self.encrypted else 0)
            right = self.data_end <= a.offset and a.offset + size <= end
            check(right, f"The attachment {a.name!r} is not between data and attachment table.")
            right = a.size <= min(1 << 30, 1032 * a.stored_size)
            right = right and (a.encoding != RAW or a.size == a.stored_size)
            check(right, f"The attachment {a.name!r} can't have {a.size} bytes in {a.stored_size}.")
        return attachments

    def data_pages(self, block: Any) -> Iterator[tuple[int, bytes]]:
        """Yield a RAM block's data pages, each with its offset in the block."""
        number = sum(self.packets(b) for b in self.blocks[: self.blocks.index(block)])
        for start in range(0, block.size, self.superblock.packet_size):
            pages = self.packet_pages(number, -(-(block.size - start) // PAGE))
            for page, contents in pages.items():
                yield start + page * PAGE, contents
            number += 1

    def packet_pages(self, number: int, page_count: int) -> dict[int, bytes]:
        """Return a packet's pages of other kinds than 0, by their numbers (steps 6 to 9)."""
        record, kinds, _ = self.read_record(number, page_count)
        pages = self.joined_pages(number, page_count, {n for n, kind in enumerate(kinds) if kind})
        right = not pages or xxh3_128(b"".join(pages.values())) == record.digest
        check(right, f"The digest of packet {number} is wrong.")
        if pages and self.verifies and self.superblock.page_digests_offset:
            self.check_page_digests(record, pages)
        if self.verifies and self.superblock.layout == FIXED and record.encoding in (EMPTY, RAW):
            self.check_slot(number, {n for n, kind in enumerate(kinds) if kind & 1})
        return pages

    def check_slot(self, number: int, stored: set[int]) -> None:
        """Check that a mappable slot is zero beside its stored pages (step 12)."""
        s = self.superblock
        slot = s.data_offset + number * s.packet_size
        for page in set(range(s.packet_size // PAGE)) - stored:
            right = not any(self.read_at(slot + page * PAGE, PAGE))
            check(right, f"The slot of packet {number} is not zero beside the stored pages.")

    def check_page_digests(self, record: Any, pages: dict[int, bytes]) -> None:
        """Check the digests of a packet's pages, as only a verification does (step 10)."""
        s, number = self.superblock, record.packet
        size = s.packet_size // PAGE * 16
        digests = self.read_at(s.page_digests_offset + number * size, size)
        right = zlib.crc32(digests) == record.page_digests_checksum
        check(right, f"The checksum of the page digests of packet {number} is wrong.")
        if self.keys:
            key = "page digests", record.nonce
            covered = struct.pack("<Q", number)
            what = f"the page digests of packet {number}"
            digests = self.unsealed(key, digests, record.page_digests_tag, covered, what)
        for page in range(size // 16):
            expected = xxh3_128(pages[page]) if page in pages else bytes(16)
            right = digests[page * 16 : (page + 1) * 16] == expected
            check(right, f"The digest of page {page} of packet {number} is wrong.")

    def joined_pages(self, number: int, page_count: int, wanted: set[int]) -> dict[int, bytes]:
        """Return some pages of a packet, in order, joined with the parent's (step 9)."""
        record, kinds, covered = self.read_record(number, page_count)
        stored = [page for page, kind in enumerate(kinds) if kind & 1]
        contents = self.contents(record, stored, covered) if wanted.intersection(stored) else b""
        pages = {page: contents[at * PAGE : (at + 1) * PAGE] for at, page in enumerate(stored)}
        needed = {page for page in wanted if kinds[page] & 2}
        theirs = self.parent.joined_pages(number, page_count, needed) if needed else {}
        return {
            page: xor(pages.get(page, bytes(PAGE)), theirs.get(page, bytes(PAGE)))
            for page in sorted(wanted)
        }

    @functools.cached_property
    def parent(self) -> "Snapshot":
        """The snapshot with the pages of kinds 2 and 3, checked (step 9)."""
        parent = self.parents.find(self.superblock, self.secrets)
        s, theirs = self.superblock, parent.superblock
        right = s.parent_root == hashlib.sha256(SUPERBLOCK.pack(theirs)).digest()
        check(right, "The parent's root is another than when it became the parent.")
        check(s.packet_size == theirs.packet_size, "The parent's packets have another size.")
        places = [[(b.name, b.size) for b in each.blocks] for each in (self, parent)]
        check(places[0] == places[1], "The parent has other RAM blocks.")
        return parent

    def read_record(self, number: int, page_count: int) -> tuple[Any, list[int], bytes]:
        """Return a packet's record, the kinds of its pages, and what its tag covers (step 6)."""
        s, packet = self.superblock, f"packet {number}"
        raw = self.read_at(s.index_offset + number * s.record_size, s.record_size)
        r = RECORD.read(raw)
        right = zlib.crc32(raw[:28] + bytes(4) + raw[32:]) == r.record_checksum
        check(right, f"The record of {packet} has a wrong checksum.")
        check(r.packet == number, f"The record of {packet} is of packet {r.packet}.")
        message = f"The encoding of {packet} is {r.encoding}, which this reader can't decode."
        check(r.encoding in KNOWN, message, UnsupportedError)
        packed, rest = raw[RECORD.size :][: s.packet_size // 16384], raw[RECORD.size :]
        kinds = [byte >> shift & 3 for byte in packed for shift in (0, 2, 4, 6)]
        pages = [page for page, kind in enumerate(kinds) if kind & 1]
        reserved = [r.flags, r.reserved_1, *rest[len(packed) :]]
        if not s.sealing or not any(packed):
            reserved += r.nonce
        if not s.sealing or not pages:
            reserved += r.tag
        if not s.page_digests_offset or not any(packed):
            reserved.append(r.page_digests_checksum)
        if not s.sealing or not s.page_digests_offset or not any(packed):
            reserved += r.page_digests_tag
        message = f"The record of {packet} has a reserved field that is set."
        check(not any(reserved), message, UnsupportedError)
        right = any(s.parent_id) or max(kinds) < 2
        check(right, f"The {packet} has pages of a parent, and the snapshot has none.")
        beyond = kinds[page_count:]
        check(not any(beyond), f"The {packet} has pages after the end of its RAM block.")
        size = len(pages) * PAGE
        right = {
            EMPTY: r.stored_size == size == 0,
            RAW: r.stored_size == size > 0,
        }.get(r.encoding, 0 < r.stored_size < size)
        check(right, f"The stored size of {packet} is {r.stored_size} for {len(pages)} pages.")
        right = s.data_offset <= r.offset <= self.data_end - r.stored_size
        if r.stored_size == 0:
            right = r.offset == 0
        elif s.layout == FIXED:
            right = r.offset == s.data_offset + number * s.packet_size
        check(right, f"In {packet} the stored bytes are at {r.offset}, where they can't be.")
        if self.encrypted:
            r = r._replace(digest=xor(r.digest, self.keys.digest_mask(r.nonce)))
        return r, kinds, raw[:8] + raw[16:24] + packed

    def unsealed(
        self, key: tuple[str, bytes], stored: bytes, tag: bytes, covered: bytes, what: str
    ) -> bytes:
        """Return the plain bytes of what is stored, its tag checked."""
        if self.encrypted:
            return self.keys.opened(*key, stored + tag, covered, what)
        self.keys.opened(*key, tag, covered + stored, what)
        return stored

    def contents(self, record: Any, pages: list[int], covered: bytes) -> bytes:
        """Return a packet's stored pages (steps 7 and 8, but for the digest)."""
        if not pages:
            return b""
        packet = f"packet {record.packet}"
        if record.encoding == RAW and self.superblock.layout == FIXED:
            slot = self.read_at(record.offset, (pages[-1] + 1) * PAGE)
            stored = b"".join(slot[page * PAGE : (page + 1) * PAGE] for page in pages)
        else:
            stored = self.read_at(record.offset, record.stored_size)
        right = zlib.crc32(stored) == record.stored_checksum
        check(right, f"The checksum of the stored bytes of {packet} is wrong.")
        if self.keys:
            key = "packets", record.nonce
            stored = self.unsealed(key, stored, record.tag, covered, packet)
        contents = stored
        if record.encoding == DEFLATE:
            window_bits = self.superblock.window_bits
            contents = b"".join(inflate([stored], len(pages) * PAGE, window_bits, packet))
        elif record.encoding == ZSTD:
            contents = unzstd(stored, len(pages) * PAGE, packet)
        elif record.encoding == LZ4:
            contents = unlz4(stored, len(pages) * PAGE, packet)
        return contents

    def attachment_contents(self, a: Any) -> Iterator[bytes]:
        """Yield an attachment's contents in pieces; the last check is after them (step 11)."""
        name = f"attachment {a.name!r}"
        message = f"The encoding of {name} is {a.encoding}, which this reader can't decode."
        check(a.encoding in (RAW, DEFLATE), message, UnsupportedError)
        pieces = self.parts(a) if self.encrypted else self.pieces(a.offset, a.stored_size)
        if a.encoding == DEFLATE:
            pieces = inflate(pieces, a.size, 15, name)
        sha256 = hashlib.sha256()
        for piece in pieces:
            sha256.update(piece)
            yield piece
        check(sha256.digest() == a.sha256, f"The sha256 of {name} is wrong.")

    def parts(self, a: Any) -> Iterator[bytes]:
        """Yield the stored bytes of an encrypted attachment, decrypted."""
        number, offset = self.attachments.index(a), a.offset
        for part in range(-(-a.stored_size // CHUNK)):
            size = min(CHUNK, a.stored_size - part * CHUNK) + BOX
            covered = struct.pack("<QQ", number, part)
            what = f"part {part} of attachment {a.name!r}"
            yield self.keys.unboxed("attachments", self.read_at(offset, size), covered, what)
            offset += size


class Parents:
    """
    Finds the files of parents: among the named ones, then in the folder of the first child.

    :param files: closes them
    """

    def __init__(self, path: Path, named: list[str], files: contextlib.ExitStack) -> None:
        self.path = path
        self.named = named
        self.files = files
        self.seen: set[bytes] = set()

    def find(self, child: Any, secrets: "Secrets") -> Snapshot:
        """Return the parent of a snapshot, given the child's superblock (step 9)."""
        self.seen.add(child.snapshot_id)
        check(child.parent_id not in self.seen, "The snapshot builds on itself.")
        for path in [*map(Path, self.named), *sorted(self.path.absolute().parent.iterdir())]:
            if path.is_file() and snapshot_id(path) == child.parent_id:
                return Snapshot(self.files.enter_context(path.open("rb")), self, secrets)
        raise LookupError(f"The parent {child.parent_id.hex()} is missing.")


def snapshot_id(path: Path) -> bytes | None:
    """Return the id of a snapshot, None of any other file."""
    try:
        with path.open("rb") as file:
            return read_superblock(file).snapshot_id
    except (RefusedError, OSError):
        return None


def xor(one: bytes, other: bytes) -> bytes:
    """Return the bytewise difference of two pages, or of other bytes."""
    joined = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return joined.to_bytes(len(one), "little")


# Sealing


def library(name: str) -> Any:
    """Return a module of a package that the standard library has nothing for."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        message = f"The keys take the Python package {package}, which is not installed."
        raise UnsupportedError(message) from error


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA-256 (RFC 5869)."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def decrypted(key: bytes, nonce: bytes, data: bytes, covered: bytes) -> bytes | None:
    """Return the plain bytes of AES-256-GCM, or None if the tag that follows is not theirs."""
    aes = library("cryptography.hazmat.primitives.ciphers.aead").AESGCM(key)
    try:
        return aes.decrypt(nonce, data, covered)
    except library("cryptography.exceptions").InvalidTag:
        return None


class Keys:
    """The keys of a sealed snapshot, derived from its file key."""

    def __init__(self, file_key: bytes) -> None:
        self.file_key = file_key

    def key(self, name: str) -> bytes:
        """Return the key of that name."""
        return hkdf(self.file_key, bytes(32), b"snapmig " + name.encode())

    def seal(self, name: str, data: bytes) -> bytes:
        """Return the seal of a structure whose checksum and seal are zero."""
        return hmac.digest(self.key(name), data, "sha256")

    def opened(self, name: str, nonce: bytes, data: bytes, covered: bytes, what: str) -> bytes:
        """Return the plain bytes of what is followed by its tag."""
        plain = decrypted(self.key(name), nonce, data, covered)
        check(plain is not None, f"The tag of {what} is wrong.")
        return plain

    def unboxed(self, name: str, data: bytes, covered: bytes, what: str) -> bytes:
        """Return the plain bytes of what stands between its nonce and its tag."""
        return self.opened(name, data[:NONCE], data[NONCE:], covered, what)

    def digest_mask(self, nonce: bytes) -> bytes:
        """Return what a digest in a record is xored with."""
        ciphers = library("cryptography.hazmat.primitives.ciphers")
        aes = ciphers.Cipher(ciphers.algorithms.AES(self.key("digests")), ciphers.modes.ECB())
        return aes.encryptor().update(nonce + bytes(4))


class Secrets:
    """What a user has to open key slots."""

    def __init__(self, passphrases: list[str], key_files: list[str], identities: list[str]) -> None:
        self.passphrases = [Path(path).read_bytes().removesuffix(b"\n") for path in passphrases]
        self.key_files = [Path(path).read_bytes() for path in key_files]
        self.identities = [Path(path).read_text() for path in identities]

    def __bool__(self) -> bool:
        return bool(self.passphrases or self.key_files or self.identities)

    def file_keys(self, slot: Any) -> Iterator[bytes]:
        """Yield what a key slot gives as the file key."""
        if slot.kind == AGE:
            yield from self.from_age(slot.payload[: slot.payload_size])
        for key in self.wrapping_keys(slot):
            file_key = decrypted(key, slot.nonce, slot.wrapped, bytes([slot.kind]))
            if file_key is not None:
                yield file_key

    def wrapping_keys(self, slot: Any) -> Iterator[bytes]:
        """Yield the keys that a passphrase's slot, or a key file's, may be wrapped with."""
        if slot.kind == KEY_FILE:
            for contents in self.key_files:
                yield hkdf(contents, slot.salt, b"snapmig key file")
        elif slot.kind == PASSPHRASE and self.passphrases:
            argon2 = library("cryptography.hazmat.primitives.kdf.argon2")
            costs = {"iterations": slot.iterations, "memory_cost": slot.memory, "lanes": slot.lanes}
            for passphrase in self.passphrases:
                yield argon2.Argon2id(salt=slot.salt, length=32, **costs).derive(passphrase)

    def from_age(self, payload: bytes) -> Iterator[bytes]:
        """Yield what the identities decrypt of an age file."""
        for text in self.identities:
            pyrage = library("pyrage")
            lines = [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
            try:
                identities = [pyrage.x25519.Identity.from_str(line) for line in lines]
            except pyrage.IdentityError as error:
                raise LookupError(f"An age identity is wrong: {error}.") from error
            with contextlib.suppress(pyrage.DecryptError):
                yield pyrage.decrypt(payload, identities)


def open_key_table(both: bytes, secrets: Secrets) -> Keys:
    """Return the keys that a key slot gives, checked with the table's own seal (step 3)."""
    copies = [KEY_TABLE.read(both, at) for at in (0, KEY_TABLE.size)]
    table = next(filter(is_sound, copies), None)
    check(table is not None, "Neither copy of the key table is sound.")
    reserved = table.reserved or any(table.reserved_rest)
    check(not reserved, "A reserved field of the key table is set.")
    slots = [KEY_SLOT.read(table.slots, at) for at in range(0, len(table.slots), KEY_SLOT.size)]
    for number, slot in enumerate(slots):
        check_key_slot(slot, f"key slot {number}")
    for file_key in (file_key for slot in slots for file_key in secrets.file_keys(slot)):
        keys = Keys(file_key)
        if keys.key("commitment") == table.commitment:
            break
    else:
        raise LookupError("No key slot of the snapshot opens with the keys that were given.")
    right = keys.seal("key table", KEY_TABLE.pack(table, "checksum", "seal")) == table.seal
    check(right, "The seal of the key table is wrong.")
    return keys


def is_sound(table: Any) -> bool:
    """Return True for a copy of the key table that was written as a whole."""
    checksum = zlib.crc32(KEY_TABLE.pack(table, "checksum"))
    return table.magic == b"SNAPKEYS" and table.checksum == checksum


def check_key_slot(slot: Any, name: str) -> None:
    """Check a key slot before it costs time or memory to open it."""
    check(slot.kind in (0, PASSPHRASE, KEY_FILE, AGE), f"The kind of {name} is {slot.kind}.")
    check(slot.kind or not any(KEY_SLOT.pack(slot)), f"The free {name} is not zero.")
    reserved = slot.reserved_1 + slot.reserved_2
    check(not any(reserved), f"A reserved field of {name} is set.")
    costs = (slot.iterations, slot.memory, slot.lanes)
    right = not any(costs)
    if slot.kind == PASSPHRASE:
        right = 1 <= slot.iterations <= 64 and 1 <= slot.lanes <= 64
        right = right and 8 * slot.lanes <= slot.memory <= 1 << 21
    check(right, f"The costs of {name} are {costs}, outside of their limits.")
    wrapped = slot.salt + slot.nonce + slot.wrapped
    sizes = range(1, len(slot.payload) + 1) if slot.kind == AGE else (0,)
    right = slot.payload_size in sizes and not any(slot.payload[slot.payload_size :])
    right = right and not (slot.kind == AGE and any(wrapped))
    check(right, f"The fields of {name} don't go with its kind.")
    label, _, filling = slot.label.partition(b"\0")
    try:
        label.decode()
    except UnicodeDecodeError:
        filling = label
    check(not any(filling), f"The label of {name} is wrong.")


def read_superblock(file: BinaryIO) -> Any:
    """Read the first 4096 bytes and check them (steps 1 and 2)."""
    raw = file.read(SUPERBLOCK.size)
    right = len(raw) == SUPERBLOCK.size and raw[:8] == MAGIC
    check(right, "This is not a snapshot.")
    s = SUPERBLOCK.read(raw)
    check(s.version_major == 1, f"The format version is {s.version_major}.", UnsupportedError)
    right = zlib.crc32(raw[:12] + bytes(4) + raw[16:]) == s.checksum
    check(right, "The superblock's checksum is wrong.")
    for field, known in (
        ("incompatible", s.incompatible == 0),
        ("encodings", s.encodings & ~sum(1 << encoding for encoding in KNOWN) == 0),
        ("layout", s.layout in (FIXED, PACKED)),
        ("sealing", s.sealing in (0, SIGNED, ENCRYPTED)),
        ("page_size", s.page_size == PAGE),
    ):
        message = f"The {field} {getattr(s, field):#x} has a feature that is not known here."
        check(known, message, UnsupportedError)
    reserved = s.reserved or any(s.reserved_1 + s.reserved_rest)
    check(not reserved, "A reserved field is set.")
    right = s.sealing or not (s.key_table_offset or any(s.seal))
    check(right, "The snapshot is not sealed, but has a key table or a seal.")
    for what, number, right in (
        (
            "packet size",
            s.packet_size,
            1 << 16 <= s.packet_size <= 1 << 22 and is_power_of_two(s.packet_size),
        ),
        ("record size", s.record_size, s.record_size == -(-(96 + s.packet_size // 16384) // 8) * 8),
        ("window", s.window_bits, 9 <= s.window_bits <= 15),
        ("number of RAM blocks", s.block_count, 1 <= s.block_count <= 4096),
        ("number of attachments", s.attachment_count, s.attachment_count <= 4096),
        ("number of pieces", s.piece_count, s.piece_count <= 65536),
        ("machine's class", s.machine_class, s.machine_class in ((1, 2) if s.machine else (0,))),
        ("machine's byte order", s.machine_data, s.machine_data in ((1, 2) if s.machine else (0,))),
    ):
        check(right, f"The {what} is {number}, which is outside of its limits.")
    return s


def is_power_of_two(number: int) -> bool:
    """Return True if `number` is a power of two."""
    return number.bit_count() == 1


def entries(layout: Layout, table: bytes, what: str) -> list[Any]:
    """Return a table's entries with their names checked and decoded."""
    found = {}
    for at in range(0, len(table), layout.size):
        entry = layout.read(table, at)
        name, _, filling = entry.name.partition(b"\0")
        try:
            decoded = name.decode()
        except UnicodeDecodeError:
            decoded = ""
        right = len(decoded) >= 1 and len(name) <= 255 and not any(filling)
        check(right, f"The name of {what} {len(found)} is wrong.")
        check(decoded not in found, f"Two {what}s have the name {decoded!r}.")
        found[decoded] = entry._replace(name=decoded)
    return list(found.values())


def inflate(pieces: Iterable[bytes], size: int, window_bits: int, name: str) -> Iterator[bytes]:
    """Yield the contents of one deflate stream; they must be `size` bytes."""
    decoder = zlib.decompressobj(wbits=-window_bits)
    total = 0
    try:
        for piece in pieces:
            rest = piece
            while rest:
                contents = decoder.decompress(rest, CHUNK)
                rest = decoder.unconsumed_tail
                total += len(contents)
                check(total <= size, f"The stream of {name} decodes to more than {size} bytes.")
                yield contents
        last = decoder.flush()
    except zlib.error as error:
        raise RefusedError(f"The stream of {name} can't be decoded: {error}.") from error
    yield last
    total += len(last)
    check(decoder.eof, f"The stream of {name} does not end with its stored bytes.")
    check(not decoder.unused_data, f"Bytes follow the end of the stream of {name}.")
    check(total == size, f"The stream of {name} decodes to {total} bytes, not {size}.")


def unzstd(frame: bytes, size: int, name: str) -> bytes:
    """Return the contents of one zstd frame; they must be `size` bytes."""
    message = f"The encoding of {name} is 4, zstd, for which this reader needs Python 3.14."
    check(zstd is not None, message, UnsupportedError)
    try:
        announced = zstd.get_frame_info(frame).decompressed_size
        check(announced == size, f"The zstd frame of {name} is of {announced} bytes, not {size}.")
        options = {zstd.DecompressionParameter.window_log_max: 23}
        decoder = zstd.ZstdDecompressor(options=options)
        contents = decoder.decompress(frame, size + 1)
    except zstd.ZstdError as error:
        raise RefusedError(f"The zstd frame of {name} can't be decoded: {error}.") from error
    right = decoder.eof and not decoder.unused_data and len(contents) == size
    check(right, f"The zstd frame of {name} does not end with its stored bytes and contents.")
    return contents


# LZ4 blocks, https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md


def unlz4(block: bytes, size: int, name: str) -> bytes:
    """Return the contents of one LZ4 block; they must be `size` bytes."""
    contents = bytearray()
    at = 0
    try:
        while True:
            token = block[at]
            count, at = lz4_length(block, at + 1, token >> 4)
            contents += block[at : at + count]
            at += count
            if at >= len(block):
                break
            offset = block[at] | block[at + 1] << 8
            count, at = lz4_length(block, at + 2, token & 15)
            count += 4
            right = 0 < offset <= len(contents)
            check(right, f"The LZ4 block of {name} has the offset {offset} at {len(contents)}.")
            right = len(contents) + count <= size
            check(right, f"The LZ4 block of {name} decodes to more than {size} bytes.")
            start = len(contents) - offset
            repeated = contents[start : start + count]  # shorter where it overlaps what it makes
            contents += (repeated * (count // len(repeated) + 1))[:count]
    except IndexError as error:
        raise RefusedError(f"The LZ4 block of {name} ends within a sequence.") from error
    check(at == len(block), f"The LZ4 block of {name} ends within its literals.")
    right = len(contents) == size
    check(right, f"The LZ4 block of {name} decodes to {len(contents)} bytes, not {size}.")
    return bytes(contents)


def lz4_length(block: bytes, at: int, length: int) -> tuple[int, int]:
    """Return a length from its first four bits and the bytes after them, and the next position."""
    more = 255 if length == 15 else 0
    while more == 255:
        more = block[at]
        at += 1
        length += more
    return length, at


# XXH3-128, https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md

MASK = (1 << 64) - 1
PRIME32_1, PRIME32_2, PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
PRIME64_1, PRIME64_2, PRIME64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
PRIME64_4, PRIME64_5, PRIME_MX1 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, 0x165667919E3779F9
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
BLOCK_SECRET = b"".join(SECRET[n * 8 : n * 8 + 64] for n in range(16))  # of each of its 16 stripes


def xxh3_128(data: bytes) -> bytes:
    """Return the XXH3-128 of more than 240 bytes."""
    lanes = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1]
    last_block = (len(data) - 1) // 1024 * 1024
    scramble = struct.unpack("<8Q", SECRET[-64:])
    for at in range(0, last_block, 1024):
        accumulate(lanes, data[at : at + 1024], BLOCK_SECRET)
        lanes = [
            ((lane ^ lane >> 47 ^ word) * PRIME32_1) & MASK
            for lane, word in zip(lanes, scramble, strict=True)
        ]
    last_stripe = last_block + (len(data) - last_block - 1) // 64 * 64
    accumulate(lanes, data[last_block:last_stripe], BLOCK_SECRET)
    accumulate(lanes, data[-64:], SECRET[-71:-7])
    low = merge(lanes, len(data) * PRIME64_1, 11)
    high = merge(lanes, ~(len(data) * PRIME64_2), 192 - 75)
    return struct.pack(">QQ", high, low)


def accumulate(lanes: list[int], stripes: bytes, secret: bytes) -> None:
    """
    Add the stripes to the lanes, each with its 64 bytes of the secret.

    Between two scrambles there are sums only, so the order of the stripes does not matter: each
    lane takes the sum over all stripes at once.
    """
    size = len(stripes)
    mixed = int.from_bytes(stripes, "little") ^ int.from_bytes(secret[:size], "little")
    words = struct.unpack(f"<{size // 8}Q", stripes)
    halves = struct.unpack(f"<{size // 4}I", mixed.to_bytes(size, "little"))
    for lane in range(8):
        products = map(operator.mul, halves[2 * lane :: 16], halves[2 * lane + 1 :: 16])
        lanes[lane] = (lanes[lane] + sum(products) + sum(words[lane ^ 1 :: 8])) & MASK


def merge(lanes: list[int], start: int, secret_offset: int) -> int:
    """Return one 64-bit half of the hash."""
    secret = struct.unpack_from("<8Q", SECRET, secret_offset)
    keyed = list(map(operator.xor, lanes, secret))
    for a, b in zip(keyed[::2], keyed[1::2], strict=True):
        start += a * b & MASK ^ a * b >> 64
    start &= MASK
    start = (start ^ start >> 37) * PRIME_MX1 & MASK
    return start ^ start >> 32


# The command


@contextlib.contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """Give a file that takes its name `path` only on success."""
    partial = Path(path + ".partial")
    with partial.open("xb") as file:
        try:
            yield file
        except BaseException:
            partial.unlink()
            raise
    partial.replace(path)


def print_info(snapshot: Snapshot) -> None:
    """Print the superblock, RAM blocks and attachments."""
    for name, value in zip(snapshot.superblock._fields, snapshot.superblock, strict=True):
        if not name.startswith("reserved"):
            print(f"{name:26}{value.hex() if isinstance(value, bytes) else value}")
    for b in snapshot.blocks:
        print(f"RAM block {b.name!r}: {b.size} bytes, pages of {b.page_size}")
    for p in snapshot.pieces_of_ram:
        name = snapshot.blocks[p.block].name
        print(f"piece at {p.gpa:#x}: {p.size} bytes of RAM block {name!r} from {p.offset:#x} on")
    for a in snapshot.attachments:
        print(f"attachment {a.name!r}: {a.size} bytes, stored as {a.stored_size}")


def restore(snapshot: Snapshot, blocks: list[Any], path: str) -> None:
    """Write RAM blocks end to end into a new sparse file."""
    with new_file(path) as image:
        base = 0
        for block in blocks:
            for offset, page in snapshot.data_pages(block):
                image.seek(base + offset)
                image.write(page[: block.size - offset])
            base += block.size
        image.truncate(base)


def write_attachment(snapshot: Snapshot, attachment: Any, path: str | None) -> None:
    """Write an attachment's contents into a new file or to standard output."""
    with new_file(path) if path else contextlib.nullcontext(sys.stdout.buffer) as output:
        for piece in snapshot.attachment_contents(attachment):
            output.write(piece)


def verify(snapshot: Snapshot, blocks: list[Any], attachments: list[Any]) -> None:
    """Read everything and print a summary."""
    snapshot.verifies = True
    pages = sum(1 for block in blocks for _ in snapshot.data_pages(block))
    for attachment in attachments:
        for _ in snapshot.attachment_contents(attachment):
            pass
    size = sum(block.size for block in blocks)
    print(f"ok: {len(blocks)} RAM blocks of {size} bytes with {pages} data pages,", end=" ")
    print(f"{len(attachments)} attachments")


def named(entries: list[Any], name: str) -> list[Any]:
    """Return the one entry with that name, as a list."""
    found = [entry for entry in entries if entry.name == name]
    if not found:
        raise LookupError(f"The snapshot has nothing that is named {name!r}.")
    return found


def run(options: argparse.Namespace) -> None:
    """Execute the command line."""
    with contextlib.ExitStack() as files:
        path = Path(options.snapshot)
        file = files.enter_context(path.open("rb"))
        secrets = Secrets(options.passphrase_file, options.key_file, options.identity)
        snapshot = Snapshot(file, Parents(path, options.parent, files), secrets)
        blocks = snapshot.blocks if options.block is None else named(snapshot.blocks, options.block)
        if options.info:
            print_info(snapshot)
        elif options.attachment is not None:
            attachment = named(snapshot.attachments, options.attachment)[0]
            write_attachment(snapshot, attachment, options.output)
        elif options.output is not None:
            restore(snapshot, blocks, options.output)
        else:
            verify(snapshot, blocks, snapshot.attachments if options.block is None else [])


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Read a snapmig snapshot.")
    parser.add_argument("snapshot", help="the file to read")
    parser.add_argument("--info", action="store_true", help="say what is in it")
    parser.add_argument("--output", metavar="IMAGE", help="write what was asked for into this file")
    parser.add_argument("--block", metavar="NAME", help="only this RAM block")
    parser.add_argument("--attachment", metavar="NAME", help="this attachment instead of the RAM")
    parser.add_argument(
        "--parent",
        metavar="OLDER",
        action="append",
        default=[],
        help="a file that it may build on, besides those in its folder; may be repeated",
    )
    for option, what in (
        ("--passphrase-file", "the passphrase of a sealed snapshot, in one line"),
        ("--key-file", "a key file of a sealed snapshot"),
        ("--identity", "an age identity of a sealed snapshot"),
    ):
        more = f"{what}; may be repeated"
        parser.add_argument(option, metavar="FILE", action="append", default=[], help=more)
    options = parser.parse_args(arguments)
    try:
        run(options)
    except (RefusedError, LookupError, OSError) as error:
        print(f"{options.snapshot}: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

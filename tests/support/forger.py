"""What somebody without a key can do to a snapshot: make all checksums and digests right again."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from tests.support.builders import FIXED, PACKET, PAGE, RAW, RECORD_FIELDS, SUPERBLOCK_FIELDS
from tests.support.sealing import ENCRYPTED, KEY_TABLE_FIELDS, TABLE_SIZE
from tests.support.structures import pack, unpack


@dataclass
class Part:
    """A run of bytes of a snapshot."""

    name: str
    offset: int
    size: int


class Forger:
    """Changes copies of a sealed snapshot, whose geometry stays as it was."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.superblock = s = unpack(SUPERBLOCK_FIELDS, raw)
        count = s["attachment_count"]
        size = count * 384 + (28 if count and s["sealing"] == ENCRYPTED else 0)
        self.tables = [
            Part("block_table", s["block_table_offset"], 320 * s["block_count"]),
            Part("attachment_table", s["attachment_table_offset"], size),
            Part("piece_table", s["piece_table_offset"], 32 * s["piece_count"]),
        ]

    @property
    def parts(self) -> list[Part]:
        """Everything that can be put into another snapshot of the same geometry."""
        s, slot = self.superblock, self.superblock["packet_size"]
        attachments = s["data_offset"] + s["data_size"]
        end = s["attachment_table_offset"]
        digests = slot // PAGE * 16
        parts = [Part("superblock", 0, PAGE), Part("keys", s["key_table_offset"], 2 * TABLE_SIZE)]
        parts += [*self.tables, Part("attachments", attachments, end - attachments)]
        for n in range(s["packet_count"]):
            record = unpack(RECORD_FIELDS, self.raw[self.record_at(n) :])
            stored = slot if s["layout"] == FIXED else record["stored_size"]
            place = s["data_offset"] + n * slot if s["layout"] == FIXED else record["offset"]
            parts.append(Part(f"record {n}", self.record_at(n), s["record_size"]))
            parts.append(Part(f"slot {n}", place, stored))
            parts.append(Part(f"digests {n}", s["page_digests_offset"] + n * digests, digests))
        return parts

    def record_at(self, number: int) -> int:
        """Return where a record is."""
        return self.superblock["index_offset"] + number * self.superblock["record_size"]

    def repaired(self, raw: bytes) -> bytes:
        """Return a changed copy with all that can be computed without a key."""
        made = bytearray(raw)
        s = unpack(SUPERBLOCK_FIELDS, raw)
        for n in range(self.superblock["packet_count"]):
            self.repair_record(made, n)
        index = self.record_at(0), self.record_at(self.superblock["packet_count"])
        s["index_digest"] = hashlib.sha256(made[slice(*index)]).digest()
        stored = [bytes(made[part.offset :][: part.size]) for part in self.tables]
        for part, table in zip(self.tables, stored, strict=True):
            s[f"{part.name}_checksum"] = zlib.crc32(table)
        s["tables_digest"] = hashlib.sha256(b"".join(stored)).digest()
        for copy in (0, 1):
            at = self.superblock["key_table_offset"] + copy * TABLE_SIZE
            made[at : at + TABLE_SIZE] = with_checksum(
                KEY_TABLE_FIELDS, unpack(KEY_TABLE_FIELDS, bytes(made[at:]))
            )
        made[:PAGE] = with_checksum(SUPERBLOCK_FIELDS, s)
        return bytes(made)

    def repair_record(self, made: bytearray, number: int) -> None:
        """Give a record the checksums of what the file has."""
        at, size = self.record_at(number), self.superblock["record_size"]
        record = unpack(RECORD_FIELDS, bytes(made[at : at + size]))
        rest = bytes(made[at + 96 : at + size])
        if record["stored_size"]:
            record["stored_checksum"] = zlib.crc32(self.stored(made, record, rest))
        if any(rest[: PACKET // PAGE // 4]):
            digests = self.superblock["packet_size"] // PAGE * 16
            start = self.superblock["page_digests_offset"] + number * digests
            record["page_digests_checksum"] = zlib.crc32(made[start : start + digests])
        record["record_checksum"] = 0
        record["record_checksum"] = zlib.crc32(pack(RECORD_FIELDS, record) + rest)
        made[at : at + 96] = pack(RECORD_FIELDS, record)

    def stored(self, made: bytearray, record: dict, kinds: bytes) -> bytes:
        """Return the stored bytes of a packet."""
        at = record["offset"]
        if self.superblock["layout"] != FIXED or record["encoding"] != RAW:
            return bytes(made[at : at + record["stored_size"]])
        stored = [n for n in range(PACKET // PAGE) if kinds[n // 4] >> n % 4 * 2 & 1]
        return b"".join(bytes(made[at + n * PAGE :][:PAGE]) for n in stored)


def with_checksum(fields: dict[str, str], values: dict) -> bytes:
    """Return a structure with the CRC-32 of its bytes as its checksum."""
    checksum = zlib.crc32(pack(fields, values | {"checksum": 0}))
    return pack(fields, values | {"checksum": checksum})

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import snapmig
from examples import read_snapshot
from tests.support.builders import (
    DEFLATE,
    EMPTY,
    FIXED,
    PACKED,
    PACKET,
    PAGE,
    RAW,
    Block,
    Snapshot,
    noise,
    text,
)
from tests.support.sealing import ENCRYPTED, KEY_FILE, SIGNED, KeySlot, Sealing, hkdf

DATA = bytes(PACKET) + noise(PACKET, 1) + noise(PAGE, 2).ljust(PACKET, b"\0") + noise(PAGE, 3)


def built(**changes):
    """Return the file of a small snapshot."""
    return Snapshot([Block("ram", text(PACKET))], **changes).build()


@pytest.mark.parametrize(("name", "layout"), [("fixed", FIXED), ("packed", PACKED)])
@pytest.mark.parametrize("packet_size", [1 << 17, 1 << 19, 1 << 22])
@pytest.mark.parametrize("page_digests", [False, True])
def test_same_index_and_data_as_save(name, layout, packet_size, page_digests, tmp_path):
    """Of pages that don't compress, snapmig writes the index and data that the document gives."""
    (tmp_path / "image").write_bytes(DATA)
    settings = {"layout": name, "packet_size": packet_size, "page_digests": page_digests}
    snapmig.save(tmp_path / "image", tmp_path / "snapshot", jobs=1, **settings)
    more = {"layout": layout, "packet_size": packet_size, "page_digests": page_digests}
    expected = Snapshot([Block("image", DATA)], **more).build()
    assert expected[2 * PAGE :] == (tmp_path / "snapshot").read_bytes()[2 * PAGE :]


@pytest.mark.parametrize(
    ("contents", "expected"),
    [(bytes(PAGE), EMPTY), (text(PAGE), DEFLATE), (noise(PAGE), RAW)],
)
def test_takes_the_smallest_encoding(contents, expected):
    """The builder takes the smallest encoding by itself."""
    assert expected == Snapshot([Block("ram", contents)]).packets()[0].encoding


def test_replaces_a_field():
    """A replaced field changes itself and the checksum only."""
    one, other = built(), built(superblock={"version_minor": 1})
    changed = [at for at in range(len(one)) if one[at] != other[at]]
    assert {10} == set(changed) - {12, 13, 14, 15}


def test_refuses_unknown_fields():
    """A field that the format does not have is a mistake of the test."""
    with pytest.raises(KeyError):
        built(superblock={"version": 1})


def test_same_file_every_time():
    """The builder makes the same file every time."""
    assert built() == built()


def stored(sealing):
    """Return what is stored of a packed snapshot's packets, one after the other."""
    file = built(encodings={0: RAW}, sealing=sealing)
    return file[-PACKET:]


def test_a_signed_snapshot_stores_the_same():
    """Signed packets are stored as others are."""
    assert stored(Sealing(SIGNED)) == stored(None) == text(PACKET)


@pytest.mark.parametrize("page", range(PACKET // PAGE))
def test_an_encrypted_snapshot_stores_other_bytes(page):
    """Nothing of a page is left in an encrypted packet, which is as long."""
    encrypted = stored(Sealing(ENCRYPTED))
    assert text(PACKET)[page * PAGE :][:16] not in encrypted


def test_another_seed_makes_another_file():
    """Each seed has nonces of its own."""
    files = {built(sealing=Sealing(seed=seed)) for seed in range(3)}
    assert len(files) == 3


def test_a_sealed_file_is_the_same_every_time():
    """Also sealed files are the same every time."""
    slots = {0: KeySlot(KEY_FILE, b"key")}
    assert built(sealing=Sealing(slots=slots)) == built(sealing=Sealing(slots=slots))


@pytest.mark.parametrize("salt", [b"", bytes(range(32))])
def test_hkdf(salt):
    """Keys are derived as another library does, by the builder and by the example reader."""
    expected = HKDF(SHA256(), 32, salt or None, b"snapmig seal").derive(b"secret" * 9)
    assert hkdf(b"secret" * 9, salt, b"snapmig seal") == expected
    assert read_snapshot.hkdf(b"secret" * 9, salt, b"snapmig seal") == expected

"""Facts about all guests: what is restored is what was saved."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from tests.property.contents import CONTENTS, LAYOUTS, WAYS, directory
from tests.property.examples import examples
from tests.support import ram


@examples(30)
@given(content=CONTENTS, way=WAYS, jobs=st.integers(1, 4))
def test_a_restore_is_what_was_saved(content, way, jobs):
    """Any contents saved in any way come back, tails shorter than a page included."""
    with directory() as place:
        ram.write(place / "a", content)
        snapmig.save(place / "a", place / "s", format="raw", **way)
        snapmig.restore(place / "s", place / "r", jobs=jobs)

        assert content == (place / "r").read_bytes()


@examples(20)
@given(
    content=CONTENTS,
    way=WAYS,
    old=st.integers(0, 255),
)
def test_a_restore_in_place_is_what_was_saved(content, way, old):
    """Whatever an image held before, restoring in place leaves what was saved."""
    with directory() as place:
        ram.write(place / "a", content)
        ram.write(place / "r", bytes([old]) * len(content))
        snapmig.save(place / "a", place / "s", format="raw", **way)
        snapmig.restore(place / "s", place / "r", in_place=True)

        assert content == (place / "r").read_bytes()


@examples(20)
@given(
    contents=st.lists(CONTENTS, min_size=1, max_size=4),
    way=WAYS,
    chosen=st.integers(0, 3),
)
def test_ram_blocks_are_what_was_saved(contents, way, chosen):
    """Several RAM blocks of any size come back, together and each alone."""
    chosen %= len(contents)
    with directory() as place:
        files = [ram.write(place / str(n), content) for n, content in enumerate(contents)]
        blocks = [
            (snapmig.RamBlock(f"b{n}", len(content)), file)
            for n, (content, file) in enumerate(zip(contents, files, strict=True))
        ]
        snapmig.save(blocks, place / "s", **way)
        snapmig.restore(place / "s", place / "all")
        snapmig.restore(place / "s", place / "one", block=f"b{chosen}")

        assert ((place / "all").read_bytes(), (place / "one").read_bytes()) == (
            b"".join(contents),
            contents[chosen],
        )


PIECES = st.dictionaries(
    st.integers(0, 16 << 20), st.binary(min_size=1, max_size=9000), min_size=0, max_size=6
)


@examples(30)
@given(pieces=PIECES, way=WAYS, size=st.integers(1, 20 << 20))
def test_images_with_holes_are_what_was_saved(pieces, way, size):
    """Pieces of data anywhere in a hole come back, and saving adds no block to the image."""
    with directory() as place:
        path = ram.write_sparse(place / "a", size, pieces)
        before = ram.disk_bytes(path)
        snapmig.save(path, place / "s", format="raw", **way)
        after = ram.disk_bytes(path)
        snapmig.restore(place / "s", place / "r")

        assert (before, path.read_bytes()) == (after, (place / "r").read_bytes())


@examples(30)
@given(
    content=CONTENTS,
    way=WAYS,
    reads=st.lists(st.tuples(st.integers(0, 700_000), st.integers(0, 200_000)), max_size=8),
)
def test_a_read_is_a_slice_of_the_image(content, way, reads):
    """Random access gives the same bytes as the image, in any order of asking."""
    with directory() as place:
        ram.write(place / "a", content)
        snapmig.save(place / "a", place / "s", format="raw", **way)
        with snapmig.open(place / "s") as snapshot:
            found = [snapshot.read(offset, size) for offset, size in reads]

    assert [content[offset : offset + size] for offset, size in reads] == found


@examples(15)
@given(
    attach=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
        st.one_of(st.binary(max_size=5000), st.integers(0, 3_000_000).map(bytes)),
        max_size=4,
    ),
    layout=st.sampled_from(LAYOUTS),
)
def test_attachments_are_what_was_attached(attach, layout):
    """Attachments of any name and size come back."""
    with directory() as place:
        ram.write(place / "a", b"ram")
        snapmig.save(place / "a", place / "s", attach=attach, layout=layout, jobs=1, format="raw")
        with snapmig.open(place / "s") as snapshot:
            assert attach == dict(snapshot.attachments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65536, 524287, 524289, 4 << 20])
def test_an_image_of_zeros_takes_no_packet(shm, size, layout):
    """A guest of zeros of any size stores nothing, and comes back as a hole of that size."""
    ram.write(shm / "a", bytes(size))
    result = snapmig.save(shm / "a", shm / "s", layout=layout, format="raw")
    snapmig.restore(shm / "s", shm / "r")

    assert (result.stored_size, (shm / "r").read_bytes(), ram.disk_bytes(shm / "r")) == (
        0,
        bytes(size),
        0,
    )

"""Facts about what sealed snapshots hold: the same as plain ones, in every form."""

import itertools
import shutil
from pathlib import Path

import pytest

import snapmig
from tests.support.secrets import PHRASE
from tests.support.sweep import sweep

pytestmark = pytest.mark.usefixtures("place")

KEY, OTHER = ("--key-file", "key"), ("--key-file", "other")
CODECS = ("zlib", "zstd", "lz4", "none")
FORMS = list(itertools.product(CODECS, ("fixed", "packed"), (True, False), ("--encrypt", "--sign")))
ESSENTIAL = [
    (codec, "packed" if codec == "zlib" else "fixed", codec in ("zlib", "none"), how)
    for codec in CODECS
    for how in ("--encrypt", "--sign")
]

PAIRS = list(itertools.permutations(["", "--encrypt", "--sign"], 2))
"""Sealings of a parent and its child."""


def same(path, number):
    """Return whether a restored image is a state of the guest."""
    return Path(path).read_bytes() == Path(f"guest{number}.ram").read_bytes()


def saved(cli, number, *more, how="--encrypt"):
    """Save a state of the guest as ``N.snap``, on top of the one before it."""
    parent = ("--parent", f"{number - 1}.snap") if number else ()
    return cli(
        "save", f"guest{number}.ram", f"{number}.snap", *parent, how, *(more or KEY), "--json"
    )


@pytest.mark.parametrize(
    ("codec", "layout", "digests", "how"), sweep(FORMS, lambda form: form in ESSENTIAL)
)
def test_restored_as_it_was(cli, codec, layout, digests, how):
    """Every compression in every layout, with and without page digests, gives the image again."""
    form = ["--compression", codec, "--layout", layout]
    form += ["--page-digests"] if digests else []
    cli("save", "guest0.ram", "s.snap", how, *KEY, *form, "--attach", "a=key").ok()
    cli("verify", "s.snap", *KEY).ok("proved by its key")
    cli("restore", "s.snap", "out.ram", *KEY).ok()

    assert same("out.ram", 0)
    with snapmig.open("s.snap", keys=snapmig.Keys(key_file=["key"])) as found:
        assert found.attachments["a"] == Path("key").read_bytes()
        assert found.read(20 * 4096, 100) == Path("guest0.ram").read_bytes()[20 * 4096 :][:100]


@pytest.mark.parametrize("number", [1, 4])
def test_packets_of_every_size(cli, number):
    """Packets of 64 KiB and 4 MiB are sealed as those of 512 KiB are, by several workers."""
    size = {1: "64K", 4: "4M"}[number]
    more = ("--packet-size", size, "-j", number, "--page-digests")
    cli("save", "guest0.ram", "s.snap", "--encrypt", *KEY, *more).ok()
    cli("restore", "s.snap", "out.ram", *KEY, "-j", 5 - number).ok()

    assert same("out.ram", 0)


@pytest.mark.parametrize("how", sweep(["--encrypt", "--sign"], lambda how: how == "--encrypt"))
def test_a_chain_of_different_keys(cli, how):
    """Each snapshot of a chain has keys of its own, and who gives them all reads all of it."""
    saved(cli, 0, how=how).ok()
    saved(cli, 1, how=how).ok()
    cli("key", "rotate", "1.snap", *KEY, "--new-key-file", "other").ok()
    saved(cli, 2, *OTHER, *KEY, how=how).ok()
    cli("key", "rotate", "2.snap", *KEY, "--new-passphrase-file", "phrase").ok()
    keys = (*KEY, *OTHER, "--passphrase-file", "phrase")

    cli("verify", "2.snap", *keys).ok("proved by its key")
    cli("restore", "2.snap", "out.ram", *keys).ok()
    assert same("out.ram", 2)


def test_a_key_of_the_youngest_is_not_enough(cli):
    """Without the key of a parent nothing is restored, and the sentence names that parent."""
    saved(cli, 0).ok()
    saved(cli, 1).ok()
    cli("key", "rotate", "0.snap", *KEY, "--new-key-file", "other").ok()
    outcome = cli("restore", "1.snap", "out.ram", *KEY)
    outcome.fails(1, "0.snap: none of the given keys fits; its slots are: key file 'other'")

    assert not list(Path().glob("*out.ram*"))


ONES = [("", "--encrypt"), ("--encrypt", ""), ("--sign", "--encrypt")]


@pytest.mark.parametrize(("parent", "child"), sweep(PAIRS, lambda pair: pair in ONES))
def test_chains_of_two_sealings(cli, parent, child):
    """A chain of two sealings is made on request only; info says so, and it is restored."""
    words = {"": "plain", "--encrypt": "encrypted", "--sign": "signed"}
    cli("save", "guest0.ram", "0.snap", *((parent, *KEY) if parent else ())).ok()
    command = ("save", "guest1.ram", "1.snap", "--parent", "0.snap", *filter(None, [child]), *KEY)
    cli(*command).fails(
        2,
        f"0.snap: is {words[parent]}, and the new snapshot would be {words[child]}; "
        "a chain of both must be asked for: mixed-chain",
        lines=1,
    )
    assert not list(Path().glob("*1.snap*"))
    cli(*command, "--mixed-chain").ok()

    theirs = words[parent].replace("plain", "none")
    cli("info", "1.snap", *KEY).ok(f"mixed chain  the parent's sealing is {theirs}")
    chain = cli("chain", "1.snap", *KEY, "--json").ok().json_lines
    assert [each["sealing"] for each in chain if "sealing" in each] == [
        words[each].replace("plain", "none") for each in (child, parent)
    ]
    outcome = cli("restore", "1.snap", "out.ram", *KEY)
    assert (outcome.code, same("out.ram", 1)) == (0, True)


@pytest.mark.parametrize("parent", ["", "--sign"])
def test_a_chain_is_proved_where_all_of_it_is(cli, parent):
    """A sealed snapshot on a plain one is not proved by its key, and the parent is named."""
    cli("save", "guest0.ram", "0.snap", *((parent, *KEY) if parent else ())).ok()
    saved(cli, 1, *KEY, "--mixed-chain").ok()
    outcome = cli("verify", "1.snap", *KEY, "--json")

    assert outcome.json["proved"] == bool(parent)
    assert ("0.snap is not sealed: a key proves nothing" in outcome.err) == (not parent)


@pytest.mark.parametrize("digests", [(), ("--page-digests",)], ids=["", "page digests"])
@pytest.mark.parametrize(
    "deltas", sweep(["--deltas", "--no-deltas"], lambda deltas: deltas == "--deltas")
)
def test_an_increment_is_what_a_plain_one_is(cli, digests, deltas):
    """An encrypted increment has as many pages of each kind and bytes as a plain one."""
    facts = []
    for keys in ((), ("--encrypt", *KEY)):
        cli("save", "guest0.ram", "0.snap", "-f", *keys, *digests).ok()
        command = ("save", "guest1.ram", "1.snap", "-f", "--parent", "0.snap", deltas, *keys)
        result = cli(*command, "--json").ok().json
        facts.append([result[name] for name in ("same_pages", "delta_pages", "stored_size")])
        cli("restore", "1.snap", "out.ram", "-f", *keys[1:]).ok()
        assert same("out.ram", 1)
    assert facts[0] == facts[1]
    assert facts[0][0]


@pytest.mark.parametrize("how", sweep(["--encrypt", "--sign"], lambda how: how == "--encrypt"))
def test_other_verbs(cli, how):
    """Chains are compared, merged, rebased and repacked with their keys, and stay sealed."""
    sealing = {"--encrypt": "encrypted", "--sign": "signed"}[how]
    for number in range(3):
        saved(cli, number, how=how).ok()
    cli("diff", "0.snap", "1.snap", *KEY).ok("3 of 512 pages")
    cli("merge", "2.snap", "merged.snap", *KEY).ok()
    shutil.copy("2.snap", "rebased.snap")
    cli("rebase", "rebased.snap", "--parent", "0.snap", *KEY).ok()
    cli("repack", "0.snap", "repacked.snap", "--compression", "lz4", *KEY).ok()
    for name, number in (("merged", 2), ("rebased", 2), ("repacked", 0)):
        cli("restore", f"{name}.snap", "out.ram", "-f", *KEY).ok()
        assert same("out.ram", number)
        assert cli("info", f"{name}.snap", *KEY, "--json").json["sealing"] == sealing


@pytest.mark.parametrize(
    ("verb", "more"),
    [("diff", ("0.snap",)), ("merge", ("x.snap",)), ("repack", ("x.snap",)), ("restore", ("x",))],
)
def test_other_verbs_without_a_key(cli, verb, more):
    """Without a key they end in one sentence with the snapshot's slots, and write nothing."""
    saved(cli, 0).ok()
    saved(cli, 1).ok()
    name = "0.snap" if verb == "repack" else "1.snap"
    cli(verb, name, *more).fails(
        1, "is encrypted and needs a key; its slots are: key file 'key'", lines=1
    )
    assert not list(Path().glob("*x*.snap")) + list(Path().glob("x"))


def test_without_a_key(cli):
    """Without a key info shows what is in the open, and verify finds damage of stored bytes."""
    cli("save", "guest0.ram", "0.snap", "--encrypt", *KEY, "--attach", "name-of-it=key").ok()
    found = cli("info", "0.snap", "--json").ok().json
    assert (found["attachments"], found["source"], found["proved"]) == (None, None, False)
    cli("verify", "0.snap").ok("stored bytes only, for want of a key")

    raw = bytearray(Path("0.snap").read_bytes())
    raw[int.from_bytes(raw[184:192], "little")] ^= 1  # data_offset
    Path("0.snap").write_bytes(raw)
    cli("verify", "0.snap").fails(3, "checksum of the stored bytes", lines=1)


def test_opened_as_a_library():
    """``snapmig.open`` reads an encrypted chain by a passphrase that no file holds."""
    keys = snapmig.Keys(passphrase=PHRASE)
    snapmig.save("guest0.ram", "0.snap", encrypt=True, keys=keys, jobs=1)
    snapmig.save("guest1.ram", "1.snap", encrypt=True, keys=keys, jobs=1, parent="0.snap")
    with snapmig.open("1.snap", keys=keys) as found:
        assert found.read(0, len(found)) == Path("guest1.ram").read_bytes()
    with pytest.raises(snapmig.KeyRequiredError, match="needs a key"):
        snapmig.open("1.snap")

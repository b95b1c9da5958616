"""Facts about keys in files of users: batches of many guests, and backups by rule."""

from pathlib import Path

import pytest

from tests.support import program

pytestmark = pytest.mark.usefixtures("place")

KEY, OTHER = ("--key-file", "key"), ("--key-file", "other")
SEALED = 'encrypt = true\nkey_file = ["key"]\n'


def same(path, number):
    """Return whether a restored image is a state of the guest."""
    return Path(path).read_bytes() == Path(f"guest{number}.ram").read_bytes()


def batch(cli, text, *more):
    """Run a batch."""
    Path("jobs.toml").write_text(text)
    return cli("batch", "jobs.toml", "-j", 2, *more)


def test_a_batch_seals_by_its_defaults(cli):
    """Keys of the defaults hold for every job, and a job may have others."""
    jobs = '[[save]]\nimage = "guest{}.ram"\nsnapshot = "{}.snap"\n'
    text = f"[defaults]\n{SEALED}" + jobs.format(0, 0) + jobs.format(1, 1) + jobs.format(2, 2)
    batch(cli, f'{text}key_file = ["other"]\nsign = true\nencrypt = false\n').ok(err=None)

    found = [cli("info", f"{n}.snap", "--json").json for n in range(3)]
    assert [each["sealing"] for each in found] == ["encrypted", "encrypted", "signed"]
    assert [each["sealed_for"] for each in found] == [
        ["key file 'key'"], ["key file 'key'"], ["key file 'other'"],
    ]  # fmt: skip


def test_a_batch_restores_with_keys(cli):
    """Restores take keys, one whose key is wrong fails alone and in one sentence."""
    for number in range(2):
        cli("save", f"guest{number}.ram", f"{number}.snap", "--encrypt", *KEY).ok()
    jobs = '[[restore]]\nsnapshot = "{0}.snap"\nimage = "{0}.out"\nkey_file = ["{1}"]\n'
    outcome = batch(cli, jobs.format(0, "key") + jobs.format(1, "other"), "--json")

    assert outcome.code == 1
    assert [line.get("result") for line in outcome.json_lines][:2].count("failed") <= 1
    assert "none of the given keys fits" in outcome.out + outcome.err
    assert same("0.out", 0)
    assert not Path("1.out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("encrypt = true", "needs a key to lock with"),
        ('encrypt = true\nkey_file = ["missing"]', "missing"),
        ('encrypt = true\nsign = true\nkey_file = ["key"]', "give encrypt or sign, not both"),
        ('encrypt = true\nkey_file = "key"', "key_file"),
        ("encrypt = 1", "encrypt"),
    ],
)
def test_a_batch_with_wrong_words(cli, words, message):
    """Wrong words about keys are refused in one sentence, and nothing is saved."""
    outcome = batch(cli, f'[[save]]\nimage = "guest0.ram"\nsnapshot = "0.snap"\n{words}\n')

    assert outcome.code in (1, 2)
    assert message in outcome.out + outcome.err
    assert not list(Path().glob("*.snap"))


@pytest.fixture
def backup(cli, place):
    """Give a function that runs a verb of a repository whose snapshots are encrypted."""
    (place / "repo").mkdir()
    (place / "state.ram").write_bytes((place / "guest0.ram").read_bytes())

    def run(verb, *more, save=SEALED):
        rest = f'full_every = 3\n[save]\n{save}\n[guests.web]\nsource = "state.ram"\n'
        Path("backup.toml").write_text(f'repository = "repo"\n{rest}')
        return cli("backup", verb, "backup.toml", *more)

    return run


def nights(backup, place, count=3):
    """Back up so many states of the guest."""
    for number in range(count):
        (place / "state.ram").write_bytes((place / f"guest{number}.ram").read_bytes())
        backup("run").ok(err=None)
    return sorted((place / "repo" / "web").glob("*.snap"))


def test_backups_are_encrypted(cli, backup, place):
    """Nights are full and incremental, encrypted, checked and restored with the key."""
    stored = nights(backup, place)
    facts = [cli("info", path, *KEY, "--json").json for path in stored]
    assert [each["sealing"] for each in facts] == ["encrypted"] * 3
    assert [bool(each["parent_id"]) for each in facts] == [False, True, True]
    for path in stored:
        cli("verify", path, *KEY).ok("proved by its key")
    backup("check").ok()
    backup("restore", "web", "out.ram").ok()
    assert same("out.ram", 2)
    backup("list").ok()
    backup("prune").ok()


def test_backups_without_their_key(backup, place):
    """Without the key nothing is restored; a check finds no damage of what it can read."""
    nights(backup, place, 2)
    outcome = backup("restore", "web", "out.ram", save="")
    outcome.fails(1, "is encrypted and needs a key")
    assert not Path("out.ram").exists()
    outcome = backup("restore", "web", "out.ram", save='key_file = ["other"]')
    outcome.fails(1, "none of the given keys fits")
    assert "damage" not in backup("check", save="").err


def test_backups_that_begin_to_be_encrypted(cli, backup, place):
    """Where a repository has plain snapshots the first encrypted one is full, and all restore."""
    backup("run", save="").ok(err=None)
    (place / "state.ram").write_bytes((place / "guest1.ram").read_bytes())
    backup("run").warns("web: saved in full, for building on", "is plain", lines=1)
    stored = sorted((place / "repo" / "web").glob("*.snap"))
    facts = [cli("info", path, *KEY, "--json").json for path in stored]

    assert [each["sealing"] for each in facts] == ["none", "encrypted"]
    assert facts[1]["parent_id"] is None
    backup("restore", "web", "out.ram").ok()
    assert same("out.ram", 1)


def test_backups_by_a_host_that_can_not_read_them(cli, backup, place):
    """With a recipient only, a host saves what it can't read, in full each time."""
    save = f'encrypt = true\nrecipient = ["{Path("recipient").read_text()}"]'
    for number in range(2):
        (place / "state.ram").write_bytes((place / f"guest{number}.ram").read_bytes())
        backup("run", save=save).ends(6 if number else 0, *["none of the given keys"] * number)
    stored = sorted((place / "repo" / "web").glob("*.snap"))
    assert len(stored) == 2
    for number, path in enumerate(stored):
        cli("restore", path, "out.ram", "-f", "--identity", "identity").ok()
        assert same("out.ram", number)
    backup("restore", "web", "no.ram", save=save).fails(1)


def test_a_backup_does_not_wait_for_a_terminal(backup, place):
    """A run without a terminal ends at once where a key is missing."""
    backup("list")
    Path("backup.toml").write_text(Path("backup.toml").read_text().replace('"key"', '"gone"'))
    outcome = program.run("backup", "run", "backup.toml", timeout=30)

    assert outcome.code != 0
    assert "gone" in outcome.out + outcome.err
    assert not list((place / "repo").rglob("*.snap"))

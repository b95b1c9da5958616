"""Facts about the functions of snapmig.backup: the verbs without a command line."""

import pytest

import snapmig
from snapmig import backup
from tests.backups.conftest import RAM

DB = '[guests.db]\nsource = "db.ram"'
GONE = '[guests.gone]\nsource = "gone.ram"'


def test_a_run_and_a_restore_give_back_the_guest(place):
    """A guest saved by run comes back by restore, byte for byte."""
    (saved,) = backup.run(place.config).results
    restored = backup.restore(place.config, "web", str(place.folder / "out"))

    assert (place.folder / "out").read_bytes() == RAM
    assert restored.snapshot.endswith(saved.snapshot)
    assert saved.ram_size == restored.ram_size == len(RAM)


def test_a_failure_is_in_the_outcome(place):
    """A guest that can't be saved raises nothing, and stops no other."""
    place.configure(guests=f"{GONE}\n{DB}")
    outcome = backup.run(place.config)

    assert [each.result for each in outcome.results] == ["saved", "failed", "saved"]
    assert [each.guest for each in outcome.errors] == ["gone"]
    assert outcome.exit_code == 1


def test_a_warning_is_in_the_outcome(place):
    """A skipped guest is a warning, and exit code 6."""
    place.configure(guests=f"{GONE}\noptional = true")
    outcome = backup.run(place.config)

    assert [each.guest for each in outcome.warnings] == ["gone"]
    assert (outcome.errors, outcome.exit_code) == ((), 6)


def test_guests_are_chosen_by_name(place):
    """Only the named guests are saved."""
    place.configure(guests=DB)

    assert [each.guest for each in backup.run(place.config, ["db"]).results] == ["db"]


def test_an_unknown_guest_is_an_error(place):
    """A name without a guest is a mistake of the caller's."""
    with pytest.raises(snapmig.UsageError, match="there is no guest 'nobody', only web"):
        backup.run(place.config, ["nobody"])


def test_a_dry_run_saves_nothing(place):
    """A planned guest leaves no file."""
    assert [each.result for each in backup.run(place.config, dry_run=True).results] == ["planned"]
    assert not (place.folder / "repo" / "web").exists()


def test_snapshots_are_listed_checked_and_pruned(place):
    """The same snapshot is in the results of list, check and prune."""
    (saved,) = backup.run(place.config).results
    results = [verb(place.config).results for verb in (backup.list, backup.check, backup.prune)]

    assert [[each.snapshot for each in each_verbs] for each_verbs in results] == [
        [saved.snapshot]
    ] * 3


def test_damage_is_in_the_outcome_of_a_check(place):
    """A damaged packet is an error of kind 3."""
    backup.run(place.config)
    (path,) = (place.folder / "repo" / "web").glob("*.snap")
    content = bytearray(path.read_bytes())
    content[8192] ^= 1
    path.write_bytes(content)
    outcome = backup.check(place.config, everything=True)

    assert (outcome.exit_code, outcome.results[0].result) == (3, "damaged")


def test_progress_comes_with_the_guests_name(place):
    """The callback receives the name of the guest and its progress."""
    seen = []
    backup.run(place.config, progress=lambda guest, state: seen.append((guest, state)))

    assert {guest for guest, _ in seen} == {"web"}
    assert seen[-1][1].done_bytes == len(RAM)


def test_progress_of_a_prune_comes_with_the_guests_name(place):
    """The callback receives the bytes on disk that are removed."""
    place.configure("[retention]\nkeep_last = 1")
    for _ in range(2):
        backup.run(place.config, prune=False)
    seen = []
    backup.prune(place.config, progress=lambda guest, state: seen.append((guest, state)))

    assert {guest for guest, _ in seen} == {"web"}
    assert 0 < seen[-1][1].done_bytes == seen[-1][1].total_bytes


def test_a_run_tells_of_its_removals(place):
    """After the save as a phase of its own."""
    place.configure("[retention]\nkeep_last = 1")
    seen = []
    for _ in range(2):
        backup.run(place.config, progress=lambda _, state: seen.append(state.phase))

    assert seen[-1] == "removing old snapshots"


def test_a_configuration_to_start_from(place):
    """Init writes the commented file once."""
    path = place.folder / "new.toml"
    backup.init(path)

    assert "repository" in path.read_text()
    with pytest.raises(snapmig.DestinationExistsError):
        backup.init(path)

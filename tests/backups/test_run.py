"""Facts about nights: what is saved, how, and what is said of it."""

import json
import os
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.backups import saving
from snapmig.backups.repository import guest_folder
from snapmig.errors import UsageError
from tests.support import filesystems, program
from tests.support.backups import RAM

DB = '[guests.db]\nsource = "db.ram"'


def kinds(place):
    """Return the kinds of what is in the folder of the guest web."""
    return [item.kind for item in guest_folder(place.folder / "repo", "web").read().snapshots]


def test_a_guest_is_saved(place):
    """A saved snapshot holds the guest's RAM."""
    place.backup("run").ok()
    (name,) = place.stored()
    snapmig.restore(place.folder / "repo" / "web" / name, place.folder / "out")

    assert (place.folder / "out").read_bytes() == RAM


def test_a_run_is_quiet(place):
    """Where nobody sits and all went well, nothing is said, and so cron sends no mail."""
    outcome = place.backup("run")

    outcome.ok(out="")


def test_a_run_says_what_it_did_when_asked(place):
    """With --verbose there is a line for each guest."""
    outcome = place.backup("run", "-v")

    assert outcome.out.startswith(f"web: saved {place.stored()[0]}, full, ")


def test_json_has_a_line_for_each_guest_and_a_summary(place):
    """Results can be read by a program."""
    place.configure(guests=DB)
    web, db, summary = place.told("run")

    assert (web["message_type"], web["guest"], web["result"], web["kind"]) == (
        "backup",
        "web",
        "saved",
        "full",
    )
    assert (db["guest"], [db["snapshot"]]) == ("db", place.stored("db"))
    assert (summary["message_type"], summary["guests"], summary["exit_code"]) == ("summary", 2, 0)


def test_only_the_guests_that_were_named_are_saved(place):
    """A guest's name limits a run to it."""
    place.configure(guests=DB)
    place.backup("run", "db")

    assert not (place.folder / "repo" / "web").exists()


def test_an_unknown_guest_is_an_error_of_usage(place):
    """A typo saves nothing, and names those that there are."""
    outcome = place.backup("run", "wbe")

    outcome.fails(2, err=f"snapmig: {place.config}: there is no guest 'wbe', only web\n")


def test_one_guests_failure_does_not_stop_the_others(place):
    """The first error's exit code is the run's, and the rest is saved."""
    place.configure(web='hooks.before = ["false"]', guests=DB)
    outcome = place.backup("run")

    outcome.fails(1, err="snapmig: web: hook 'before': false failed: exit status 1\n")
    assert (len(place.stored("db")), place.stored()) == (1, [])


def test_a_failure_is_a_result_too(place):
    """Failures are among the results too."""
    (place.folder / "web.ram").unlink()
    web, _ = place.told("run")

    assert (web["result"], web["snapshot"], web["reason"]) == (
        "failed",
        None,
        f"{place.folder}/web.ram: No such file or directory",
    )


def test_an_error_is_a_line_of_json_with_its_guest(place):
    """With --json errors are objects on stderr."""
    (place.folder / "web.ram").unlink()
    outcome = place.backup("run", "--json")

    assert json.loads(outcome.err) == {
        "message_type": "error",
        "message": f"{place.folder}/web.ram: No such file or directory",
        "guest": "web",
        "exit_code": 1,
    }


def test_an_optional_source_that_is_not_there_is_skipped(place):
    """A guest that is off is a warning where that is allowed, with an exit code of its own."""
    place.configure(web="optional = true", guests=DB)
    (place.folder / "web.ram").unlink()
    outcome = place.backup("run")

    outcome.warns(
        err=f"snapmig: warning: web: skipped: its source {place.folder}/web.ram is not there\n"
    )
    assert len(place.stored("db")) == 1


def test_an_error_comes_before_a_warning(place):
    """The exit code of a run with both is that of the error."""
    place.configure(
        web='optional = true\nhooks.error = ["false"]', guests='[guests.db]\nsource = "none"'
    )
    (place.folder / "web.ram").unlink()

    place.backup("run").fails(1)


def test_a_missing_repository_is_not_made(place):
    """A backup disk that is not mounted is one sentence."""
    (place.folder / "repo").rmdir()
    outcome = place.backup("run")

    outcome.fails(
        1,
        err=f"snapmig: web: {place.folder}/repo: there is no such directory: "
        "make the repository, or mount it\n",
    )


def test_options_of_save_are_handed_on(place):
    """Snapshots have the options given for saves in the configuration."""
    place.configure(web='save.layout = "packed"\nsave.packet_size = "64K"\nattach."a/b" = "db.ram"')
    place.backup("run")
    facts = snapmig.info(place.folder / "repo" / "web" / place.stored()[0])

    assert (facts.layout, facts.packet_size, facts.attachments[0].name) == ("packed", 65536, "a/b")


@pytest.mark.parametrize(("words", "expected"), [("", True), ("page_digests = false", False)])
def test_snapshots_have_page_digests(place, words, expected):
    """They have them as other saves do, unless the configuration says otherwise."""
    place.configure(f"[save]\n{words}")
    place.backup("run")

    found = snapmig.info(place.folder / "repo" / "web" / place.stored()[0])
    assert found.page_digests == expected


def test_a_run_prunes(place):
    """After its save a guest keeps what the rules say."""
    place.configure("[retention]\nkeep_last = 2")
    for _ in range(3):
        place.backup("run")
    web, _ = place.told("run")

    assert (len(place.stored()), len(web["removed"])) == (2, 1)


def test_a_run_without_rules_removes_nothing(place):
    """An empty retention keeps everything."""
    for _ in range(3):
        place.backup("run")

    assert len(place.stored()) == 3


def test_a_run_may_leave_pruning_out(place):
    """With --no-prune nothing is removed."""
    place.configure("[retention]\nkeep_last = 1")
    for _ in range(3):
        place.backup("run", "--no-prune")

    assert len(place.stored()) == 3


def test_a_dry_run_changes_nothing(place):
    """A dry run prints its plan, and makes neither a folder nor a lock."""
    place.configure(web='hooks.before = ["touch", "hook"]')
    outcome = place.backup("run", "--dry-run")

    outcome.ok()
    assert outcome.out.startswith("web: would save full (each is full)")
    assert sorted(path.name for path in place.folder.rglob("*")) == sorted(
        ["backup.toml", "db.ram", "repo", "web.ram"]
    )


def test_a_dry_run_says_what_would_be_removed(place):
    """Removals are counted, and do not happen."""
    for _ in range(3):
        place.backup("run")
    place.configure("[retention]\nkeep_last = 1")
    web, _ = place.told("run", "-n")

    assert (web["result"], len(web["removed"]), len(place.stored())) == ("planned", 3, 3)


def test_full_and_incremental_take_turns(place):
    """Of as many as the rule says one is full."""
    place.configure("full_every = 3")
    for _ in range(5):
        place.backup("run").ok()

    assert kinds(place) == ["full", "incremental", "incremental", "full", "incremental"]


def test_a_dry_run_knows_what_the_next_one_builds_on(place):
    """A dry run foretells the room left for an incremental save."""
    place.configure("full_every = 3\n[retention]\nkeep_last = 2")
    place.backup("run", "--full", "--no-prune")
    place.backup("run", "--full", "--no-prune")
    web, _ = place.told("run", "-n")

    assert (web["kind"], web["removed"]) == ("incremental", place.stored()[:1])


def test_full_can_be_asked_for(place):
    """With --full the rule is left aside for once."""
    place.configure("full_every = 3")
    for option in ((), ("--full",), ()):
        place.backup("run", *option)

    assert kinds(place) == ["full", "full", "incremental"]


def test_retention_keeps_what_the_last_one_builds_on(place):
    """A run never removes a parent that a kept snapshot needs."""
    place.configure("full_every = 3\n[retention]\nkeep_last = 1")
    for _ in range(3):
        place.backup("run")
    assert kinds(place) == ["full", "incremental", "incremental"]
    place.backup("run")

    assert kinds(place) == ["full"]


@pytest.mark.parametrize("kind", [UsageError, snapmig.UnsupportedError])
def test_a_parent_that_does_not_fit_ends_in_a_full_save(place, monkeypatch, kind):
    """Where the guest has another size today, it is saved in full with a warning."""

    def refuse(image, snapshot, *, parent=None, **options):
        if parent is not None:
            raise kind("the parent has RAM of another size")
        return snapmig.save(image, snapshot, **options)

    monkeypatch.setattr(saving, "save", refuse)
    place.configure("full_every = 3")
    place.backup("run")
    outcome = place.backup("run")

    outcome.warns("the parent has RAM of another size")
    assert kinds(place) == ["full", "full"]


def test_a_failure_that_is_not_the_parents_is_not_tried_again(place, monkeypatch):
    """A full disk is not made better by a larger save."""

    def refuse(image, snapshot, *, parent=None, **options):
        if parent is not None:
            raise snapmig.NoSpaceError("no space left")
        return snapmig.save(image, snapshot, **options)

    monkeypatch.setattr(saving, "save", refuse)
    place.configure("full_every = 3")
    place.backup("run")

    place.backup("run").fails(1)
    assert kinds(place) == ["full"]


def test_a_snapshot_of_the_future_is_warned_of(place):
    """Where the clock was set back the guest is saved, and somebody should look."""
    future = place.put(datetime.now(UTC) + timedelta(days=365), 1)
    place.configure("[retention]\nkeep_last = 1")
    outcome = place.backup("run")

    outcome.warns("says it is from the future")
    assert (len(place.stored()), future.exists()) == (2, True)


def test_an_unreadable_snapshot_stops_removals(place):
    """The parents are not known then, so all stay, with a warning."""
    place.configure("[retention]\nkeep_last = 1")
    place.backup("run")
    (place.folder / "repo/web/2001-01-01T00-00-00Z.snap").write_bytes(b"\x93SNAPMIG")
    outcome = place.backup("run")

    outcome.warns("nothing is removed: the parent of 2001-01-01T00-00-00Z.snap can't be read")
    assert len(place.stored()) == 3


def test_there_must_be_room(place, monkeypatch):
    """A save that is not likely to fit is refused before the guest is disturbed."""
    place.backup("run")
    place.configure(web='hooks.before = ["touch", "hook"]')
    facts = namedtuple("Facts", "f_blocks f_bfree f_bavail f_frsize")
    monkeypatch.setattr("os.statvfs", lambda _: facts(100, 4, 4, 4096))
    outcome = place.backup("run")

    outcome.fails(1, "16.0 KiB are free on its filesystem, about ")
    assert outcome.err.endswith(" are needed, as the last full one takes\n")
    assert not (place.folder / "hook").exists()


def test_the_first_save_needs_room_for_the_ram(place, monkeypatch):
    """Without an earlier snapshot the guest's RAM itself is the measure."""
    facts = namedtuple("Facts", "f_blocks f_bfree f_bavail f_frsize")
    monkeypatch.setattr("os.statvfs", lambda _: facts(100, 4, 4, 4096))

    assert place.backup("run").err.endswith(" are needed, as the guest's RAM takes\n")


def test_priorities_are_set(place):
    """A run steps back behind others, with all that it starts."""
    place.configure(
        'nice = 11\nionice = "idle"',
        web='hooks.before = ["sh", "-c", "nice; ionice"]',
    )
    result = program.run("backup", "run", place.config)

    result.ok(err="11\nidle\n")


def test_lines_for_the_journal_have_their_priority(place, tmp_path):
    """Where stderr is the journal's, journalctl can tell warnings from errors."""
    place.configure(web='hooks.after = ["false"]', guests='[guests.db]\nsource = "none"')
    with (tmp_path / "journal").open("w+") as journal:
        facts = os.fstat(journal.fileno())
        stream = f"{facts.st_dev}:{facts.st_ino}"
        program.run(
            "backup",
            "run",
            place.config,
            stderr=journal,
            stdout=journal,
            env={**program.ENVIRONMENT, "JOURNAL_STREAM": stream},
        )

    assert [line[:23] for line in (tmp_path / "journal").read_text().splitlines()] == [
        "<4>snapmig: warning: we",
        "<3>snapmig: db: " + str(tmp_path)[:7],
    ]


def test_other_streams_have_no_priorities(place):
    """A variable that is left over from a service does not change what a terminal shows."""
    place.configure(guests='[guests.db]\nsource = "none"')
    result = program.run(
        "backup", "run", place.config, env={**program.ENVIRONMENT, "JOURNAL_STREAM": "1:2"}
    )

    assert result.err.startswith("snapmig: db: ")


def test_a_reader_that_leaves_stops_no_save(place):
    """A pipe that nobody reads any more is no reason to leave guests unsaved."""
    place.configure(guests=DB)
    reader, writer = os.pipe()
    os.close(reader)
    result = program.run("backup", "run", "-v", place.config, stdout=writer, stderr=-1)
    os.close(writer)

    result.fails(141, err="")
    assert (len(place.stored()), len(place.stored("db"))) == (1, 1)


def test_a_full_log_stops_no_save(place):
    """Results that can't be written are an error, and the guests are saved."""
    place.configure(guests=DB)
    with Path("/dev/full").open("w") as full:
        result = program.run("backup", "run", "--json", place.config, stdout=full, stderr=-1)

    result.fails(1)
    assert json.loads(result.err)["message"] == "standard output: No space left on device"
    assert (len(place.stored()), len(place.stored("db"))) == (1, 1)


@pytest.mark.root
def test_a_full_disk_leaves_what_was_there(place):
    """A save that does not fit after all leaves nothing, and takes nothing away."""
    noise = np.random.default_rng(1).bytes(2 << 20)
    with filesystems.mounted("tmpfs", place.folder / "small", "size=3m") as small:
        place.config.write_text(
            'repository = "small"\n[retention]\nkeep_last = 1\n[guests.web]\nsource = "web.ram"\n'
        )
        place.backup("run")
        before = sorted(small.rglob("*"))
        # Estimated by its predecessor, the save of what has grown since is begun.
        (place.folder / "web.ram").write_bytes(noise * 2)
        outcome = place.backup("run")

        outcome.fails(1, "no space left")
        assert sorted(small.rglob("*")) == before

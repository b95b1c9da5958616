"""Facts about hooks: when they run, what they know, and what their failure means."""

import json
import signal

import pytest

from tests.support import program
from tests.support.processes import wait_for


@pytest.fixture
def noted(place, monkeypatch):
    """Give a place where each hook writes its event and facts into files."""
    monkeypatch.chdir(place.folder)
    script = '["sh", "-c", "echo $SNAPMIG_EVENT >> events; env > $SNAPMIG_EVENT.env"]'
    place.configure(f"[hooks]\nbefore = {script}\nafter = {script}\nerror = {script}")
    return place


def events(place):
    """Return the events that hooks were told of."""
    path = place.folder / "events"
    return path.read_text().split() if path.exists() else []


def facts(place, event):
    """Return what the hook of an event knew, besides what the tests themselves are told."""
    own = "SNAPMIG_REQUIRE_TOOLS"
    lines = (place.folder / f"{event}.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs if name.startswith("SNAPMIG_") and name != own}


def test_before_and_after_surround_a_save(noted):
    """A save that works has one hook before it and one after it."""
    noted.backup("run")

    assert events(noted) == ["before", "after"]


def test_what_hooks_know_before(noted):
    """Before a save its guest, source, and the snapshot to be are known."""
    noted.backup("run")
    folder = noted.folder / "repo" / "web"
    found = facts(noted, "before")

    assert found == {
        "SNAPMIG_EVENT": "before",
        "SNAPMIG_GUEST": "web",
        "SNAPMIG_SOURCE": f"{noted.folder}/web.ram",
        "SNAPMIG_REPOSITORY": str(folder),
        "SNAPMIG_SNAPSHOT": str(folder / noted.stored()[0]),
        "SNAPMIG_KIND": "full",
    }


def test_what_hooks_know_after(noted):
    """After a save its size and time are known too."""
    noted.backup("run")
    found = facts(noted, "after")

    assert int(found["SNAPMIG_SIZE"]) > 0
    assert float(found["SNAPMIG_SECONDS"]) >= 0


def test_an_error_is_told(noted):
    """The hook for errors knows the sentence and the exit code."""
    (noted.folder / "web.ram").write_bytes(b"")
    noted.backup("run")
    found = facts(noted, "error")

    assert events(noted) == ["before", "error"]
    assert ("web.ram" in found["SNAPMIG_ERROR"], found["SNAPMIG_EXIT_CODE"]) == (True, "1")


def test_an_error_before_the_save_is_told_too(noted):
    """A failure before any hook ran has one hook, that for errors."""
    (noted.folder / "web.ram").unlink()
    noted.backup("run")

    assert events(noted) == ["error"]


def test_a_failing_hook_before_skips_the_guest(place):
    """Where the guest could not be prepared it is not saved, and that is an error."""
    place.configure(web='hooks.before = ["sh", "-c", "exit 4"]')
    outcome = place.backup("run")

    outcome.fails(1, err="snapmig: web: hook 'before': sh failed: exit status 4\n")
    assert place.stored() == []


def test_a_failing_hook_after_is_a_warning(place):
    """The guest is saved all the same."""
    place.configure(web='hooks.after = ["false"]')
    outcome = place.backup("run")

    outcome.warns(err="snapmig: warning: web: hook 'after': false failed: exit status 1\n")
    assert len(place.stored()) == 1


def test_a_failing_hook_for_errors_changes_no_exit_code(place):
    """The error that it was about stays the first."""
    place.configure(web='hooks.error = ["false"]\nhooks.before = ["true"]')
    (place.folder / "web.ram").unlink()
    outcome = place.backup("run")

    outcome.fails(1)
    assert len(outcome.err.splitlines()) == 2


def test_a_hook_that_is_not_there_is_an_error(place):
    """A typo in a program's name is one sentence."""
    place.configure(web='hooks.before = ["/none", "a"]')
    outcome = place.backup("run")

    assert outcome.err == (
        "snapmig: web: hook 'before': /none can't be started: No such file or directory\n"
    )


def test_a_hook_that_takes_too_long_is_ended(place):
    """A hook that hangs does not hang the night."""
    place.configure(web='hooks.before = ["sleep", "300"]\nhooks.timeout = 1')
    outcome = place.backup("run")

    assert outcome.err == "snapmig: web: hook 'before': sleep took longer than 1 s\n"


def test_what_hooks_print_is_not_in_the_results(place):
    """Lines of JSON stay lines of JSON."""
    place.configure(web='hooks.before = ["echo", "not JSON"]')
    result = program.run("backup", "run", "--json", place.config)

    assert [json.loads(line)["message_type"] for line in result.lines] == [
        "backup",
        "summary",
    ]
    assert result.err == "not JSON\n"


def test_a_dry_run_runs_no_hooks(noted):
    """A dry run disturbs no guest."""
    (noted.folder / "web.ram").unlink()
    noted.backup("run", "--dry-run")

    assert events(noted) == []


def test_a_signal_during_a_hook_runs_the_hook_for_errors(place):
    """The work of "before" is undone also when the run is interrupted."""
    here = place.folder
    place.configure(
        web=f'hooks.before = ["sh", "-c", "echo > {here}/begun; sleep 300"]\n'
        f'hooks.error = ["sh", "-c", "echo $SNAPMIG_ERROR > {here}/told"]'
    )
    with program.start("backup", "run", place.config) as process:
        wait_for((here / "begun").exists)
        process.send_signal(signal.SIGTERM)
        outcome = program.end(process, timeout=30)

    outcome.fails(143, err="snapmig: interrupted by SIGTERM\n")
    assert (here / "told").read_text() == "interrupted by SIGTERM\n"


def test_facts_of_another_run_are_not_handed_on(noted, monkeypatch):
    """Where a hook starts a run of its own, that run's hooks know only their own facts."""
    monkeypatch.setenv("SNAPMIG_PARENT", "another")
    monkeypatch.setenv("SNAPMIG_ERROR", "another")
    noted.backup("run")

    assert {"SNAPMIG_PARENT", "SNAPMIG_ERROR"} & set(facts(noted, "after")) == set()


def test_a_signal_after_the_save_does_not_make_it_an_error(place):
    """Where "after" was started, "error" does not follow, whatever comes then."""
    here = place.folder
    place.configure(
        web=f'hooks.after = ["sh", "-c", "echo > {here}/begun; sleep 300"]\n'
        f'hooks.error = ["sh", "-c", "echo > {here}/told"]'
    )
    with program.start("backup", "run", place.config) as process:
        wait_for((here / "begun").exists)
        process.send_signal(signal.SIGTERM)
        outcome = program.end(process, timeout=30)

    outcome.fails(143)
    assert not (here / "told").exists()
    assert len(place.stored()) == 1

"""Facts about metrics of runs, as Prometheus's own library reads them."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import snapmig
from snapmig.errors import SnapmigError

EXAMPLES = Path(__file__).parents[2] / "examples" / "backup"
GONE = '[guests.gone]\nsource = "gone.ram"'


def metrics(path):
    """Return the values of a file by name and guest."""
    families = text_string_to_metric_families(path.read_text())
    return {
        (sample.name.removeprefix("snapmig_backup_"), sample.labels["guest"]): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def measured(place):
    """Give a function that runs with metrics, and returns them."""

    def run(*options):
        place.backup("run", f"--metrics={place.folder / 'm.prom'}", *options)
        return metrics(place.folder / "m.prom")

    return run


def test_metrics_are_those_of_the_result(place, measured):
    """Sizes and pages are the ones that the run tells a program."""
    found = measured()
    facts = snapmig.info(place.folder / "repo" / "web" / place.stored()[0])

    assert found["success", "web"] == 1
    assert found["ram_bytes", "web"] == facts.ram_size
    assert found["stored_bytes", "web"] == facts.stored_size
    assert found["changed_pages", "web"] == facts.data_pages


def test_an_incremental_one_counts_changed_pages(place, measured):
    """Pages of the parent's are left out."""
    place.configure("full_every = 7")
    measured()
    with (place.folder / "web.ram").open("r+b") as image:
        image.write(b"changed")

    assert measured()["changed_pages", "web"] == 1


def test_a_failure_keeps_the_time_of_the_last_success(place, measured):
    """That time is the newest snapshot's, so that an alert sees its age grow."""
    time = datetime(2026, 11, 1, 12, tzinfo=UTC)
    place.put(time, 1)
    (place.folder / "web.ram").unlink()
    found = measured()

    assert found["success", "web"] == 0
    assert found["last_success_timestamp_seconds", "web"] == time.timestamp()
    assert ("disk_bytes", "web") not in found


def test_a_guest_without_a_snapshot_has_no_such_time(place, measured):
    """Nothing is made up for a guest that was never saved."""
    place.configure(guests=GONE)

    assert ("last_success_timestamp_seconds", "gone") not in measured()


def test_the_limit_is_the_configured_one(place, measured):
    """max_age is there in seconds, a guest's own before that of all."""
    place.configure('max_age = "2d"', guests='[guests.db]\nsource = "db.ram"\nmax_age = "6h"')
    found = measured()

    assert (found["max_age_seconds", "web"], found["max_age_seconds", "db"]) == (
        timedelta(days=2).total_seconds(),
        timedelta(hours=6).total_seconds(),
    )


def test_a_dry_run_measures_nothing(place):
    """What is only planned says nothing of backups."""
    place.backup("run", "--dry-run", f"--metrics={place.folder / 'm.prom'}").ok(err=None)

    assert not (place.folder / "m.prom").exists()


def test_a_file_that_cannot_be_written_is_a_warning(place):
    """The guests are saved all the same."""
    outcome = place.backup("run", f"--metrics={place.folder / 'absent' / 'm.prom'}")

    outcome.warns("no metrics: ", "No such file or directory")
    assert len(place.stored()) == 1


def test_the_library_is_missed_before_anything_is_saved(place, monkeypatch):
    """Without Prometheus's library the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SnapmigError, match=r"pip install 'snapmig\[metrics\]'"):
        snapmig.backup.run(place.config, metrics=place.folder / "m.prom")

    assert not (place.folder / "repo" / "web").exists()


def test_examples_name_metrics_that_exist(place, measured):
    """Rules and dashboard use no metric that a run does not write."""
    place.configure('max_age = "2d"')
    measured()
    written = set(re.findall(r"^# TYPE (\S+)", (place.folder / "m.prom").read_text(), re.M))
    rules = (EXAMPLES / "prometheus-rules.yml").read_text()
    panels = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())["panels"]
    used = rules + " ".join(target["expr"] for panel in panels for target in panel["targets"])

    assert set(re.findall(r"snapmig_backup_[a-z_]+", used)) <= written

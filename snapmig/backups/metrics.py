"""Facts about a run for the textfile collector of Prometheus's node exporter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from snapmig.backups.config import Config
from snapmig.backups.overview.guests import last_good
from snapmig.backups.repository import guest_folder
from snapmig.backups.result import BackupResult
from snapmig.errors import SnapmigError

__all__ = ("load_library", "write_metrics")

_PREFIX = "snapmig_backup"
_OF_RUNS = {
    "success": "1 if the guest was saved, 0 if that failed or was skipped",
    "duration_seconds": "Time that the guest took",
    "pause_seconds": "Time for which the guest stood still",
    "ram_bytes": "RAM of the guest",
    "stored_bytes": "Stored bytes of the packets",
    "disk_bytes": "Space that the snapshot takes",
    "changed_pages": "Pages of 4096 bytes that are neither zero nor the parent's",
    "removed_snapshots": "Snapshots that the rules removed",
}


def load_library() -> Any:
    """
    Return Prometheus's client library.

    :raises SnapmigError: it is not installed
    """
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "metrics need prometheus-client: pip install 'snapmig[metrics]'"
        raise SnapmigError(message) from error
    return prometheus_client


def write_metrics(path: Path, config: Config, results: Sequence[BackupResult]) -> None:
    """
    Write the metrics of a run's guests in the text format of Prometheus, in place of older ones.

    :param results: the outcome for each guest of the run
    :raises SnapmigError: the library is not installed
    :raises OSError: it can't be written
    """
    library = load_library()
    registry = library.CollectorRegistry()

    def gauge(name: str, about: str, labels: Sequence[str] = ("guest",)) -> Any:
        return library.Gauge(f"{_PREFIX}_{name}", about, labels, registry=registry)

    gauges = {name: gauge(name, about) for name, about in _OF_RUNS.items()}
    last_run = gauge("last_run_timestamp_seconds", "End of the guest's last run")
    last = gauge("last_success_timestamp_seconds", "Time of the last snapshot that can be restored")
    oldest = gauge("max_age_seconds", "Age from which the last snapshot is late, as configured")
    now = datetime.now().astimezone()
    for result in results:
        for name, value in _values(result).items():
            if value is not None:
                gauges[name].labels(result.guest).set(value)
        last_run.labels(result.guest).set(now.timestamp())
        guest = config.guest(result.guest)
        if (good := _last_good_time(config, result.guest)) is not None:
            last.labels(result.guest).set(good.timestamp())
        if guest.max_age is not None:
            oldest.labels(result.guest).set((now - guest.max_age.before(now)).total_seconds())
    library.write_to_textfile(str(path), registry)


def _values(result: BackupResult) -> dict[str, float | None]:
    return {
        "success": float(result.result == "saved"),
        "duration_seconds": result.seconds,
        "pause_seconds": result.pause_seconds,
        "ram_bytes": result.ram_size,
        "stored_bytes": result.stored_size,
        "disk_bytes": result.disk_size,
        "changed_pages": result.changed_pages,
        "removed_snapshots": len(result.removed),
    }


def _last_good_time(config: Config, guest: str) -> datetime | None:
    # From the repository, so that a guest that fails keeps the time of its last success.
    try:
        found = last_good(guest_folder(config.repository, guest).read())
    except (SnapmigError, OSError):  # the run has reported it
        return None
    return None if found is None else found.time

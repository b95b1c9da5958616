"""A place with guests, a repository and a configuration, as users have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.backups import RAM, built, root_among
from tests.support.outcome import Outcome


@dataclass
class Place:
    """A directory with guests web and db, and the configuration of a repository."""

    folder: Path
    cli: Callable[..., Outcome]

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "backup.toml"

    def configure(self, general: str = "", web: str = "", guests: str = "") -> None:
        """Write the configuration: general keys, those of the guest web, and other guests."""
        lines = ['repository = "repo"', general, "[guests.web]", 'source = "web.ram"', web, guests]
        self.config.write_text("\n".join(lines))

    def backup(self, verb: str, *arguments: object) -> Outcome:
        """Run a verb of snapmig backup with the configuration."""
        options = [item for item in arguments if str(item).startswith("-")]
        rest = [item for item in arguments if not str(item).startswith("-")]
        return self.cli("backup", verb, *options, self.config, *rest)

    def told(self, verb: str, *arguments: object) -> list[dict]:
        """Run a verb with --json, and return what it said on stdout."""
        out = self.backup(verb, "--json", *arguments).out
        return [json.loads(line) for line in out.splitlines()]

    def stored(self, guest: str = "web") -> list[str]:
        """Return what is in a guest's folder besides the lock."""
        folder = self.folder / "repo" / guest
        return sorted(path.name for path in folder.iterdir() if path.name != ".lock")

    def put(self, time: datetime, snapshot_id: int, parent: int | None = None, **how) -> Path:
        """Put a snapshot into the folder of the guest web, under the name that a run gives."""
        path = self.folder / "repo" / "web" / f"{time.astimezone(UTC):%Y-%m-%dT%H-%M-%SZ}.snap"
        path.parent.mkdir(exist_ok=True)
        found = [one.read_bytes() for one in path.parent.glob("*.snap")]
        path.write_bytes(built(snapshot_id, time, parent, **root_among(found, parent), **how))
        return path


@pytest.fixture
def place(tmp_path: Path, cli: Callable[..., Outcome]) -> Place:
    """Give a place with the guests web and db, of which web is configured."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "web.ram").write_bytes(RAM)
    (tmp_path / "db.ram").write_bytes(RAM[::-1])
    place = Place(tmp_path, cli)
    place.configure()
    return place

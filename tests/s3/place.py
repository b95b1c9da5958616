"""A guest whose backups go into a bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from snapmig.backups.repository import GuestFolder, guest_folder
from snapmig.stores.location import ObjectUrl
from tests.support.backups import built, root_among
from tests.support.objects.server import BUCKET, Server
from tests.support.outcome import Outcome

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass
class Place:
    """A guest, and the configuration of a repository in the bucket."""

    folder: Path
    prefix: str
    server: Server
    cli: Callable[..., Outcome]

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "backup.toml"

    @property
    def guest(self) -> GuestFolder:
        """The guest's folder."""
        return guest_folder(ObjectUrl(BUCKET, self.prefix), "web")

    @property
    def lock(self) -> ObjectUrl:
        """The guest's lock."""
        return self.guest.place(".lock")

    def configure(self, general: str = "", bucket: str = BUCKET) -> None:
        """Write the configuration."""
        repository = f'repository = "s3://{bucket}/{self.prefix}"'
        lines = [repository, general, "[guests.web]", 'source = "web.ram"']
        self.config.write_text("\n".join(lines))

    def backup(self, verb: str, *arguments: object) -> Outcome:
        """Run a verb of snapmig backup."""
        return self.cli("backup", verb, self.config, *arguments)

    def told(self, verb: str, *arguments: object) -> list[dict]:
        """Run a verb with --json, and return what it said on stdout."""
        out = self.backup(verb, "--json", *arguments).out
        return [json.loads(line) for line in out.splitlines()]

    def stored(self) -> list[str]:
        """Return the names of all that has the guest's prefix."""
        start = f"{self.prefix}/web/"
        return [key.removeprefix(start) for key in self.server.names(start)]

    def put(
        self, days: int, snapshot_id: int, parent: int | None = None, contents: bytes = b"contents"
    ) -> str:
        """Put a snapshot of so many days ago there, under the name that a run gives."""
        time = NOW - timedelta(days=days)
        name = f"{time:%Y-%m-%dT%H-%M-%SZ}.snap"
        start = f"{self.prefix}/web/"
        others = [self.server.get(key) for key in self.server.names(start) if key.endswith(".snap")]
        known = root_among(others, parent)
        raw = built(snapshot_id, time, parent, contents=contents, **known)
        self.server.put(f"{start}{name}", raw)
        return name

    def restored(self, *arguments: object) -> bytes:
        """Restore the guest, and return the image."""
        image = self.folder / "out.ram"
        outcome = self.backup("restore", "-f", "web", image, *arguments)
        outcome.ok()
        return image.read_bytes()
